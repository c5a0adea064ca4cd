"""The recipe on a store of episodes: `worldpilot train dynamics --recipe`.

Learning rate, weight decay and steps are searched with a part of the training episodes held back; the held-out ones of
`train dynamics` stay out of it. Then the predictor is trained on all training episodes: its members alone (`search`),
eight of them (`ensemble`), or taught by such eight (`distilled`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics.networks import Dynamics, DynamicsConfig, StepDynamics
from worldpilot.models.dynamics.train import DynamicsNets, DynamicsTrainConfig, padding, scaled, train_dynamics
from worldpilot.models.recipe.distil import Teaching, teach
from worldpilot.models.recipe.ensemble import Diverged, Hyper, Indices, Member, Sequences, Setting, fit
from worldpilot.models.recipe.search import Point, search
from worldpilot.types import ActionSpec

RECIPES = ("search", "ensemble", "distilled")
MEMBERS = 8  # of an ensemble
TRIED = 2  # members whose mean loss is searched on
HELD_BACK = 0.25  # share of the training episodes that the settings are judged by
GAIN = 0.01  # share of the loss below which a step of the search is none
LONGEST = 32  # times as many steps as the search begins with are tried at most
BATCH = 512
FOUND = "recipe.json"
# Multiples of the settings that suit a single member: docs/results/scarce_data.md says where they are from.
ENSEMBLE = {"weight_decay": 1.0, "steps": 1.0}
STUDENT = {"weight_decay": 0.125, "steps": 2.0}


def train_recipe(
    store: EpisodeStore,
    spec: ActionSpec,
    folder: Path,
    config: DynamicsTrainConfig,
    recipe: str,
    kind: str = "step",
    found: Path | None = None,
    **sizes: int,
) -> DynamicsNets:
    """Train by a recipe what `train_dynamics` trains, with the same files; run again to resume.

    Args:
        store: episodes of states.
        spec: of the actions.
        folder: of checkpoints, metrics, the search's journal and `recipe.json`, what was found.
        config: where the search begins, and how the probability of a fall is learned.
        recipe: one of `RECIPES`.
        kind: of the predictor, `step` or `multi`.
        found: a `recipe.json` whose settings are taken, those of the nearest amount of data; None: they are searched.
        sizes: of its `DynamicsConfig`; an ensemble has 8 members unless they say otherwise.

    Raises:
        InvalidInput: too few episodes, a kind without members of their own, or a file that holds no settings.
        UnknownName: there is no such recipe.
    """
    if recipe not in RECIPES:
        raise UnknownName("recipe", recipe, RECIPES)
    if recipe == "ensemble":
        sizes = {"members": MEMBERS, **sizes}
    lab = _Lab.load(store, spec, config, kind, sizes)
    best = _nearest(found, lab.transitions) if found else _search(lab, store, folder, config)
    count, seed = lab.nets.config.members, config.seed
    learned = {"recipe": recipe, "transitions": lab.transitions, "found": [_told(lab.transitions, best)]}
    if recipe != "distilled":
        used = best if recipe == "search" else _scaled_by(best, ENSEMBLE)
        predictor = lab.fit(folder / "members.pt", used, [Member(seed + i, lab.everything) for i in range(count)])
    else:
        members, teaching = [Member(seed + 1000 + i, lab.everything) for i in range(MEMBERS)], Teaching()
        teacher = lab.fit(folder / "teacher.pt", _scaled_by(best, ENSEMBLE), members)
        lessons = teach(teacher, lab.sequences, lab.everything, lab.ahead, teaching, seed)
        used = _scaled_by(best, STUDENT)
        students = [Member(seed + i, lab.everything, lessons.everything, teaching.share) for i in range(count)]
        predictor = lab.fit(folder / "members.pt", used, students, lessons)
        learned["teaching"] = asdict(teaching)
    learned |= {"used": asdict(used), "setting": asdict(lab.setting), "model": lab.nets.config.to_dict()}
    (folder / FOUND).write_text(json.dumps(learned, indent=2) + "\n")
    steps = config.steps if lab.nets.fall is not None else 1  # nothing is left to be learned
    return train_dynamics(store, spec, folder, replace(config, steps=steps), kind, predictor, **sizes)


@dataclass(frozen=True)
class _Lab:
    """The training episodes, and how a predictor is trained on them."""

    nets: DynamicsNets  # untrained, with the data's scales
    sequences: Sequences
    setting: Setting
    ahead: int  # model steps that are predicted
    every: int  # steps between checkpoints
    learn: Indices  # windows that settings are tried on
    judge: Indices  # and judged by
    transitions: int

    @staticmethod
    def load(
        store: EpisodeStore, spec: ActionSpec, config: DynamicsTrainConfig, kind: str, sizes: Mapping[str, int]
    ) -> "_Lab":
        index, _ = store.split()
        frames = Frames.load(store, index, padding(kind, sizes, spec))
        nets = scaled(store, frames, spec, config, kind, sizes)
        ahead = nets.config.horizon
        if isinstance(nets.predictor, StepDynamics):
            ahead = min(config.rollout, ahead)
        sequences = Sequences.of(frames, nets.encode(frames.observations), spec, nets.config.history - 1 + ahead)
        episode = np.searchsorted(frames.starts, sequences.first, side="right") - 1
        there = np.random.default_rng([config.seed, 17]).permutation(np.unique(episode))
        if len(there) < 2:
            raise InvalidInput(f"{store.path}: settings are judged by episodes held back; record 2 or more to train on")
        held_back = np.isin(episode, there[: math.ceil(HELD_BACK * len(there))])
        return _Lab(
            nets,
            sequences,
            Setting(config.batch, config.rollout, config.short),
            ahead,
            config.evaluate_every,
            np.flatnonzero(~held_back),
            np.flatnonzero(held_back),
            sum(store.lengths[i] for i in index),
        )

    @property
    def everything(self) -> Indices:
        return self.sequences.everything

    @property
    def config(self) -> DynamicsConfig:
        return self.nets.config

    def fit(
        self, checkpoint: Path | None, hyper: Hyper, members: list[Member], teacher: Sequences | None = None
    ) -> Dynamics:
        return fit(
            self.config,
            self.nets.predictor.scale,
            self.sequences,
            members,
            hyper,
            self.setting,
            teacher=teacher,
            checkpoint=checkpoint,
            every=self.every,
        )

    def loss(self, predictor: Dynamics) -> float:
        """Mean loss of single members on the windows that settings are judged by."""
        total = 0.0
        for rows in np.array_split(self.judge, -(-len(self.judge) // BATCH)):
            window, actions = self.sequences.window(self.sequences.first[rows], self.config.history, self.ahead)
            with torch.no_grad():
                each, _ = predictor.loss(*(x.expand(predictor.members, *x.shape) for x in (window, actions)))
            total += float(each) * len(rows)
        return total / len(self.judge)


def _search(lab: _Lab, store: EpisodeStore, folder: Path, config: DynamicsTrainConfig) -> Hyper:
    members = [Member(config.seed + 2000 + i, lab.learn) for i in range(TRIED)]

    def loss(point: Point) -> float:
        hyper = _hyper(point)
        try:
            value = lab.loss(lab.fit(None, hyper, members))
        except Diverged:
            value = math.inf
        print(f"recipe: {hyper}: {value:.5f}", flush=True)
        return value

    start = {name: float(getattr(config, name)) for name in ("steps", "learning_rate", "weight_decay")}
    start["weight_decay"] = max(start["weight_decay"], 1e-6)
    about = f"{lab.config}, {lab.setting}, seed {config.seed}, data {store.sha256()[:12]}"
    limits = {"steps": (1.0, LONGEST * start["steps"])}
    found = search(loss, start, limits=limits, gain=GAIN, journal=folder / "search.jsonl", about=about)
    if found.at_limit:
        print(f"recipe: {', '.join(found.at_limit)} may go no further; begin the search nearer to the end", flush=True)
    return _hyper(found.point)


def _hyper(point: Mapping[str, Any]) -> Hyper:
    return Hyper(float(point["learning_rate"]), float(point["weight_decay"]), max(round(point["steps"]), 1))


def _scaled_by(best: Hyper, factors: Mapping[str, float]) -> Hyper:
    return _hyper({name: value * factors.get(name, 1.0) for name, value in asdict(best).items()})


def _told(transitions: int, hyper: Hyper) -> dict[str, Any]:
    return {"transitions": transitions, **asdict(hyper)}


def _nearest(file: Path, transitions: int) -> Hyper:
    """The settings of the amount of data nearest to this one, as a ratio."""
    try:
        entries = json.loads(file.read_text())["found"]
        return _hyper(min(entries, key=lambda entry: abs(math.log(entry["transitions"] / transitions))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file} holds no settings that a search found ({error!r}); see {FOUND}") from error
