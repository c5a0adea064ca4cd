"""What does speculation bring, and what does it bring to draft beside the verification? AR, SD, SSD, transformers.

    python benchmarks/ssd.py [--texts instructions|questions] [--count 24] [--rounds 3] [--cores 0,1] [--json FILE]
    python benchmarks/ssd.py --check [--count 200] [--json FILE]

The texts are answers of the reasoning service's model to instructions (constrained by the grammar of each scene), or
free ones to questions; neither was trained on. `--check` generates each text three times in float32 and demands the
same tokens from SD and SSD as from AR; it exits with 1 where they differ.
"""

import argparse
import json
import sys
from pathlib import Path

from worldpilot.models.language.base import Request
from worldpilot.models.language.bench import bench, check_equality, describe
from worldpilot.models.language.engine import EngineConfig
from worldpilot.models.language.loaders import load_tokenizer
from worldpilot.reasoning.draft import free_requests, instruction_requests


def requests(kind: str, count: int, target: str) -> list[Request]:
    """Held-out requests of a kind, for the target's tokenizer."""
    tokenizer = load_tokenizer(target)
    if kind == "questions":
        return free_requests(tokenizer, count, validation=True)
    return instruction_requests(tokenizer, count, seed=1, validation=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", choices=("instructions", "questions"), default="instructions")
    parser.add_argument("--count", type=int, help="texts (default: 24, with --check 200)")
    parser.add_argument("--rounds", type=int, default=3, help="each text is generated so often (default: 3)")
    parser.add_argument("--target", default="reasoning")
    parser.add_argument("--draft", default="draft")
    parser.add_argument("--dtype", default="auto", help="of the target (default: the fastest here; --check: float32)")
    parser.add_argument("--draft-dtype", default="auto", help="of the draft (default: the fastest here)")
    parser.add_argument("--device", default="cpu", help="the target's: cpu or cuda:N (default: cpu)")
    parser.add_argument("--draft-device", default="cpu", help="the draft's (default: cpu)")
    parser.add_argument("--lookahead", type=int, help="K (default: from the times measured)")
    parser.add_argument("--budget", type=int, help="branches of SSD's tree (default: from the times measured)")
    parser.add_argument("--cores", help="the target's and the draft's, as 0,1 (default: any)")
    parser.add_argument("--without-transformers", action="store_true")
    parser.add_argument("--check", action="store_true", help="compare tokens, not times")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cores = None if args.cores is None else tuple(int(core) for core in args.cores.split(","))
    config = EngineConfig(
        target=args.target,
        draft=args.draft,
        dtype="float32" if args.check and args.dtype == "auto" else args.dtype,
        draft_dtype=args.draft_dtype,
        device=args.device,
        draft_device=args.draft_device,
        lookahead=args.lookahead,
        budget=args.budget,
        cores=None if cores is None else (cores[0], cores[1]),
    )

    def progress(line: str) -> None:
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    texts = requests(args.texts, args.count or (200 if args.check else 24), args.target)
    if args.check:
        figures = check_equality(texts, config, progress)
        print(f"\n{figures['texts']} texts, {figures['tokens']} tokens; differ: {figures['differ']}")
    else:
        figures = bench(
            texts, config, rounds=args.rounds, transformers=not args.without_transformers, progress=progress
        )
        print("\n" + describe(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if args.check and any(figures["differ"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
