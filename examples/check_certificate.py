"""Check the certificate of an artifact with nothing of worldpilot: numpy, the manifest, and the graphs beside it.

    python examples/check_certificate.py models/zoo/push_t

What it can't see is whether the losses are those of the episodes; `worldpilot certify TASK --check --again` measures
them again. It exits with 1 if anything is wrong.
"""

import base64
import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np


def kl_inverse(mean: float, budget: float) -> float:
    """The largest q with kl(mean || q) <= budget."""

    def kl(q: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.array([mean * np.log(mean / q), (1 - mean) * np.log((1 - mean) / (1 - q))])
        return float(np.nan_to_num(terms, nan=0.0, posinf=np.inf).sum())

    low, high = mean, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(middle) <= budget else (low, middle)
    return high


def check(folder: Path) -> bool:
    """Print each statement with what its losses give; whether all of them hold."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = manifest["certificate"]
    if content is None:
        print("there is no certificate")
        return False
    ok = content["model_id"] == manifest["model_id"]
    for name, expected in content["graphs"].items():
        found = hashlib.sha256((folder / manifest["graphs"][name]["file"]).read_bytes()).hexdigest()
        ok &= found == expected
        print(f"{name}.onnx: sha256 {'as certified' if found == expected else 'is another'}")
    seeds = content["data"]["seeds"]
    ok &= len(set(seeds)) == len(seeds) and not set(seeds) & set(content["scale"]["seeds"])
    statements = dict(content["held_out"])
    if content["compression"] is not None:
        statements["compression"] = content["compression"]
    for name, stated in statements.items():
        losses, n, delta = np.array(stated["losses"]), len(seeds), stated["delta"]
        text = ",".join(f"{loss:.5f}" for loss in losses)
        budget = math.log(1 / delta)
        if "message" in stated:
            bits = 8 * len(base64.b64decode(stated["message"]))
            budget += math.log(2) * (bits + 2 * math.log2(bits) + math.log2(stated["searched"]))
        bound = kl_inverse(float(losses.mean()), budget / n)
        fits = (
            hashlib.sha256(text.encode()).hexdigest() == stated["losses_sha256"]
            and len(losses) == n
            and 0 <= losses.min() <= losses.max() <= 1
            and abs(bound - stated["bound"]) < 1e-8
        )
        ok &= bool(fits)
        print(
            f"{name}: {n} losses of mean {losses.mean():.5f} give at most {bound:.5f} with probability {1 - delta:g}; "
            f"stated {stated['bound']:.5f}: {'ok' if fits else 'WRONG'}"
        )
    return ok


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    right = check(Path(sys.argv[1]))
    print("the certificate holds" if right else "the certificate does NOT hold")
    sys.exit(0 if right else 1)
