"""What is a recipe worth when data are scarce? The walker's dynamics from 250 to 8000 transitions.

    worldpilot collect walker --walk 520 --out build/scarce_data/data --seed 7000
    python benchmarks/scarce_data.py --json docs/results/scarce_data.json --found models/recipe/walker.json

Five recipes, on the same data:

- `standard`: weight decay 0.1; learning rate and steps by factors of two until every neighbour is worse;
- `tuned`: the weight decay as well;
- `ensemble`: the mean of 8 such members;
- `distilled`: one member that learned from the data and from that ensemble;
- `self-distilled`: one member that learned from the data and from one tuned member.

An amount of data is the first episodes of a data seed that hold so many control steps, whole. Settings are found on
three other data seeds, by validation episodes; those of ensemble and student at `RATIOS_AT` only, as multiples of
the tuned ones, and kept at the other amounts. Losses are of test episodes, squared errors of the state in units of how
much it changes in as many steps; the states' scales are the validation episodes', the same for all. A model's control
is judged in the shipped artifact, whose predictor it replaces: encoder, readouts and prior are the artifact's own, and
the planner, the reward and the gait that begins are those of `adaptation.py`.

Everything that was computed lies below `--work`; stopped, or out of `--minutes`, and called again, it goes on.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import adaptation
import numpy as np
import numpy.typing as npt
import torch
from scarce_data_page import HORIZONS, draw, figures, page

from worldpilot.evaluation.controllers import Planner
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics.networks import Dynamics, DynamicsConfig, dynamics
from worldpilot.models.onnx_model import OnnxWorldModel
from worldpilot.models.recipe.distil import Teaching, join, teach
from worldpilot.models.recipe.ensemble import (
    Diverged,
    Hyper,
    Indices,
    Member,
    Sequences,
    Setting,
    asymptote,
    fit,
    members_of,
)
from worldpilot.models.recipe.search import Found, Point, search
from worldpilot.models.runtime import session
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import ActionSpec, FloatArray, History

DATA = (250, 500, 750, 1000, 2000, 4000, 8000)  # control steps
SEEDS, TUNING = range(5), range(5, 8)  # of the data
EPISODES, VALIDATION, TEST = 47, 40, 100  # of a data seed; behind them in the store, validation's and the test's
MEMBERS = 8
NET = DynamicsConfig(25, 12, "step", history=1, horizon=16, hidden=64, layers=2)
SETTING = Setting(batch=32, rollout=1, short=0.0)
STANDARD = Hyper(64e-3, 0.1)  # where its search begins
BEGIN = 2  # steps of the first trial for each transition
TEACHING = Teaching(copies=16, state_noise=0.3, action_noise=0.3, share=0.75)
GAIN = 0.02  # a step of the search that lowers the loss by less than this share is none: it is the seeds' noise
LIMITS = {"steps": (50, 64_000)}
RATIOS_AT, TRIED = 500, 4  # transitions; members of the ensembles that are tried
CONTROL_SEEDS, CONTROL_EPISODES = range(2), 5  # of the data; of the world, for each of them
WIDTH = 64  # windows of the test that are predicted together, per member


class OutOfTime(Exception):
    """The minutes that were allowed are over."""


class Lab:
    """The data, and all that is made from them below `work`."""

    def __init__(self, work: Path, minutes: float) -> None:
        self.work, self.until = work, time.monotonic() + 60 * minutes
        self.store = EpisodeStore(work / "data")
        self.spec = ActionSpec.from_dict(self.store.meta["action"])
        count = len(SEEDS) + len(TUNING)
        ends = np.cumsum([0, EPISODES * count, VALIDATION, TEST]).tolist()
        if len(self.store) < ends[-1]:
            raise SystemExit(f"{work / 'data'} holds {len(self.store)} episodes, {ends[-1]} are needed")
        order = np.argsort([meta["seed"] for meta in self.store.metas])
        self.pool, validation, test = (Frames.load(self.store, order[a:b].tolist()) for a, b in pairwise(ends))
        states = validation.observations.astype(np.float64)
        self.mean, self.std = states.mean(0), states.std(0).clip(1e-3)
        latents = self.encode(validation.observations)
        self.scale = torch.ones(NET.horizon, NET.latent_dim)
        for i in range(NET.horizon):
            start = validation.windows(i + 1, self.spec.block)
            change = latents[start + (i + 1) * self.spec.block] - latents[start]
            self.scale[i] = change.std(0).clamp(min=1e-3)
        self.sequences = self._windows(self.pool, NET.history - 1 + SETTING.rollout)
        self.validation, self.test = (self._windows(f, NET.history - 1 + NET.horizon) for f in (validation, test))
        self.episode = np.searchsorted(self.pool.starts, self.sequences.first, side="right") - 1

    def encode(self, states: npt.NDArray[Any]) -> torch.Tensor:
        """States to latents, both of shape (..., D)."""
        return torch.from_numpy(((states - self.mean) / self.std).astype(np.float32))

    def _windows(self, frames: Frames, model_steps: int) -> Sequences:
        return Sequences.of(frames, self.encode(frames.observations), self.spec, model_steps)

    def episodes(self, seed: int, amount: int) -> range:
        """The first episodes of a data seed that hold so many control steps."""
        steps = np.diff(self.pool.starts)[seed * EPISODES : (seed + 1) * EPISODES] - 1
        count = int(np.searchsorted(np.cumsum(steps), amount)) + 1
        if count > EPISODES:
            raise SystemExit(f"data seed {seed} holds {steps.sum()} control steps, {amount} are asked for")
        return range(seed * EPISODES, seed * EPISODES + count)

    def data(self, seed: int, amount: int) -> Indices:
        """Windows of a data seed."""
        return np.flatnonzero(np.isin(self.episode, self.episodes(seed, amount)))

    def transitions(self, amount: int) -> float:
        """Control steps that there are, mean over the data seeds."""
        steps = np.diff(self.pool.starts) - 1
        return float(np.mean([steps[list(self.episodes(seed, amount))].sum() for seed in SEEDS]))

    def check_time(self) -> None:
        if time.monotonic() > self.until:
            raise OutOfTime

    def train(self, members: Sequence[Member], hyper: Hyper, teacher: Sequences | None = None) -> Dynamics:
        """Members of the experiment's size; the time is checked before."""
        self.check_time()
        begin = time.monotonic()
        trained = fit(NET, self.scale, self.sequences, members, hyper, SETTING, teacher=teacher)
        print(f"  {len(members)} members, {hyper}, {time.monotonic() - begin:.0f} s", flush=True)
        return trained

    def taught(
        self, teachers: Dynamics, groups: Sequence[Sequence[int]], amount: int, seeds: Sequence[int]
    ) -> tuple[Sequences, list[Indices]]:
        """What each group of `teachers` says about its data seed's windows, and which of it is each seed's."""
        parts = [
            teach(
                members_of(teachers, group, NET),
                self.sequences,
                self.data(seed, amount),
                SETTING.rollout,
                TEACHING,
                1000 + seed,
            )
            for group, seed in zip(groups, seeds, strict=True)
        ]
        return join(parts)

    @cached_property
    def artifact(self) -> Artifact:
        return Artifact.load(zoo_path("walker"))


def errors(lab: Lab, predictor: Dynamics, groups: Sequence[Sequence[int]], on: Sequences, every: int) -> FloatArray:
    """Loss of the mean of each group of members, at `HORIZONS`: of shape (groups, horizons)."""
    total, count = np.zeros((len(groups), len(HORIZONS))), 0
    at = [h - 1 for h in HORIZONS]
    for first in np.array_split(on.first[::every], max(len(on.first) // every // WIDTH, 1)):
        latents, actions = on.window(first, NET.history, NET.horizon)
        with torch.no_grad():
            seen = predictor(latents[:, : NET.history], actions)[:, :, at]
        truth = latents[:, NET.history :][:, at]
        for row, group in zip(total, groups, strict=True):
            error = (seen[list(group)].mean(0) - truth) / lab.scale[at]
            row += error.square().mean(2).sum(0).numpy()
        count += len(first)
    return (total / count).astype(np.float32)


# ---- settings ----


def found(
    lab: Lab,
    name: str,
    amount: int,
    objective: Callable[[Hyper], float],
    start: Mapping[str, float],
    **limits: tuple[float, float],
) -> Found:
    """A search with its journal; settings that are not in `start` are those of `STANDARD`."""

    def loss(point: Point) -> float:
        try:
            return objective(settings(point))
        except Diverged:
            return float("inf")

    about = f"{name}, {amount} transitions, {NET}, {SETTING}, data {lab.store.sha256()[:12]}"
    if name == "student":
        about += f", {TEACHING}"
    journal = lab.work / "search" / f"{name}-{amount}.jsonl"
    return search(loss, start, limits={**LIMITS, **limits}, gain=GAIN, journal=journal, about=about)


def settings(point: Mapping[str, float]) -> Hyper:
    """The point of a search as settings."""
    given = {**point, "steps": round(point["steps"])}
    return replace(STANDARD, **given)


def single(lab: Lab, amount: int) -> Callable[[Hyper], float]:
    """Mean validation loss of single members, two of each data seed that settings are found on."""
    members = [Member(100 * s + i, lab.data(s, amount)) for s in TUNING for i in range(2)]
    return lambda hyper: float(losses(lab, lab.train(members, hyper), [[i] for i in range(len(members))]).mean())


def losses(lab: Lab, predictor: Dynamics, groups: Sequence[Sequence[int]]) -> FloatArray:
    """One-step validation losses of the groups' means, (groups,)."""
    return errors(lab, predictor, groups, lab.validation, 9)[:, 0]


def groups_of(seeds: Sequence[int], members: int) -> list[range]:
    """Members of each data seed, where all of the first stand before those of the second, and so on."""
    return [range(i * members, (i + 1) * members) for i in range(len(seeds))]


def standard(lab: Lab, amount: int) -> Found:
    start, fixed = {**asdict(STANDARD), "steps": BEGIN * amount}, STANDARD.weight_decay
    return found(lab, "single", amount, single(lab, amount), start, weight_decay=(fixed, fixed))


def tuned(lab: Lab, amount: int) -> Found:
    return found(lab, "single", amount, single(lab, amount), standard(lab, amount).point)


def ratios(lab: Lab) -> dict[str, dict[str, float]]:
    """Settings of ensemble and student as multiples of the tuned ones, found at `RATIOS_AT`."""
    amount, seeds = RATIOS_AT, list(TUNING)
    base = tuned(lab, amount).point

    def members(count: int) -> list[Member]:
        return [Member(100 * s + i, lab.data(s, amount)) for s in seeds for i in range(count)]

    def of_infinitely_many(hyper: Hyper) -> float:
        trained = lab.train(members(TRIED), hyper)
        one = losses(lab, trained, [[i] for i in range(len(seeds) * TRIED)]).mean()
        return asymptote(float(one), float(losses(lab, trained, groups_of(seeds, TRIED)).mean()), TRIED)

    changed = ("weight_decay", "steps")
    start = {setting: base[setting] for setting in changed}
    rate = {"learning_rate": base["learning_rate"]}
    ensemble = found(lab, "ensemble", amount, lambda h: of_infinitely_many(replace(h, **rate)), start)

    @cache_once
    def lesson() -> tuple[Sequences, list[Indices]]:
        hyper = settings({**base, **ensemble.point})
        teachers = stored(lab, "teachers", amount, members(MEMBERS), hyper)
        return lab.taught(teachers, groups_of(seeds, MEMBERS), amount, seeds)

    def of_student(hyper: Hyper) -> float:
        sequences, windows = lesson()
        students = [
            Member(100 * s + 50 + i, lab.data(s, amount), rows, TEACHING.share)
            for s, rows in zip(seeds, windows, strict=True)
            for i in range(2)
        ]
        trained = lab.train(students, replace(hyper, **rate), sequences)
        return float(losses(lab, trained, [[i] for i in range(len(students))]).mean())

    start = {"weight_decay": base["weight_decay"] / 8, "steps": base["steps"] * 2}
    student = found(lab, "student", amount, of_student, start)
    return {
        name: {setting: of.point[setting] / base[setting] for setting in changed}
        for name, of in (("ensemble", ensemble), ("student", student))
    }


def cache_once(make: Callable[[], Any]) -> Callable[[], Any]:
    """A function without arguments that is called once at most."""
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get


# ---- models ----


def stored(
    lab: Lab, name: str, amount: int, members: Sequence[Member], hyper: Hyper, teacher: Sequences | None = None
) -> Dynamics:
    """Members as they were trained, trained if they are not there yet."""
    file = lab.work / "models" / f"{name}-{amount}.pt"
    if file.is_file():
        predictor = dynamics(replace(NET, members=len(members)))
        predictor.load_state_dict(torch.load(file, weights_only=True))
        return predictor.eval()
    predictor = lab.train(members, hyper, teacher)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(predictor.state_dict(), file)
    return predictor


@dataclass(frozen=True)
class Trained:
    """A method's models at one amount of data: members, and which of them are each data seed's."""

    predictor: Dynamics
    groups: list[range]


def chosen(lab: Lab, amount: int) -> dict[str, Hyper]:
    """Each method's settings at one amount of data."""
    best, factors = tuned(lab, amount).point, ratios(lab)
    changed = {
        name: settings({**best, **{setting: best[setting] * by for setting, by in factors[name].items()}})
        for name in factors
    }
    return {
        "standard": settings(standard(lab, amount).point),
        "tuned": settings(best),
        "ensemble": changed["ensemble"],
        "distilled": changed["student"],
        "self-distilled": changed["student"],
    }


def models(lab: Lab, amount: int) -> dict[str, Trained]:
    """The models of all methods at one amount of data, trained if they are not there yet."""
    seeds, made, hyper = list(SEEDS), dict[str, Trained](), chosen(lab, amount)

    def make(method: str, members: int, teacher: str | None = None) -> None:
        offset, sequences, windows = (0, None, [None] * len(seeds))
        if teacher:
            who = made[teacher]
            offset, taught_by = 50, who.groups
            sequences, windows = lab.taught(who.predictor, taught_by, amount, seeds)
        who = [
            Member(100 * s + offset + i, lab.data(s, amount), rows, TEACHING.share if teacher else 0.0)
            for s, rows in zip(seeds, windows, strict=True)
            for i in range(members)
        ]
        predictor = stored(lab, method, amount, who, hyper[method], sequences)
        made[method] = Trained(predictor, groups_of(seeds, members))

    make("standard", 1)
    if hyper["tuned"] == hyper["standard"]:
        made["tuned"] = made["standard"]
    else:
        make("tuned", 1)
    make("ensemble", MEMBERS)
    make("distilled", 1, "ensemble")
    make("self-distilled", 1, "tuned")
    return made


def test_losses(lab: Lab, trained: Trained) -> dict[str, Any]:
    """Test losses of each data seed at `HORIZONS`; of an ensemble also with fewer members, one step ahead."""
    result: dict[str, Any] = {"losses": errors(lab, trained.predictor, trained.groups, lab.test, 7).tolist()}
    if len(trained.groups[0]) > 1:
        first = [group.start for group in trained.groups]
        by_k = []
        for k in range(1, MEMBERS + 1):
            # All rotations: each member counts as often as every other.
            parts = [[at + (r + i) % MEMBERS for i in range(k)] for at in first for r in range(MEMBERS)]
            by_k.append(float(errors(lab, trained.predictor, parts, lab.test, 21)[:, 0].mean()))
        result["by_k"] = by_k
    return result


# ---- control ----


class Replaced(OnnxWorldModel):
    """An artifact's model with another predictor, which sees states in the experiment's scales."""

    def __init__(self, lab: Lab, predictor: Dynamics) -> None:
        artifact = lab.artifact
        graphs = {
            name: session(artifact.path / graph["file"])
            for name, graph in artifact.manifest["graphs"].items()
            if name != "prior"
        }
        super().__init__(replace(artifact.spec, members=predictor.members), graphs)
        zero = self.encode(np.zeros((1, NET.latent_dim), np.float32))
        self._step = self.encode(np.ones((1, NET.latent_dim), np.float32)) - zero  # latents are affine in the state
        self._zero, self._lab, self._predictor_net = zero, lab, predictor
        self._low, self._high = lab.spec.action_low, lab.spec.action_high

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        states = (history.latents[-NET.history :] - self._zero) / self._step
        latents = self._lab.encode(states).expand(len(actions), -1, -1)
        scaled = torch.from_numpy(((actions - self._low) / (self._high - self._low) * 2 - 1).astype(np.float32))
        with torch.no_grad():
            imagined = self._predictor_net(latents, scaled).numpy()
        states = imagined * self._lab.std + self._lab.mean
        return (states * self._step + self._zero).astype(np.float32)


# ---- the whole ----


class Kept:
    """A file of what was computed, read at the beginning and written after each part."""

    def __init__(self, file: Path) -> None:
        self.file, self.values = file, dict[str, Any]()
        if file.is_file():
            self.values = json.loads(file.read_text())

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.with_suffix(".tmp").write_text(json.dumps(self.values, indent=1) + "\n")
        self.file.with_suffix(".tmp").replace(self.file)


def settle(lab: Lab, amount: int) -> None:
    """Find the settings of one amount of data."""
    kept = Kept(lab.work / "kept" / f"settings-{amount}.json")
    best = tuned(lab, amount)  # after which the journal holds both searches
    for name, of in (("standard", standard(lab, amount)), ("tuned", best)):
        limit = [setting for setting in of.at_limit if setting != "weight_decay"]
        told = {"loss": of.loss, "trials": len(of.tried), "at_limit": limit}
        kept.values[name] = {"settings": asdict(settings(of.point)), **told}
    kept.save()
    print(amount, json.dumps(kept.values), flush=True)


def judge(lab: Lab, amount: int) -> None:
    """Train all methods at one amount of data and measure their losses."""
    kept = Kept(lab.work / "kept" / f"losses-{amount}.json")
    kept.values |= {"transitions": lab.transitions(amount), "ratios": ratios(lab)}
    kept.values["settings"] = {method: asdict(hyper) for method, hyper in chosen(lab, amount).items()}
    for method, model in models(lab, amount).items():
        if method not in kept.values.setdefault("methods", {}):
            lab.check_time()
            kept.values["methods"][method] = test_losses(lab, model)
            kept.save()
            print(amount, method, np.mean(kept.values["methods"][method]["losses"], 0), flush=True)


def steer(lab: Lab, amount: int) -> None:
    """The planner's episodes with each method's models at one amount of data, and with the artifact as it is."""
    kept = Kept(lab.work / "kept" / f"control-{amount}.json")
    if kept.values.setdefault("model_id", lab.artifact.spec.model_id) != lab.artifact.spec.model_id:
        raise SystemExit(f"{kept.file} was measured with another artifact; remove it")
    trained = models(lab, amount)
    with closing(task("walker").world()) as world:
        assert isinstance(world, LeggedWorld)
        walk = adaptation.Lab("walker", world, lab.work / "control", lab.work / "control")
        for seed, (name, model) in product(CONTROL_SEEDS, [("shipped", None), *trained.items()]):
            there = kept.values.setdefault(name, {}).setdefault(str(seed), [])
            while len(there) < CONTROL_EPISODES:
                lab.check_time()
                there.append(outcome(lab, walk, model, seed, seed * CONTROL_EPISODES + len(there)))
                kept.save()
            print(amount, name, seed, np.mean([run["return"] for run in there]), flush=True)


def outcome(lab: Lab, walk: adaptation.Lab, trained: Trained | None, data_seed: int, seed: int) -> dict[str, Any]:
    """Return and fall of the planner in one episode, with the models of a data seed; None: with the artifact's."""
    model = None
    if trained is not None:
        model = Replaced(lab, members_of(trained.predictor, list(trained.groups[data_seed]), NET))
    done = walk.drive(lab.artifact, lambda setting: Planner(setting, "ssr", model), seed, None)
    return {"return": walk.earn(done), "fallen": bool(done.meta["fallen"])}


PARTS = {"settings": settle, "losses": judge, "control": steer}


def read(work: Path, part: str) -> dict[int, dict[str, Any]]:
    """What was computed of a part, by the amount of data."""
    there = {amount: Kept(work / "kept" / f"{part}-{amount}.json").values for amount in DATA}
    return {amount: values for amount, values in there.items() if values}


def setting() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "net": NET.to_dict(),
        "training": asdict(SETTING),
        "standard": {"weight_decay": STANDARD.weight_decay},
        "teaching": asdict(TEACHING),
        "gain": GAIN,
        "members": MEMBERS,
        "ratios_at": RATIOS_AT,
        "data_seeds": len(SEEDS),
        "tuning_seeds": len(TUNING),
        "validation_episodes": VALIDATION,
        "test_episodes": TEST,
        "control": {
            "steps": adaptation.STEPS,
            "begins": adaptation.BEGINS,
            "data_seeds": len(CONTROL_SEEDS),
            "episodes": CONTROL_EPISODES,
        },
    }


def main() -> None:
    """Go on with what is missing until all is there or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/scarce_data"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--amounts", type=int, nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which it stops, to go on later")
    parser.add_argument("--json", type=Path, help="where the figures are written, with a page and plots beside it")
    parser.add_argument("--found", type=Path, help="where the tuned settings are written, for `train dynamics --found`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(args.work, args.minutes)
    try:
        for part in args.parts:
            for amount in args.amounts:
                PARTS[part](lab, amount)
    except OutOfTime:
        print("out of time; call again to go on", flush=True)
    if args.json:
        result = figures(setting(), *(read(args.work, part) for part in PARTS))
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        args.json.with_suffix(".md").write_text(page(result))
        draw(result, args.json.with_suffix(".png"))
    if args.found:
        there = read(args.work, "settings")
        entries = [{"transitions": amount, **kept["tuned"]["settings"]} for amount, kept in there.items()]
        about = "the walker's dynamics, benchmarks/scarce_data.py"
        told = {"about": about, "setting": asdict(SETTING), "model": NET.to_dict(), "found": entries}
        args.found.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
