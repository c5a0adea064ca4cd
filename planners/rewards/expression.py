"""Rewards as arithmetic over signals: text in, a vectorised function out, and no code ever executed.

The text is parsed to a syntax tree, and the tree is translated node by node into closures over numpy functions. What
is not in the tables below has no translation: attributes, subscripts, strings, other calls can't even be expressed.
Every value has a unit, and units are checked while translating. A number written in the expression has whatever unit
makes it fit, and so has a product with one: `block_x + block_yaw` is refused, `block_x + 0.1 * block_yaw` is a choice
of weights.
"""

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from worldpilot.errors import RewardError, UnknownName
from worldpilot.planners.rewards.base import RewardContext, RewardPlugin, When, angle_diff, bound, param, reduce
from worldpilot.types import FloatArray, ModelSpec, Rollouts

MAX_LENGTH = 1000  # characters
MAX_DEPTH = 32
MAX_NODES = 256
MAX_EXPONENT = 8

# No quotes, brackets, braces, colons, backslashes, nothing beyond ASCII: most of Python is gone before it is parsed.
_CHARACTERS = re.compile(r"[A-Za-z0-9_ \t\n+\-*/%().,<>=!]*")
# Decimal numbers only; the sign of an exponent is outside the match.
_NUMBERS = re.compile(r"(?<![\w])[\d.][\w.]*")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE]\d*)?")

Values = npt.NDArray[Any]  # (N, H) float64 or bool, or a scalar of the same
Unit = tuple[tuple[str, float], ...]  # base unit and exponent, sorted: (("m", 1), ("s", -1)); () is dimensionless
Function = Callable[[Mapping[str, Values]], Values]

ONE: Unit = ()
RADIAN: Unit = (("rad", 1.0),)
CONDITION: Unit = (("condition", 1.0),)  # what comparisons yield


class Compiled(NamedTuple):
    """A translated expression: its values given the names' values, and its unit."""

    function: Function
    unit: Unit | None  # None: a number written in the expression, which takes any


@dataclass(frozen=True)
class Expression(RewardPlugin):
    """Arithmetic over signals, controls, `speed`, `time` and `disagreement`, such as -(block_x - 0.1)**2.

    Evaluated at every model step. A control's value at a step is its mean over the step, `speed` the mean length of
    the control vector (if all controls share a unit), `time` the seconds from now to the step's end.
    """

    expression: str = param(high=MAX_LENGTH, help="the arithmetic; see the documentation of reward expressions")
    when: When = param("mean", help="which step of the horizon counts")
    discount: float = param(1.0, low=0.0, high=1.0, help="worth of an improvement one model step later")
    compiled: Compiled | None = bound()
    wanted: Mapping[str, float] | None = bound()

    def __post_init__(self) -> None:
        super().__post_init__()
        compile_expression(self.expression, _AnyName())

    def needs(self) -> tuple[str, ...]:
        """Every name it reads: signals, and what else an expression may use."""
        read = {node.id for node in ast.walk(parse(self.expression)) if isinstance(node, ast.Name)}
        return tuple(sorted(read - {"pi", *_FUNCTIONS}))

    def bind(self, context: RewardContext) -> Self:
        spec = context.model_spec
        signals = {signal.name for signal in spec.signals}
        wanted = {name: value for name, value in targets(parse(self.expression)).items() if name in signals}
        return replace(self, compiled=compile_expression(self.expression, units(spec)), wanted=wanted)

    def target(self) -> Mapping[str, float]:
        return self.wanted or {}

    def score(self, rollouts: Rollouts) -> FloatArray:
        if self.compiled is None:
            raise RewardError("reward: the expression is not bound to a model; call bind first")
        with np.errstate(all="ignore"):  # what is not finite is found by whoever ranks the scores
            values = self.compiled.function(Environment(rollouts))
            return reduce(np.broadcast_to(values, (len(rollouts), rollouts.horizon)), self.when, self.discount)


def units(spec: ModelSpec) -> dict[str, Unit]:
    """The names an expression may use on a model, with their units."""
    action = spec.action
    named = {"time": "s", "disagreement": "1"}
    if len(set(action.units)) == 1:
        named["speed"] = action.units[0]
    named |= dict(zip(action.names, action.units, strict=True))
    named |= {signal.name: signal.unit for signal in spec.signals}
    return {name: parse_unit(unit) for name, unit in named.items()}


class Environment(dict[str, Values]):
    """The values of those names on rollouts, each (N, H) or broadcastable to it, computed when first asked for."""

    def __init__(self, rollouts: Rollouts) -> None:
        super().__init__()
        self._rollouts = rollouts

    def __missing__(self, name: str) -> Values:
        self[name] = np.asarray(self._compute(name), np.float64)
        return self[name]

    def _compute(self, name: str) -> Values:
        r, action = self._rollouts, self._rollouts.action_spec
        if name in r.signals:
            return r.signals[name]
        controls = r.actions.reshape(len(r), r.horizon, action.block, action.control_dim)
        if name in action.names:
            return controls[..., action.names.index(name)].mean(axis=-1)
        if name == "speed":
            return np.sqrt(np.square(controls).sum(axis=-1)).mean(axis=-1)
        if name == "time":
            return np.arange(1, r.horizon + 1) * action.block * action.control_dt
        if name == "disagreement":
            return r.disagreement
        raise RewardError(f"expression: the rollouts have no {name!r}; bind the reward to the model that made them")


def parse(text: str) -> ast.expr:
    """The syntax tree of an expression, bounded in every way, not yet checked node by node.

    Raises:
        RewardError: too long, too deep, a character or syntax that has no place in arithmetic.
    """
    if len(text) > MAX_LENGTH:
        raise RewardError(f"expression: at most {MAX_LENGTH} characters, got {len(text)}")
    if not _CHARACTERS.fullmatch(text):
        bad = next(c for c in text if not _CHARACTERS.fullmatch(c))
        raise RewardError(f"expression: the character {bad!a} is not allowed; only arithmetic, names and numbers are")
    for number in _NUMBERS.findall(text):
        if not _NUMBER.fullmatch(number):
            raise RewardError(f"expression: {number[:64]!r} is not a decimal number")
    try:
        tree = ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RewardError(f"expression: not arithmetic: {getattr(error, 'msg', error)}") from error
    level, nodes, depth = [tree], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise RewardError(f"expression: at most {MAX_NODES} nodes, nested at most {MAX_DEPTH} deep")
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return tree


def compile_expression(text: str, names: Mapping[str, Unit | None]) -> Compiled:
    """Translate an expression over these names.

    Raises:
        RewardError: something that is not arithmetic, a wrong number of arguments, units that do not fit.
        UnknownName: a name or function that does not exist; the message lists those that do.
    """
    return _number(_translate(parse(text), names))


def parse_unit(text: str) -> Unit:
    """Units such as "m", "rad", "m/s", "1", "kg*m/s^2"."""
    powers: dict[str, float] = {}
    sign = 1.0
    for token in re.findall(r"[*/]|[^*/\s]+", text):
        if token in "*/":
            sign = 1.0 if token == "*" else -1.0
            continue
        base, _, power = token.partition("^")
        if base != "1":
            powers[base] = powers.get(base, 0.0) + sign * float(power or 1)
    return _unit(powers)


class _AnyName(dict[str, Unit | None]):
    """Before the model is known, any name may turn out to exist, in any unit."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        return None


# --- the translation ---------------------------------------------------------------------------------------------


def _translate(node: ast.expr, names: Mapping[str, Unit | None]) -> Compiled:
    """One node of the tree, its children first."""
    match node:
        case ast.Constant(value=bool() | complex()) | ast.Constant(value=None):
            raise RewardError(f"expression: {node.value!r} is not a number")
        case ast.Constant(value=int() | float() as value):
            return _constant(value)
        case ast.Name(id="pi"):
            return _constant(math.pi)
        case ast.Name(id=name):
            if name not in names:
                raise UnknownName("name in the expression", name, [*names, "pi"])
            return Compiled(lambda env: env[name], names[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            function, unit = _number(_translate(operand, names))
            return Compiled(lambda env: -function(env), unit)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(_translate(operand, names))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            function = _condition(_translate(operand, names), "not")
            return Compiled(lambda env: np.logical_not(function(env)), CONDITION)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_translate(left, names), right)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            symbol, ufunc = _BINARY[type(op)]
            a, b = (_number(_translate(side, names)) for side in (left, right))
            return Compiled(lambda env: ufunc(a.function(env), b.function(env)), _binary_unit(symbol, a.unit, b.unit))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compare([_translate(side, names) for side in (left, *comparators)], ops)
        case ast.BoolOp(op=op, values=values):
            word, ufunc = ("and", np.logical_and) if isinstance(op, ast.And) else ("or", np.logical_or)
            conditions = [_condition(_translate(value, names), word) for value in values]
            return Compiled(lambda env: _fold(ufunc, [condition(env) for condition in conditions]), CONDITION)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _call("where", [_translate(part, names) for part in (test, body, orelse)])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            if name not in _FUNCTIONS:
                raise UnknownName("function in the expression", name, _FUNCTIONS)
            return _call(name, [_translate(arg, names) for arg in args])
    kind = {"Call": "a call with keywords or of something that is not a plain name"}.get(type(node).__name__)
    raise RewardError(f"expression: {kind or type(node).__name__} is not arithmetic")


def _constant(value: float) -> Compiled:
    """A number. As an array it divides by zero without an exception and overflows to infinity."""
    try:
        number = np.asarray(value, np.float64)
    except OverflowError:
        number = np.asarray(np.inf)
    if not np.isfinite(number):
        raise RewardError("expression: a number is too large for a float")
    return Compiled(lambda env: number, None)


def _power(base: Compiled, exponent: ast.expr) -> Compiled:
    """A power with a small number as its exponent."""
    match exponent:
        case ast.Constant(value=int() | float() as value):
            power = value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            power = -value
        case _:
            power = np.nan
    if not abs(power) <= MAX_EXPONENT:
        raise RewardError(f"expression: an exponent is a number between -{MAX_EXPONENT} and {MAX_EXPONENT}")
    power, (function, unit) = float(power), _number(base)
    unit = unit if unit is None else _unit({name: p * power for name, p in unit})
    return Compiled(lambda env: np.power(function(env), power), unit)


def _compare(operands: list[Compiled], ops: list[ast.cmpop]) -> Compiled:
    """A chain of comparisons, a < b < c meaning a < b and b < c."""
    steps = []
    for a, op, b in zip(operands, ops, operands[1:], strict=False):
        if type(op) not in _COMPARE:
            raise RewardError(f"expression: the comparison {type(op).__name__} is not arithmetic")
        symbol, ufunc = _COMPARE[type(op)]
        a, b = _number(a), _number(b)
        _same(symbol, a.unit, b.unit)
        steps.append((ufunc, a.function, b.function))
    return Compiled(lambda env: _fold(np.logical_and, [u(f(env), g(env)) for u, f, g in steps]), CONDITION)


def _call(name: str, args: list[Compiled]) -> Compiled:
    """A call of one of the functions."""
    fewest, most, function, unit_rule = _FUNCTIONS[name]
    if not fewest <= len(args) <= most:
        expected = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise RewardError(f"expression: {name} takes {expected} arguments, got {len(args)}")
    if name == "where":
        test = _condition(args[0], "where")
        a, b = (_number(arg) for arg in args[1:])
        unit = _same("where", a.unit, b.unit)
        return Compiled(lambda env: np.where(test(env), a.function(env), b.function(env)), unit)
    numbers = [_number(arg) for arg in args]
    unit = unit_rule(name, *(number.unit for number in numbers))
    return Compiled(lambda env: function(*(number.function(env) for number in numbers)), unit)


def _number(value: Compiled) -> Compiled:
    """Where a number is needed: conditions count as 0 and 1."""
    if value.unit != CONDITION:
        return value
    return Compiled(lambda env: np.asarray(value.function(env), np.float64), None)


def _condition(value: Compiled, what: str) -> Function:
    """Where a condition is needed: numbers don't count as one."""
    if value.unit != CONDITION:
        raise RewardError(f"expression: {what} needs a condition, such as block_x > 0.1")
    return value.function


def _fold(ufunc: Any, values: list[Values]) -> Values:
    """ufunc(ufunc(a, b), c) …"""
    result = values[0]
    for value in values[1:]:
        result = ufunc(result, value)
    return result


# --- what it wants -----------------------------------------------------------------------------------------------


def targets(tree: ast.expr) -> dict[str, float]:
    """The names that an expression wants at a value: whose distance from one it punishes, as -abs(x - 0.1) does,
    -(x - 0.1)**2, -hypot(x, y - 0.1) or exp(-x**2). One that it wants at two values is left out."""
    found: dict[str, set[float]] = {}
    for name, value in _punished(tree, 1.0):
        found.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _punished(node: ast.expr, sign: float) -> Iterator[tuple[str, float]]:
    """Names, and the values from which `sign` times this part of a sum punishes any distance."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield from _punished(operand, -sign)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield from _punished(left, sign)
            yield from _punished(right, sign if isinstance(op, ast.Add) else -sign)
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            factor, scaled = _factor(node)
            if factor:
                yield from _punished(scaled, sign * factor)
        case ast.Call(func=ast.Name(id="sqrt" | "exp" | "log" | "tanh"), args=[arg]):  # grow with what they are given
            yield from _punished(arg, sign)
        case ast.Call(func=ast.Name(id="abs" | "hypot")) if sign < 0:
            yield from _zeros(node)
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=2 | 4 | 6 | 8)) if sign < 0:
            yield from _zeros(base)


def _zeros(node: ast.expr) -> Iterator[tuple[str, float]]:
    """Names, and the values at which this is zero; none where that can't be told of each by itself."""
    match node:
        case ast.Name(id=name) if name != "pi":
            yield name, 0.0
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield from _zeros(operand)
        case ast.Call(func=ast.Name(id="abs" | "hypot"), args=args):
            for arg in args:
                yield from _zeros(arg)
        case (
            ast.BinOp(left=a, op=ast.Sub() | ast.Add() as op, right=b)
            | ast.Call(func=ast.Name(id="angle_diff") as op, args=[a, b])
        ):
            name, other = (a, b) if isinstance(a, ast.Name) else (b, a)
            value = _value(other)
            if isinstance(name, ast.Name) and value is not None:
                yield name.id, -value if isinstance(op, ast.Add) else value
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            factor, scaled = _factor(node)
            if factor:
                yield from _zeros(scaled)


def _factor(node: ast.BinOp) -> tuple[float, ast.expr]:
    """The number by which a product or a quotient scales, and what; 0 if there is none."""
    if (value := _value(node.right)) is not None:
        return value, node.left
    if isinstance(node.op, ast.Mult) and (value := _value(node.left)) is not None:
        return value, node.right
    return 0.0, node


def _value(node: ast.expr) -> float | None:
    """Of an expression without names, if it has one."""
    try:
        with np.errstate(all="ignore"):
            value = float(_number(_translate(node, {})).function({}))
    except (RewardError, UnknownName):
        return None
    return value if math.isfinite(value) else None


# --- units -------------------------------------------------------------------------------------------------------


def _unit(powers: Mapping[str, float]) -> Unit:
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _show(unit: Unit | None) -> str:
    """A unit as people write it."""
    if not unit:
        return "no unit"
    return "*".join(name if power == 1 else f"{name}^{power:g}" for name, power in unit)


def _same(what: str, *found: Unit | None) -> Unit | None:
    """The one unit that all share; numbers take any."""
    known = [unit for unit in found if unit is not None]
    for unit in known[1:]:
        if unit != known[0]:
            raise RewardError(
                f"expression: {what} combines {_show(known[0])} with {_show(unit)}; "
                "give one a weight (0.1 * ...) to say what its unit is worth in the other's"
            )
    return known[0] if known else None


def _binary_unit(symbol: str, a: Unit | None, b: Unit | None) -> Unit | None:
    """The unit of a sum, difference, product, quotient or remainder."""
    if symbol in "+-%":
        return _same(symbol, a, b)
    if a is None or b is None:
        return None
    powers = dict(a)
    for name, power in b:
        powers[name] = powers.get(name, 0.0) + (power if symbol == "*" else -power)
    return _unit(powers)


def _pure(name: str, unit: Unit | None) -> Unit | None:
    """Functions of a dimensionless number."""
    if unit not in (None, ONE):
        raise RewardError(f"expression: {name} needs a number without unit, got {_show(unit)}; divide by a scale first")
    return unit


def _of_angle(name: str, unit: Unit | None) -> Unit | None:
    """Functions of an angle."""
    if unit not in (None, RADIAN):
        raise RewardError(f"expression: {name} needs an angle [rad], got {_show(unit)}")
    return ONE


def _angles(name: str, *found: Unit | None) -> Unit | None:
    """Functions of angles to an angle."""
    for unit in found:
        _of_angle(name, unit)
    return RADIAN


def _root(name: str, unit: Unit | None) -> Unit | None:
    """The square root."""
    return unit if unit is None else _unit({base: power / 2 for base, power in unit})


def _to_angle(name: str, unit: Unit | None) -> Unit | None:
    """Degrees, a plain number, to radians."""
    _pure(name, unit)
    return RADIAN


_BINARY: dict[type[ast.operator], tuple[str, Any]] = {
    ast.Add: ("+", np.add),
    ast.Sub: ("-", np.subtract),
    ast.Mult: ("*", np.multiply),
    ast.Div: ("/", np.divide),
    ast.Mod: ("%", np.mod),
}
_COMPARE: dict[type[ast.cmpop], tuple[str, Any]] = {
    ast.Lt: ("<", np.less),
    ast.LtE: ("<=", np.less_equal),
    ast.Gt: (">", np.greater),
    ast.GtE: (">=", np.greater_equal),
    ast.Eq: ("==", np.equal),
    ast.NotEq: ("!=", np.not_equal),
}
# name -> fewest and most arguments, the function, what it does to units
_FUNCTIONS: dict[str, tuple[int, int, Any, Any]] = {
    "abs": (1, 1, np.abs, _same),
    "min": (2, 8, lambda *values: _fold(np.minimum, list(values)), _same),
    "max": (2, 8, lambda *values: _fold(np.maximum, list(values)), _same),
    "clip": (3, 3, lambda x, low, high: np.minimum(np.maximum(x, low), high), _same),
    "where": (3, 3, np.where, _same),
    "hypot": (2, 2, np.hypot, _same),
    "sqrt": (1, 1, np.sqrt, _root),
    "exp": (1, 1, np.exp, _pure),
    "log": (1, 1, np.log, _pure),
    "tanh": (1, 1, np.tanh, _pure),
    "sin": (1, 1, np.sin, _of_angle),
    "cos": (1, 1, np.cos, _of_angle),
    "angle_diff": (2, 2, angle_diff, _angles),
    "deg": (1, 1, np.deg2rad, _to_angle),
}
