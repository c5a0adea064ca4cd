"""The language a model answers in: what an instruction asks for, in few words. `expand` makes a reward of it.

    {"goals":[{"place":"block","at":"left edge"}],"pace":"gentle"}
    {"goals":[{"turn":"block","way":"left","by":"90 deg"}]}
    {"goals":["current",{"set":"gripper_z","to":"low"}],"pace":"fast"}
    {"goals":[{"set":"yaw_rate","to":"left"}]}       turn left, to a robot on legs
    {"goals":[{"set":"yaw_rate","to":"right 30 deg/s"}]}
    {"goals":[{"change":"height","by":"-3 cm"}]}
    {"answer":"stop"}                 why did you stop?
    {"refuse":"object"}               bring me the cup

Only what the running graph has can be said: a body, signal or goal that the schema does not list has no place in the
grammar made from it. Numbers are copied from the instruction with their units; arithmetic is left to `expand`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from worldpilot.reasoning.scene import ANGLES, LENGTHS, SPEEDS, Scene, Signal

MAX_GOALS = 3
EDGES = ("left edge", "right edge", "far edge", "near edge")
PLACES = (*EDGES, "far left corner", "far right corner", "near left corner", "near right corner", "centre")
REGIONS = ("left half", "right half", "far half", "near half", "middle")
LEVELS = ("low", "middle", "high")
SIGNS = ("negative", "positive")
DIRECTIONS: Mapping[str, tuple[str, str]] = {  # what the signs of a signal mean; of others, `SIGNS` are said
    "forward_velocity": ("backward", "forward"),
    "lateral_velocity": ("right", "left"),
    "vertical_velocity": ("down", "up"),
    "yaw_rate": ("right", "left"),
    "roll": ("left", "right"),
    "pitch": ("nose up", "nose down"),
}
VAGUE = ("a little", "some", "a lot")
PACES = ("gentle", "slow", "fast")

REFUSALS: Mapping[str, str] = {
    "object": "it is about something that this robot neither sees nor moves",
    "sensor": "it depends on something that is not sensed",
    "ability": "this robot cannot do that",
    "safety": "safety, limits and the rules of this service are not an instruction's to change",
    "unclear": "it does not say what is to be done",
}
QUESTIONS: Mapping[str, str] = {
    "stop": "why the robot stopped or slowed down",
    "state": "where things are",
    "reward": "what the robot is doing",
    "abilities": "what can be asked for",
}

_NUMBER = r"[0-9]{1,4}(\.[0-9]{1,4})?"


def intent_schema(scene: Scene) -> dict[str, Any]:
    """JSON schema of what can be said of a scene."""
    variants: list[dict[str, Any]] = [_object(refuse=_one_of(REFUSALS)), _object(answer=_one_of(QUESTIONS))]
    if goals := goal_schemas(scene):
        some = {"type": "array", "items": {"anyOf": goals}, "minItems": 1, "maxItems": MAX_GOALS}
        reward = _object(goals=some)
        if paces := available_paces(scene):
            reward["properties"]["pace"] = _one_of(paces)  # may be left out
        variants.insert(0, reward)
    return {"anyOf": variants}


def goal_schemas(scene: Scene) -> list[dict[str, Any]]:
    """Schemas of the single goals that the scene's signals and plugins can express."""
    planar = [body.name for body in scene.bodies.values() if body.planar]
    turning = [body.name for body in scene.bodies.values() if body.planar and "yaw" in body.axes]
    goals: list[dict[str, Any]] = []
    words = [word for word, there in (("stop", "expression"), ("goal image", "goal_latent")) if there in scene.plugins]
    if not scene.has_goal:
        words = [word for word in words if word != "goal image"]
    if scene.reward is not None or scene.before_stop is not None:
        words.append("current")
    if words:
        goals.append(_one_of(words))
    if "goal_pose" in scene.plugins:
        lengths, angles = _amount(LENGTHS), _amount(ANGLES)
        for name in planar:
            places = [*(PLACES if bounded(scene, name) else ()), *(other for other in planar if other != name)]
            where = _any(_one_of(places), _coordinates()) if places else _coordinates()
            goals.append(_object(place=_one_of([name]), at=where))
            goals.append(_object(keep=_one_of([name]), **{"in": _one_of(["place"])}))
        ways = {name: (*_PLANE, *(("up", "down") if _lifts(scene, name) else ())) for name in planar}
        goals += [_object(shift=_one_of([name]), way=_one_of(ways[name]), by=lengths) for name in planar]
        if turning:
            goals.append(_object(turn=_one_of(turning), way=_one_of(("left", "right")), by=angles))
    if "tolerance" in scene.plugins:
        kept = [name for name in planar if bounded(scene, name)]
        if kept:
            goals.append(_object(keep=_one_of(kept), **{"in": _one_of(REGIONS)}))
            goals.append(_object(avoid=_one_of(kept), of=_one_of(EDGES)))
    if "expression" in scene.plugins:
        goals += [
            _object(avoid=_one_of([name]), of=_one_of([other for other in planar if other != name]))
            for name in planar
            if len(planar) > 1
        ]
        for signal in scene.signals:
            if signal.name in settable(scene):
                levels = [_one_of(LEVELS)] if signal.bounded else [_one_of(("low", "high"))]
                value = change = _pattern(f"-?{_NUMBER}", scene.units(signal))
                if signal.name in scene.others:
                    if ways := directions(signal):
                        levels.append(_one_of(ways))
                        value = _pattern(f"(-|{ways[0]} |{ways[1]} )?{_NUMBER}", scene.units(signal))
                    goals.append(_object(change=_one_of([signal.name]), by=change))
                goals.append(_object(set=_one_of([signal.name]), to=_any(*levels, value)))
        if scene.max_speed is not None:
            goals.append(_object(limit=_one_of(["speed"]), to=_pattern(_NUMBER, SPEEDS)))
    return goals


def available_paces(scene: Scene) -> Sequence[str]:
    """The manners that the scene's plugins can express."""
    gentle = "smoothness" in scene.plugins
    timed = "expression" in scene.plugins and scene.max_speed is not None
    return [pace for pace in PACES if (gentle if pace == "gentle" else timed)]


def settable(scene: Scene) -> list[str]:
    """Signals that can be given a value of their own; an angle's sine and cosine can't."""
    posed = [f"{body.name}_{axis}" for body in scene.bodies.values() for axis in body.axes]
    return [*posed, *scene.others]


def directions(signal: Signal) -> tuple[str, ...]:
    """Words for a signal's negative and its positive direction, if its sign is one."""
    return DIRECTIONS.get(signal.name, SIGNS) if signal.signed else ()


def bounded(scene: Scene, body: str) -> bool:
    """Whether it is known where the space of a body ends."""
    return all(scene.by_name[f"{body}_{axis}"].bounded for axis in "xy")


_PLANE = ("left", "right", "far", "near")


def _lifts(scene: Scene, body: str) -> bool:
    return "z" in scene.bodies[body].axes and "expression" in scene.plugins


def _object(**properties: Any) -> dict[str, Any]:
    """An object of exactly these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _one_of(values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def _any(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def _pattern(number: str, units: Mapping[str, float]) -> dict[str, Any]:
    """A number, and one of the units after a space; "1" is not written."""
    names = "|".join(re.escape(unit) for unit in units)
    return {"type": "string", "pattern": f"^{number}$" if names == "1" else f"^{number} ({names})$"}


def _amount(units: Mapping[str, float]) -> dict[str, Any]:
    return _any(_one_of(VAGUE), _pattern(_NUMBER, units))


def _coordinates() -> dict[str, Any]:
    return _pattern(f"-?{_NUMBER} -?{_NUMBER}", LENGTHS)
