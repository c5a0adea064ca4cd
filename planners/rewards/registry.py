"""From a reward specification, as data, to a reward that scores: discovery, parsing, building, dry run."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import jsonschema
import numpy as np

from worldpilot.contracts import Reward
from worldpilot.errors import RewardError, UnknownName, WorldpilotError
from worldpilot.planners.rewards.base import LARGEST, RewardContext, RewardPlugin, check, params_schema
from worldpilot.planners.rewards.composite import CompositeReward
from worldpilot.types import RewardSpec, RewardTerm, Rollouts

GROUP = "worldpilot.rewards"
MAX_BYTES = 64 * 1024
MAX_TERMS = 32
MAX_DEPTH = 8

_TERM = {
    "type": "object",
    "properties": {
        "plugin": {"type": "string", "maxLength": 64},
        "weight": {"type": "number", "minimum": -LARGEST, "maximum": LARGEST, "default": 1.0},
        "params": {"type": "object", "default": {}},
    },
    "required": ["plugin"],
    "additionalProperties": False,
}
_SPEC = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 128, "default": ""},
        "terms": {"type": "array", "items": _TERM, "minItems": 1, "maxItems": MAX_TERMS},
    },
    "required": ["terms"],
    "additionalProperties": False,
}

_VALIDATOR = jsonschema.Draft202012Validator(_SPEC)


@cache
def available() -> Mapping[str, type[RewardPlugin]]:
    """The installed plugins by name. One that can't be imported is left out, with a warning."""
    plugins: dict[str, type[RewardPlugin]] = {}
    for entry in entry_points(group=GROUP):
        try:
            plugin = entry.load()
            if not (isinstance(plugin, type) and issubclass(plugin, RewardPlugin)):
                raise TypeError("not a subclass of worldpilot.planners.rewards.base.RewardPlugin")
            params_schema(plugin)
        except Exception as error:  # a stranger's package may fail in any way
            logging.getLogger(__name__).warning("reward plugin %s (%s) left out: %s", entry.name, entry.value, error)
        else:
            plugins[entry.name] = plugin
    return plugins


def plugin(name: str) -> type[RewardPlugin]:
    """The plugin of that name.

    Raises:
        UnknownName: there is none; the message lists those there are.
    """
    if name not in available():
        raise UnknownName("reward plugin", name, available())
    return available()[name]


def parse_spec(source: str | bytes | Mapping[str, Any]) -> RewardSpec:
    """A checked specification from JSON text or from a mapping. Whatever comes over the wire passes here.

    Raises:
        RewardError: too long, not JSON, not a reward specification, or a parameter its plugin refuses.
        UnknownName: no such plugin.
    """
    data = dict(source) if isinstance(source, Mapping) else _load_json(source)
    _check_values(data)
    check(data, _VALIDATOR, "specification")
    terms = []
    for entry in data["terms"]:
        term = RewardTerm(entry["plugin"], float(entry.get("weight", 1.0)), dict(entry.get("params", {})))
        _make(term)
        terms.append(term)
    return RewardSpec(tuple(terms), data.get("name", ""))


def to_dict(spec: RewardSpec) -> dict[str, Any]:
    """The specification as `parse_spec` reads it."""
    terms = [{"plugin": t.plugin, "weight": t.weight, "params": dict(t.params)} for t in spec.terms]
    return {"name": spec.name, "terms": terms}


def reward_id(spec: RewardSpec) -> str:
    """Short hash of a specification: two that score differently never share it."""
    return hashlib.sha256(json.dumps(to_dict(spec), sort_keys=True).encode()).hexdigest()[:12]


def family(spec: RewardSpec) -> str:
    """What kind of reward it is, whatever its numbers: its plugins, and the signals that each of them reads."""
    reads = {(term.plugin, tuple(sorted(_make(term).needs()))) for term in spec.terms}
    return " + ".join(f"{plugin}({', '.join(names)})" if names else plugin for plugin, names in sorted(reads))


def schema() -> dict[str, Any]:
    """JSON schema of a reward specification, with the parameters of every installed plugin."""
    variants = []
    for name, cls in sorted(available().items()):
        params = params_schema(cls)
        properties = {**_TERM["properties"], "plugin": {"const": name}, "params": params}
        required = ["plugin", "params"] if params["required"] else ["plugin"]
        term = {**_TERM, "title": name, "description": summary(cls), "properties": properties, "required": required}
        variants.append(term)
    terms = {**_SPEC["properties"]["terms"], "items": {"oneOf": variants}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "worldpilot reward specification",
        **_SPEC,
        "properties": {**_SPEC["properties"], "terms": terms},
    }


def summary(cls: type[RewardPlugin]) -> str:
    """A plugin in one line: the first of its docstring."""
    return cls.__doc__.strip().splitlines()[0] if cls.__doc__ else ""


def build(spec: RewardSpec, context: RewardContext) -> CompositeReward:
    """The reward of a specification, bound to a model.

    Raises:
        RewardError: a parameter, or something in the context, is wrong.
        UnknownName: no such plugin, or the model has no such signal.
    """
    return CompositeReward(spec, tuple(_make(term, context) for term in spec.terms))


def dry_run(reward: Reward, rollouts: Rollouts, budget_s: float) -> float:
    """Score for nothing; returns the seconds it took.

    Raises:
        RewardError: it failed, took longer than `budget_s`, or its scores are not N finite numbers.
    """
    elapsed = []
    scores = np.empty(0)
    for _ in range(2):  # the better of two: the first may pay for cold caches
        start = time.perf_counter()
        scores = np.asarray(reward.score(rollouts))
        elapsed.append(time.perf_counter() - start)
    if scores.shape not in ((len(rollouts),), (len(rollouts), rollouts.horizon)):
        raise RewardError(f"reward: scores must have shape ({len(rollouts)},), got {scores.shape}")
    if not np.isfinite(scores).all():
        bad = int(np.sum(~np.isfinite(scores)))
        raise RewardError(
            f"reward: {bad} of {scores.size} scores on the current rollouts are not finite; "
            "look for a division by zero, a logarithm or root of a negative number, an overflow"
        )
    if min(elapsed) > budget_s:
        raise RewardError(f"reward: scoring took {1e3 * min(elapsed):.1f} ms; the budget is {1e3 * budget_s:.1f} ms")
    return min(elapsed)


def _make(term: RewardTerm, context: RewardContext | None = None) -> RewardPlugin:
    """The plugin of a term, bound if there is a context; whatever goes wrong in it is a refusal."""
    cls = plugin(term.plugin)
    try:
        made = cls.from_params(term.params)
        return made if context is None else made.bind(context)
    except WorldpilotError:
        raise
    except Exception as error:  # a plugin may be a stranger's code
        raise RewardError(f"reward: {term.plugin} can't be made: {type(error).__name__}: {error}") from error


def _load_json(source: str | bytes) -> Any:
    """Strict JSON: bounded, UTF-8, no duplicate keys, no NaN or Infinity."""
    if len(source) > MAX_BYTES:
        raise RewardError(f"reward: a specification has at most {MAX_BYTES} bytes, got {len(source)}")
    try:
        text = source.decode("utf-8") if isinstance(source, bytes) else source
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RewardError(f"reward: the specification is not UTF-8: {error}") from error
    except RecursionError as error:
        raise RewardError("reward: the specification is nested too deeply") from error
    except ValueError as error:
        raise RewardError(f"reward: the specification is not JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that comes twice would silently lose its first value."""
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise RewardError(f"reward: the key {name[:64]!r} comes twice in one object")
        seen[name] = value
    return seen


def _no_constant(name: str) -> float:
    raise RewardError(f"reward: numbers must be finite, got {name}")


def _check_values(data: Any) -> None:
    """Refuse deep nesting, non-finite numbers, unprintable text; without recursion, as nesting may have any depth."""
    level = [data]
    for _ in range(MAX_DEPTH):
        inner = []
        for value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise RewardError(f"reward: numbers must be finite, got {value}")
            if isinstance(value, str) and not all(c.isprintable() or c in "\n\t" for c in value):
                raise RewardError(f"reward: text must be printable, got {value[:64]!r}")
            if isinstance(value, Mapping):
                inner.extend(value.values())
            elif isinstance(value, list | tuple):
                inner.extend(value)
        level = inner
    if level:
        raise RewardError(f"reward: the specification is nested deeper than {MAX_DEPTH} levels")
