"""Training pairs for the language model: scenes, instructions about them, and what they ask for; seeded.

Phrases are small grammars: "(push|move) {b} to {p}( now|)" is one of eight texts once {b} and {p} are filled. A kind of
request is a list of such templates and a function that draws what fills them and what they then mean. The evaluation
sets, held_out*.jsonl, are written by hand with other templates and other words; what coincides is not taught.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.reasoning import phrases as words
from worldpilot.reasoning import phrases_legs as legs
from worldpilot.reasoning.reasoner import is_stop_word
from worldpilot.reasoning.scene import LAYOUTS, PICTURE_VIEW, ROBOT_VIEW, Body, Scene, Signal
from worldpilot.reasoning.schema import EDGES, MAX_GOALS, PLACES, REGIONS
from worldpilot.types import RewardSpec

VALIDATION = 10  # one in so many templates is kept from training
_PLUGINS = frozenset({"goal_latent", "goal_pose", "tolerance", "smoothness", "expression"})
_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_NUMBERS = "|".join(sorted((word.split()[-1] for word in words.NUMBERS.values()), key=len, reverse=True))
_THINGS = "|".join({*words.OBJECTS, *words.ROBOTS, *words.STRANGERS, "t", "tee", "piece", "dice", "die"})
_WAYS = "left|right|top|bottom|upper|lower|far|near|up|down|upwards?|downwards?|leftwards?|rightwards?"

Rng = np.random.Generator
Goal = str | dict[str, str]


@dataclass(frozen=True)
class Pair:
    """An instruction and its meaning."""

    instruction: str
    scene: Scene
    intent: Mapping[str, Any]
    template: str  # what it was made from; those of the validation split are `held(template)`

    @property
    def answer(self) -> str:
        """The intent as the model writes it."""
        return json.dumps(self.intent, separators=(",", ":"))


@dataclass(frozen=True)
class Said:
    """A part of an instruction: what was said and what it means."""

    text: str
    template: str
    goals: tuple[Goal, ...]
    about: str = ""  # the body, if it can be called "it" afterwards


OPPOSITE = {"left": "right", "right": "left", "far": "near", "near": "far", "up": "down", "down": "up"}


def pairs(seed: int, validation: bool = False) -> Iterator[Pair]:
    """Endless pairs, of the templates that are kept from training or of the others; none says what is held out."""
    rng = np.random.default_rng([seed, int(validation)])
    while True:
        scene = draw_scene(rng)
        pair = _pair(rng, scene)
        if pair is None or held(pair.template) != validation:
            continue
        dressed = _dress(rng, pair.instruction)
        if held_out().isdisjoint(map(skeleton, (pair.instruction, dressed))):
            yield replace(pair, instruction=dressed)


def held(template: str) -> bool:
    """Whether a template belongs to the validation split."""
    return any(zlib.crc32(part.encode()) % VALIDATION == 0 for part in template.split(" + "))


@cache
def held_out() -> frozenset[str]:
    """Skeletons of the held-out instructions, but for those that are obeyed without the model."""
    files = Path(__file__).parent.glob("held_out*.jsonl")
    said = (json.loads(line)["say"] for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return frozenset(skeleton(text) for text in said if not is_stop_word(text))


def skeleton(text: str) -> str:
    """What is left of a text without its numbers, things, directions, punctuation and politeness."""
    text = re.sub(r"[-+]?\d+(\.\d+)?", " 0 ", text.lower())
    text = re.sub(r"[^a-z0' -]", " ", text)
    for pattern, mark in ((_NUMBERS, "0"), (_THINGS, "B"), (_WAYS, "D"), ("please|now|robot", "")):
        text = re.sub(rf"\b({pattern})\b", mark, text)
    return " ".join(text.split())


def draw_scene(rng: Rng) -> Scene:
    """A scene of the zoo, or one that nobody has built: other names, more bodies, other signals."""
    task = str(rng.choice(["push_t", "push_cube", "other", "legs"], p=[0.16, 0.17, 0.12, 0.55]))
    if task == "legs":
        return _legs(rng)
    view = LAYOUTS[task].view if task in LAYOUTS else (PICTURE_VIEW if rng.random() < 0.5 else ROBOT_VIEW)
    if task == "push_t":
        bodies = {"block": "x y yaw", "pusher": "x y"}
    elif task == "push_cube":
        bodies = {"cube": "x y yaw", "gripper": "x y z"}
    else:
        names = rng.permutation(words.OBJECTS)[: rng.integers(0, 3)]
        bodies = {str(name): "x y yaw" if rng.random() < 0.6 else "x y" for name in names}
        if not bodies or rng.random() < 0.8:
            bodies[str(rng.choice(words.ROBOTS))] = "x y z" if rng.random() < 0.5 else "x y"
    signals = [
        Signal(f"{body}_{axis}", "rad" if axis == "yaw" else "m", 0.05, *((None, None) if axis == "yaw" else (-1, 1)))
        for body, axes in bodies.items()
        for axis in axes.split()
    ]
    if task == "other" and rng.random() < 0.6:
        more = rng.permutation(list(words.SIGNALS))[: rng.integers(1, 4)]
        signals += [Signal(str(name), words.SIGNALS[str(name)], 0.0, -1, 1) for name in more]
    return Scene(
        task=task,
        signals=tuple(signals),
        plugins=_PLUGINS,
        view=view,
        max_speed=0.35,
        has_goal=bool(rng.random() < 0.4),
        reward=RewardSpec((), "something"),
    )


def _legs(rng: Rng) -> Scene:
    """A robot that walks, runs or hops, and nothing else."""
    names = legs.SIGNALS[rng.choice(len(legs.SIGNALS), p=[0.6, 0.25, 0.15])]
    return _legged(names[:-1] if rng.random() < 0.5 else names)  # without a learned probability of falling


def _legged(names: Sequence[str]) -> Scene:
    """A robot on legs that reads these signals."""
    units = {"height": "m", "roll": "rad", "pitch": "rad", "yaw_rate": "rad/s", "pitch_rate": "rad/s"}
    signals = (
        Signal(name, "m/s" if name.endswith("_velocity") else units.get(name, "1"), 0.0, -1, 1) for name in names
    )
    return Scene("legs", tuple(signals), _PLUGINS, reward=RewardSpec((), "something"))


# --- an instruction ----------------------------------------------------------------------------------------------


def _pair(rng: Rng, scene: Scene) -> Pair | None:
    """An instruction and its meaning in a scene; None if what was drawn does not fit it."""
    kind = str(rng.choice(list(_SHARES), p=np.array(list(_SHARES.values())) / sum(_SHARES.values())))
    if kind in ("refuse", "answer"):
        return _closed(rng, scene, kind)
    if scene.walks and kind not in ("pace", "stop", "current", "signal"):
        return _on_legs(rng, scene)
    if kind == "pace":
        pace = "gentle" if scene.walks else str(rng.choice(list(words.PACE_ALONE)))
        text, template = _choose(rng, words.PACE_ALONE[pace], f"pace {pace}")
        return Pair(text, scene, {"goals": ["current"], "pace": pace}, template)
    if kind == "both":
        return _both(rng, scene)
    said = _goal(rng, scene, kind)
    if said is None:
        return None
    if kind in (*_MOTIONS, "goal image") and rng.random() < 0.35:
        return _in_a_manner(rng, scene, said)
    return Pair(said.text, scene, {"goals": list(said.goals)}, said.template)


def _closed(rng: Rng, scene: Scene, kind: str) -> Pair | None:
    """A refusal or a question."""
    table = words.QUESTIONS if kind == "answer" else words.REFUSALS
    label = str(rng.choice(list(table), p=[0.25, 0.24, 0.2, 0.18, 0.13] if kind == "refuse" else None))
    if kind == "refuse" and label in ("object", "ability", "sensor") and rng.random() < 0.5:
        said = {"object": _absent, "ability": _impossible, "sensor": _unsensed}[label](rng, scene)
        if said is not None:
            return Pair(said.text, scene, {kind: label}, said.template)
    if scene.walks and kind == "refuse" and rng.random() < 0.5:
        return _whole(rng, scene, label)
    if scene.walks and kind == "refuse" and (label in ("ability", "object") or rng.random() < 0.6):
        text, template = _choose(rng, legs.REFUSALS[label], f"on legs: {label}", x=_stranger(rng, scene))
        return Pair(text, scene, {kind: label}, template)
    text, template = _choose(rng, table[label], f"{kind} {label}", c=_condition(rng), **_names(rng, scene))
    if text == "gibberish":
        text = " ".join("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(3))
    return Pair(text, scene, {kind: label}, template)


def _on_legs(rng: Rng, scene: Scene) -> Pair:
    """One to three things that a robot on legs shall do at a time, each about another signal."""
    if rng.random() < 0.65:
        return _whole(rng, scene)
    wanted = int(rng.choice([1, 2, 3], p=[0.56, 0.34, 0.1]))
    said: dict[str, Said] = {}
    while len(said) < wanted:
        signal, level = _way_to_go(rng, scene)
        if signal == "forward_velocity" and rng.random() < 0.1:
            level = "stop"
        if signal not in said:
            said[signal] = _gait(rng, scene, signal, level)
    text, template = _joined(rng, list(said.values()))
    intent: dict[str, Any] = {"goals": [goal for one in said.values() for goal in one.goals]}
    if rng.random() < 0.12:
        manner, how = _choose(rng, words.MANNER, "manner", m=_pick(rng, words.MANNERS["gentle"]), g=text)
        return Pair(manner, scene, intent | {"pace": "gentle"}, f"{template} + {how}")
    return Pair(text, scene, intent, template)


def _whole(rng: Rng, scene: Scene, refusal: str = "") -> Pair:
    """An instruction to a robot on legs that is said as a whole, of the left or of the right; or a refusal's."""
    while True:
        index = int(rng.integers(len(legs.WHOLE)))
        phrase, intent = legs.WHOLE[index]
        said = _of_signals(intent)
        if intent.get("refuse", "") == refusal and said.keys() <= scene.by_name.keys():
            break
    text = " ".join(_pick(rng, phrase).split())
    other = legs.mirrored(text)
    if other != text and rng.random() < 0.5:
        text, intent = other, _with(intent, legs.mirrored)
    if "{v}" in text:
        signal = next(name for name, goal in said.items() if "value" in str(goal))
        written, plain = _value(rng, scene.by_name[signal].unit, signed=False)
        text, intent = text.format(v=written), _with(intent, lambda level: level.replace("value", plain))
    return Pair(text, scene, intent, f"whole {index}")


def _of_signals(intent: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The goals of an intent on legs by the signals they are about; a stop is about none."""
    return {goal.get("set") or goal["change"]: goal for goal in intent.get("goals", ()) if goal != "stop"}


def _with(intent: Mapping[str, Any], said: Callable[[str], str]) -> Mapping[str, Any]:
    """An intent whose goals have their levels and changes said otherwise."""
    if "refuse" in intent:
        return intent

    def anew(goal: Any) -> Any:
        return goal if goal == "stop" else goal | {key: said(goal[key]) for key in {"to", "by"} & goal.keys()}

    return {"goals": [anew(goal) for goal in intent["goals"]]}


def _way_to_go(rng: Rng, scene: Scene) -> tuple[str, str]:
    """A signal of a robot on legs and its level; those that are asked for in many ways more often."""
    offered = [key for key in legs.GAITS if key[0] in scene.by_name]
    shares = np.array([30.0 + len(legs.GAITS[key]) for key in offered])
    return offered[rng.choice(len(offered), p=shares / shares.sum())]


def _gait(rng: Rng, scene: Scene, signal: str, level: str) -> Said:
    """A signal of a robot on legs at a level, at a value, or changed by one; or standing still."""
    if level == "stop":
        return Said(*_choose(rng, legs.STOP, "stop on legs"), ("stop",))
    if (signal, "") in legs.MORE_OR_LESS and rng.random() < 0.15:
        sign = str(rng.choice(["", "-"]))
        written, plain = _value(rng, scene.by_name[signal].unit, signed=False)
        text, template = _choose(rng, legs.MORE_OR_LESS[signal, sign], f"change {signal} {sign}", v=written)
        return Said(text, template, ({"change": signal, "by": f"{sign}{plain}"},))
    slots: dict[str, str] = {}
    to = level
    if level.endswith("value"):
        slots["v"], plain = _value(rng, scene.by_name[signal].unit, signed=False)
        to = level.removesuffix("value") + plain  # "left value": "left 30 deg/s"
    side = level.replace("right", "left")  # what is said of both is kept from training for both
    text, template = _choose(rng, legs.GAITS[signal, level], f"{signal} {side}", **slots)
    return Said(text, template, ({"set": signal, "to": to},))


def _joined(rng: Rng, said: Sequence[Said]) -> tuple[str, str]:
    """One to three parts as one text, and its template."""
    slots = {name: one.text for name, one in zip("abc", said, strict=False)}
    if len(said) == 1:
        return said[0].text, said[0].template
    forms, kind = (words.AND, "and") if len(said) == 2 else (words.AND_THREE, "and three")
    text, template = _choose(rng, forms, kind, **slots)
    return text, " + ".join([*(one.template for one in said), template])


def _shares(kinds: Sequence[str]) -> list[float]:
    """How often each kind of goal is asked for, of some."""
    total = sum(_SHARES[kind] for kind in kinds)
    return [_SHARES[kind] / total for kind in kinds]


def _in_a_manner(rng: Rng, scene: Scene, said: Said) -> Pair:
    """A motion, and how."""
    pace = str(rng.choice(list(words.MANNERS)))
    text, template = _choose(rng, words.MANNER, "manner", m=_pick(rng, words.MANNERS[pace]), g=said.text)
    return Pair(text, scene, {"goals": list(said.goals), "pace": pace}, f"{said.template} + {template}")


def _both(rng: Rng, scene: Scene) -> Pair | None:
    """Two goals, or the present one under a condition."""
    if rng.random() < 0.35:
        second = _goal(rng, scene, str(rng.choice(_CONDITIONS)))
        if second is None or "current" in second.goals:
            return None
        pace = str(rng.choice([*words.PACE_ALONE, ""]))
        first = _choose(rng, words.PACE_ALONE[pace] if pace else words.CARRY_ON, f"pace {pace}")
        text, template = _choose(rng, words.BUT, "but", a=first[0], b=second.text)
        intent = {"goals": ["current", *second.goals], **({"pace": pace} if pace else {})}
        return Pair(text, scene, intent, f"{first[1]} + {second.template} + {template}")
    first = _goal(rng, scene, str(rng.choice(_FIRSTS, p=_shares(_FIRSTS))))
    if first is None:
        return None
    if first.about and rng.random() < 0.4:
        robot = scene.bodies[first.about].robot
        kinds = ("lift", "height", "shift") if robot else ("shift", "turn", "angle", "place", "leave")
        second = _goal(rng, replace(scene, has_goal=False), str(rng.choice(kinds)), "it")
        if second is None or second.about != first.about:
            return None
    else:
        second = _goal(rng, scene, str(rng.choice(_CONDITIONS if rng.random() < 0.75 else _MOTIONS)))
    if second is None or _clash(scene, first, second):
        return None
    parts = [first, second]
    if rng.random() < 0.2:
        third = _goal(rng, scene, str(rng.choice(_CONDITIONS)))
        if third is not None and not any(_clash(scene, part, third) for part in parts):
            parts.append(third)
    goals = [goal for part in parts for goal in part.goals if goal != "current"]
    if len(goals) > MAX_GOALS:
        return None
    text, template = _joined(rng, parts)
    intent: dict[str, Any] = {"goals": goals}
    if rng.random() < 0.2:
        intent["pace"] = str(rng.choice(list(words.MANNERS)))
        manner = _pick(rng, words.MANNERS[intent["pace"]])
        if rng.random() < 0.5:
            return Pair(f"{text} {manner}", scene, intent, template)
        text, how = _choose(rng, words.MANNER, "manner", m=manner, g=text)
        template += f" + {how}"
    return Pair(text, scene, intent, template)


def _clash(scene: Scene, first: Said, second: Said) -> bool:
    """Whether two goals are about the same coordinate: they would contradict each other."""
    aims = [{aim for goal in said.goals for aim in _aims(scene, goal)} for said in (first, second)]
    return bool(aims[0] & aims[1])


def _aims(scene: Scene, goal: Goal) -> set[str]:
    """The signals that a goal gives a value, or a part of their range."""
    match goal:
        case {"place": body, "at": at} if at in EDGES:
            return {f"{body}_{scene.view.ways[at.split()[0]][0]}"}
        case {"place": body} | {"keep": body} | {"avoid": body}:
            return {f"{body}_x", f"{body}_y"}
        case {"shift": body, "way": way}:
            return {f"{body}_{scene.view.ways[way][0]}"}
        case {"turn": body}:
            return {f"{body}_yaw"}
        case {"set": signal}:
            return {signal}
    return set()


# --- kinds of goals ----------------------------------------------------------------------------------------------


def _goal(rng: Rng, scene: Scene, kind: str, called: str = "") -> Said | None:
    """A goal of a kind; `called`: what its body is called."""
    if kind in _BODILESS:
        return _bodiless(rng, scene, kind)
    body = _body(rng, scene, kind)
    if body is None:
        return None
    about = body.name
    lifts = "z" in body.axes
    slots = {"b": called or _call(rng, scene, body)}
    if kind == "diagonal":
        return _diagonal(rng, body, slots)
    if kind == "turned":
        return _turned(rng, body, slots)
    goal: Goal
    match kind:
        case "place":
            at, elsewhere = (str(place) for place in rng.choice(PLACES, 2, replace=False))
            slots["p"], slots["q"] = _pick(rng, words.PLACES[at]), _pick(rng, words.PLACES[elsewhere])
            if body.robot and not called and rng.random() < 0.4:
                kind = "go"
            elif rng.random() < 0.12:
                kind, at = "edge", str(rng.choice(EDGES))
                slots["w"] = _pick(rng, words.EXTREMES[at.split()[0]])
            goal = {"place": body.name, "at": at}
        case "coordinates":
            slots["p"], at = _coordinates(rng)
            goal = {"place": body.name, "at": at}
        case "reach":
            others = [other for other in scene.bodies.values() if other.planar and other.name != body.name]
            if not others:
                return None
            other = others[rng.integers(len(others))]
            slots["o"] = _call(rng, scene, other)
            goal, about = {"place": body.name, "at": other.name}, ""
            if body.robot and rng.random() < 0.5:
                kind = "touch"
        case "shift":
            way = str(rng.choice(["left", "right", "far", "near"]))
            slots["d"] = _pick(rng, words.ways(way, lifts))
            slots["o"] = _pick(rng, words.WRONG[OPPOSITE[way]])
            slots["a"], by = _length(rng)
            if rng.random() < 0.35:
                by = str(rng.choice(["a little", "some", "a lot"], p=[0.45, 0.35, 0.2]))
                kind = f"shift {by}"
            goal = {"shift": body.name, "way": way, "by": by}
        case "lift":
            if not lifts:
                return None
            way = str(rng.choice(["up", "down"]))
            slots["a"], by = _length(rng)
            if rng.random() < 0.3:
                by = str(rng.choice(["a little", "some"]))
            kind = way if by[0].isdigit() else f"{way} {by}"
            goal = {"shift": body.name, "way": way, "by": by}
        case "turn":
            way = str(rng.choice(["left", "right"]))
            slots["a"], by = _angle(rng)
            slots["d"] = _pick(rng, words.TURNS[way])
            slots["o"] = _pick(rng, words.WRONG_TURNS[OPPOSITE[way]])
            if rng.random() < 0.2:
                by = str(rng.choice(["a little", "some"]))
                kind = f"turn {by}"
            elif rng.random() < 0.15:
                way, slots["d"], slots["o"] = "left", "", _pick(rng, words.WRONG_TURNS["right"])
            goal = {"turn": body.name, "way": way, "by": by}
        case "angle":
            slots["v"], to = _angle(rng, signed=True)
            if rng.random() < 0.07:
                kind, to = "straighten", "0 deg"
            goal = {"set": f"{body.name}_yaw", "to": to}
        case "height":
            if not lifts:
                return None
            slots["v"], to = _length(rng)
            level = str(rng.choice(["low", "high", "middle", "value"], p=[0.45, 0.25, 0.05, 0.25]))
            if level != "value":
                kind, to = f"height {level}", level
            goal = {"set": f"{body.name}_z", "to": to}
        case "keep":
            region = str(rng.choice(REGIONS))
            slots["p"] = _pick(rng, words.REGIONS[region])
            goal = {"keep": body.name, "in": region}
            if body.robot and rng.random() < 0.4:
                kind = "stay"
        case "leave":
            goal = {"keep": body.name, "in": "place"}
        case "avoid edge":
            edge = str(rng.choice(EDGES))
            slots["p"] = _pick(rng, words.PLACES[edge])
            goal = {"avoid": body.name, "of": edge}
        case "avoid":
            robot = scene.robot
            if robot is None or body.robot:
                return None
            slots["r"] = _call(rng, scene, robot)
            goal, about = {"avoid": robot.name, "of": body.name}, ""
        case _:
            raise AssertionError(kind)
    text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
    return Said(text, template, (goal,), about)


def _diagonal(rng: Rng, body: Body, slots: dict[str, str]) -> Said:
    """A body along two axes, of which the other comes first as often."""
    pairs_of_ways = [("left", "right"), ("far", "near"), *([("up", "down")] if "z" in body.axes else [])]
    axes = rng.permutation(len(pairs_of_ways))[:2]
    ways = [str(rng.choice(pairs_of_ways[axis])) for axis in axes]
    vague = bool(rng.random() < 0.4)
    goals: list[Goal] = []
    for way, (direction, amount, wrong) in zip(ways, ("dao", "fei"), strict=True):
        vertical = f"({way}|{way}wards|{'higher' if way == 'up' else 'lower'})"
        slots[direction] = _pick(rng, vertical if way in ("up", "down") else words.ways(way, "z" in body.axes))
        slots[wrong] = _pick(rng, words.WRONG[OPPOSITE[way]])
        slots[amount], by = _length(rng)
        goals.append({"shift": body.name, "way": way, "by": "some" if vague else by})
    kind = "diagonal some" if vague else "diagonal"
    text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
    return Said(text, template, tuple(goals), body.name)


def _turned(rng: Rng, body: Body, slots: dict[str, str]) -> Said:
    """A body to a place, and turned on the way."""
    at = str(rng.choice(PLACES))
    slots["p"] = _pick(rng, words.PLACES[at])
    turn: Goal
    if rng.random() < 0.6:
        kind, way = "place turned", str(rng.choice(["left", "right"]))
        slots["d"] = _pick(rng, words.TURNS[way])
        slots["a"], by = _angle(rng)
        turn = {"turn": body.name, "way": way, "by": by}
    else:
        kind = "place angled"
        slots["v"], to = _angle(rng, signed=True)
        turn = {"set": f"{body.name}_yaw", "to": to}
    text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
    place: Goal = {"place": body.name, "at": at}
    first = text.find(slots["p"]) < text.find(slots.get("a", slots.get("v", "")))
    return Said(text, template, (place, turn) if first else (turn, place), body.name)


def _bodiless(rng: Rng, scene: Scene, kind: str) -> Said | None:
    """A goal that is about the robot as a whole, or about a signal that is no body's."""
    slots: dict[str, str] = {}
    goals: tuple[Goal, ...] = (kind,)
    if kind == "goal image" and not scene.has_goal:
        return None
    if kind == "stop" and scene.walks and rng.random() < 0.6:
        text, template = _choose(rng, legs.STOP, "on legs: stop")
        return Said(text, template, goals)
    if kind == "limit":
        slots["v"], to = _speed(rng)
        goals = ("current", {"limit": "speed", "to": to})
    if kind == "signal":
        if not scene.others:
            return None
        name = str(rng.choice(scene.others))
        slots["s"] = _pick(rng, f"({name}|the {name.replace('_', ' ')})")
        slots["v"], to = _value(rng, scene.by_name[name].unit)
        if rng.random() < 0.4:
            to = str(rng.choice(["low", "high"]))
            kind = f"signal {to}"
        goals = ({"set": name, "to": to},)
    text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
    return Said(text, template, goals)


def _body(rng: Rng, scene: Scene, kind: str) -> Body | None:
    """A body that a kind of goal may be about; objects more often than the robot."""
    fitting = [body for body in scene.bodies.values() if body.planar]
    if kind in ("turn", "angle", "turned"):
        fitting = [body for body in fitting if "yaw" in body.axes]
    if kind in ("lift", "height"):
        fitting = [body for body in fitting if "z" in body.axes]
    if kind == "leave":
        fitting = [body for body in fitting if not body.robot]
    if kind == "reach" and rng.random() < 0.8:
        fitting = [body for body in fitting if body.robot]
    if not fitting:
        return None
    shares = np.array([0.35 if body.robot else 1.0 for body in fitting])
    return fitting[rng.choice(len(fitting), p=shares / shares.sum())]


def _call(rng: Rng, scene: Scene, body: Body) -> str:
    """What people call a body."""
    alike = [other for other in scene.bodies.values() if other.robot == body.robot]
    if body.robot:
        loose = words.ROBOT_NAMES if len(alike) == 1 else ""
    else:
        loose = words.OBJECT_NAMES if len(alike) == 1 else ""
    aliases = words.ALIASES.get((scene.task, body.name), "")
    name = body.name.replace("_", " ")
    if len(alike) == 1 and rng.random() < 0.12 and (other := sorted(words.ALIKE.get(body.name, ()))):
        name = str(rng.choice(other))
    options = [
        f"(the|the|the||that|this|your|my|our) {name}",
        *([aliases] * 2 if aliases else []),
        *([loose] if loose else []),
    ]
    return _pick(rng, options[rng.integers(len(options))])


# --- what a scene does not offer ---------------------------------------------------------------------------------


def _absent(rng: Rng, scene: Scene) -> Said | None:
    """An instruction that would be fine if its object were there."""
    adjective = "(red|green|yellow|big|small|other|second|left|old)"
    b = _pick(rng, f"(the|the|the|that|my|a|the {adjective}) {_stranger(rng, scene)}")
    kind = str(rng.choice(_ABOUT_ONE))
    slots = {
        "b": b,
        "o": b,
        "p": _pick(rng, words.PLACES[str(rng.choice(PLACES))]),
        "q": _pick(rng, words.PLACES[str(rng.choice(PLACES))]),
        "w": _pick(rng, words.EXTREMES["left"]),
        "r": str(_names(rng, scene)["r"]),
        "d": _pick(rng, words.TURNS["left"]),
    }
    slots["a"] = _angle(rng)[0] if kind == "turn" else _length(rng)[0]
    if kind in ("turn", "turn some"):
        slots["o"] = _pick(rng, words.WRONG_TURNS["right"])
    if kind == "reach":
        slots["b"] = _names(rng, scene)["b"]
    if kind.startswith("shift"):
        slots["o"] = _pick(rng, words.WRONG[str(rng.choice(["left", "right", "far", "near"]))])
        slots["d"] = _pick(rng, words.ways(str(rng.choice(["left", "right", "far", "near"])), False))
    if kind == "coordinates":
        slots["p"] = _coordinates(rng)[0]
    text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
    if rng.random() < 0.15:
        text += f" {_pick(rng, words.MANNERS[str(rng.choice(list(words.MANNERS)))])}"
    return Said(text, f"absent {template}", ())


def _impossible(rng: Rng, scene: Scene) -> Said | None:
    """An instruction for a coordinate that a body does not have, or for a motion that a robot on legs does not."""
    if scene.walks:
        return _out_of_plane(rng, scene)
    flat = [body for body in scene.bodies.values() if "z" not in body.axes]
    fixed = [body for body in scene.bodies.values() if "yaw" not in body.axes]
    kind = str(rng.choice(["up", "up some", "down", "height", "height high", "turn", "angle"]))
    candidates = fixed if kind in ("turn", "angle") else flat
    if kind not in ("turn", "angle") and any("z" in body.axes for body in scene.bodies.values()):
        candidates = [body for body in candidates if not body.robot]  # "up" without a name means the one that can
    if not candidates:
        return None
    body = candidates[rng.integers(len(candidates))]
    b = _pick(rng, f"the {body.name}")
    slots = {"b": b, "a": _length(rng)[0], "v": _length(rng)[0], "d": _pick(rng, words.TURNS["left"])}
    slots["o"] = _pick(rng, words.WRONG_TURNS["right"])
    if kind in ("turn", "angle"):
        slots["a"], slots["v"] = _angle(rng)[0], _angle(rng, signed=True)[0]
    templates = [t for t in words.TEMPLATES[kind] if "{b}" in t]
    text, template = _choose(rng, templates, kind, **slots)
    return Said(text, f"impossible {template}", ())


def _out_of_plane(rng: Rng, scene: Scene) -> Said | None:
    """An instruction to a robot that only walks to and fro which one on four legs could follow; None on four legs."""
    missing = {signal for signal, _ in legs.GAITS} - scene.by_name.keys()
    while missing:
        pair = _on_legs(rng, _legged(legs.SIGNALS[0]))
        if any(signal in missing and goal.get("to") != "low" for signal, goal in _of_signals(pair.intent).items()):
            return Said(pair.instruction, pair.template, ())
    return None


def _unsensed(rng: Rng, scene: Scene) -> Said | None:
    """A motion under a condition that nothing measures, or a signal that this model does not have."""
    if rng.random() < 0.3:
        known = {*scene.by_name, "height", *(["side_velocity"] if scene.walks else [])}
        names = [name for name in words.SIGNALS if name not in known]
        name = str(rng.choice(names))
        slots = {"s": _pick(rng, f"({name}|the {name.replace('_', ' ')})"), "v": _value(rng, words.SIGNALS[name])[0]}
        kind = str(rng.choice(["signal", "signal low", "signal high"]))
        text, template = _choose(rng, words.TEMPLATES[kind], kind, **slots)
        return Said(text, f"unsensed {template}", ())
    if scene.walks:
        said = _gait(rng, scene, *_way_to_go(rng, scene))
    else:
        said = _goal(rng, scene, str(rng.choice(["place", "shift", "turn", "stop", "current"])))
    if said is None:
        return None
    text, template = _choose(rng, words.UNSENSED, "unsensed", g=said.text, c=_condition(rng))
    return Said(text, f"{said.template} + {template}", ())


# --- words and numbers -------------------------------------------------------------------------------------------


def _choose(rng: Rng, templates: Sequence[str], kind: str, **slots: str) -> tuple[str, str]:
    """One of the templates, filled, and its name."""
    index = int(rng.integers(len(templates)))
    text = _pick(rng, templates[index])
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
    return " ".join(text.split()), f"{kind} {index}"


def _pick(rng: Rng, phrase: str) -> str:
    """One text of a phrase: "(a|b)" is a or b, innermost first."""
    while match := _ALTERNATIVES.search(phrase):
        options = match[1].split("|")
        phrase = phrase[: match.start()] + options[rng.integers(len(options))] + phrase[match.end() :]
    return phrase.replace("[", "(").replace("]", ")")


def _condition(rng: Rng) -> str:
    """Something that no model of ours reads."""
    return _pick(rng, words.CONDITIONS).replace("{n}", str(rng.integers(2, 90)))


def _stranger(rng: Rng, scene: Scene) -> str:
    """Something that is not there."""
    present = set(scene.bodies)
    alike = set().union(*(words.ALIKE.get(name, ()) for name in present))
    return str(rng.choice([thing for thing in words.STRANGERS if thing not in present | alike]))


def _names(rng: Rng, scene: Scene) -> dict[str, str]:
    """Names of what is there, for refusals and questions."""
    objects = [body for body in scene.bodies.values() if not body.robot]
    robots = [body for body in scene.bodies.values() if body.robot]
    return {
        "b": _call(rng, scene, objects[rng.integers(len(objects))]) if objects else "the object",
        "r": _call(rng, scene, robots[0]) if robots else "the robot",
        "n": str(rng.integers(2, 90)),
        "x": _stranger(rng, scene),
    }


def _number(rng: Rng, values: Sequence[float], signed: bool = False) -> tuple[str, str]:
    """A number as people write it, and as the answer does."""
    value = float(rng.choice(values))
    plain = f"{value:g}"
    written = plain
    if plain in words.NUMBERS and rng.random() < 0.25:
        written = words.NUMBERS[plain]
        if rng.random() < 0.3:
            written = written.replace("-", " ")
    if signed and value and rng.random() < 0.4:
        return _pick(rng, f"(-|-|minus ){written}") if written == plain else f"minus {written}", f"-{plain}"
    return written, plain


def _measure(rng: Rng, values: Sequence[float], unit: str, signed: bool = False) -> tuple[str, str]:
    """A quantity in a unit, as written and as the answer says it."""
    written, plain = _number(rng, values, signed)
    spelled = _pick(rng, words.UNITS[unit])
    if not written[-1].isdigit() and not spelled.startswith(" "):
        spelled = f" {spelled}"
    return f"{written}{spelled}", f"{plain} {unit}"


def _length(rng: Rng) -> tuple[str, str]:
    if rng.random() < 0.08:
        said = str(rng.choice(list(words.FRACTIONS)))
        return said, words.FRACTIONS[said]
    unit = str(rng.choice(["cm", "mm", "m", "inch"], p=[0.6, 0.17, 0.18, 0.05]))
    return _measure(rng, words.LENGTHS[unit], unit)


def _angle(rng: Rng, signed: bool = False) -> tuple[str, str]:
    if not signed and rng.random() < 0.25:
        said = str(rng.choice(list(words.PARTS)))
        return said, words.PARTS[said]
    unit = "deg" if rng.random() < 0.85 else "rad"
    return _measure(rng, words.ANGLES[unit], unit, signed)


def _speed(rng: Rng) -> tuple[str, str]:
    unit = str(rng.choice(["cm/s", "m/s", "mm/s"], p=[0.6, 0.25, 0.15]))
    return _measure(rng, words.SPEEDS[unit], unit)


def _value(rng: Rng, unit: str, signed: bool = True) -> tuple[str, str]:
    """A value of a signal in its unit."""
    match unit:
        case "m":
            return _length(rng)
        case "rad":
            return _angle(rng, signed)
        case "m/s":
            unit = str(rng.choice(["m/s", "cm/s"], p=[0.8, 0.2]))
            return _measure(rng, words.STRIDES[unit], unit)
        case "rad/s":
            unit = str(rng.choice(["rad/s", "deg/s"]))
            return _measure(rng, words.TURN_RATES[unit], unit)
    written, plain = _number(rng, (0, 0.2, 0.5, 0.8, 1, 2, 3))
    return written, plain


def _coordinates(rng: Rng) -> tuple[str, str]:
    """A point in the plane."""
    unit = str(rng.choice(["cm", "mm", "m"], p=[0.5, 0.15, 0.35]))
    values = (*words.LENGTHS[unit], 0)
    (x, x_plain), (y, y_plain) = _number(rng, values, True), _number(rng, values, True)
    u = _pick(rng, words.UNITS[unit]).strip()
    if rng.random() < 0.15:  # without a unit: metres if small, else centimetres
        if unit == "mm":
            unit = "cm"
        form = _pick(rng, words.POINTS_BARE)
    else:
        form = _pick(rng, words.POINTS)
    return form.replace("{x}", x).replace("{y}", y).replace("{u}", u), f"{x_plain} {y_plain} {unit}"


def _dress(rng: Rng, text: str) -> str:
    """Politeness, a capital to begin with, punctuation and the odd slip of the finger."""
    for share in (0.36, 0.05):
        if rng.random() < share and text[-1] not in "?.!":
            text = _pick(rng, str(rng.choice(words.AROUND))).replace("{g}", text)
    if rng.random() < 0.08:
        text = _slip(rng, text)
    if rng.random() < 0.04:
        text = text.replace("'", "")
    if rng.random() < 0.35:
        text = text[:1].upper() + text[1:]
    return text + str(rng.choice(["", ".", "!"], p=[0.6, 0.32, 0.08])) if text[-1] not in "?.!" else text


def _slip(rng: Rng, text: str) -> str:
    """A text with a typing error in one of its longer words: letters swapped, left out or doubled."""
    places = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha()]
    if not places:
        return text
    i = places[rng.integers(len(places))]
    slips = (text[i + 1] + text[i], text[i], text[i] + text[i] + text[i + 1])
    return text[:i] + slips[rng.integers(len(slips))] + text[i + 2 :]


_BODILESS = ("signal", "limit", "stop", "current", "goal image")
_MOTIONS = ("place", "coordinates", "reach", "shift", "lift", "turn", "angle", "diagonal", "turned")
_FIRSTS = (*_MOTIONS, "goal image", "height", "keep", "avoid", "avoid edge", "leave", "signal")
_ABOUT_ONE = (  # kinds that can be about something that is not there
    *("place", "place", "edge", "shift", "shift", "shift some", "turn", "turn some", "straighten", "leave"),
    *("coordinates", "touch", "reach", "reach", "avoid"),
)
_CONDITIONS = ("height", "keep", "avoid", "avoid edge", "leave", "limit", "signal", "angle", "turn")
_SHARES = {
    "place": 12,
    "coordinates": 5,
    "reach": 3,
    "shift": 11,
    "lift": 5,
    "turn": 8,
    "angle": 4,
    "diagonal": 4,
    "turned": 3,
    "height": 6,
    "signal": 8,
    "keep": 4,
    "leave": 2,
    "avoid": 3,
    "avoid edge": 3,
    "limit": 3,
    "stop": 4,
    "current": 2,
    "goal image": 8,
    "pace": 5,
    "both": 24,
    "refuse": 38,
    "answer": 9,
}
