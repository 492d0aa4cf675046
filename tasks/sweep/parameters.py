"""The `parameters:` of a W&B sweep file: what is allowed, and the values that they stand for."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

Parameter = Mapping[str, Any]

FIELDS = {"constant": "value", "categorical": "values"}  # of W&B's distributions those that a grid is made of
DRAWN = ("min", "max", "mu", "sigma", "a", "b", "q", "probabilities")  # fields of those that W&B draws from
MOST_CELLS = 100_000  # of a grid; beyond it W&B's server stops answering, too


def check(parameters: object, path: str = "parameters") -> None:
    """Raise ValueError, beginning with the field's name, where W&B would refuse `parameters` or a grid has no use."""
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{path}: give at least one parameter")
    for name, parameter in parameters.items():
        field = f"{path}.{str(name)[:100]}"
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            raise ValueError(f"{field}: a name is letters, digits, '.', '_' and '-'")
        if not isinstance(parameter, dict):
            raise ValueError(f"{field}: is {parameter!r}: write {{value: {parameter!r}}} or {{values: [...]}}")
        if "parameters" not in parameter:
            _check_one(parameter, field)
        elif set(parameter) == {"parameters"}:
            check(parameter["parameters"], f"{field}.parameters")
        else:
            raise ValueError(f"{field}: `parameters` stands alone")


def _check_one(parameter: Parameter, field: str) -> None:
    given = set(parameter) - {"distribution"}
    for name in sorted(given, key=str):
        if name in DRAWN:
            raise ValueError(f"{field}.{name}: only W&B's server draws values: use `wandb agent`, or give `values`")
        if name not in FIELDS.values():
            raise ValueError(f"{field}.{name}: give `value` or `values`")
    if len(given) != 1:
        raise ValueError(f"{field}: give either `value` or `values`")
    kind = str(parameter.get("distribution", "constant" if "value" in given else "categorical"))
    if kind not in FIELDS or FIELDS[kind] not in given:
        raise ValueError(f"{field}.distribution: leave it out: `value` and `values` are all that a grid has")
    if "values" in given and (not isinstance(parameter["values"], list) or not parameter["values"]):
        raise ValueError(f"{field}.values: give a list with at least one value")
    for value in values(parameter):
        if value is None:
            raise ValueError(f"{field}: null reaches a run as the text None: give a value, or leave the parameter out")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field}: is {value}: give finite numbers")


def values(parameter: Parameter) -> list[Any]:
    """Return the values that a parameter takes; those of one that holds others are their combinations."""
    if "parameters" in parameter:
        return grid(parameter["parameters"])
    return [parameter["value"]] if "value" in parameter else list(parameter["values"])


def grid(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """Return every combination of the values, the last parameter varying fastest."""
    axes = map(values, parameters.values())
    return [dict(zip(parameters, chosen, strict=True)) for chosen in itertools.product(*axes)]


def count(parameters: Mapping[str, Parameter]) -> int:
    """Return the number of combinations of the values, which may be far too many to list."""
    return math.prod(count(p["parameters"]) if "parameters" in p else len(values(p)) for p in parameters.values())
