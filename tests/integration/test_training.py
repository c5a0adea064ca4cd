"""Miniatures of the trainings, from collection to a loaded artifact, through the command line's own functions."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from worldpilot.cli.main import main
from worldpilot.models.action_prior import train as action_prior
from worldpilot.models.artifact import Artifact
from worldpilot.models.world_model import train as world_model
from worldpilot.types import History

pytestmark = pytest.mark.slow

# Of a world model's training.
SIZES = ["--steps", "60", "--readout-steps", "60", "--dynamics-steps", "60"]
SIZES += ["--batch", "16", "--dynamics-batch", "64", "--evaluate-every", "30"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, a world model, a prior and their artifact, each made as a user makes them."""
    root = tmp_path_factory.mktemp("training")
    data, nets, prior, out = (str(root / name) for name in ("data", "nets", "prior", "artifact"))
    assert main(["collect", "push_t", "--out", data, "--random-push", "24", "--steps", "60"]) == 0
    assert main(["train", "world-model", "--data", data, "--out", nets, *SIZES]) == 0
    prior_sizes = ["--steps", "80", "--batch", "64", "--evaluate-every", "40"]
    assert main(["train", "action-prior", "--data", data, "--world-model", nets, "--out", prior, *prior_sizes]) == 0
    assert main(["export", "push_t", "--world-model", nets, "--prior", prior, "--out", out, "--data", "miniature"]) == 0
    return root


def test_every_signal_is_reported_at_every_checkpoint(made):
    log = [json.loads(line) for line in (made / "nets" / "log.jsonl").read_text().splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in log] == [("encoder", 30), ("encoder", 60), ("dynamics", 60)]
    names = {"pusher_x", "pusher_y", "block_x", "block_y", "block_yaw_sin", "block_yaw_cos"}
    assert all(set(entry["r2"]) == names == set(entry["r2_linear"]) for entry in log)


def test_training_lowers_the_open_loop_error(made):
    log = [json.loads(line) for line in (made / "nets" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["open_loop_nmse"][0] < log[0]["open_loop_nmse"][0]


def interrupt_after_first_checkpoint(command: list[str]) -> int:
    """Run a training until its first checkpoint is written; returns that checkpoint's step."""
    saved, save = [], world_model.save_checkpoint

    def save_and_stop(*args):
        save(*args)
        saved.append(args[-1])
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_model, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            main(command)
    return saved[0]


def test_training_resumes_to_the_same_weights(made, tmp_path):
    """Interrupted after the first checkpoint and run again: what an uninterrupted run gives."""
    folder = tmp_path / "nets"
    command = ["train", "world-model", "--data", str(made / "data"), "--out", str(folder), *SIZES]
    assert interrupt_after_first_checkpoint(command) == 30
    assert main(command) == 0
    resumed, straight = (world_model.load(path).state_dict() for path in (folder, made / "nets"))
    assert all(torch.allclose(resumed[name], straight[name], atol=1e-5) for name in straight)


def test_dynamics_learn_on_in_the_latents_that_are_there(made, tmp_path, capsys):
    """From another's checkpoints: what encodes and reads stays, what predicts gets better, and the prior still fits."""
    start, folder = made / "nets", tmp_path / "nets"
    command = ["train", "world-model", "--data", str(made / "data"), "--out", str(folder), *SIZES]
    assert main([*command, "--start", str(start)]) == 0
    before, after = (world_model.load(path).state_dict() for path in (start, folder))
    kept = {name: torch.equal(before[name], after[name]) for name in before if "num_batches" not in name}
    assert all(kept[name] for name in kept if name.startswith(("encoder", "readout", "signal")))
    assert not any(kept[name] for name in kept if name.startswith("predictor"))
    figures = [json.loads((path / "metrics.json").read_text())["open_loop_nmse"] for path in (start, folder)]
    assert np.mean(figures[1]) < np.mean(figures[0])
    sizes = [*SIZES, "--start", str(start), "--preset", "paper"]
    assert main(["train", "world-model", "--data", str(made / "data"), "--out", str(tmp_path / "paper"), *sizes]) == 2
    assert "of other sizes" in capsys.readouterr().err


def test_the_prior_resumes_to_the_same_weights(made, tmp_path):
    folder = tmp_path / "prior"
    command = ["train", "action-prior", "--data", str(made / "data"), "--world-model", str(made / "nets")]
    command += ["--out", str(folder), "--steps", "80", "--batch", "64", "--evaluate-every", "40"]
    assert interrupt_after_first_checkpoint(command) == 40
    assert main(command) == 0
    resumed, straight = (action_prior.load(path).state_dict() for path in (folder, made / "prior"))
    assert all(torch.allclose(resumed[name], straight[name], atol=1e-5) for name in straight)


def test_a_prior_learns_from_the_behaviours_that_it_is_told(made, tmp_path, capsys):
    command = ["train", "action-prior", "--data", str(made / "data"), "--world-model", str(made / "nets")]
    command += ["--out", str(tmp_path), "--steps", "2", "--batch", "8"]
    assert main([*command, "--behaviours", "random_push"]) == 0
    assert main([*command, "--behaviours", "expert,noisy_expert"]) == 2
    assert "random_push" in capsys.readouterr().err


def test_the_artifact_is_what_was_trained(made):
    artifact, nets = Artifact.load(made / "artifact"), world_model.load(made / "nets")
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        assert artifact.world_model.encode(image) == pytest.approx(nets.encode(image).numpy(), abs=1e-3)
    assert artifact.manifest["provenance"]["data"] == "miniature"
    assert artifact.has_decoder


@pytest.mark.parametrize("horizon", [1, 5, 11])
def test_the_predictor_has_any_horizon(made, horizon: int):
    model, rng = Artifact.load(made / "artifact").world_model, np.random.default_rng(0)
    nets, spec = world_model.load(made / "nets"), model.spec
    past = History(rng.standard_normal((2, 64)).astype(np.float32), np.zeros((1, 10), np.float32))
    actions = rng.uniform(-0.25, 0.25, (3, horizon, 10)).astype(np.float32)
    with torch.no_grad():
        normalised = (torch.from_numpy(actions) - spec.action.action_low[0]) / 0.5 * 2 - 1
        before = torch.zeros(3, 1, 10)  # no control lies in the middle of the bounds
        latents = torch.from_numpy(past.latents).expand(3, 2, 64)
        expected = nets.predictor(latents, torch.cat([before, normalised], 1)).numpy()
    assert model.predict(past, actions) == pytest.approx(expected, abs=1e-3)


def test_graphs_do_not_name_the_files_they_were_traced_from(made):
    graphs = list((made / "artifact").glob("*.onnx"))
    assert graphs
    assert not [graph.name for graph in graphs if b".py" in graph.read_bytes()]


def test_the_sampler_is_diffusers_own_loop(made):
    """The unrolled sampler against a loop over `scheduler.step` from the same noise."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    denoiser = action_prior.load(made / "prior")
    sizes, g = denoiser.config, torch.Generator().manual_seed(0)
    latents = torch.randn(4, sizes.history, sizes.latent_dim, generator=g)
    noise = torch.randn(4, sizes.horizon, sizes.action_dim, generator=g)
    goal = torch.randn(4, sizes.goal_dim, generator=g)
    mask = (torch.rand(4, sizes.goal_dim, generator=g) > 0.5).float()
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sizes.sampler_steps)
    x: Any = noise  # diffusers' annotations name the old FloatTensor
    sigmas: Any = scheduler.sigmas
    timesteps: Any = scheduler.timesteps
    with torch.no_grad():
        for sigma, t in zip(sigmas, timesteps, strict=False):
            x = scheduler.step(denoiser(x, sigma.expand(4), latents, goal, mask), t, x, return_dict=False)[0]
        unrolled = action_prior.Sampler(denoiser)(latents, noise, goal, mask)
    assert unrolled.numpy() == pytest.approx(x.clamp(-1, 1).numpy(), abs=1e-5)


def test_the_prior_reads_the_present_as_the_world_model_does(made):
    """Its goal-relative inputs: none is left where the goal is what is read, and a goal nearby is not a far one."""
    denoiser, nets = action_prior.load(made / "prior"), world_model.load(made / "nets")
    assert denoiser.readout is not None
    trained, own = denoiser.readout.state_dict(), nets.readout.state_dict()
    assert all(torch.equal(trained[name], own[name]) for name in own)
    g = torch.Generator().manual_seed(0)
    sizes = denoiser.config
    latents = torch.randn(4, sizes.history, sizes.latent_dim, generator=g)
    noisy, sigma = torch.randn(4, sizes.horizon, sizes.action_dim, generator=g), torch.rand(4, generator=g)
    mask = torch.ones(4, sizes.goal_dim)
    heard = []
    denoiser.input.register_forward_hook(lambda _, inputs, __: heard.append(inputs[0]))
    with torch.no_grad():
        now = denoiser.readout(latents[:, -1])
        for goal in (now, now + 0.05, now + 3.0):
            denoiser(noisy, sigma, latents, goal, mask)
    left = [x[:, -12 - 2 * sizes.goal_dim : -12] for x in heard]
    assert left[0].abs().max() < 1e-6
    coarse, fine = left[1].chunk(2, -1)
    torch.testing.assert_close(coarse, torch.full_like(coarse, 0.05), rtol=0, atol=1e-6)
    assert (fine > 0.4).all()
    assert (left[2].chunk(2, -1)[1] > 0.99).all()


def test_a_goal_changes_the_proposals_that_hear_of_it(made):
    artifact = Artifact.load(made / "artifact")
    spec = artifact.spec
    history = History(
        np.zeros((spec.history, spec.latent_dim), np.float32),
        np.zeros((spec.history - 1, spec.action.dim), np.float32),
    )
    free, left, right = (
        artifact.prior.propose(history, 8, np.random.default_rng(1), goal)
        for goal in (None, {"block_x": -0.1, "block_yaw": 1.0}, {"block_x": 0.1, "block_yaw": 1.0})
    )
    assert (left[:6] != right[:6]).any()
    assert (left[6:] == free[6:]).all()


def test_proposals_repeat_with_their_seed_and_stay_in_bounds(made):
    artifact = Artifact.load(made / "artifact")
    spec = artifact.spec
    history = History(
        np.zeros((spec.history, spec.latent_dim), np.float32),
        np.zeros((spec.history - 1, spec.action.dim), np.float32),
    )
    first, again, other = (artifact.prior.propose(history, 16, np.random.default_rng(s)) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (first >= spec.action.action_low).all()
    assert (first <= spec.action.action_high).all()
