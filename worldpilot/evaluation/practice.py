"""A robot on legs practises: it is asked for one thing after another, whatever can be asked of it, and its planner does
what it can. What it did is data of its own making, from which its dynamics and prior are learnt anew: the planner's
search becomes the next prior's habit (expert iteration: Anthony et al., 1705.08439).

Nobody shows it anything: what is asked for is drawn, and how it is done is the planner's.
"""

from typing import Any

import numpy as np

from worldpilot import graph
from worldpilot.errors import WorldpilotError
from worldpilot.evaluation import controllers
from worldpilot.evaluation.controllers import Planning, Setting
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.reasoning.expand import expand
from worldpilot.reasoning.scene import STRIDE, Scene
from worldpilot.reasoning.schema import LEVELS, directions
from worldpilot.sim.legged import AFTER_FALL, LeggedWorld
from worldpilot.types import RewardSpec

PRACTICE, FALLS = "practice", "practice_falls"  # behaviours: episodes that it got through, and those that it did not
REQUEST = 2.0  # [s], after which it is asked for something else

_GOALS = (0.4, 0.4, 0.2)  # how often one, two or three things are asked for at once
_STOP = 1 / 8  # of the requests: stop, with a posture or without


def practise(artifact: Artifact, world: LeggedWorld, planning: Planning, seed: int, steps: int) -> Episode:
    """An episode of at most `steps` control steps, from standing.

    Its meta has what was asked for, intents as in `reasoning.schema`, under "asked".
    """
    rng = np.random.default_rng([seed, 6])
    world.reset(seed=int(rng.integers(2**31)))
    driven, asked = controllers.Driven(world), list[dict[str, Any]]()
    every = round(REQUEST / world.action.control_dt)
    run = parse_spec(graph.load().settings(artifact.spec.task, "mpc")["reward"])
    planner = controllers.Planner(Setting(artifact, world, run, planning, int(rng.integers(2**31))), "ssr")
    for step in range(steps):
        if step % every == 0:
            intent, reward = _request(_scene(artifact, driven, run), rng)
            asked.append(intent)
            planner.swap(reward)
        driven.drive(planner.act(driven.state, driven.previous))
        if world.ended:
            for _ in range(AFTER_FALL):
                driven.drive(driven.previous)
            break
    behaviour = FALLS if world.ended else PRACTICE
    return driven.episode({"seed": seed, "behaviour": behaviour, "model_id": artifact.spec.model_id, "asked": asked})


def draw(scene: Scene, rng: np.random.Generator) -> dict[str, Any]:
    """Something that can be asked for in a scene: an intent of one to three goals, each in words or as a value."""
    known = [signal for signal in scene.signals if signal.bounded and not signal.fixed]
    goals: list[Any] = []
    if rng.random() < _STOP:
        goals.append("stop")
        known = [signal for signal in known if signal.unit in ("m", "rad")]
    count = min(int(rng.choice(3, p=_GOALS)) + 1 - len(goals), len(known))
    for i in rng.permutation(len(known))[:count]:
        signal = known[i]
        low, high = signal.low or 0.0, signal.high or 0.0
        words = (*directions(signal), *LEVELS)
        value = f"{rng.uniform(low, high):.2f} {signal.unit}"
        goals.append({"set": signal.name, "to": str(rng.choice(words)) if rng.random() < 0.5 else value})
    return {"goals": goals}


def _request(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, Any], RewardSpec]:
    """An intent that can be made a reward of, and the reward."""
    while True:
        intent = draw(scene, rng)
        try:
            return intent, expand(intent, scene)[0]
        except WorldpilotError:  # a draw that leads out of reach: another
            continue


def _scene(artifact: Artifact, driven: controllers.Driven, run: RewardSpec) -> Scene:
    """The scene as the reasoning node has it; what is asked for does not add up: the reward in force is its run."""
    readings = driven.readings(artifact.world_model, STRIDE)
    return Scene.of(artifact.spec, readings, registry.available(), has_goal=False, reward=run)
