"""Does the model's surprise find faults? Episodes of Push-T without and with one fault, and what may not alarm.

    python benchmarks/surprise.py --json docs/results/surprise_push_t.json --markdown docs/results/surprise_push_t.md

Behaviours act for 100 control steps, in seeds that no training data have. At a random time one fault happens, and the
behaviour chooses anew; in the same episode without the fault it does so too. A run is scored by its largest error
within the 2.5 s after that (H model steps, the span of an H-step prediction). Half of the good episodes give the
threshold that 5 % of whole episodes exceed; false alarms and recall are counted on the other half.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from worldpilot.calibration.detection import auroc, auroc_interval, share, threshold
from worldpilot.calibration.monitor import PredictionTracker
from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim import geometry
from worldpilot.sim.push_t import Appearance, PushT, clearance
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray

FIRST_SEED = 2_000_000  # those of training data count from 0
STEPS = 100  # control steps of an episode
ALPHA = 0.05  # share of good episodes with a false alarm
BLOCK_LENGTH = 4 * geometry.UNIT  # [m], the T is as wide as it is tall
REACH = 0.16  # [m], half the side of the square in which the block's centre is put
SCORES = ("surprise", "h_step")

Rng = np.random.Generator
Options = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one moment. `inject` is False where the world leaves no room for it: no pair then."""

    text: str
    inject: Callable[[PushT, float, Rng], bool] = lambda world, friction, rng: True
    look: Callable[[Rng], Options] = lambda rng: {}  # reset options: another look from the fault on
    gain: float = 1.0  # share of the commanded velocity that the pusher moves with


def shift(distance: float) -> Callable[[PushT, float, Rng], bool]:
    """The block jumps by `distance` [m] in a random direction, clear of the pusher and in reach, without turning."""

    def inject(world: PushT, friction: float, rng: Rng) -> bool:
        for angle in rng.uniform(-np.pi, np.pi, 200):
            dx, dy = distance * np.cos(angle), distance * np.sin(angle)
            pose = world.block() + [dx, dy, 0.0]
            if np.abs(pose[:2]).max() <= REACH and clearance(world.pusher(), pose) > 0.002:
                world.inject("teleport", dx=dx, dy=dy, dyaw=0.0)
                return True
        return False

    return inject


def turn(world: PushT, friction: float, rng: Rng) -> bool:
    """The block turns on the spot by 90 degrees, left or right, clear of the pusher."""
    for dyaw in rng.permutation([-np.pi / 2, np.pi / 2]):
        pose = world.block() + [0.0, 0.0, dyaw]
        if np.abs(pose[:2]).max() <= REACH and clearance(world.pusher(), pose) > 0.002:
            world.inject("teleport", dx=0.0, dy=0.0, dyaw=float(dyaw))
            return True
    return False


def scaled_friction(factor: float) -> Callable[[PushT, float, Rng], bool]:
    def inject(world: PushT, friction: float, rng: Rng) -> bool:
        world.inject("friction", value=factor * friction)
        return True

    return inject


def fault(name: str, **params: float) -> Callable[[PushT, float, Rng], bool]:
    def inject(world: PushT, friction: float, rng: Rng) -> bool:
        world.inject(name, **params)
        return True

    return inject


def paint(outside: bool) -> Callable[[PushT, float, Rng], bool]:
    """Another colour of the block: one that training draws, or one at least twice as far off in some channel."""

    def inject(world: PushT, friction: float, rng: Rng) -> bool:
        colour = np.asarray(Appearance.sample(rng).block)
        while outside and np.abs(colour - Appearance().block).max() < 0.3:
            colour = rng.uniform(0, 1, 3)
        world.inject("recolour", **dict(zip("rgb", map(float, colour), strict=True)))
        return True

    return inject


FAULTS: Mapping[str, Fault] = {
    "teleport_2_lengths": Fault("block jumps 32 cm (2 block lengths)", shift(2 * BLOCK_LENGTH)),
    "teleport_1_length": Fault("block jumps 16 cm (1 block length)", shift(BLOCK_LENGTH)),
    "teleport_8_cm": Fault("block jumps 8 cm (2 bar widths)", shift(0.08)),
    "shift_4_cm": Fault("block shifts 4 cm", shift(0.04)),
    "shift_2_cm": Fault("block shifts 2 cm", shift(0.02)),
    "shift_1_cm": Fault("block shifts 1 cm", shift(0.01)),
    "shift_5_mm": Fault("block shifts 5 mm", shift(0.005)),
    "turn_90": Fault("block turns 90° on the spot", turn),
    "friction_half": Fault("friction under the block × 0.5", scaled_friction(0.5)),
    "friction_double": Fault("friction under the block × 2", scaled_friction(2.0)),
    "recolour_within": Fault("block painted, within the training randomisation", paint(outside=False)),
    "look_within": Fault(
        "all colours and the light change, within the training randomisation",
        look=lambda rng: {"appearance": Appearance.sample(rng)},
    ),
    "recolour_outside": Fault("block painted, outside the training randomisation", paint(outside=True)),
    "freeze": Fault("camera freezes", fault("freeze_camera", seconds=60.0)),
    "delay": Fault("controls arrive 0.3 s late", fault("delay", seconds=0.3)),
    "weak": Fault("pusher moves at half the commanded velocity", gain=0.5),
    "dead": Fault("pusher does not move any more", gain=0.0),
}
QUIET = ("recolour_within", "look_within")  # must not alarm
TARGET = "teleport_2_lengths"


@dataclass(frozen=True)
class Good:
    """An episode without a fault, and what is needed to run it again with one."""

    seed: int
    behaviour: str
    at: int  # control step at which the fault happens, if one does
    friction: float
    controls: FloatArray  # (T, U)
    latents: FloatArray  # (T+1, D)
    state: Mapping[str, float]  # ground truth at `at`
    errors: npt.NDArray[np.float64]  # (T+1, 2): one-step and H-step, NaN where there is none


@dataclass
class Bench:
    """The world, the behaviours and the model that all runs share."""

    artifact: Artifact
    world: PushT = field(default_factory=PushT)
    behaviours: dict[str, Callable[[PushT, Rng], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.artifact.spec
        self.window = spec.horizon * spec.action.block  # [control steps]
        self._past = (spec.history - 1 + spec.horizon) * spec.action.block  # what an H-step prediction looks back on
        self._tracker = PredictionTracker(self.artifact.world_model, horizon=spec.horizon)

    def good(self, seed: int, behaviour: str) -> Good:
        """An episode as it should be."""
        rng = np.random.default_rng(seed)
        at = int(rng.integers(self._past, STEPS - self.window + 1))
        friction = float(rng.uniform(0.35, 0.65))
        self.world.reset(seed=seed, options={"friction": friction})
        images, controls = [self.world.observe().data], []
        for control in itertools.islice(self._controls(behaviour, seed, 0), at):
            controls.append(self._drive(control))
            images.append(self.world.observe().data)
        state = self.world.signals()
        for control in itertools.islice(self._controls(behaviour, seed, 1), STEPS - at):
            controls.append(self._drive(control))
            images.append(self.world.observe().data)
        latents = self.artifact.world_model.encode(np.stack(images))
        applied = np.stack(controls)
        return Good(seed, behaviour, at, friction, applied, latents, state, self._errors(latents, applied))

    def faulty(self, good: Good, fault: Fault, rng: Rng) -> npt.NDArray[np.float64] | None:
        """The errors of shape (window, 2) after the fault; None where there was no room for it."""
        self.world.reset(seed=good.seed, options={"friction": good.friction, **fault.look(rng)})
        for control in good.controls[: good.at]:
            self.world.drive(control)
        if self.world.signals() != good.state:
            raise WorldpilotError(f"surprise: episode {good.seed} is not the same when it is run again")
        if not fault.inject(self.world, good.friction, rng):
            return None
        images, controls = [], []
        for control in itertools.islice(self._controls(good.behaviour, good.seed, 1), self.window):
            controls.append(self._drive(control, fault.gain))
            images.append(self.world.observe().data)
        first = good.at - self._past
        latents = [good.latents[first : good.at + 1], self.artifact.world_model.encode(np.stack(images))]
        applied = np.concatenate([good.controls[first : good.at], np.stack(controls)])
        return self._errors(np.concatenate(latents), applied)[-self.window :]

    def _controls(self, behaviour: str, seed: int, part: int) -> Any:
        """What the behaviour does from now on; when it has finished, nothing."""
        if behaviour not in self.behaviours:
            self.behaviours[behaviour] = task("push_t").behaviours[behaviour].make()
        acting = self.behaviours[behaviour](self.world, np.random.default_rng([seed, part]))
        return itertools.chain(acting, itertools.repeat(np.zeros(2)))

    def _drive(self, control: npt.NDArray[np.floating], gain: float = 1.0) -> FloatArray:
        commanded = np.clip(control, self.world.action.low, self.world.action.high).astype(np.float32)
        self.world.drive(gain * commanded)
        return commanded

    def _errors(self, latents: FloatArray, controls: FloatArray) -> npt.NDArray[np.float64]:
        self._tracker.reset()
        previous, errors = [controls[0], *controls], np.full((len(latents), 2), np.nan)
        for i, latent in enumerate(latents):
            error = self._tracker.update(i * self.world.action.control_dt, latent, previous[i])
            if error is not None:
                errors[i] = error.one_step, error.h_step
        return errors


def measure(
    artifact: Artifact,
    episodes: int,
    behaviours: list[str],
    seed: int,
    *,
    alpha: float = ALPHA,
    faults: Mapping[str, Fault] = FAULTS,
) -> dict[str, Any]:
    """Run everything; half of `episodes` calibrate, the other half are run again with each fault."""
    bench, rng = Bench(artifact), np.random.default_rng([seed, 1])
    plan = [(FIRST_SEED + seed * 100_000 + i, behaviours[i % len(behaviours)]) for i in range(episodes)]
    good = [bench.good(*entry) for entry in tqdm(plan, desc="good episodes", unit="episode")]
    tested = {i for i in range(episodes) if i // len(behaviours) % 2}
    limits = {
        name: threshold(np.array([np.nanmax(g.errors[:, s]) for i, g in enumerate(good) if i not in tested]), alpha)
        for s, name in enumerate(SCORES)
    }
    test = [good[i] for i in sorted(tested)]
    windows = np.stack([g.errors[g.at + 1 : g.at + 1 + bench.window] for g in test])  # (n, window, 2)
    whole = np.stack([np.nanmax(g.errors, axis=0) for g in test])  # (n, 2)
    result: dict[str, Any] = {
        "task": "push_t",
        "model_id": artifact.spec.model_id,
        "seed": seed,
        "episodes": {"calibration": episodes - len(test), "test": len(test), "behaviours": behaviours},
        "alpha": alpha,
        "window_s": bench.window * artifact.spec.action.control_dt,
        "block_length_m": BLOCK_LENGTH,
        "good": {
            name: {
                "threshold": limits[name],
                "false_alarms": share(whole[:, s] > limits[name]),
                "by_behaviour": {
                    b: share([w > limits[name] for w, g in zip(whole[:, s], test, strict=True) if g.behaviour == b])
                    for b in behaviours
                },
                "alarms_in_window": share((windows[:, :, s] > limits[name]).any(axis=1)),
            }
            for s, name in enumerate(SCORES)
        },
        "faults": {},
    }
    for number, (name, entry) in enumerate(tqdm(faults.items(), desc="faults", unit="fault")):
        runs = [bench.faulty(g, entry, np.random.default_rng([g.seed, number])) for g in test]
        there = [i for i, run in enumerate(runs) if run is not None]
        if not there:
            raise InvalidInput(f"surprise: no episode has room for {name}; run more of them")
        faulty = np.stack([run for run in runs if run is not None])
        result["faults"][name] = {
            "text": entry.text,
            **{
                score: compare(windows[there, :, s], faulty[:, :, s], limits[score], artifact, rng)
                for s, score in enumerate(SCORES)
            },
        }
    bench.world.close()
    return result


def compare(
    good: npt.NDArray[np.float64], faulty: npt.NDArray[np.float64], limit: float, artifact: Artifact, rng: Rng
) -> dict[str, Any]:
    """Figures of paired windows of errors, each of shape (n, window)."""
    best, worst = good.max(axis=1), faulty.max(axis=1)
    alarms = faulty > limit
    first = alarms.argmax(axis=1)[alarms.any(axis=1)] + 1  # control steps after the fault
    return {
        "auroc": {"value": auroc(best, worst), "n": len(good), "ci": list(auroc_interval(best, worst, rng))},
        "alarms": share(alarms.any(axis=1)),
        "median_delay_s": float(np.median(first)) * artifact.spec.action.control_dt if len(first) else None,
    }


def markdown(result: Mapping[str, Any], command: str) -> str:
    """The figures as a page."""
    episodes, good = result["episodes"], result["good"]
    target = result["faults"][TARGET]["surprise"]
    met = target["auroc"]["value"] >= 0.99 and target["alarms"]["value"] >= 0.9
    lines = [
        "# Push-T: which faults the model's surprise finds",
        "",
        f"`{command}`, model {result['model_id']}",
        "",
        f"{', '.join(episodes['behaviours'])} act for {STEPS} control steps, in seeds that no training data have. "
        f"{episodes['calibration']} episodes give the threshold that {result['alpha']:.0%} of whole episodes exceed, "
        f"the other {episodes['test']} are run again with one fault at a random time. An episode's score is its "
        f"largest error within {result['window_s']:.1f} s after that time, with the fault and without: the AUROC "
        "compares the same windows of the same episodes (paired bootstrap over episodes; degenerate where nothing "
        "overlaps). Alarms are windows with an error above the threshold: for a fault that should be found, the recall "
        "(Wilson 95 %). "
        "Surprise is the one-step error, H-step that of the prediction made H model steps before. A block length is "
        f"{100 * result['block_length_m']:.0f} cm, the width and the height of the T; its bars are "
        f"{100 * geometry.UNIT:.0f} cm wide. Pairs are fewer where the table has no room for a jump.",
        "",
        "| good episodes | surprise | H-step |",
        "|---|---|---|",
        *(
            f"| {text} | {' | '.join(_share(good[score][key]) for score in SCORES)} |"
            for text, key in (
                ("false alarms, whole episodes", "false_alarms"),
                ("alarms in the windows compared below", "alarms_in_window"),
            )
        ),
        *(
            f"| false alarms, {b} | {' | '.join(_share(good[score]['by_behaviour'][b]) for score in SCORES)} |"
            for b in episodes["behaviours"]
        ),
        "",
        "| fault | pairs | AUROC of surprise | alarms | median delay | AUROC of H-step | alarms |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in result["faults"].values():
        one, far = entry["surprise"], entry["h_step"]
        delay = "–" if one["median_delay_s"] is None else f"{one['median_delay_s']:.1f} s"
        lines.append(
            f"| {entry['text']} | {one['auroc']['n']} | {_area(one['auroc'])} | {_share(one['alarms'])} | {delay} "
            f"| {_area(far['auroc'])} | {_share(far['alarms'])} |"
        )
    quiet = "; ".join(
        f"{result['faults'][n]['text']}: {_share(result['faults'][n]['surprise']['alarms'])}" for n in QUIET
    )
    lines += [
        "",
        f"**Targets.** Jumps of 2 block lengths: AUROC ≥ .99 and recall ≥ 90 % are **{'met' if met else 'not met'}** "
        f"({_area(target['auroc'])}; {_share(target['alarms'])}). What must not alarm, beside "
        f"{_share(good['surprise']['alarms_in_window'])} of the same windows without any change: {quiet}.",
        "",
    ]
    return "\n".join(lines)


def _share(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{100 * figure['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _area(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} [{figure['ci'][0]:.3f}, {figure['ci'][1]:.3f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=400, help="good ones; half of them are run with each fault")
    parser.add_argument("--behaviours", default="random_push,noisy_expert")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--artifact", type=Path, help="default: the shipped one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    model = Artifact.load(args.artifact or zoo_path("push_t"))
    figures = measure(model, args.episodes, args.behaviours.split(","), args.seed)
    page = markdown(figures, f"python benchmarks/surprise.py --episodes {args.episodes} --seed {args.seed}")
    print(page)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.markdown:
        args.markdown.write_text(page)
