"""Model cards say what the manifests say: those committed are current, and a change of a manifest is noticed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from worldpilot import cards
from worldpilot.calibration import certificate
from worldpilot.cli.main import main
from worldpilot.models import artifact
from worldpilot.models.artifact import update_manifest, verify

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "model_cards"
CARDS = sorted(path.stem for path in COMMITTED.glob("*.md") if path.name != cards.INDEX)


def test_there_are_cards_of_what_is_shipped() -> None:
    assert {"push_t", "push_cube", "quadruped", "walker", "language_draft", "language_reasoning"} <= set(CARDS)
    assert set(CARDS) <= set(cards.names())


@pytest.mark.parametrize("name", CARDS)
def test_a_committed_card_is_current(name: str) -> None:
    assert (COMMITTED / f"{name}.md").read_text() == cards.card(name), "run `worldpilot models card`"


def test_the_index_lists_them() -> None:
    assert (COMMITTED / cards.INDEX).read_text() == cards.index(COMMITTED)


@pytest.fixture
def shipped(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with the tiny artifact alone, certified."""
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "zoo" / "push_t"))
    monkeypatch.setattr(artifact, "zoo_path", lambda task: tmp_path / "zoo" / task)
    monkeypatch.setattr(cards, "names", lambda: ["push_t"])

    def certify(manifest: dict[str, Any]) -> None:
        stated = certificate.statement([0.1, 0.2, 0.3], 0.05, steps=5, copy_risk=0.9)
        manifest["certificate"] = {
            "format": 1,
            "model_id": manifest["model_id"],
            "graphs": {name: manifest["graphs"][name]["sha256"] for name in certificate.GRAPHS},
            "unit": "episode",
            "scale": {"quantile": 0.99, "data_sha256": "0" * 64, "seeds": [9], "clip": {"h_step": 0.5}},
            "data": {
                "data_sha256": "1" * 64,
                "collected": None,
                "behaviours": {"walk": 3},
                "seeds": [1, 2, 3],
            },
            "held_out": {"h_step": stated},
            "compression": None,
            "flatness": None,
        }

    update_manifest(folder, certify)
    return folder


def test_a_card_tells_what_is_in_the_manifest(shipped: Path) -> None:
    manifest, text = verify(shipped), cards.card("push_t")
    assert text.startswith("# push_t\n\nuntrained, for tests\n")
    for graph in manifest["graphs"].values():
        assert graph["sha256"] in text
    assert "| vx | m/s | -0.25 | 0.25 | 5.0 |" in text
    assert "| block_yaw | rad | 0.8000 | block's yaw |" in text
    assert "| block_x_r2 | 0.9 | 10 | 0.8 to 1 |" in text
    assert "100 good episodes of expert: at most\n5% of such" in text
    assert f"at most {manifest['certificate']['held_out']['h_step']['bound']:.4f} with probability 0.95" in text
    assert "(3 of walk)" in text


def test_a_card_that_is_not_current_is_noticed(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cards"
    command = ["models", "card", "--out", str(out)]
    assert main([*command, "--check"]) == 1
    assert main(command) == 0
    assert (out / cards.INDEX).read_text().endswith("- [push_t](push_t.md)\n")
    capsys.readouterr()
    assert main([*command, "--check"]) == 0
    assert capsys.readouterr().out == ""
    update_manifest(shipped, lambda manifest: manifest.update(thresholds=None, certificate=None))
    assert main([*command, "--check"]) == 1
    assert "push_t.md is not current" in capsys.readouterr().out
    assert main(command) == 0
    text = (out / "push_t.md").read_text()
    assert "calibrate it before the monitor is used" in text
    assert "`worldpilot certify push_t` makes one" in text
