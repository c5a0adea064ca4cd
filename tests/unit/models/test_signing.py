"""Signatures of artifact folders: what was changed, added, left out or signed by others is refused."""

import builtins
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing as hashing_api
from model_signing import signing as signing_api

from worldpilot.cli.main import main
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models import signing
from worldpilot.models.artifact import update_manifest


def write_keys(folder: Path, curve: ec.EllipticCurve) -> tuple[Path, Path]:
    """A private and its public key, as PEM files."""
    key, private, public = ec.generate_private_key(curve), folder / "key.pem", folder / "key.pub.pem"
    folder.mkdir(parents=True, exist_ok=True)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), ec.SECP256R1())


@pytest.fixture
def signed(tiny_artifact: Path, tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))
    signing.sign(folder, keys[0])
    return folder


def change_graph(folder: Path) -> None:
    content = bytearray((folder / "prior.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "prior.onnx").write_bytes(bytes(content))


def change_manifest(folder: Path) -> None:
    update_manifest(folder, lambda manifest: manifest.update(description="better than it is"))


def add_file(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "policy.onnx").write_bytes(b"x")


def add_git_file(folder: Path) -> None:
    (folder / ".gitattributes").write_text("x")


def remove_file(folder: Path) -> None:
    (folder / "decoder.onnx").unlink()


def link_file(folder: Path) -> None:
    (folder / "elsewhere").symlink_to("/etc/hostname")


def remove_signature(folder: Path) -> None:
    (folder / signing.SIGNATURE).unlink()


def damage_signature(folder: Path) -> None:
    file = folder / signing.SIGNATURE
    file.write_text(file.read_text().replace('"sig": "', '"sig": "AAAA').replace('"sig":"', '"sig":"AAAA'))


def empty_signature(folder: Path) -> None:
    (folder / signing.SIGNATURE).write_text("")


def test_what_was_signed_may_be_used_wherever_it_lies(signed: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    signing.require(signed, keys[1])
    elsewhere = Path(shutil.copytree(signed, tmp_path / "other_place" / "push_t"))
    signing.require(elsewhere, keys[1])


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves(curve: ec.EllipticCurve, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys", curve)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "policy.onnx").write_bytes(b"x")
    signing.sign(tmp_path / "model", private)
    signing.require(tmp_path / "model", public)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_graph, "prior.onnx"),
        (change_manifest, "manifest.json"),
        (add_file, "more/policy.onnx"),
        (add_git_file, ".gitattributes"),
        (remove_file, "decoder.onnx"),
        (link_file, "elsewhere"),
        (remove_signature, "is not signed"),
        (damage_signature, "not that of"),
        (empty_signature, "not that of"),
    ],
)
def test_what_is_not_as_it_was_signed_is_refused(
    signed: Path, keys: tuple[Path, Path], change: Callable[[Path], None], says: str
) -> None:
    change(signed)
    with pytest.raises(ArtifactError, match=says):
        signing.require(signed, keys[1])


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    _, other = write_keys(tmp_path / "other", ec.SECP256R1())
    with pytest.raises(ArtifactError, match="Key mismatch"):
        signing.require(signed, other)


def test_a_signature_that_leaves_a_file_out_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    """Valid, and by the right key, but it says of itself that it is not about the predictor."""
    config = hashing_api.Config().set_ignored_paths(paths=["predictor.onnx", signing.SIGNATURE])
    signer = signing_api.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(config)
    signer.sign(signed, signed / signing.SIGNATURE)
    with pytest.raises(ArtifactError, match=r"does not cover predictor\.onnx"):
        signing.require(signed, keys[1])


def test_what_cannot_sign_is_refused(signed: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidInput, match="no private key"):
        signing.sign(signed, keys[1])
    with pytest.raises(InvalidInput, match="no private key"):
        signing.sign(signed, tmp_path / "missing.pem")
    with pytest.raises(InvalidInput, match="no public key"):
        signing.require(signed, signed / "manifest.json")
    with pytest.raises(InvalidInput, match="nothing to sign"):
        signing.sign(tmp_path / "nowhere", keys[0])


def test_without_the_extra_it_says_which_one(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("model_signing"):
            raise ImportError("No module named 'model_signing'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidInput, match=r"worldpilot\[sign\]"):
        signing.require(signed, keys[1])


def test_the_command_line_signs_and_verifies(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    private, public = map(str, keys)
    remove_signature(signed)
    assert main(["models", "verify", str(signed), "--key", public]) == 1
    assert "signature FAILED" in capsys.readouterr().out
    assert main(["models", "sign", str(signed), "--key", private]) == 0
    assert "model.sig" in capsys.readouterr().out
    assert main(["models", "verify", str(signed), "--key", public]) == 0
    assert "signature  ok" in capsys.readouterr().out
    change_manifest(signed)
    assert main(["models", "verify", str(signed), "--key", public]) == 1
    assert main(["models", "verify", str(signed)]) == 0
    assert main(["models", "sign", str(signed), "--key", public]) == 2
    assert "no private key" in capsys.readouterr().err
