"""The solvers by name."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from numbers import Integral, Real
from typing import Any

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.planners.solvers.base import SamplingSolver
from worldpilot.planners.solvers.cem import Cem, CemConfig
from worldpilot.planners.solvers.icem import Icem, IcemConfig
from worldpilot.planners.solvers.mppi import Mppi, MppiConfig
from worldpilot.planners.solvers.ssr import SampleScoreRank, SsrConfig

SOLVERS: Mapping[str, tuple[Any, Any]] = {
    "ssr": (SampleScoreRank, SsrConfig),
    "cem": (Cem, CemConfig),
    "icem": (Icem, IcemConfig),
    "mppi": (Mppi, MppiConfig),
}


def make(name: str, **settings: float) -> SamplingSolver:
    """The solver of that name, with settings that replace its defaults.

    Raises:
        UnknownName: no such solver; the message lists them.
        InvalidInput: no such setting, or a value it can't have.
    """
    if name not in SOLVERS:
        raise UnknownName("solver", name, SOLVERS)
    solver, config = SOLVERS[name]
    known = {field.name: field.type for field in fields(config)}
    if unknown := set(settings) - set(known):
        raise InvalidInput(f"solver {name}: no setting {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    for setting, value in settings.items():
        whole = known[setting] is int
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real) or not isfinite(value):
            kind = "a whole number" if whole else "a number"
            raise InvalidInput(f"solver {name}: {setting} must be {kind}, got {value!r}")
    return solver(config(**settings))
