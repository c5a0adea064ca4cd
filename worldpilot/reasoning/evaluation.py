"""Does it understand? Held-out instructions, judged by their slots and by what the robot then does in simulation.

Each line of held_out.jsonl, and of its like for robots on legs, has a task, what is said, the intents that are right
(the first is meant, others are as good), and how to judge the robot: a list of conditions over the simulation's ground
truth, written from the instruction and not from the reward. An instruction counts as right if the robot meets all of
them, if it is refused where it must be, or if the right question is answered. Instructions without conditions are
judged by their slots.
"""

import json
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.calibration.intervals import wilson
from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.evaluation import controllers
from worldpilot.evaluation.cases import Case
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.policies import Planner, Setting
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.rewards import registry
from worldpilot.reasoning.expand import expand
from worldpilot.reasoning.reasoner import Outcome, Reasoner, Status
from worldpilot.reasoning.scene import STRIDE, Scene
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import World, task
from worldpilot.types import FloatArray, RewardSpec, RewardTerm

HELD_OUT: Mapping[str, Path] = {
    "table": Path(__file__).with_name("held_out.jsonl"),
    "quadruped": Path(__file__).with_name("held_out_legs.jsonl"),
    "quadruped2": Path(__file__).with_name("held_out_legs2.jsonl"),  # of an author who knew only what can be asked for
    "planar": Path(__file__).with_name("held_out_planar.jsonl"),  # the walker and the hopper
}
VALIDATION = Path(__file__).with_name("validation.jsonl")  # in other words than training, to choose settings by
STARTS = 10  # of a robot on legs; which one is drawn by what is said
WARM_UP = 50  # control steps that a robot on legs has run before it is told
RUN = RewardSpec((RewardTerm("expression", params={"expression": "min(forward_velocity, 1)"}),), name="Run")
SETTLED = 0.4  # share of a run after which a region must be kept

Track = Mapping[str, npt.NDArray[np.float64]]  # signal -> (T + 1,), the simulation's ground truth


@dataclass(frozen=True)
class Question:
    """One line of the evaluation set."""

    task: str
    say: str
    intents: tuple[Mapping[str, Any], ...]
    judge: tuple[Mapping[str, Any], ...]
    goal_image: bool = False
    refused: bool = False  # it can be said, but leads out of reach

    @property
    def kind(self) -> str:
        """ "reward", "refusal" or "question"."""
        if self.refused or "refuse" in self.intents[0]:
            return "refusal"
        return "question" if "answer" in self.intents[0] else "reward"


def load_questions(path: Path = HELD_OUT["table"]) -> list[Question]:
    """The evaluation set."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Question(**{**line, "intents": tuple(line["intents"]), "judge": tuple(line["judge"])}) for line in lines]


def evaluate(
    reasoner: Reasoner,
    *,
    questions: Sequence[Question] | None = None,
    simulate: int | None = None,
    seed: int = 0,
    progress: Callable[[Mapping[str, Any]], None] = lambda case: None,
) -> dict[str, Any]:
    """Ask every question and judge the answers.

    Args:
        simulate: how many of the rewards to judge in simulation, drawn by the seed; None: all. The others are judged
            by their slots.
        progress: hears each case when it is done.

    Returns:
        JSON values: rates with 95 % intervals, and every case. `right` and `refusals` are the ones to reach .90;
        `reference` is the share of simulated cases that the intent as meant passes: what the planner can do. `seconds`
        is the time from an instruction to a valid reward, an answer or a refusal. `sure` is the share of all rewards
        that were said, asked for or not, that are applied without asking, `sure_exact` and `sure_right` how many of
        these are right, by their slots and as they are judged, `unsure_exact` and `unsure_right` how many others.
    """
    asked = load_questions() if questions is None else list(questions)
    judged = [i for i, question in enumerate(asked) if question.judge]
    if simulate is not None:
        judged = sorted(np.random.default_rng(seed).permutation(judged)[:simulate].tolist())
    cases: list[dict[str, Any]] = [{} for _ in asked]
    seconds = dict[str, float]()
    for name in sorted({question.task for question in asked}):
        with closing(stage_of(name, seed)) as stage:
            seconds[name] = stage.seconds
            for i, question in enumerate(asked):
                if question.task == name:
                    cases[i] = _ask(reasoner, question, stage, simulated=i in judged)
                    progress(cases[i])
    return {**_summary(cases), "seed": seed, "seconds_simulated": seconds, "cases": cases}


def stage_of(name: str, seed: int) -> "Stage | LegStage":
    """The world in which a task's instructions are given."""
    return LegStage(name, seed) if "forward_velocity" in task(name).signals else Stage(name, seed)


def _ask(reasoner: Reasoner, question: Question, stage: "Stage | LegStage", simulated: bool) -> dict[str, Any]:
    """One case."""
    scene = stage.scene(question)
    begin = time.perf_counter()
    outcome = reasoner.reason(question.say, scene)
    seconds = time.perf_counter() - begin
    exact = is_exact(outcome, question, scene)
    case: dict[str, Any] = {
        "task": question.task,
        "say": question.say,
        "kind": question.kind,
        "text": outcome.text,
        "status": outcome.status.value,
        "rationale": outcome.rationale,
        "exact": exact,
        "probability": outcome.probability,
        "sure": outcome.is_sure(),
        "seconds": seconds,
    }
    match question.kind:
        case "refusal":
            case["right"] = outcome.status is Status.REFUSED
        case "question":
            case["right"] = exact
        case "reward" if simulated:
            meant = expand(question.intents[0], scene)[0]
            case["reference"] = stage.judge(meant, question, meant)
            if outcome.spec is None:
                case["right"] = False
            elif _same(outcome.spec, meant):
                case["right"] = case["reference"]
            else:
                case["right"] = stage.judge(outcome.spec, question, meant)
        case _:
            case["right"] = exact
    return case


def is_exact(outcome: Outcome, question: Question, scene: Scene) -> bool:
    """Whether an outcome has the slots of one of the right intents: the same reward, reason or question."""
    if outcome.status in (Status.CANCELLED, Status.DEADLINE, Status.INVALID):
        return False
    said = json.loads(outcome.text)
    for intent in question.intents:
        if said == intent:
            return True
        if "goals" in intent and outcome.spec is not None:
            try:
                if _same(outcome.spec, expand(intent, scene)[0]):
                    return True
            except WorldpilotError:
                continue
    return False


def _same(a: RewardSpec, b: RewardSpec) -> bool:
    """Whether two rewards have the same terms, in any order."""
    terms = [sorted(json.dumps(term, sort_keys=True) for term in registry.to_dict(spec)["terms"]) for spec in (a, b)]
    return terms[0] == terms[1]


def rate_of(found: Sequence[bool]) -> dict[str, Any]:
    """How many of these are true: `rate`, `n`, and Wilson's 95 % interval `ci`; None where there are none."""
    n = len(found)
    return {"rate": sum(found) / n if n else None, "n": n, "ci": list(wilson(sum(found), n)) if n else None}


def _summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rates with intervals."""

    def rate(key: str, *kinds: str) -> dict[str, Any]:
        return rate_of([bool(case[key]) for case in cases if case["kind"] in kinds and key in case])

    return {
        "exact": rate("exact", "reward"),
        "right": rate("right", "reward", "question"),
        "rewards": rate("right", "reward"),
        "questions": rate("right", "question"),
        "refusals": rate("right", "refusal"),
        "reasons": rate("exact", "refusal"),
        "reference": rate("reference", "reward"),
        **sureness(cases),
        "seconds": dict(zip(("p50", "p95"), np.percentile([case["seconds"] for case in cases], [50, 95]), strict=True)),
    }


def sureness(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What becomes of the rewards that were said if those that the model is not sure of are asked about: rates."""
    said = [case for case in cases if case["status"] == Status.REWARD.value]
    sure, unsure = ([case for case in said if case["sure"] is kept] for kept in (True, False))
    return {"sure": rate_of([case["sure"] for case in said])} | {
        f"{name}_{key}": rate_of([bool(case[key]) for case in group])
        for name, group in (("sure", sure), ("unsure", unsure))
        for key in ("exact", "right")
    }


# --- the simulation ----------------------------------------------------------------------------------------------


class Stage:
    """A task's simulated world with the shipped model that acts in it."""

    seconds = 15.0  # of simulation for an instruction

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._artifact = Artifact.load(zoo_path(name))
        self._world: World = task(name).world()
        self._object = "block" if name == "push_t" else "cube"
        self._robot = "pusher" if name == "push_t" else "gripper"

    def close(self) -> None:
        self._world.close()

    def scene(self, question: Question) -> Scene:
        """The scene at the start of a question's run, as the model sees it; the robot is at work."""
        self._reset(question)
        latent = self._artifact.world_model.encode(self._world.observe().data[None])[0]
        values = {name: float(value) for name, value in self._artifact.world_model.signals(latent).items()}
        params = {"object": self._object, "x": -0.08, "y": 0.1, "pusher": self._robot, "approach": 0.05}
        return Scene.of(
            self._artifact.spec,
            values,
            registry.available(),
            has_goal=question.goal_image,
            reward=RewardSpec((RewardTerm("goal_pose", params=params),), name="A task"),
        )

    def judge(self, reward: RewardSpec, question: Question, meant: RewardSpec) -> bool:
        """Whether the robot, given a reward, meets a question's conditions.

        Args:
            meant: the reward without whose pace "slower" is measured.
        """
        track = self._run(reward, question)
        plain: Track | None = None
        if "slower" in str(question.judge):
            unhurried = replace(meant, terms=tuple(term for term in meant.terms if not _limits_pace(term)))
            plain = self._run(unhurried, question)
        return all(self._holds(condition, track, plain) for condition in question.judge)

    def _reset(self, question: Question) -> None:
        """The start: the object near the middle, the robot near the object; seeded by what is said."""
        rng = np.random.default_rng([self._seed, zlib.crc32(question.say.encode())])
        x, y = rng.uniform(-0.02, 0.02, 2)
        yaw, side = rng.uniform(-np.pi, np.pi, 2)
        if self._name == "push_t":
            options = {"block": [x, y, yaw], "pusher": [0.13 * math.cos(side), 0.13 * math.sin(side)]}
        else:
            options = {
                "cube": [x, y, yaw],
                "tip": [0.08 * math.cos(side), 0.1 * math.sin(side), rng.uniform(0.06, 0.09)],
            }
        self._world.reset(seed=int(rng.integers(2**31)), options={name: np.array(v) for name, v in options.items()})

    def _run(self, reward: RewardSpec, question: Question) -> Track:
        """The simulation's ground truth while the planner follows a reward."""
        self._reset(question)
        case = Case(seed=0, budget=0, reward=reward)
        rng = np.random.default_rng([self._seed, 1])
        as_run = Planning.of(self._name)
        setting = Setting(
            self._artifact,
            self._world,
            case,
            rng,
            replan=5,
            shrink=True,
            solver=as_run.solver,
            proposals=as_run.proposals,
            correction=as_run.correction,
        )
        policy = Planner(setting, "ssr")
        seen = [self._world.signals()]
        for _ in range(round(self.seconds / self._world.action.control_dt)):
            self._world.drive(policy.act(self._world.observe().data))
            seen.append(self._world.signals())
        return {name: np.array([signals[name] for signals in seen]) for name in seen[0]}

    def _holds(self, condition: Mapping[str, Any], track: Track, plain: Track | None) -> bool:
        """One condition of a question's judge."""
        settled = int(SETTLED * len(next(iter(track.values()))))
        yaw = track[f"{self._object}_yaw"]
        match condition:
            case {"at": goal, "within": within}:
                return all(abs(_end(track[name]) - value) <= within for name, value in goal.items())
            case {"ends": bounds}:
                return all(_within(_end(track[name]), *ends) for name, ends in bounds.items())
            case {"moved": goal, "within": within}:
                ends = {name: _end(track[name]) - track[name][0] for name in goal}
                return all(abs(ends[name] - value) <= within for name, value in goal.items())
            case {"turned": degrees, "within": within}:
                return _angle(yaw[-1] - yaw[0], degrees) <= within
            case {"yaw": degrees, "within": within}:
                return _angle(yaw[-1], degrees) <= within
            case {"inside": bounds, "share": share}:
                kept = np.ones(len(yaw) - settled, bool)
                for name, ends in bounds.items():
                    kept &= _within(track[name][settled:], *ends)
                return bool(kept.mean() >= share)
            case {"still": most}:
                places = [value for name, value in track.items() if not name.endswith("_yaw")]
                return max(float(np.abs(place - place[0]).max()) for place in places) <= most
            case {"slower": factor}:
                assert plain is not None
                return float(np.percentile(self._speed(track), 90)) <= factor * float(
                    np.percentile(self._speed(plain), 90)
                )
            case {"speed_below": most}:
                return float(np.percentile(self._speed(track), 90)) <= most
            case {"apart": least}:
                return float(self._gap(track)[settled:].min()) >= least
            case {"together": most}:
                return float(self._gap(track)[-5:].mean()) <= most
            case {"runs": True}:
                return float(self._speed(track).mean()) >= 0.01
            case {"any": choices}:
                return any(all(self._holds(c, track, plain) for c in choice) for choice in choices)
        raise InvalidInput(f"held_out: there is no condition {condition!r}")

    def _speed(self, track: Track) -> npt.NDArray[np.float64]:
        """Of the robot, (T,) [m/s]."""
        places = [track[f"{self._robot}_{axis}"] for axis in "xyz" if f"{self._robot}_{axis}" in track]
        return np.linalg.norm(np.diff(places), axis=0) / self._world.action.control_dt

    def _gap(self, track: Track) -> npt.NDArray[np.float64]:
        """From robot to object in the plane, (T + 1,) [m]."""
        return np.hypot(*(track[f"{self._robot}_{axis}"] - track[f"{self._object}_{axis}"] for axis in "xy"))


@dataclass(frozen=True)
class _Beginning:
    """How a robot on legs got to where it is told."""

    controls: Sequence[FloatArray]
    reading: Mapping[str, float]  # what the model reads there, as the reasoning node has it


class LegStage:
    """A robot on legs with its shipped model and its graph's planner, or with others: told when it has begun to run."""

    seconds = 6.0  # of simulation for an instruction, unless it falls before

    def __init__(
        self, name: str, seed: int, artifact: Artifact | None = None, planning: Planning | None = None
    ) -> None:
        self._artifact, self._planning = artifact or Artifact.load(zoo_path(name)), planning or Planning.of(name)
        self._seed = seed
        world = task(name).world()
        assert isinstance(world, LeggedWorld)
        self._world = world
        self._beginnings: dict[int, _Beginning] = {}  # by their starts

    def close(self) -> None:
        self._world.close()

    def scene(self, question: Question) -> Scene:
        """The scene in which a question is asked, as the model sees it."""
        readings = self._beginning(self._start(question)).reading
        return Scene.of(self._artifact.spec, readings, registry.available(), has_goal=question.goal_image, reward=RUN)

    def judge(self, reward: RewardSpec, question: Question, meant: RewardSpec) -> bool:
        """Whether the robot, given a reward, meets a question's conditions and does not fall."""
        start = self._start(question)
        beginning = self._beginning(start)
        setting = controllers.Setting(self._artifact, self._world, reward, self._planning, start)
        planner = controllers.Planner(setting, "ssr")
        driven = self._reset(start)
        for control in beginning.controls:
            planner.watch(driven.state, driven.previous)
            driven.drive(control)
        track = list[Mapping[str, float]]()
        for _ in range(round(self.seconds / self._world.action.control_dt)):
            driven.drive(planner.act(driven.state, driven.previous))
            track.append(self._world.signals())
            if self._world.ended:
                return False
        settled = track[int(SETTLED * len(track)) :]
        means = {name: float(np.mean([signals[name] for signals in settled])) for name in settled[0]}
        return all(self._holds(condition, means, beginning.reading) for condition in question.judge)

    def _start(self, question: Question) -> int:
        """The seed of a question's start."""
        return self._seed * STARTS + zlib.crc32(question.say.encode()) % STARTS

    def _reset(self, start: int) -> controllers.Driven:
        """The robot standing."""
        self._world.reset(seed=start)
        return controllers.Driven(self._world)

    def _beginning(self, start: int) -> _Beginning:
        """The first steps of a run under its planner; planned once."""
        if start not in self._beginnings:
            running = controllers.Setting(self._artifact, self._world, RUN, self._planning, start)
            driven, planner, run = self._reset(start), controllers.Planner(running, "ssr"), list[FloatArray]()
            for _ in range(WARM_UP):
                run.append(planner.act(driven.state, driven.previous))
                driven.drive(run[-1])
            self._beginnings[start] = _Beginning(run, driven.readings(self._artifact.world_model, STRIDE))
        return self._beginnings[start]

    def _holds(self, condition: Mapping[str, Any], means: Mapping[str, float], reading: Mapping[str, float]) -> bool:
        """One condition of a question's judge: of the signals' means once it has settled."""
        match condition:
            case {"mean": bounds}:
                return all(_within(means[name], *ends) for name, ends in bounds.items())
            case {"changed": by, "within": within}:
                return all(abs(means[name] - reading[name] - change) <= within for name, change in by.items())
            case {"any": choices}:
                return any(all(self._holds(c, means, reading) for c in choice) for choice in choices)
        raise InvalidInput(f"held_out_legs: there is no condition {condition!r}")


def _limits_pace(term: RewardTerm) -> bool:
    return term.plugin == "smoothness" or str(term.params.get("expression", "")).startswith("-max(speed")


def _end(values: npt.NDArray[np.float64]) -> float:
    """Where a signal ends: its mean over the last half second."""
    return float(values[-5:].mean())


def _within(value: Any, low: float | None, high: float | None) -> Any:
    """Whether a value, or each of an array, lies between two bounds, of which either may be open."""
    return (value >= (-np.inf if low is None else low)) & (value <= (np.inf if high is None else high))


def _angle(radians: float, degrees: float) -> float:
    """Between two angles [deg]."""
    return abs((math.degrees(radians) - degrees + 180) % 360 - 180)
