"""Nodes that require a signature run the model that has it, and refuse every other, with the reason in their log."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from worldpilot_nodes.client import Client
from worldpilot_nodes.use_model import use_model

from worldpilot.errors import ArtifactError
from worldpilot.models import signing

OTHERS = ["sim", "action_prior", "mpc", "uncertainty_monitor", "recorder"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and its public key, as PEM files."""
    folder, key = tmp_path_factory.mktemp("keys"), ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "key.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture(scope="module")
def signed(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path_factory.mktemp("signed") / "push_t"))
    signing.sign(folder, keys[0])
    return folder


def hears(run: Any, text: str, timeout: float = 30.0) -> bool:
    """Whether a node says so within `timeout` [s]."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if any(text in line for _, line in run.log):
            return True
        time.sleep(0.05)
    return False


def test_what_is_not_signed_is_refused(start: Callable[..., Any], tiny_artifact: Path, keys: tuple[Path, Path]) -> None:
    settings = {"*": {"artifact": str(tiny_artifact), "public_key": str(keys[1])}}
    run = start(without=OTHERS, settings=settings)
    assert hears(run, "configure refused"), run.log
    assert hears(run, "is not signed: model.sig is missing", 1.0), run.log
    run.supervisor.stop()


def test_what_is_signed_runs_and_no_other_takes_its_place(
    start: Callable[..., Any], signed: Path, tiny_artifact: Path, keys: tuple[Path, Path], domain: int
) -> None:
    settings = {"*": {"artifact": str(signed), "public_key": str(keys[1])}}
    run = start(without=["sim", "action_prior", "uncertainty_monitor", "recorder"], settings=settings)
    run.supervisor.wait_for("active", timeout=60)
    with Client(domain_id=domain) as client, pytest.raises(ArtifactError, match="is not signed"):
        use_model(client, tiny_artifact)
    assert all(status.starts == 1 for status in run.supervisor.status.values())
    run.supervisor.stop()
