"""When should a reward be asked about before it is applied? By the probability that the model gives it, on validation.

    python benchmarks/unsure.py [--json FILE]

For each least probability: the share of right and of wrong rewards that would be asked about, and how many of the
others are right, by their slots. The texts are those of validation.jsonl, written in other words than the training's.
The threshold in use is the highest of these that leaves at least 95 % of the right rewards alone.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from refusals import texts

from worldpilot.calibration.detection import auroc
from worldpilot.models.language.engine import Engine, EngineConfig
from worldpilot.reasoning.evaluation import is_exact, rate_of
from worldpilot.reasoning.reasoner import SURE, Outcome, Reasoner, Status

LEAST = np.arange(0.0, 0.96, 0.05)
LEFT_ALONE = 0.95  # of the right rewards


def rewards() -> Iterator[tuple[Outcome, bool]]:
    """The rewards that are made of the texts, asked for or not, and whether they are right."""
    with Engine(EngineConfig(target="reasoning", draft=None, context=1024)) as engine:
        reasoner = Reasoner(engine)
        for question, scene in texts():
            outcome = reasoner.reason(question.say, scene)
            if outcome.status is Status.REWARD:
                yield outcome, question.kind == "reward" and is_exact(outcome, question, scene)


def rates(found: list[tuple[Outcome, bool]], least: float) -> dict[str, Any]:
    """With a least probability: the shares that are asked about, and of the right among the others, with intervals."""
    judged = [(outcome.is_sure(least), right) for outcome, right in found]
    return {
        "least": round(least, 2),
        "right_asked": rate_of([not sure for sure, right in judged if right]),
        "wrong_asked": rate_of([not sure for sure, right in judged if not right]),
        "applied_right": rate_of([right for sure, right in judged if sure]),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures as one JSON object")
    args = parser.parse_args()
    found = list(rewards())
    rows = [rates(found, float(least)) for least in LEAST]
    chosen = max(row["least"] for row in rows if row["right_asked"]["rate"] <= 1 - LEFT_ALONE)
    right, wrong = (
        np.array([outcome.probability for outcome, is_right in found if is_right is r]) for r in (True, False)
    )
    area = auroc(wrong, right)
    print(" least  right asked  wrong asked  applied that are right")
    for row in rows:
        columns = (row[kind]["rate"] for kind in ("right_asked", "wrong_asked", "applied_right"))
        print(f"{row['least']:6.2f}" + "".join(f"{rate:13.1%}" for rate in columns))
    print(f"the rule says {chosen}, in use is {SURE}; AUROC {area:.3f}")
    if args.json:
        args.json.write_text(json.dumps({"rewards": len(found), "auroc": area, "least": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
