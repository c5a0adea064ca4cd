"""Signatures of artifact folders by elliptic-curve keys, off line, in the OpenSSF model-signing format.

A signature lies in the folder as `model.sig` and covers every other file there: graphs, manifest, and whatever else.
Hashes in a manifest say that a folder is whole; a signature says who made it. Needs the extra `sign`, and nobody who
does not ask for signatures needs that.

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem
    openssl ec -in key.pem -pubout -out key.pub.pem
"""

import base64
import json
from pathlib import Path
from typing import Any

from worldpilot.errors import ArtifactError, InvalidInput

SIGNATURE = "model.sig"
_PREDICATE = "https://model_signing/signature/v1.0"


def sign(folder: Path, private_key: Path) -> Path:
    """Sign all that is in `folder`, replacing a signature that is there; returns the signature's file.

    Args:
        folder: of an artifact or a policy.
        private_key: PEM, unencrypted, on the curve P-256, P-384 or P-521.

    Raises:
        InvalidInput: the key cannot be used, or there is nothing to sign.
    """
    signing, _, hashing = _library()
    if not _files(folder):
        raise InvalidInput(f"{folder} holds nothing to sign; name the folder of an artifact")
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{private_key} is no private key that can sign ({error}); see `openssl ecparam`") from error
    try:
        signer.set_hashing_config(_hashed(hashing)).sign(folder, folder / SIGNATURE)
    except ValueError as error:
        raise InvalidInput(f"{folder} cannot be signed: {error}") from error
    return folder / SIGNATURE


def require(folder: Path, public_key: Path) -> None:
    """Refuse a folder that the holder of a key has not signed exactly as it is.

    Raises:
        ArtifactError: there is no signature, it is another's or damaged, or it does not cover every file as it is.
        InvalidInput: the key cannot be read.
    """
    _, verifying, hashing = _library()
    file = folder / SIGNATURE
    if not file.is_file():
        raise ArtifactError(f"{folder} is not signed: {SIGNATURE} is missing; `worldpilot models sign` makes it")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{public_key} is no public key ({error}); give the PEM of an elliptic curve") from error
    try:
        verifier.set_hashing_config(_hashed(hashing)).verify(folder, file)
        covered = _covered(file)
    except Exception as error:  # the library's parsers let through whatever they meet in a damaged file
        why = str(error).strip() or type(error).__name__
        raise ArtifactError(f"{folder}: its signature is not that of {public_key.name}, as it is now: {why}") from error
    if missing := _files(folder) - covered:
        raise ArtifactError(
            f"{folder}: the signature does not cover {', '.join(sorted(missing))}; sign the whole folder"
        )


def _hashed(hashing: Any) -> Any:
    """All files but the signature; files of git are none that may be there unsigned."""
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and path != folder / SIGNATURE
    }


def _covered(file: Path) -> set[str]:
    """What a verified signature is about: its signer may have left files out."""
    statement = json.loads(base64.b64decode(json.loads(file.read_text())["dsseEnvelope"]["payload"]))
    if statement["predicateType"] != _PREDICATE:
        raise ValueError(f"it is of type {statement['predicateType']}, expected {_PREDICATE}")
    return {resource["name"] for resource in statement["predicate"]["resources"]}


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise InvalidInput(
            f"signatures need the extra `sign` ({error}): pip install 'worldpilot[sign]'; without it, ask for none"
        ) from error
    return signing, verifying, hashing
