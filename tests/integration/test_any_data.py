"""From the tutorial's program, whose data have no signals, to a planner that runs: the command line's own steps."""

import re
from pathlib import Path

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.errors import ArtifactError, UnknownName
from worldpilot.models.artifact import Artifact, update_manifest
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.solvers import make
from worldpilot.types import RewardSpec, RewardTerm

pytestmark = pytest.mark.slow
TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "own_environment.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact and what it was made from."""
    root = tmp_path_factory.mktemp("any_data")
    (source,) = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        exec(compile(source, TUTORIAL.name, "exec"), {"__name__": "tutorial"})
    data, nets, prior, out = (str(root / name) for name in ("data/dot", "nets", "prior", "dot"))
    sizes = ["--steps", "6", "--readout-steps", "6", "--dynamics-steps", "6"]
    sizes += ["--batch", "8", "--dynamics-batch", "16", "--evaluate-every", "6"]
    assert main(["train", "world-model", "--data", data, "--out", nets, *sizes]) == 0
    sizes = ["--steps", "6", "--batch", "16", "--evaluate-every", "6"]
    assert main(["train", "action-prior", "--data", data, "--world-model", nets, "--out", prior, *sizes]) == 0
    assert main(["export", "dot", "--world-model", nets, "--prior", prior, "--out", out]) == 0
    return root


def test_the_artifact_has_no_readout_and_plans_towards_an_image(made: Path) -> None:
    artifact = Artifact.load(made / "dot")
    spec, model = artifact.spec, artifact.world_model
    assert spec.signals == ()
    assert "readout" not in artifact.manifest["graphs"]
    assert (spec.task, spec.action.names, spec.action.high) == ("dot", ("push",), (1.0,))
    episode = EpisodeStore(made / "data" / "dot")[0]
    latents = model.encode(episode.observations[[0, 20]])
    assert model.signals(latents) == {}
    reward = RewardSpec((RewardTerm("goal_latent"),))
    mpc = Mpc(model, make("ssr"), reward, Gate(spec.action), seed=0, goal_latent=latents[1])
    tick = mpc.tick(latents[0], np.zeros(1, np.float32), None)
    assert tick.control.shape == (1,)
    assert np.abs(tick.control) <= 1


def test_rewards_over_signals_are_refused(made: Path) -> None:
    artifact = Artifact.load(made / "dot")
    reward = RewardSpec((RewardTerm("tolerance", params={"signal": "block_x", "lower": 0.0}),))
    with pytest.raises(UnknownName, match="block_x"):
        Mpc(artifact.world_model, make("ssr"), reward, Gate(artifact.spec.action), seed=0)


def test_signals_without_a_readout_are_refused(made: Path) -> None:
    with pytest.raises(ArtifactError, match="signals need a readout"):
        update_manifest(made / "dot", lambda m: m["signals"].append({"name": "x", "unit": "m", "r2": 0.9}))
