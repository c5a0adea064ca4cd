"""A certificate's bounds fail at most as often as they say, over many draws of the world; and where units are no units,
they do not hold, which the same test sees."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from worldpilot.calibration import bounds
from worldpilot.calibration.certificate import statement

DRAWS, DELTA = 1000, 0.05

Rng = np.random.Generator


def too_many(failures: int, draws: int = DRAWS, delta: float = DELTA) -> bool:
    """Whether so many failures would happen with probability below 1e-4 if each had probability delta."""
    return bool(binom.sf(failures - 1, draws, delta) < 1e-4)


def episodes(rng: Rng, n: int, steps: int, level: float, correlation: float) -> npt.NDArray[np.float64]:
    """Clipped losses (n, steps) of episodes, each with a difficulty of its own, and neighbouring steps alike."""
    noise = rng.normal(size=(n, steps))
    for t in range(1, steps):
        noise[:, t] = correlation * noise[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    difficulty = rng.normal(size=(n, 1))
    return np.clip(np.exp(0.5 * noise + difficulty) * level, 0.0, 1.0)


def expected(level: float, rng: Rng) -> float:
    """The mean loss of a new episode, from a quarter of a million of them (a step's law is every step's)."""
    return float(episodes(rng, 250_000, 1, level, 0.0).mean())


UNITS = {
    "binary": (lambda rng, n: (rng.random(n) < 0.02).astype(float), 0.02),
    "rare and large": (lambda rng, n: np.where(rng.random(n) < 0.005, 1.0, 0.01), 0.005 + 0.995 * 0.01),
    "smooth": (lambda rng, n: rng.beta(2.0, 18.0, n), 0.1),
    "of two kinds, so many of each": (
        lambda rng, n: np.concatenate([rng.beta(1, 9, n // 2), rng.random(n - n // 2) < 0.5]),
        0.3,
    ),
}


@pytest.mark.parametrize("law", UNITS)
@pytest.mark.parametrize("n", [20, 200])
def test_the_held_out_bound_fails_no_more_often_than_it_says(law: str, n: int) -> None:
    draw, truth = UNITS[law]
    rng = np.random.default_rng([n, list(UNITS).index(law)])
    failures = sum(bounds.held_out_bound(float(draw(rng, n).mean()), n, DELTA) < truth for _ in range(DRAWS))
    assert not too_many(failures), failures


def test_binary_losses_come_near_to_delta() -> None:
    """So that a bound which always holds by being loose would be noticed: the worst case is nearly met."""
    rng = np.random.default_rng(7)
    failures = sum(bounds.held_out_bound(float((rng.random(50) < 0.1).mean()), 50, DELTA) < 0.1 for _ in range(DRAWS))
    assert failures > DRAWS * DELTA / 20


def test_episodes_are_units_and_frames_are_none() -> None:
    rng = np.random.default_rng(3)
    truth = expected(0.1, rng)
    by_episode = by_frame = 0
    for _ in range(400):
        losses = episodes(rng, 40, 60, 0.1, 0.95)
        stated = statement(losses.mean(1).tolist(), DELTA)
        by_episode += stated["bound"] < truth
        by_frame += bounds.held_out_bound(float(losses.mean()), losses.size, DELTA) < truth
    assert not too_many(by_episode, 400)
    assert too_many(by_frame, 400), by_frame  # the control: frames taken for units


def test_the_compression_bound_holds_for_what_was_chosen_and_the_held_out_one_does_not() -> None:
    """256 predictors of no merit, the best on the data is taken: a byte says which."""
    rng = np.random.default_rng(11)
    n, merit = 60, 0.3
    compressed = held_out = 0
    for _ in range(500):
        risks = (rng.random((256, n)) < merit).mean(1)
        best = float(risks.min())
        compressed += bounds.compression_bound(best, n, bounds.complexity(8), DELTA) < merit
        held_out += bounds.held_out_bound(best, n, DELTA) < merit
    assert not too_many(compressed, 500)
    assert too_many(held_out, 500), held_out  # the control: as if the data had not chosen it
