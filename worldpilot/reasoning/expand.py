"""From what was understood to a reward: intents of `schema` as terms of the planner's plugins, and as a sentence.

Scores are squared metres, as goal_pose's: 0.01 is an object 10 cm from its goal. Weights of the other terms say what
they are worth in that unit.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worldpilot.errors import WorldpilotError
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.reasoning.scene import ANGLES, LENGTHS, SPEEDS, Body, Scene, Signal
from worldpilot.reasoning.schema import LEVELS, directions
from worldpilot.types import RewardSpec, RewardTerm

VAGUE_LENGTHS = {"a little": 0.03, "some": 0.06, "a lot": 0.12}  # [m]
VAGUE_ANGLES = {"a little": math.radians(15), "some": math.radians(45), "a lot": math.radians(90)}
BEYOND = 0.02  # [m], how far outside its range a body may be asked to go
CLEARANCE = 0.09  # [m], between two bodies that shall keep apart
APPROACH = 0.05  # of goal_pose: keeps the robot at the object
SLOW = {"gentle": 0.35, "slow": 0.2}  # share of the largest speed that a pace allows
MAINTAIN = 0.05  # weight of staying in a region [m²]
ON_LEGS = 1.0  # what a third of a signal's range is worth to a robot on legs: its standing reward counts in ones
STANDING = 2.0  # times as much for the height of one that shall not go anywhere; who runs falls for it
SWAY = 0.4  # share of it for a speed that shall be nought, beyond a sixth: a gait sways, and counting that ends it
THIRDS = {"m": 0.05, "m/s": 0.4, "rad": 0.13, "rad/s": 0.4, "1": 0.3}  # of ranges that are not known
OVERSPEED = 4.0  # weight of the squared excess over a speed limit [s²]
_GO_ON = "go on with: "
_NAMES = re.compile(r"[a-z]\w*")
_POSTURE = frozenset({"height", "pitch", "roll"})
_STILL: Mapping[str, Any] = {"expression": "-speed"}
_STAND: Mapping[str, Any] = {"expression": "-abs(forward_velocity)"}  # of a robot whose controls are no velocities
CALM = 0.02  # weight of the speed where no term asks for motion [m s]


class Inexpressible(WorldpilotError):
    """What was understood has no reward in this scene; the message says why, to the operator."""


@dataclass
class _Draft:
    """A reward in the making."""

    poses: dict[str, dict[str, float]] = field(default_factory=dict)  # body -> axis -> goal [m or rad]
    terms: list[RewardTerm] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)  # signals that a goal was said of


def expand(intent: Mapping[str, Any], scene: Scene) -> tuple[RewardSpec, str]:
    """The reward that an intent with goals asks for, and in a sentence what it does.

    Raises:
        Inexpressible: a goal out of reach, or relative to something that is not known.
        RewardError, UnknownName: the reward does not pass the planner's checks.
    """
    draft = _Draft()
    goals = intent["goals"]
    for goal in (goal for i, goal in enumerate(goals) if goal not in goals[:i]):  # said twice is said once
        _add(goal, draft, scene)
    if scene.walks and draft.told <= _POSTURE and "current" not in goals:
        draft.terms = [replace(term, weight=_stretch(term) * term.weight) for term in draft.terms]
    if scene.walks and all(_restrains(goal, scene) for goal in goals):
        _keep_on(draft, scene)
    pace = intent.get("pace")
    terms = [*(_pose_term(scene.bodies[body], pose, scene) for body, pose in draft.poses.items()), *draft.terms]
    asks_motion = any(term.plugin in ("goal_pose", "goal_latent") for term in terms)
    moves = asks_motion or scene.walks or _STILL in [term.params for term in terms]
    if not moves and "expression" in scene.plugins:
        terms.append(RewardTerm("expression", CALM, _STILL))
    terms, manner = _paced(terms, pace, scene)
    name = _capital("; ".join(draft.phrases).removeprefix(_GO_ON))  # without the pace: "go on" does not keep it
    spec = RewardSpec(tuple(terms), name=name[:120])
    return validate(spec, scene), _capital("; ".join(draft.phrases + manner)) + "."


def validate(spec: RewardSpec, scene: Scene) -> RewardSpec:
    """The specification, after the checks that the planner will make again.

    Raises:
        RewardError, UnknownName: what it would refuse.
    """
    checked = registry.parse_spec(registry.to_dict(spec))
    if scene.model is not None:
        known = [term for term in checked.terms if not registry.plugin(term.plugin).uses_goal_image]
        registry.build(replace(checked, terms=tuple(known)), RewardContext(scene.model))
    return checked


# --- goals -------------------------------------------------------------------------------------------------------


def _add(goal: Any, draft: _Draft, scene: Scene) -> None:
    """One goal."""
    match goal:
        case "stop":
            weight = _worth(scene.by_name["forward_velocity"]) if scene.walks else 1.0
            draft.terms.append(RewardTerm("expression", weight, _STAND if scene.walks else _STILL))
            draft.phrases.append("stop and stay")
        case "goal image":
            draft.terms.append(RewardTerm("goal_latent"))
            draft.phrases.append("go to the goal image")
        case "current":
            _carry_on(draft, scene)
        case {"place": name, "at": at}:
            _place(scene.bodies[name], at, draft, scene)
        case {"shift": name, "way": way, "by": by}:
            _shift(scene.bodies[name], way, by, draft, scene)
        case {"turn": name, "way": way, "by": by}:
            angle = VAGUE_ANGLES[by] if by in VAGUE_ANGLES else _quantity(by, ANGLES)
            now = _now(scene.by_name[f"{name}_yaw"])
            _aim(draft, scene, name, yaw=_wrap(now + (angle if way == "left" else -angle)))
            side = "counter-clockwise" if way == "left" else "clockwise"
            draft.phrases.append(f"turn the {name} {math.degrees(angle):.0f}° {side}")
        case {"set": name, "to": to}:
            _tell(scene.by_name[name], draft)
            _set(scene.by_name[name], to, draft, scene)
        case {"change": name, "by": by}:
            signal = scene.by_name[name]
            _tell(signal, draft)
            value = _now(signal) + _quantity(by, scene.units(signal))
            _check_range(signal, value)
            draft.terms.append(_reach(signal, value, scene))
            draft.phrases.append(f"change {name} by {by}, to {value:.3g} {signal.unit}")
        case {"keep": name, "in": "place"}:
            _aim(draft, scene, name, **{axis: _now(scene.by_name[f"{name}_{axis}"]) for axis in "xy"})
            draft.phrases.append(f"keep the {name} where it is")
        case {"keep": name, "in": region}:
            _keep(name, region, draft, scene)
        case {"avoid": name, "of": what} if what in scene.bodies:
            near = f"hypot({name}_x - {what}_x, {name}_y - {what}_y)"
            apart = {"expression": f"-max({CLEARANCE} - {near}, 0)**2"}
            draft.terms.append(RewardTerm("expression", 10.0, apart))
            draft.phrases.append(f"keep the {name} at least {100 * CLEARANCE:.0f} cm from the {what}")
        case {"avoid": name, "of": edge}:
            axis, sign = scene.view.ways[edge.split()[0]]
            low, high = _range(scene.by_name[f"{name}_{axis}"])
            free = (high - low) / 4
            bounds = {"upper": high - free} if sign > 0 else {"lower": low + free}
            _tolerate(f"{name}_{axis}", bounds, free / 2, draft)
            draft.phrases.append(f"keep the {name} at least {100 * free:.0f} cm from the {edge}")
        case {"limit": "speed", "to": to}:
            limit = _quantity(to, SPEEDS)
            draft.terms.append(_speed_limit(limit))
            draft.phrases.append(f"move at {100 * limit:.3g} cm/s at most")
        case _:
            raise Inexpressible(f"the goal {goal!r} is none that can be made a reward of")


def _place(body: Body, at: str, draft: _Draft, scene: Scene) -> None:
    """A body to a named place, to another body, or to coordinates."""
    if at in scene.bodies:
        goal = {axis: _now(scene.by_name[f"{at}_{axis}"]) for axis in "xy"}
        where = f"to the {at}"
    elif at == "centre":
        goal = {axis: sum(_range(scene.by_name[f"{body.name}_{axis}"])) / 2 for axis in "xy"}
        where = "to the centre"
    elif at[0] in "-0123456789":
        x, y, unit = at.split()
        goal = {"x": _quantity(f"{x} {unit}", LENGTHS), "y": _quantity(f"{y} {unit}", LENGTHS)}
        where = "to"
    else:
        goal = {}
        for word in at.split()[:-1]:  # "far left corner"
            axis, sign = scene.view.ways[word]
            goal[axis] = _range(scene.by_name[f"{body.name}_{axis}"])[sign > 0]
        where = f"to the {at}"
    for axis, value in goal.items():
        _check_range(scene.by_name[f"{body.name}_{axis}"], value)
    _aim(draft, scene, body.name, **goal)
    draft.phrases.append(f"move the {body.name} {where} ({_list(goal)})")


def _shift(body: Body, way: str, by: str, draft: _Draft, scene: Scene) -> None:
    """A body by a distance from where it is. Vague distances end where its space does."""
    axis, sign = scene.view.ways[way]
    signal = scene.by_name[f"{body.name}_{axis}"]
    length = VAGUE_LENGTHS[by] if by in VAGUE_LENGTHS else _quantity(by, LENGTHS)
    goal = _now(signal) + sign * length
    if by in VAGUE_LENGTHS and signal.bounded:
        low, high = _range(signal)
        goal = min(max(goal, low), high)
    _check_range(signal, goal)
    if axis == "z":
        draft.terms.append(_reach(signal, goal, scene))
    else:
        _aim(draft, scene, body.name, **{axis: goal})
    draft.phrases.append(f"move the {body.name} {100 * length:.3g} cm {_WAYS[way]} ({_list({axis: goal})})")


def _tell(signal: Signal, draft: _Draft) -> None:
    """Note that a goal is about a signal.

    Raises:
        Inexpressible: another one is, or this robot cannot change it.
    """
    if signal.name in draft.told:
        raise Inexpressible(f"it asks for two different values of {signal.name} at once; say them one after another")
    if signal.fixed:
        raise Inexpressible(f"this robot cannot change its {signal.name}: its model knows one gait only")
    draft.told.add(signal.name)


def _set(signal: Signal, to: str, draft: _Draft, scene: Scene) -> None:
    """A signal to a value, or to the low or high end of its range."""
    body, _, axis = signal.name.rpartition("_")
    posed = body in scene.bodies and axis in ("x", "y", "yaw") and scene.bodies[body].planar
    directed = signal.name in scene.others and to in (*directions(signal), *(LEVELS if signal.signed else ()))
    if directed:
        _direct(signal, to, draft, scene)
        return
    if to in LEVELS:
        if signal.bounded:
            low, high = _range(signal)
            third = (high - low) / 3
            bounds = {"low": {"upper": low + third}, "high": {"lower": high - third}}
            bounds["middle"] = {"lower": low + third, "upper": high - third}
            _hold(signal, bounds[to], draft, scene)
        else:
            sign = "-" if to == "low" else ""
            draft.terms.append(_grow(signal, f"{sign}{signal.name}", scene))
        draft.phrases.append(f"keep {signal.name} {to}")
        return
    value = _directed(to, signal, scene)
    _check_range(signal, value)
    if posed and "goal_pose" in scene.plugins:
        _aim(draft, scene, body, **{axis: _wrap(value) if axis == "yaw" else value})
    else:
        draft.terms.append(_reach(signal, value, scene))
    draft.phrases.append(f"bring {signal.name} to {to}")


def _direct(signal: Signal, to: str, draft: _Draft, scene: Scene) -> None:
    """A signal whose sign is a direction: one way, or in size.

    A direction asks for more than a third of the range that way, high for more than two thirds of the positive one,
    low for less than a third either way, of a robot on legs for nothing; of a speed whose range mostly lies one way,
    low is that way's.
    """
    negative, positive = directions(signal)
    if signal.bounded:
        low, high = _range(signal)
        if low == 0 and to == negative:
            raise Inexpressible(f"{signal.name} cannot be {to}; it can be between 0 and {high:.3g} {signal.unit}")
        bounds = {
            positive: {"lower": high / 3},
            negative: {"upper": low / 3},
            "high": {"lower": 2 * high / 3},
            "middle": {"lower": high / 3, "upper": 2 * high / 3},
            "low": {"lower": low / 3, "upper": high / 3},
        }
        if high > -1.5 * low and signal.unit != "rad":
            bounds["low"]["lower"] = high / 12
        elif scene.walks and to == "low":
            draft.terms.append(_nought(signal, scene))
            draft.phrases.append(f"keep {signal.name} low")
            return
        _hold(signal, bounds[to], draft, scene)
    else:
        sign = "-" if to in (negative, "low") else ""
        size = f"abs({signal.name})" if to == "low" else signal.name
        draft.terms.append(_grow(signal, f"{sign}{size}", scene))
    draft.phrases.append(f"keep {signal.name} {to}")


def _nought(signal: Signal, scene: Scene) -> RewardTerm:
    """A term of a robot on legs that wants nothing of a signal; of a speed, no more than its gait's swaying."""
    if signal.unit == "rad":
        return _reach(signal, 0.0, scene)
    swaying = {"expression": f"-max(abs({signal.name}) - {_number(_third(signal) / 2)}, 0)"}
    return RewardTerm("expression", SWAY * _worth(signal), swaying)


def _grow(signal: Signal, expression: str, scene: Scene) -> RewardTerm:
    """A term that wants as much of a signal as it can get."""
    return RewardTerm("expression", _worth(signal) if scene.walks else MAINTAIN, {"expression": expression})


def _keep(name: str, region: str, draft: _Draft, scene: Scene) -> None:
    """A body within a part of its space."""
    if region == "middle":
        for axis in "xy":
            low, high = _range(scene.by_name[f"{name}_{axis}"])
            bounds = {"lower": low + (high - low) / 4, "upper": high - (high - low) / 4}
            _tolerate(f"{name}_{axis}", bounds, (high - low) / 4, draft)
    else:
        axis, sign = scene.view.ways[region.split()[0]]
        low, high = _range(scene.by_name[f"{name}_{axis}"])
        middle = (low + high) / 2
        _tolerate(f"{name}_{axis}", {"lower" if sign > 0 else "upper": middle}, (high - low) / 4, draft)
    draft.phrases.append(f"keep the {name} in the {region}")


def _carry_on(draft: _Draft, scene: Scene) -> None:
    """The reward in force, without its pace; the one before, if the one in force is a stop."""
    reward = scene.before_stop if scene.reward is None or is_stop(scene.reward) else scene.reward
    if reward is None:
        raise Inexpressible("the robot was stopped and has nothing to go on with; say what it shall do")
    draft.terms += [term for term in reward.terms if not _is_pace(term)]
    draft.phrases.append(_GO_ON + (reward.name or "the present reward"))


def _restrains(goal: Any, scene: Scene) -> bool:
    """Whether a goal of a robot on legs leaves open where it goes: what is not to happen, no turning, leaning or
    drifting; and a posture that is its gait's."""
    match goal:
        case {"set": name, "to": "low"} if scene.by_name[name].signed:
            return name != "forward_velocity"
        case {"set": name} | {"change": name}:
            return scene.gaited and name in _POSTURE
    return False


def _keep_on(draft: _Draft, scene: Scene) -> None:
    """The reward in force, but for its terms about signals that something was said of: "don't turn" ends no run. A stop
    stays only where it does not follow from the rest: leaning, a robot of one gait would walk off."""
    reward = scene.reward
    if reward is None or (is_stop(reward) and not scene.gaited):
        return
    kept = [term for term in reward.terms if not draft.told & _names(term)]
    if kept:
        draft.terms[:0] = kept
        draft.phrases.insert(0, _GO_ON + (reward.name or "the present reward"))


def _stretch(term: RewardTerm) -> float:
    """How many times as much a term counts of a robot on legs that shall not go anywhere."""
    return STANDING if "height" in _names(term) else 1.0


def _names(term: RewardTerm) -> set[str]:
    """What a term may be about: every name in it."""
    return set(_NAMES.findall(json.dumps(dict(term.params))))


def is_stop(reward: RewardSpec) -> bool:
    """Whether a reward only asks the robot to stand still."""
    return all(term.plugin == "expression" and term.params in (_STILL, _STAND) for term in reward.terms)


# --- terms -------------------------------------------------------------------------------------------------------


def _aim(draft: _Draft, scene: Scene, body: str, **goal: float) -> None:
    """Add to the pose that a body shall have.

    Raises:
        Inexpressible: it already shall have another.
    """
    pose = draft.poses.setdefault(body, {})
    for axis, value in goal.items():
        if axis in pose and not math.isclose(pose[axis], value, abs_tol=1e-6):
            raise Inexpressible(f"it asks for two different places of the {body} at once; say them one after another")
        pose[axis] = value


def _pose_term(body: Body, pose: Mapping[str, float], scene: Scene) -> RewardTerm:
    """A goal_pose term; a coordinate that nothing was said about stays as it is."""
    goal = {axis: pose[axis] if axis in pose else _now(scene.by_name[f"{body.name}_{axis}"]) for axis in "xy"}
    params: dict[str, Any] = {"object": body.name, **{axis: round(value, 5) for axis, value in goal.items()}}
    if "yaw" in pose:
        params["yaw"] = round(pose["yaw"], 5)
    if not body.robot and scene.robot is not None:
        params |= {"pusher": scene.robot.name, "approach": APPROACH}
    return RewardTerm("goal_pose", 1.0, params)


def _reach(signal: Signal, value: float, scene: Scene) -> RewardTerm:
    """Minus the squared distance of a signal to a value, scaled to be worth what a position would be; on legs, minus
    the distance."""
    if scene.walks:
        distance = f"-abs({signal.name} - {_number(value)})" if value else f"-abs({signal.name})"
        return RewardTerm("expression", _worth(signal), {"expression": distance})
    if signal.unit == "rad":
        return RewardTerm("expression", 0.01, {"expression": f"-angle_diff({signal.name}, {_number(value)})**2"})
    scale = 1.0 if signal.unit == "m" or not signal.bounded else 0.3 / (_range(signal)[1] - _range(signal)[0])
    return RewardTerm("expression", scale**2, {"expression": f"-({signal.name} - {_number(value)})**2"})


def _tolerate(signal: str, bounds: Mapping[str, float], margin: float, draft: _Draft) -> None:
    """A term that keeps a signal within bounds."""
    rounded = {name: round(value, 5) for name, value in bounds.items()}
    params = {"signal": signal, **rounded, "margin": round(margin, 5)}
    draft.terms.append(RewardTerm("tolerance", MAINTAIN, params))


def _hold(signal: Signal, bounds: Mapping[str, float], draft: _Draft, scene: Scene) -> None:
    """A term that keeps a signal that is no body's within bounds; on legs, minus the distance from the bound, or from
    the middle of two: at the edge of a narrow region a gait does not stay in it."""
    if not scene.walks:
        _tolerate(signal.name, bounds, _third(signal), draft)
    elif len(bounds) == 2:
        draft.terms.append(_reach(signal, sum(bounds.values()) / 2, scene))
    else:
        [(side, bound)] = bounds.items()
        short = f"{_number(bound)} - {signal.name}" if side == "lower" else f"{signal.name} - {_number(bound)}"
        draft.terms.append(RewardTerm("expression", _worth(signal), {"expression": f"-max({short}, 0)"}))


def _worth(signal: Signal) -> float:
    """What a unit of a signal is worth to a robot on legs."""
    return signal.worth * ON_LEGS / _third(signal)


def _third(signal: Signal) -> float:
    """A third of a signal's range, of one whose sign is a direction of its positive half; as its unit has it, if no
    range is known."""
    if not signal.bounded:
        return THIRDS[signal.unit]
    low, high = _range(signal)
    return (high if signal.signed else high - low) / 3


def _speed_limit(limit: float) -> RewardTerm:
    return RewardTerm("expression", OVERSPEED, {"expression": f"-max(speed - {_number(limit)}, 0)**2"})


def _paced(terms: Sequence[RewardTerm], pace: str | None, scene: Scene) -> tuple[list[RewardTerm], list[str]]:
    """The terms in a manner, and that manner in words."""
    terms = list(terms)
    if pace is None:
        return terms, []
    if pace == "fast":
        hurried = [
            replace(t, params={**t.params, "discount": 0.7}) if t.plugin in ("goal_pose", "goal_latent") else t
            for t in terms
        ]
        return hurried, ["without delay"]
    limit = None if scene.max_speed is None else SLOW[pace] * scene.max_speed
    if pace == "gentle":
        terms.append(RewardTerm("smoothness", 0.01))
    if limit is not None and "expression" in scene.plugins:
        terms.append(_speed_limit(limit))
    bound = "" if limit is None else f", at {100 * limit:.2g} cm/s at most"
    return terms, [f"{'gently' if pace == 'gentle' else 'slowly'}{bound}"]


def _is_pace(term: RewardTerm) -> bool:
    """Whether a term says how fast rather than what."""
    text = str(term.params.get("expression", ""))
    return term.plugin == "smoothness" or text.startswith("-max(speed - ")


# --- numbers -----------------------------------------------------------------------------------------------------

_WAYS = {
    "left": "to the left",
    "right": "to the right",
    "far": "away",
    "near": "towards the viewer",
    "up": "up",
    "down": "down",
}


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """ "10 cm" in the unit that `units` are worth."""
    number, _, unit = text.partition(" ")
    return float(number) * units[unit or "1"]


def _directed(text: str, signal: Signal, scene: Scene) -> float:
    """A value of a signal, in its unit; "right 30 deg/s" is a number with its direction."""
    for word, sign in zip(directions(signal), (-1, 1), strict=False):
        if text.startswith(f"{word} "):
            return sign * _quantity(text.removeprefix(f"{word} "), scene.units(signal))
    return _quantity(text, scene.units(signal))


def _now(signal: Signal) -> float:
    if signal.value is None or not math.isfinite(signal.value):
        raise Inexpressible(f"it is relative to {signal.name}, which has not been heard yet; try again")
    return signal.value


def _range(signal: Signal) -> tuple[float, float]:
    if signal.low is None or signal.high is None:
        raise Inexpressible(f"it is not known between which values {signal.name} lies")
    return signal.low, signal.high


def _check_range(signal: Signal, value: float) -> None:
    if signal.low is None or signal.high is None:
        return
    slack = BEYOND if signal.unit == "m" else 0.0
    if not signal.low - slack <= value <= signal.high + slack:
        raise Inexpressible(
            f"{signal.name} would be {value:.3g} {signal.unit}; "
            f"it can be between {signal.low:.3g} and {signal.high:.3g} {signal.unit}"
        )


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _number(value: float) -> str:
    """A number as expressions write it."""
    return re.sub(r"e-0*", "e-", f"{value:.6g}")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _list(goal: Mapping[str, float]) -> str:
    return ", ".join(f"{axis} = {value:.3g} m" for axis, value in goal.items())
