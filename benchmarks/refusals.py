"""When should the language model refuse? What a bias on its choice would do, on texts kept for validation.

    python benchmarks/refusals.py [--json FILE]

An answer begins with "goals", "answer" or "refuse". For each text: by how much the logit of refusing exceeds the
others', which is the bias that would turn the choice, and whether the answer without refusing is right. So one pass
gives every bias's rates. The texts are those of validation.jsonl, written in other words than the training's.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldpilot.models.language.base import Request
from worldpilot.models.language.context import Context
from worldpilot.models.language.decoders import Silent, SpeculativeDecoder
from worldpilot.models.language.grammar import JsonGrammar
from worldpilot.models.language.loaders import load
from worldpilot.reasoning.evaluation import VALIDATION, Question, is_exact, load_questions, rate_of, stage_of
from worldpilot.reasoning.reasoner import (
    MAX_TOKENS,
    Outcome,
    Status,
    check_instruction,
    instruction_grammar,
    interpret,
    messages,
)
from worldpilot.reasoning.scene import Scene

CONTEXT = 1024
BIASES = np.arange(-8.0, 4.01, 0.5)


@dataclass(frozen=True)
class Decision:
    """What the model makes of a text."""

    kind: str  # reward or refusal
    margin: float  # the logit of refusing less the best other one
    right: bool  # it answers right if it may not refuse

    def is_right(self, bias: float) -> bool:
        """Whether it answers right with a bias on refusing."""
        return self.kind == "refusal" if self.margin + bias > 0 else self.right


class Judge:
    """The shipped model, one thread."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._target, self.tokenizer = load("reasoning", "bfloat16")
        self._context = Context(self._target, CONTEXT)
        self._decoder = SpeculativeDecoder(self._target, Silent(), CONTEXT)
        self._grammars: dict[str, tuple[JsonGrammar, JsonGrammar]] = {}  # of a scene: as it is, without refusing

    @torch.inference_mode()
    def decide(self, question: Question, scene: Scene) -> Decision:
        prompt = self.tokenizer.chat(messages(check_instruction(question.say), scene))
        key = scene.describe()
        if key not in self._grammars:
            one, none = (instruction_grammar(scene, self.tokenizer, bias) for bias in (1.0, -np.inf))
            self._grammars[key] = one, none
        marked, without = self._grammars[key]
        state = marked.start()
        state.advance(begun := state.forced())
        text = [*prompt, *begun]
        self._context.keep_common(text)
        logits = self._context.read(text[len(self._context.tokens) :], last=1)[0].float().numpy()
        refusing, allowed = list(state.bias()), state.mask()
        allowed[refusing] = False
        margin = float(logits[refusing].max() - logits[allowed].max())
        request = Request(tuple(prompt), MAX_TOKENS, end=self.tokenizer.end, grammar=without)
        generation = self._decoder.generate(request)
        said = self.tokenizer.decode([token for token in generation.tokens if token not in self.tokenizer.end])
        status, rationale, spec = interpret(said, scene)
        outcome = Outcome(status, rationale, spec, said, generation)
        right = outcome.status is Status.REFUSED if question.kind == "refusal" else is_exact(outcome, question, scene)
        return Decision(question.kind, margin, right)


def texts() -> Iterator[tuple[Question, Scene]]:
    """The texts of validation.jsonl, in their tasks' scenes."""
    for task, questions in itertools.groupby(load_questions(VALIDATION), lambda question: question.task):
        with closing(stage_of(task, seed=0)) as stage:
            for question in questions:
                yield question, stage.scene(question)


def rates(decisions: Sequence[Decision], bias: float) -> dict[str, Any]:
    """With a bias: the shares of what is right, and of rewards that are refused, with 95 % intervals."""
    figures: dict[str, Any] = {"bias": bias}
    for name, kind in (("rewards", "reward"), ("refusals", "refusal")):
        of_kind = [decision for decision in decisions if decision.kind == kind]
        figures[name] = rate_of([decision.is_right(bias) for decision in of_kind])
        if kind == "reward":
            figures["refused"] = rate_of([decision.margin + bias > 0 for decision in of_kind])
    return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures as one JSON object")
    args = parser.parse_args()
    judge = Judge()
    decisions = [judge.decide(question, scene) for question, scene in texts()]
    rows = [rates(decisions, float(bias)) for bias in BIASES]
    print("  bias   rewards  refused  refusals")
    for row in rows:
        columns = (row[kind]["rate"] for kind in ("rewards", "refused", "refusals"))
        print(f"{row['bias']:6.1f}" + "".join(f"{rate:10.1%}" for rate in columns))
    if args.json:
        args.json.write_text(json.dumps({"biases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
