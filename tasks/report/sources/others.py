"""Runs that are no run directories: a table of anybody's own, MLPerf's reference files, and W&B exports."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Plan, Rate, Record, Status
from tasks.report.sources.runs import Found, Hit, Run, UnusableError, read_each

Row = Mapping[str, str]
Fields = dict[str, Any]


def made_run(source: str, hits: list[Hit], final: Mapping[str, float], **fields: Any) -> Run:
    """Return a run of which little is known; `fields` are those of its record without defaults, and more."""
    return Run(source, Record(VERSION, targets=tuple(hits), final=dict(final), **fields), hits)


NEEDED = {"batch_size", "seed", "status"}  # and steps or examples
ENDS = get_args(Status)
USUAL = {"task": "your table", "network": "your network", "data": "your data", "optimizer": "your optimizer"}
USUAL |= {"target": "the target", "lr_scaling": "none", "precision": "32-true", "plan": "table"}
USUAL |= dict.fromkeys(("status", "stage", "data_hash", "ghost_batch_size"), "")
STEPS_TO = "steps_to_target/"  # what runs log to W&B for every target that they reached


def is_table(columns: Collection[str]) -> bool:
    """Tell a tidy table by its columns."""
    told = [name for name in columns if name in ("steps", "examples") or name.startswith(STEPS_TO)]
    return set(columns) >= NEEDED and bool(told)


def read_table(source: Path, rows: Iterable[Row]) -> Found:
    """Return the runs of a table's rows, and the rows that are none with the reason."""
    rows = list(rows)
    asked = {(row.get("study"), name) for row in rows for name, cell in row.items() if cell}  # no other is a target
    told = [{name: cell for name, cell in row.items() if (row.get("study"), name) in asked} for row in rows]
    items = [(f"{source}: line {line}", row) for line, row in enumerate(told, 2)]
    return read_each([(name, (name, source.stem, row)) for name, row in items], lambda item: table_run(*item))


def number_in(row: Row, name: str, least: float = 0.0) -> float | None:
    """Return a cell as a number, None where it is empty. Raises UnusableError."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least < value < 1e15:
        raise UnusableError(f"{name} is {text[:200]!r}; give a number above {least:g}")
    return value


def outcomes(row: Row, target: str, status: str, size: float) -> list[tuple[str, str, float | None]]:
    """Return each target of a row, how it ended and after how many steps, where that is known. Raises UnusableError."""
    if status not in ENDS:
        raise UnusableError(f"status is {status!r}; give {', '.join(ENDS)}")
    logged = {column.removeprefix(STEPS_TO): number_in(row, column) for column in row if column.startswith(STEPS_TO)}
    if logged:
        missed = "budget" if status == "reached" else status
        ends = {name: missed if steps is None or status == "failed" else "reached" for name, steps in logged.items()}
        return [(name, ends[name], steps) for name, steps in logged.items()]
    steps, examples = number_in(row, "steps"), number_in(row, "examples")
    steps = examples / size if steps is None and examples is not None else steps
    if steps is None and status == "reached":
        raise UnusableError("'reached' needs steps or examples")
    return [(target, status, steps)]


def table_run(source: str, study: str, row: Row) -> Run:
    """Return the run of one row. Raises UnusableError."""
    usual = USUAL | {"study": study, "run": source.rpartition(": ")[2]}
    told = {name: (row.get(name) or "").strip() or otherwise for name, otherwise in usual.items()}
    size, seed = number_in(row, "batch_size"), number_in(row, "seed", least=-1)
    parameters, effective = number_in(row, "parameters"), number_in(row, "learning_rate") or math.nan
    if size is None or size != int(size) or seed is None:
        raise UnusableError("batch_size and seed must be whole numbers")
    status, hits, last = cast(Status, told["status"].lower()), [], 0.0
    for target, ended, steps in outcomes(row, told["target"], status, size):
        at = Crossing(steps, steps * size) if steps is not None and ended == "reached" else None
        hits.append(Hit(target, "max", None, cast(Status, ended), hit=at))
        last = max(last, steps or 0.0)
    return made_run(
        source,
        hits,
        {"step": last, "examples": last * size} if last else {},
        status=status,
        **{name: told[name] for name in ("study", "run", "task", "network", "precision")},
        seed=int(seed),
        parameters=int(parameters) if parameters else None,
        data=Data(told["data"], told["data_hash"] or None),
        optimizer=Optimizer(told["optimizer"]),
        rate=Rate(number_in(row, "base_learning_rate") or effective, effective, told["lr_scaling"]),
        batch=Batch(int(size), ghost=told["ghost_batch_size"] or None),
        plan=Plan(told["plan"], told["stage"]) if told["stage"] else None,
    )


EXAMPLES_IN_AN_EPOCH = {"resnet": 1_281_167}  # where MLPerf counts epochs: ImageNet's training images
NOMINAL = 1_000_000  # examples in an epoch of data of unknown size: ratios, and so the batch scale, do not need it
POINT = {"BS", "Benchmark", "Epochs to converge"}  # what an entry of such a file has
LARGEST_EPOCHS = 5_000  # above it, what MLPerf calls "epochs to converge" are samples


def read_mlperf(source: Path, content: Mapping[str, Fields], epochs: Mapping[str, int]) -> Found:
    """Read reference points, one run per number; `epochs` has the examples in an epoch of a benchmark."""
    items = [(f"{source}: {name}", (source, name, point, epochs)) for name, point in content.items()]
    points, left_out = read_each(items, lambda item: reference_runs(*item))
    return [run for runs in points for run in runs], left_out


def resolution(values: list[float]) -> float:
    """Return the unit of a group's numbers: what all are multiples of, else the smaller gaps of some; 0: not known."""
    unit: float = math.gcd(*(int(v) for v in values)) if all(v == int(v) for v in values) else 0
    gaps = np.diff(sorted(set(values)))
    if len(gaps) + 1 < len(values) and len(gaps):
        unit = max(unit, float(np.quantile(gaps, 0.25, method="lower")))
    return unit if unit < min(values) / 2 else 0


def reference_runs(source: Path, name: str, point: Fields, epochs: Mapping[str, int]) -> list[Run]:
    """Make runs of one reference point; each number lies in its last unit. Raises UnusableError."""
    size, values, benchmark = point["BS"], point["Epochs to converge"], str(point["Benchmark"])
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and 0 < v < 1e15 for v in values)
    if type(size) is not int or not 0 < size < 10**15 or not numbers or not values:
        raise UnusableError("no positive batch size and epochs")
    per_epoch = 1 if max(values) > LARGEST_EPOCHS else epochs.get(benchmark)
    counted = "" if per_epoch else f", an epoch counted as {NOMINAL:,} examples"
    given = (point.get("Hyperparams") or {}).get("opt_base_learning_rate")
    rate = float(given) if isinstance(given, int | float) else math.nan
    same: Fields = {"study": source.stem, "task": "MLPerf reference", "network": f"MLPerf's {benchmark}"}
    same |= {"status": "reached", "data": Data(f"its data{counted}"), "optimizer": Optimizer("as submitted")}
    same |= {"rate": Rate(rate, rate), "batch": Batch(size)}
    unit, runs = resolution(values), []
    for i, value in enumerate(values):
        low, high = (v * (per_epoch or NOMINAL) for v in (value - unit, value))
        at = Crossing(math.sqrt(low * high) / size, math.sqrt(low * high))
        exact: Fields = {"hit": at, "resolution": high / low, "nominal": per_epoch is None}
        hit = Hit("the quality target", "max", None, "reached", **exact)
        final = {"step": high / size, "examples": high}
        runs.append(made_run(f"{source}: {name} #{i}", [hit], final, **same, run=f"{name}-{i}", seed=i))
    return runs


STATES = {"finished": "budget", "running": "running"}  # every other end of a W&B run is a failure


def read_wandb(source: Path, content: list[Any]) -> Found:
    """Read a list of runs ({"state", "config", "history"}); --target chooses their targets from the histories."""
    items = [(f"{source}: row {number}", item) for number, item in enumerate(content, 1)]
    return read_each([(name, (name, source.stem, item)) for name, item in items], lambda item: wandb_run(*item))


def wandb_run(source: str, study: str, item: object) -> Run:
    """Return the run whose config is what a row of W&B's table has. Raises UnusableError."""
    item = item if isinstance(item, dict) else {}
    config, history = item.get("config") or {}, item.get("history") or []
    row = {"status": STATES.get(str(item.get("state")).lower(), "failed")}
    row |= {name: "" if value is None else str(value) for name, value in config.items()}
    run = table_run(source, study, row)
    names = dict.fromkeys(name for evaluation in history for name in evaluation)
    columns = {name: [evaluation.get(name) for evaluation in history] for name in names}
    curve = {n: [float(v) if isinstance(v, int | float) else math.nan for v in values] for n, values in columns.items()}
    curve["step"] = curve.get("trainer/global_step", curve.get("_step", []))  # W&B's own step counts its rows
    curve.setdefault("examples", [step * run.batch_size for step in curve["step"]])
    final = {name: values[-1] for name, values in curve.items() if values}
    return replace(run, curve=curve, record=replace(run.record, final=final))
