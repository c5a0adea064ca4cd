"""Where does a round of decoding go? The CPU time of AR and SD by part, in one thread.

    python benchmarks/ssd_profile.py [--count 24] [--lookahead 4] [--json FILE]

Each part is timed without the parts inside it, so they add up. CPU time: what else the machine does hardly matters. The
texts are those of benchmarks/ssd.py.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from worldpilot.models.language import decoders
from worldpilot.models.language.base import Request
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.grammar import JsonState
from worldpilot.models.language.loaders import load, load_model
from worldpilot.models.language.speculation import Draft, DraftConfig
from worldpilot.reasoning.draft import instruction_requests

CONTEXT = 1024


class Parts:
    """CPU time [s] by part; what is in none is the rest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside, self._since = ["rest"], time.thread_time()

    def time(self, owner: Any, methods: Sequence[str], part: str) -> None:
        """Count what these methods take to a part, unless they read the prompt."""
        for method in methods:
            setattr(owner, method, self._timed(getattr(owner, method), part))

    def restart(self) -> None:
        """Forget what was counted."""
        self.seconds.clear()
        self._since = time.thread_time()

    def settle(self) -> None:
        """Count the time until now."""
        now = time.thread_time()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            self.settle()
            self._inside.append("prompt" if self._inside[-1] == "prompt" else part)
            try:
                return function(*args, **named)
            finally:
                self.settle()
                self._inside.pop()

        return timed


def profile(parts: Parts, decoder: SpeculativeDecoder, requests: Sequence[Request]) -> dict[str, Any]:
    """Tokens and rounds of the texts, and what a round takes by part [ms]; `prompt` is apart, a text's."""
    decoder.generate(requests[0])  # the first takes longer
    parts.restart()
    generations = [decoder.generate(request) for request in requests]
    parts.settle()
    rounds = sum(len(generation.stats.verify) for generation in generations)
    prompt = parts.seconds.pop("prompt")
    return {
        "tokens": sum(len(generation.tokens) for generation in generations),
        "rounds": rounds,
        "prompt": 1e3 * prompt / len(requests),
        "round": 1e3 * sum(parts.seconds.values()) / rounds,
        "parts": {part: 1e3 * seconds / rounds for part, seconds in parts.seconds.items()},
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24, help="texts")
    parser.add_argument("--lookahead", type=int, default=8, help="K of SD")
    parser.add_argument("--json", type=Path, help="write the figures as one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    target, tokenizer = load("reasoning", "bfloat16")
    draft = load_model("draft", "bfloat16")
    requests = instruction_requests(tokenizer, args.count, seed=1, validation=True)

    parts = Parts()
    parts.time(SpeculativeDecoder, ["_prefill"], "prompt")
    parts.time(target, ["forward"], "target")
    parts.time(draft, ["forward"], "draft")
    parts.time(Draft, ["_rank"], "draft's choice")
    parts.time(decoders, ["verify"], "verification")
    parts.time(JsonState, ["mask", "bias", "accepts", "advance", "forced", "fork"], "grammar")

    serial = Serial(Draft(draft, DraftConfig(args.lookahead, budget=0), CONTEXT))
    ways = {"ar": Silent(), "sd": serial}
    figures: dict[str, Any] = {
        name: profile(parts, SpeculativeDecoder(target, way, CONTEXT), requests) for name, way in ways.items()
    }
    ar, sd = (figures[name]["rounds"] * figures[name]["round"] for name in ways)
    figures |= {"sd/ar": ar / sd, "texts": args.count, "lookahead": args.lookahead}
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
