"""Runs that are no run directories: a table of anybody's own, MLPerf's reference files, and W&B exports."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Plan, Rate, Record, Status, from_fields
from tasks.report.sources.runs import Found, Hit, Run, UnusableError, read_each, run_of

Row = Mapping[str, str]
Fields = dict[str, Any]


def made_run(source: str, hit: Hit, size: int, rate: Rate, final: Mapping[str, float], more: Fields) -> Run:
    """Return a run of which little more is known than what it took; `more` are further fields of its record."""
    known: Fields = {"rate": rate, "batch": Batch(size), "targets": (hit,), "final": dict(final)}
    return Run(source, Record(VERSION, hit.status, **known, **more), [hit])


# a tidy table, one row a run --------------------------------------------------------------------------------

NEEDED = {"batch_size", "seed", "status"}  # and steps or examples
ENDS = ("reached", "budget", "diverged", "outrun", "failed", "running")
UNNAMED = {"task": "your table", "network": "your network", "data": "your data", "optimizer": "your optimizer"}
STEPS_TO = "steps_to_target/"  # what runs log to W&B for every target that they reached


def is_table(columns: Collection[str]) -> bool:
    """Tell a tidy table by its columns."""
    told = [name for name in columns if name in ("steps", "examples") or name.startswith(STEPS_TO)]
    return set(columns) >= NEEDED and bool(told)


def read_table(source: Path, rows: Iterable[Row]) -> Found:
    """Return the runs of a table's rows, and the rows that are none with the reason."""
    items = [(f"{source}: line {at}{name}", row) for at, whole in enumerate(rows, 2) for name, row in by_target(whole)]
    return read_each([(name, (name, source.stem, row)) for name, row in items], lambda item: table_run(*item))


def by_target(row: Row) -> Iterator[tuple[str, Row]]:
    """Yield a row for each target where W&B's table of the suite's own runs names them, else the row itself."""
    columns = [name for name in row if name.startswith(STEPS_TO)]
    if not columns:
        yield "", row
    for column in columns:
        ended = "reached" if row[column] else "budget" if row["status"] == "reached" else row["status"]
        target = column.removeprefix(STEPS_TO)
        yield f", {target}", {**row, "target": target, "status": ended, "steps": row[column], "examples": ""}


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


def table_run(source: str, study: str, row: Row) -> Run:
    """Return the run of one row. Raises UnusableError."""
    size, seed = number_in(row, "batch_size"), number_in(row, "seed", least=-1)
    steps, examples = number_in(row, "steps"), number_in(row, "examples")
    names = {"status": "", "target": "the target", "stage": "", "lr_scaling": "none", "study": study} | UNNAMED
    told = {name: (row.get(name) or "").strip() or usual for name, usual in names.items()}
    status, stage = told["status"].lower(), told["stage"]
    if size is None or size != int(size) or seed is None:
        raise UnusableError("batch_size and seed must be whole numbers")
    if status not in ENDS:
        raise UnusableError(f"status is {status!r}; give {', '.join(ENDS)}")
    steps = examples / size if steps is None and examples is not None else steps
    if steps is None and status == "reached":
        raise UnusableError("'reached' needs steps or examples")
    at = None if steps is None else Crossing(steps, steps * size)
    hit = Hit(told["target"], "max", None, cast(Status, status), hit=at if status == "reached" else None)
    effective = number_in(row, "learning_rate") or math.nan
    rate = Rate(number_in(row, "base_learning_rate") or effective, effective, told["lr_scaling"])
    named: Fields = {name: told[name] for name in ("study", "task", "network")}
    named |= {"run": source.rpartition(": ")[2], "seed": int(seed), "plan": Plan("table", stage) if stage else None}
    named |= {"data": Data(told["data"]), "optimizer": Optimizer(told["optimizer"])}
    return made_run(source, hit, int(size), rate, {"step": at.steps, "examples": at.examples} if at else {}, named)


# MLPerf: how many epochs, or examples, a benchmark took at each batch size ------------------------------------

EXAMPLES_IN_AN_EPOCH = {"resnet": 1_281_167}  # where MLPerf counts epochs: ImageNet's training images
NOMINAL = 1_000_000  # examples in an epoch of data of unknown size: ratios, and so the batch scale, do not need it
POINT = {"BS", "Benchmark", "Epochs to converge"}  # what an entry of such a file has
LARGEST_EPOCHS = 5_000  # above it, what MLPerf calls "epochs to converge" are samples


def read_mlperf(source: Path, content: Mapping[str, Fields], sizes: Mapping[str, int]) -> Found:
    """Read reference points, one run per number; `sizes` has the examples in an epoch of a benchmark."""
    known = EXAMPLES_IN_AN_EPOCH | dict(sizes)
    items = [(f"{source}: {name}", (source, name, point)) for name, point in content.items()]
    points, left_out = read_each(items, lambda item: reference_runs(*item, known))
    return [run for runs in points for run in runs], left_out


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
    given = (point.get("Hyperparams") or {}).get("opt_base_learning_rate")
    rate = float(given) if isinstance(given, int | float) else math.nan
    same: Fields = {"study": source.stem, "task": "MLPerf reference", "network": f"MLPerf's {benchmark}"}
    same |= {"data": Data(f"its data{counted}"), "optimizer": Optimizer("as submitted")}
    unit, runs = resolution(values), []
    for i, value in enumerate(values):
        low, high = (v * (per_epoch or NOMINAL) for v in (value - unit, value))
        at = Crossing(math.sqrt(low * high) / size, math.sqrt(low * high))
        exact: Fields = {"hit": at, "resolution": high / low, "nominal": per_epoch is None}
        hit = Hit("the quality target", "max", None, "reached", **exact)
        final, own = {"step": high / size, "examples": high}, {"run": f"{name}-{i}", "seed": i}
        runs.append(made_run(f"{source}: {name} #{i}", hit, size, Rate(rate, rate), final, same | own))
    return runs


# W&B: a JSON list of runs with their histories -----------------------------------------------------------------

STATES = {"finished": "budget", "running": "running"}  # every other end of a W&B run is a failure
SAME = ("study", "run", "task", "network", "parameters", "seed", "precision")  # in the record and in W&B's config


def read_wandb(source: Path, content: list[Any]) -> Found:
    """Read a list of runs ({"state", "config", "history"}); their targets are chosen with --target."""
    return read_each(
        [(f"{source}: row {i}", item) for i, item in enumerate(content, 1)], lambda i: wandb_run(source, i)
    )


def wandb_run(source: Path, item: object) -> Run:
    """Return the run whose config has the names under which runs mirror their record. Raises UnusableError."""
    item = item if isinstance(item, dict) else {}
    told, history = item.get("config") or {}, item.get("history") or []
    names = dict.fromkeys(name for row in history for name in row)
    rows = {name.removeprefix("_"): [row.get(name) for row in history] for name in names}
    curve = {name: [math.nan if value is None else value for value in values] for name, values in rows.items()}
    parts = {
        "batch": {"size": "batch_size", "micro": "micro_batch_size", "ghost": "ghost_batch_size"},
        "rate": {"base": "base_learning_rate", "effective": "learning_rate", "scaling_rule": "lr_scaling"},
        "optimizer": {"name": "optimizer"},
        "data": {"name": "data", "hash": "data_hash"},
        "plan": {"hash": "plan", "stage": "stage"},
    }
    fields: Fields = {name: told[name] for name in SAME if told.get(name) is not None}
    for part, columns in parts.items():
        fields[part] = {name: told[column] for name, column in columns.items() if told.get(column) is not None}
    fields["plan"] = fields["plan"] or None
    fields |= {"version": VERSION, "status": STATES.get(str(item.get("state")).lower(), "failed"), "targets": []}
    fields["final"] = {name: values[-1] for name, values in curve.items()}
    return run_of(f"{source}: {told.get('run')}", from_fields(fields), curve)
