"""Members learn, one by one and together; a training that was stopped goes on to the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from worldpilot.errors import InvalidInput
from worldpilot.models.dynamics.networks import DynamicsConfig
from worldpilot.models.recipe import ensemble
from worldpilot.models.recipe.distil import Teaching, imagine, join, kept, teach
from worldpilot.models.recipe.ensemble import Hyper, Member, Sequences, Setting, fit, members_of

CONFIG = DynamicsConfig(2, 1, "step", history=1, horizon=4, hidden=24, layers=1)
SETTING = Setting(batch=32, rollout=1, short=0.0)
HYPER = Hyper(1e-2, 0.01, 400)
SCALE = torch.full((4, 2), 0.3)


def pendulum(seed: int, frames: int) -> Sequences:
    """A driven pendulum, its angle and speed as measured: with noise."""
    rng = np.random.default_rng(seed)
    actions, states = rng.uniform(-1, 1, frames).repeat(2)[:frames], [rng.normal(0, 1, 2)]
    for action in actions[:-1]:
        angle, speed = states[-1]
        speed = speed + 0.2 * (2 * action - 3 * np.sin(angle) - 0.3 * speed)
        states.append(np.array([angle + 0.2 * speed, speed]))
    seen = np.array(states) + rng.normal(0, 0.03, (frames, 2))
    return Sequences(
        torch.from_numpy(seen.astype(np.float32)),
        torch.from_numpy(actions[:, None].astype(np.float32)),
        np.arange(frames - 4),
        1,
    )


DATA, HELD = pendulum(0, 120), pendulum(1, 2000)


def loss(predicted: torch.Tensor) -> float:
    _, actions = HELD.window(HELD.first, 1, 1)
    truth = HELD.latents[torch.from_numpy(HELD.first + 1)]
    assert actions.shape == (len(HELD.first), 1, 1)
    return float(((predicted - truth) / SCALE[0]).square().mean())


def predict(predictor: torch.nn.Module) -> torch.Tensor:
    """One step ahead, (E, W, D)."""
    latents, actions = HELD.window(HELD.first, 1, 1)
    with torch.no_grad():
        return predictor(latents[:, :1], actions)[:, :, 0]


@pytest.fixture(scope="module")
def trained():
    return fit(CONFIG, SCALE, DATA, [Member(i, DATA.everything) for i in range(6)], HYPER, SETTING)


def test_the_mean_of_members_is_better_than_they_are(trained) -> None:
    each = predict(trained)
    singles = [loss(one) for one in each]
    still = loss(HELD.latents[torch.from_numpy(HELD.first)])
    assert max(singles) < 0.3 * still  # they have learned something
    assert loss(each.mean(0)) < np.median(singles)
    assert float(each.std(0).mean()) > 1e-3  # each something else


def test_a_student_keeps_most_of_what_an_ensemble_gains(trained) -> None:
    lessons = teach(trained, DATA, DATA.everything, 1, Teaching(copies=16, state_noise=0.5, share=0.75), seed=0)
    students = [Member(50 + i, DATA.everything, lessons.everything, 0.75) for i in range(3)]
    taught = fit(CONFIG, SCALE, DATA, students, Hyper(1e-2, 0.01, 1200), SETTING, teacher=lessons)
    single = float(np.mean([loss(one) for one in predict(trained)]))
    student = float(np.mean([loss(one) for one in predict(taught)]))
    assert kept(single, loss(predict(trained).mean(0)), student) > 0.5


def test_a_teacher_tells_what_follows_windows_near_the_data(trained) -> None:
    teaching = Teaching(copies=3, state_noise=0.5, action_noise=0.2, share=0.5)
    lessons = teach(trained, DATA, np.arange(40), 2, teaching, seed=0)
    assert len(lessons.first) == 3 * 40
    latents, actions = lessons.window(lessons.first, 1, 2)
    began, done = DATA.window(DATA.first[:40], 1, 2)
    torch.testing.assert_close(latents[:40, :1], began[:, :1])  # the first copy is the data's, its future the teacher's
    torch.testing.assert_close(latents, imagine(trained, latents[:, :1], actions))
    apart = (latents[40:, 0] - began[:, 0].repeat(2, 1)) / SCALE[0]
    assert float(apart.std()) == pytest.approx(0.5, rel=0.2)
    assert not torch.equal(actions[40:80], done)
    assert actions.abs().max() <= 1


def test_joined_lessons_are_each_ones_own(trained) -> None:
    parts = [teach(trained, DATA, np.arange(n), 2, Teaching(copies=1), seed=n) for n in (5, 8)]
    joined, (first, second) = join(parts)
    assert (len(first), len(second)) == (5, 8)
    for part, windows in zip(parts, (first, second), strict=True):
        for mine, theirs in zip(joined.window(joined.first[windows], 1, 2), part.window(part.first, 1, 2), strict=True):
            torch.testing.assert_close(mine, theirs)
    with pytest.raises(InvalidInput, match="stride"):
        join([parts[0], Sequences(parts[1].latents, parts[1].actions, parts[1].first, 2)])


def test_some_members_are_a_predictor_of_their_own(trained) -> None:
    torch.testing.assert_close(predict(members_of(trained, [4, 1], CONFIG)), predict(trained)[[4, 1]])


def test_a_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members, hyper, file = (
        [Member(i, DATA.everything) for i in range(2)],
        Hyper(1e-2, 0.1, 150),
        tmp_path / "members.pt",
    )
    straight = fit(CONFIG, SCALE, DATA, members, hyper, SETTING)
    save = ensemble.save_checkpoint

    def save_and_stop(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit(CONFIG, SCALE, DATA, members, hyper, SETTING, checkpoint=file, every=70)
    resumed = fit(CONFIG, SCALE, DATA, members, hyper, SETTING, checkpoint=file, every=70)
    for name, weights in straight.named_parameters():
        torch.testing.assert_close(resumed.get_parameter(name), weights)
    with pytest.raises(InvalidInput, match="other sizes"):
        fit(CONFIG, SCALE, DATA, members, Hyper(1e-2, 0.2, 150), SETTING, checkpoint=file)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="learning rate"):
        Hyper(learning_rate=0.0)
    with pytest.raises(InvalidInput, match="short"):
        Setting(short=1.5)
    with pytest.raises(InvalidInput, match="share"):
        Teaching(share=0.0)
    with pytest.raises(InvalidInput, match="diffusion"):
        fit(DynamicsConfig(2, 1, "diffusion", history=1, horizon=4), SCALE, DATA, [Member(0, DATA.everything)], HYPER)
    mixed = [Member(0, DATA.everything), Member(1, DATA.everything, np.arange(3), 0.5)]
    with pytest.raises(InvalidInput, match="teacher"):
        fit(CONFIG, SCALE, DATA, mixed, HYPER, SETTING)
