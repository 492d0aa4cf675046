"""Runs that are no run directories: a tidy table of anybody's own, MLPerf's reference files, and W&B exports.

A W&B export has the record's own fields under dotted names (`batch.size`, `targets.0.status`), or the names under which
runs mirror their record to W&B's config (`batch_size`, `lr_scaling`, ...). The latter carry no targets, which are then
chosen with --target from the histories.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Plan, Rate, Record, Status, from_fields
from tasks.report.sources.runs import Columns, Found, Hit, Run, UnusableError, run_of

Row = Mapping[str, str]
Fields = dict[str, Any]


def made_run(source: str, hit: Hit, size: int, rate: float, final: Mapping[str, float], more: Fields) -> Run:
    """Return a run of which little more is known than what it took; `more` are further fields of its record."""
    known: Fields = {"rate": Rate(rate, rate), "batch": Batch(size), "targets": (hit,), "final": dict(final)}
    return Run(source, Record(VERSION, hit.status, **known, **more), [hit])


# a tidy table, one row a run --------------------------------------------------------------------------------

NEEDED = {"batch_size", "seed", "status"}  # and steps or examples
ENDS = ("reached", "budget", "diverged", "failed", "running")


def is_table(columns: Iterable[str]) -> bool:
    """Tell a tidy table by its columns."""
    return set(columns) >= NEEDED and bool({"steps", "examples"} & set(columns))


def read_table(source: Path, rows: Iterable[Row]) -> Found:
    """Return the runs of a table's rows, and the rows that are none with the reason."""
    runs, left_out = [], []
    for line, row in enumerate(rows, 2):
        try:
            runs.append(table_run(source, line, row))
        except UnusableError as reason:
            left_out.append((f"{source}: line {line}", str(reason)))
    return runs, left_out


def number_in(row: Row, name: str, least: float = 0.0) -> float | None:
    """Return a cell as a number, None where it is empty. Raises UnusableError."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > least):
        raise UnusableError(f"{name} is {text!r}; give a number above {least:g}")
    return value


def table_run(source: Path, line: int, row: Row) -> Run:
    """Return the run of one row. Raises UnusableError."""
    size, seed = number_in(row, "batch_size"), number_in(row, "seed", least=-1)
    steps, examples = number_in(row, "steps"), number_in(row, "examples")
    status, target, stage = ((row.get(name) or "").strip() for name in ("status", "target", "stage"))
    status = status.lower()
    if size is None or size != int(size) or seed is None:
        raise UnusableError("batch_size and seed must be whole numbers")
    if status not in ENDS:
        raise UnusableError(f"status is {status!r}; give {', '.join(ENDS)}")
    steps = examples / size if steps is None and examples is not None else steps
    if steps is None and status == "reached":
        raise UnusableError("'reached' needs steps or examples")
    at = None if steps is None else Crossing(steps, steps * size)
    hit = Hit(target or "the target", "max", None, cast(Status, status), hit=at if status == "reached" else None)
    named: Fields = {"study": source.stem, "run": f"line {line}", "task": "your table", "network": "your network"}
    named |= {"seed": int(seed), "data": Data("your data"), "optimizer": Optimizer("your optimizer")}
    named["plan"] = Plan("table", stage) if stage else None
    rate, final = number_in(row, "learning_rate") or math.nan, {"step": at.steps, "examples": at.examples} if at else {}
    return made_run(f"{source}: line {line}", hit, int(size), rate, final, named)


# MLPerf: how many epochs, or examples, a benchmark took at each batch size ------------------------------------

EXAMPLES_IN_AN_EPOCH = {"resnet": 1_281_167}  # where MLPerf counts epochs: ImageNet's training images
NOMINAL = 1_000_000  # examples in an epoch of data of unknown size: ratios, and so the batch scale, do not need it
LARGEST_EPOCHS = 5_000  # above it, what MLPerf calls "epochs to converge" are samples


def is_reference_point(point: object) -> bool:
    """Tell an entry of an MLPerf reference-convergence file."""
    return isinstance(point, dict) and {"BS", "Benchmark", "Epochs to converge"} <= set(point)


def read_mlperf(source: Path, content: Mapping[str, Fields], sizes: Mapping[str, int]) -> Found:
    """Read reference points, one run per number; `sizes` has the examples in an epoch of a benchmark."""
    runs, left_out = [], []
    for name, point in content.items():
        try:
            runs += reference_runs(source, name, point, EXAMPLES_IN_AN_EPOCH | dict(sizes))
        except UnusableError as reason:
            left_out.append((f"{source}: {name}", str(reason)))
    return runs, left_out


def resolution(values: list[float]) -> float:
    """Return the unit of a group's numbers: what all are multiples of or, if some are equal, their smaller gaps.

    0 if they do not tell.
    """
    unit: float = math.gcd(*(int(v) for v in values)) if all(v == int(v) for v in values) else 0
    gaps = np.diff(sorted(set(values)))
    if len(gaps) + 1 < len(values) and len(gaps):
        unit = max(unit, float(np.quantile(gaps, 0.25, method="lower")))
    return unit if unit < min(values) / 2 else 0


def reference_runs(source: Path, name: str, point: Fields, sizes: Mapping[str, int]) -> list[Run]:
    """Make runs of one reference point; each number lies in its last unit. Raises UnusableError."""
    size, values, benchmark = point["BS"], point["Epochs to converge"], str(point["Benchmark"])
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and 0 < v < math.inf for v in values)
    if type(size) is not int or size < 1 or not numbers or not values:
        raise UnusableError("no positive batch size and epochs")
    per_epoch = 1 if max(values) > LARGEST_EPOCHS else sizes.get(benchmark)
    counted = "" if per_epoch else f", an epoch counted as {NOMINAL:,} examples"
    rate = (point.get("Hyperparams") or {}).get("opt_base_learning_rate")
    rate = float(rate) if isinstance(rate, int | float) else math.nan
    same: Fields = {"study": source.stem, "task": "MLPerf reference", "network": f"MLPerf's {benchmark}"}
    same |= {"data": Data(f"its data{counted}"), "optimizer": Optimizer("as submitted")}
    unit, runs = resolution(values), []
    for i, value in enumerate(values):
        low, high = (v * (per_epoch or NOMINAL) for v in (value - unit, value))
        at = Crossing(math.sqrt(low * high) / size, math.sqrt(low * high))
        given: Fields = {"hit": at, "resolution": high / low, "nominal": per_epoch is None}
        hit = Hit("the quality target", "max", None, "reached", **given)
        final = {"step": high / size, "examples": high}
        runs.append(
            made_run(f"{source}: {name} #{i}", hit, size, rate, final, same | {"run": f"{name}-{i}", "seed": i})
        )
    return runs


# W&B: the CSV of a runs table, or a JSON list of runs with their histories --------------------------------------

MIRRORED = {
    **{"batch_size": "batch.size", "micro_batch_size": "batch.micro", "ghost_batch_size": "batch.ghost"},
    **{"learning_rate": "rate.effective", "base_learning_rate": "rate.base", "lr_scaling": "rate.scaling_rule"},
    **{"optimizer": "optimizer.name", "data": "data.name", "data_hash": "data.hash"},
    **{name: name for name in ("study", "run", "task", "network", "parameters", "seed", "precision")},
}
STATES = {"finished": "budget", "running": "running"}  # every other end of a W&B run is a failure


def nested(flat: Fields) -> Fields:
    """Turn dotted or slashed names such as `batch.global` and `targets.0.status` into nested fields."""
    tree: Fields = {}
    for name, value in flat.items():
        *parents, last = name.replace("record/", "record.").split(".")
        here = tree
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return cast(Fields, as_lists(tree.get("record", tree)))


def as_lists(tree: object) -> object:
    """Turn dictionaries with keys 0, 1, ... into lists, throughout."""
    if not isinstance(tree, dict):
        return tree
    tree = {key: as_lists(value) for key, value in tree.items()}
    if tree and all(key.isdigit() for key in tree):
        return [tree[key] for key in sorted(tree, key=int)]
    return tree


def record_of(flat: Fields, state: object, curve: Columns) -> Fields:
    """Make a record of exported fields, by whichever naming they have."""
    if "batch_size" not in flat or "lr_scaling" not in flat:
        return nested(flat)
    last = {name: values[-1] for name, values in curve.items() if values}
    status = STATES.get(str(state).lower(), "failed")
    mirrored = nested({new: flat[old] for old, new in MIRRORED.items() if flat.get(old) is not None})
    return {"version": VERSION, "status": status, "targets": [], "final": last, **mirrored}


def as_json(text: str) -> object:
    """Read a CSV cell as JSON where it is JSON, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_wandb_rows(source: Path, rows: Iterable[Row]) -> Found:
    """Read the rows of an exported runs table, whose columns hold the record's fields under dotted names."""
    flat = [{key: as_json(value) for key, value in row.items() if key and value} for row in rows]
    return exported(source, [(record_of(row, row.get("State"), {}), {}) for row in flat])


def read_wandb_list(source: Path, content: list[Any]) -> Found:
    """Read a JSON list of runs ({"config", "summary", "history"}) that mirror the record."""
    found = []
    for item in content:
        item = item if isinstance(item, dict) else {}
        flat = {**(item.get("config") or {}), **(item.get("summary") or {})}
        history = item.get("history") or []
        names = dict.fromkeys(name for row in history for name in row)
        curve = {n.removeprefix("_"): [row.get(n, math.nan) for row in history] for n in names}
        curve = {n: [math.nan if v is None else v for v in values] for n, values in curve.items()}
        found.append((record_of(flat, item.get("state"), curve), curve))
    return exported(source, found)


def exported(source: Path, found: list[tuple[Fields, Columns]]) -> Found:
    """Check records from an export as those of run directories are."""
    runs, left_out = [], []
    for i, (fields, curve) in enumerate(found):
        record = from_fields(fields)
        try:
            runs.append(run_of(f"{source}: {getattr(record, 'run', i)}", record, curve))
        except UnusableError as reason:
            left_out.append((f"{source}: row {i + 1}", str(reason)))
    return runs, left_out
