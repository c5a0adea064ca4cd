"""How often is what follows a verification prepared, by a fan-out of one acceptance or of the draft's own certainty?

    python benchmarks/fan_out.py [--draft draft] [--count 300] [--json FILE]

Greedy answers of the reasoning service's model to held-out instructions, and what the draft would say at each of their
choices. From them follows what SSD does with a text, for each lookahead K and budget B of branches: how many drafted
tokens are accepted, which token follows, and whether the tree held it (`fan_out`, Theorem 12, with the exponent
estimated online). Once the chance that a drafted token is accepted is the same for all, the acceptance estimated
online; once it is the probability that the draft itself gave it.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from worldpilot.models.language.context import Context
from worldpilot.models.language.distil import Batch, draft_log_probs, generate
from worldpilot.models.language.engine import BUDGETS
from worldpilot.models.language.fan_out import Outcomes, fan_out, outcome_probabilities
from worldpilot.models.language.loaders import load, load_model
from worldpilot.models.language.transformer import Llama
from worldpilot.reasoning.draft import instruction_requests

LOOKAHEADS = (3, 4, 6, 8, 11)


class Guess(NamedTuple):
    """What the draft thinks at one of a text's choices."""

    certainty: float  # the probability of its likeliest token
    rank: int  # of the target's token, from 0


@torch.inference_mode()
def guesses(draft_source: str, count: int) -> list[list[Guess]]:
    """Of each text, choice by choice."""
    target, tokenizer = load("reasoning", "bfloat16")
    draft = load_model(draft_source, "float32", pack=False)
    requests = instruction_requests(tokenizer, count, seed=1, validation=True)
    context = Context(target, max(len(request.prompt) + request.max_tokens for request in requests))
    assert draft.head_tokens is not None
    columns = {token: i for i, token in enumerate(draft.head_tokens.tolist())}
    return [of_text(draft, Batch.of([generate(target, request, context)], columns)) for request in requests]


def of_text(draft: Llama, text: Batch) -> list[Guess]:
    """A text's guesses; what the draft cannot say comes last."""
    rows = draft_log_probs(draft, text)
    ranks = [int((row > row[said]).sum()) if said >= 0 else len(row) for row, said in zip(rows, text.said, strict=True)]
    return [Guess(float(row.max().exp()), rank) for row, rank in zip(rows, ranks, strict=True)]


def hits(texts: Sequence[Sequence[Guess]], lookahead: int, budget: int, own: bool) -> tuple[int, int]:
    """How many outcomes were prepared, of how many that had to be.

    Args:
        texts: of each its guesses.
        lookahead: K.
        budget: B.
        own: by the draft's own certainty; otherwise by one acceptance for all.
    """
    outcomes, found, all_ = Outcomes(), 0, 0
    for text in texts:
        start = 0
        while start < len(text):
            drafted = text[start : start + lookahead]
            ends = start + len(drafted) == len(text)  # the last token drafted is the text's last
            accepted = sum(1 for _ in itertools.takewhile(lambda guess: guess.rank == 0, drafted))
            rejected = accepted < len(drafted)
            if ends and not rejected:
                break
            chances = [guess.certainty if own else outcomes.acceptance for guess in drafted]
            sizes = fan_out(
                outcome_probabilities(chances, ends), outcomes.exponent, budget, [budget] * (len(drafted) + 1)
            )
            bonus = text[start + accepted].rank + (not rejected)  # from 1; what was rejected is no candidate
            found, all_ = found + (bonus <= sizes[accepted]), all_ + 1
            outcomes.observe(accepted, rejected, bonus)
            start += accepted + 1
    return found, all_


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", default="draft")
    parser.add_argument("--count", type=int, default=300, help="texts (default: 300)")
    parser.add_argument("--json", type=Path, help="write the figures as one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = guesses(args.draft, args.count)
    everything = [guess for text in texts for guess in text]
    figures: dict[str, Any] = {
        "texts": len(texts),
        "choices": len(everything),
        "agreement": sum(guess.rank == 0 for guess in everything) / len(everything),
        "certainty": sum(guess.certainty for guess in everything) / len(everything),
        "hits": [],
    }
    print(f"{'K':>3} {'B':>3}  one acceptance  own certainty")
    for lookahead, budget in itertools.product(LOOKAHEADS, BUDGETS):
        (one, n), (own, _) = (hits(texts, lookahead, budget, own) for own in (False, True))
        print(f"{lookahead:3} {budget:3}  {one / n:14.3f} {own / n:14.3f}   of {n}")
        figures["hits"].append({"lookahead": lookahead, "budget": budget, "n": n, "one": one / n, "own": own / n})
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
