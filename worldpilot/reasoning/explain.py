"""Answers to questions about the robot, composed from what is measured: nothing in them is generated."""

import math

from worldpilot.reasoning.expand import is_stop
from worldpilot.reasoning.scene import Scene
from worldpilot.types import Alert, AlertLevel

CHANNELS = {
    "surprise": "what the camera saw differed from what the model had predicted a moment before",
    "drift": "predictions had been worse than usual for some time",
    "h_step": "where things are differed from what the model had predicted for now some time before",
    "disagreement": "the members of the model's ensemble disagreed about what comes next",
    "spread": "what could be done next was less clear than usual: the proposals lay far apart",
}


def answer(question: str, scene: Scene) -> str:
    """The answer to one of `schema.QUESTIONS`."""
    return {"stop": why_stopped, "state": state, "reward": reward, "abilities": abilities}[question](scene)


def why_stopped(scene: Scene) -> str:
    """From the alert in force and its figures; else from the planner and the reward, and then from the last alert."""
    alert = scene.alert
    if alert is None or alert.level is AlertLevel.NOMINAL:
        return _without_alert(scene)
    if scene.alert_age > 0.0:
        return f"{_without_alert(scene)} Before that: {_alerted(alert, scene.alert_age)}"
    return _alerted(alert, 0.0)


def _without_alert(scene: Scene) -> str:
    """Why the robot stands still although no alert is in force, if it does."""
    if scene.hold:
        return f"There is no alert; the planner holds the robot: {scene.hold}."
    if scene.reward is None:
        return "There is no alert; the robot holds because no reward is active."
    if is_stop(scene.reward):
        return "There is no alert; the robot stands still because the reward in force asks for it."
    return "There is no alert: as far as the monitor is concerned, the robot may move."


def _alerted(alert: Alert, age: float) -> str:
    """An alert that is in force, or ended `age` [s] ago."""
    over = age > 0.0
    held = "held the robot" if over else "holds the robot"
    did = {AlertLevel.CAUTION: "slowed the robot down", AlertLevel.HOLD: held}[alert.level]
    text = f"The monitor {did} because of {alert.channel or 'an alert'}"
    if alert.channel in CHANNELS:
        text += f": {CHANNELS[alert.channel]}"
    if math.isfinite(alert.score) and math.isfinite(alert.threshold):
        text += f". The score {'was' if over else 'is'} {alert.score:.3g}, the threshold {alert.threshold:.3g}"
        if alert.threshold > 0:
            text += f", {alert.score / alert.threshold:.2g} times as much as is allowed"
    lasted = alert.stamp - alert.since
    if lasted >= 0:
        text += f"; it first crossed {lasted:.2f} s before it was last judged"
    return f"{text}; it ended {age:.1f} s ago." if over else f"{text}."


def state(scene: Scene) -> str:
    """Where the bodies are, and the other signals."""
    parts = []
    for body in scene.bodies.values():
        found = [(axis, scene.by_name[f"{body.name}_{axis}"].value) for axis in body.axes]
        known = [
            f"{axis} = {math.degrees(value):.0f}°" if axis == "yaw" else f"{axis} = {100 * value:.1f} cm"
            for axis, value in found
            if value is not None
        ]
        parts.append(f"the {body.name} is at {', '.join(known)}" if known else f"the {body.name} has not been seen")
    for name in scene.others:
        signal = scene.by_name[name]
        if signal.value is not None:
            parts.append(f"{name} is {signal.value:.3g}{'' if signal.unit == '1' else ' ' + signal.unit}")
    text = "; ".join(parts) or "nothing is sensed that has a name"
    return text[0].upper() + text[1:] + "."


def reward(scene: Scene) -> str:
    """What the reward in force asks for."""
    if scene.reward is None:
        return "The robot holds: no reward is active."
    terms = ", ".join(f"{term.plugin} ({term.weight:g})" for term in scene.reward.terms)
    name = f"{scene.reward.name}. " if scene.reward.name else ""
    return f"{name}The reward in force has the terms {terms}."


def abilities(scene: Scene) -> str:
    """What can be asked for here."""
    bodies = [
        f"move{' or turn' if 'yaw' in body.axes else ''} the {body.name}"
        for body in scene.bodies.values()
        if body.planar and "goal_pose" in scene.plugins
    ]
    others = [f"bring {name} to a value" for name in scene.others if "expression" in scene.plugins]
    asked = [
        *bodies,
        *others,
        "stop",
        "go on, slower, faster or more gently",
        *(["go to the goal image"] * scene.has_goal),
    ]
    return f"You can ask to {'; '.join(asked)}; or ask where things are, what I am doing and why I stopped."
