"""Language weights on disk: a manifest.json beside one safetensors file, checked without loading it.

{"format": 1, "kind": "draft" or "adapter", "file": …, "sha256": …, and what is known of its training}
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldpilot.errors import ArtifactError

MANIFEST = "manifest.json"
ZOO = Path(__file__).resolve().parents[1] / "zoo"
SHIPPED = {"reasoning": ZOO / "language_reasoning", "draft": ZOO / "language_draft"}  # by the names they are loaded by


def verify_weights(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of `folder`, after checking its file against it.

    Args:
        folder: of the weights.
        kind: what they must be; None: anything.

    Raises:
        ArtifactError: with what was expected and what was found.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found_kind, file, expected = manifest["kind"], folder / manifest["file"], manifest["sha256"]
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; train or copy it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is no manifest of language weights ({error!r}); copy it again") from error
    if kind is not None and found_kind != kind:
        raise ArtifactError(f"{path} is of kind {found_kind!r}, expected {kind!r}")
    found = sha256(file) if file.is_file() else "(no file)"
    if found != expected:
        raise ArtifactError(
            f"{file}: sha256 is {found[:12]}, the manifest expects {expected[:12]}; copy it again or train it anew"
        )
    return manifest


def write_manifest(folder: Path, kind: str, file: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of the weights in `folder / file`; `about` is what it says beside format, kind and hash."""
    manifest = {"format": 1, "kind": kind, "file": file, "sha256": sha256(folder / file), **about}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
