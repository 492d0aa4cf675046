"""The `parameters:` of a W&B sweep file: what is allowed, and the values that they stand for."""

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

Parameter = Mapping[str, Any]

# distribution: (fields needed, fields allowed besides, a draw); as W&B defines them
NAMED: dict[str, tuple[set[str], set[str], Callable[[random.Random, dict[str, Any]], float]]] = {
    "int_uniform": ({"min", "max"}, set(), lambda r, p: r.randint(p["min"], p["max"])),
    "uniform": ({"min", "max"}, set(), lambda r, p: r.uniform(p["min"], p["max"])),
    "log_uniform_values": ({"min", "max"}, set(), lambda r, p: _between_logs(r, p["min"], p["max"])),
    "inv_log_uniform_values": ({"min", "max"}, set(), lambda r, p: _between_logs(r, p["min"], p["max"])),
    "normal": (set(), {"mu", "sigma"}, lambda r, p: r.gauss(p["mu"], p["sigma"])),
    "log_normal": (set(), {"mu", "sigma"}, lambda r, p: r.lognormvariate(p["mu"], p["sigma"])),
    "beta": (set(), {"a", "b"}, lambda r, p: r.betavariate(p["a"], p["b"])),
}
QUANTIZED = {f"q_{n}": n for n in ("uniform", "log_uniform_values", "normal", "log_normal", "beta")}
DISCRETE = {
    "constant": {"value"},
    "categorical": {"values"},
    "categorical_w_probabilities": {"values", "probabilities"},
}
MOST_CELLS = 100_000  # of a grid; beyond it W&B's server stops answering, too
LARGEST = 1e15  # of a bound: no setting is larger, and every whole number up to it is a float
DEFAULTS = {"mu": 0.0, "sigma": 1.0, "a": 1.0, "b": 1.0, "q": 1.0}
OLD = ("log_uniform", "inv_log_uniform", "q_log_uniform")  # their bounds were exponents
KINDS = [*DISCRETE, *NAMED, *QUANTIZED]
FIELDS = ("value", "values", "probabilities", "distribution", "min", "max", *DEFAULTS)


def _between_logs(source: random.Random, low: float, high: float) -> float:
    return math.exp(source.uniform(math.log(low), math.log(high)))


def kind(parameter: Parameter) -> str:
    """The parameter's distribution, given or understood; `nested` where it holds parameters of its own."""
    if "parameters" in parameter:
        return "nested"
    if "distribution" in parameter:
        return str(parameter["distribution"])
    if "values" in parameter:
        return "categorical_w_probabilities" if "probabilities" in parameter else "categorical"
    if "value" in parameter:
        return "constant"
    whole = any(isinstance(parameter.get(name), int) for name in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def check(parameters: Any, method: str, path: str = "parameters") -> None:
    """Raise ValueError, beginning with the field's name, where W&B would refuse `parameters`."""
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{path}: give at least one parameter")
    for name, parameter in parameters.items():
        field = f"{path}.{str(name)[:100]}"
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            raise ValueError(f"{field}: a name is letters, digits, '.', '_' and '-'")
        if not isinstance(parameter, dict):
            raise ValueError(f"{field}: is {parameter!r}: write {{value: {parameter!r}}} or {{values: [...]}}")
        if kind(parameter) == "nested":
            if set(parameter) != {"parameters"}:
                raise ValueError(f"{field}: `parameters` stands alone")
            check(parameter["parameters"], method, f"{field}.parameters")
        else:
            _check_one(parameter, method, field)


def _check_one(parameter: Parameter, method: str, field: str) -> None:
    for name in parameter:
        if name not in FIELDS:
            raise ValueError(f"{field}.{name}: is none of {', '.join(FIELDS)}")
    name = kind(parameter)
    if name in OLD:
        raise ValueError(f"{field}.distribution: W&B gave up {name}: write {name}_values, with the bounds themselves")
    if name not in KINDS:
        raise ValueError(f"{field}.distribution: {name!r} is none of {', '.join(KINDS)}")
    needed, allowed = DISCRETE.get(name, set()), set()
    if name in NAMED or name in QUANTIZED:
        needed, allowed, _ = NAMED[QUANTIZED.get(name, name)]
        allowed = allowed | ({"q"} if name in QUANTIZED else set())
    given = set(parameter) - {"distribution"}
    for missing in sorted(needed - given):
        raise ValueError(f"{field}.{missing}: is missing; or give `value` or `values`")
    for extra in sorted(given - needed - allowed):
        raise ValueError(f"{field}.{extra}: {name} does not have it")
    for number in sorted(given - {"value", "values", "probabilities"}):
        _check_number(parameter[number], number, name, f"{field}.{number}")
    if "max" in given and parameter["max"] <= parameter["min"]:
        raise ValueError(f"{field}.max: {parameter['max']} is not above min, {parameter['min']}")
    if "values" in needed and (not isinstance(parameter["values"], list) or not parameter["values"]):
        raise ValueError(f"{field}.values: give a list with at least one value")
    for value in parameter.get("values", [parameter["value"]] if "value" in parameter else []):
        _check_value(value, field)
    if "probabilities" in needed:
        _check_probabilities(parameter, field)
    if method == "grid" and name not in ("constant", "categorical", "int_uniform", "q_uniform"):
        raise ValueError(f"{field}: a grid cannot have the distribution {name}: give values, or use method: random")


def _check_value(value: Any, field: str) -> None:
    if value is None:
        raise ValueError(f"{field}: null reaches a run as the text None: give a value, or leave the parameter out")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{field}: is {value}: give finite numbers")


def _check_number(value: Any, number: str, name: str, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int if name == "int_uniform" else int | float):
        what = "a number (YAML reads 1e-3 as text: write 1.0e-3)"
        if name == "int_uniform":
            what = "a whole number, or write both bounds with a point"
        raise ValueError(f"{field}: is {value!r}: give {what}")
    if not abs(value) <= LARGEST:
        raise ValueError(f"{field}: give a number of at most {LARGEST:g}")
    if (number == "q" and value <= 0) or (number in ("sigma", "a", "b") and value < 0):
        raise ValueError(f"{field}: is {value}: it must be positive")
    if number == "min" and name.endswith("log_uniform_values") and value <= 0:
        raise ValueError(f"{field}: is {value}: {name} needs a positive one")


def _check_probabilities(parameter: Parameter, field: str) -> None:
    chances = parameter["probabilities"]
    good = isinstance(chances, list) and all(isinstance(p, int | float) and 0 <= p <= 1 for p in chances)
    if not good or len(chances) != len(parameter["values"]) or abs(sum(chances) - 1) > 1e-6:
        raise ValueError(f"{field}.probabilities: give one for each value, together 1")


def grid(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """Every combination of the values, the last parameter varying fastest."""
    axes = [_axis(parameter) for parameter in parameters.values()]
    return [dict(zip(parameters, values, strict=True)) for values in itertools.product(*axes)]


def _axis(parameter: Parameter) -> list[Any]:
    name = kind(parameter)
    if name == "nested":
        return grid(parameter["parameters"])
    if name == "constant":
        return [parameter["value"]]
    if name == "int_uniform":
        return list(range(parameter["min"], parameter["max"] + 1))
    if name == "q_uniform":  # as W&B: the upper end is left out
        q = parameter.get("q", 1.0)
        return [parameter["min"] + i * q for i in range(math.ceil((parameter["max"] - parameter["min"]) / q))]
    return parameter["values"]


def count(parameters: Mapping[str, Parameter]) -> int:
    """Return the number of combinations of the values, which may be far too many to list."""
    return math.prod(_length(parameter) for parameter in parameters.values())


def _length(parameter: Parameter) -> int:
    name = kind(parameter)
    if name == "nested":
        return count(parameter["parameters"])
    if name == "constant":
        return 1
    if name == "int_uniform":
        return parameter["max"] - parameter["min"] + 1
    if name == "q_uniform":
        return math.ceil((parameter["max"] - parameter["min"]) / parameter.get("q", 1.0))
    return len(parameter["values"])


def draw(parameters: Mapping[str, Parameter], source: random.Random) -> dict[str, Any]:
    """One value of every parameter."""
    return {name: _draw(parameter, source) for name, parameter in parameters.items()}


def _draw(parameter: Parameter, source: random.Random) -> Any:
    name = kind(parameter)
    if name == "nested":
        return draw(parameter["parameters"], source)
    if name == "constant":
        return parameter["value"]
    if name in DISCRETE:
        return source.choices(parameter["values"], parameter.get("probabilities"))[0]
    filled = DEFAULTS | dict(parameter)
    value = NAMED[QUANTIZED.get(name, name)][2](source, filled)
    if name not in QUANTIZED:
        return value
    rounded = round(value / filled["q"]) * filled["q"]
    return int(rounded) if isinstance(filled["q"], int) else rounded
