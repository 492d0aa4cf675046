"""Run directories as the report sees them: validated records, and what had to be left out and why."""

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

RECORD_VERSION = 1
STATUSES = ("reached", "budget", "diverged", "failed", "running")
UNITS = ("steps", "examples", "epochs", "seconds")
NUMBER = (int, float)

# What every record must hold for its run to be placed on a curve, as dotted names, with the types allowed.
REQUIRED = {
    "status": str,
    "study": str,
    "run": str,
    "task": str,
    "seed": int,
    "data.name": str,
    "data.train_examples": (int, type(None)),
    "network": str,
    "optimizer.name": str,
    "lr.base": NUMBER,
    "lr.effective": NUMBER,
    "lr.scaling_rule": str,
    "batch.global": int,
    "targets": list,
    "final": dict,
}


class UnusableError(ValueError):
    """A source that cannot be read as a run; its text is the reason given in the report."""


@dataclass(frozen=True)
class Hit:
    """One target of one run: what was asked, how it ended, and the brackets by three hit rules, by unit."""

    metric: str
    direction: str
    value: float | None
    status: str
    brackets: dict[str, dict[str, tuple[float, float]]]  # rule -> unit -> (last below, first at or above)
    plateau: dict | None = None

    @property
    def label(self) -> str:
        """Name the target as people write it."""
        if self.value is None:
            return f"{self.metric} at its plateau" if self.plateau else self.metric
        return f"{self.metric} {'≥' if self.direction == 'max' else '≤'} {self.value:g}"


@dataclass(frozen=True)
class Run:
    """One run, wherever it came from; `record` has the fields of contract 3."""

    source: str
    record: dict
    hits: list[Hit]
    curve_file: Path | None = None
    curve_given: dict[str, list[float]] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Give the global batch size."""
        return self.record["batch"]["global"]

    @property
    def final(self) -> dict[str, float]:
        """Give the last evaluation's numbers: step, examples, epoch, seconds, metrics."""
        return self.record["final"]

    def stopped_at(self, unit: str) -> float:
        """Say how far the run went, NaN if it does not tell."""
        name = {"steps": "step", "epochs": "epoch"}.get(unit, unit)
        return self.final.get(name, math.nan)

    @cached_property
    def curve(self) -> dict[str, list[float]]:
        """Read the evaluations, column by column; empty where there are none. Raises UnusableError."""
        if self.curve_file is None or not self.curve_file.exists():
            return self.curve_given
        return read_curve(self.curve_file)


def read_curve(path: Path) -> dict[str, list[float]]:
    """Read a curve.csv into columns, NaN where a cell is empty; a last row cut short is left out."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    header, rows = rows[0], [row for row in rows[1:] if row]
    if rows and len(rows[-1]) != len(header):
        rows.pop()
    if any(len(row) != len(header) for row in rows):
        raise UnusableError("curve.csv has rows of different lengths")
    try:
        return {name: [float(row[i]) if row[i] else math.nan for row in rows] for i, name in enumerate(header)}
    except ValueError as error:
        raise UnusableError(f"curve.csv: {error}") from None


def numbers(value):
    """Turn the strings "nan", "inf" and "-inf" of a record back into numbers, throughout."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def look_up(record: dict, name: str):
    """Find a dotted name in nested dictionaries, None where it is absent."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def bracket(found: dict | None) -> dict[str, tuple[float, float]]:
    """Check one bracket of a target. Raises UnusableError."""
    brackets = {}
    for unit, pair in (found or {}).items():
        whole = isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, NUMBER) for x in pair)
        if unit not in UNITS or not whole or not pair[0] <= pair[1]:
            raise UnusableError(f"target bracket {unit}: {pair!r} is not [low, high]")
        brackets[unit] = (float(pair[0]), float(pair[1]))
    return brackets


def end_of_target(own: str, run: str) -> str:
    """Say how a target ended: a failed run is never scored; one left undecided ends as its run did."""
    if run == "failed":
        return "failed"
    if own == "running" and run != "running":
        return "diverged" if run == "diverged" else "budget"
    return own


def read_hit(target: dict, run_status: str) -> Hit:
    """Check one target of a record. Raises UnusableError."""
    if not isinstance(target, dict) or not isinstance(target.get("metric"), str):
        raise UnusableError("a target without a metric")
    if target.get("direction") not in ("min", "max"):
        raise UnusableError(f"target {target['metric']} has no direction 'min' or 'max'")
    status = target.get("status", run_status)
    if status not in STATUSES:
        raise UnusableError(f"target status {status!r} is not one of {', '.join(STATUSES)}")
    names = {"median": "bracket", "first": "first", "consecutive": "consecutive"}
    brackets = {rule: bracket(target.get(name)) for rule, name in names.items()}
    if status == "reached" and not brackets["median"]:
        raise UnusableError(f"target {target['metric']} is 'reached' but has no bracket")
    brackets = {rule: found for rule, found in brackets.items() if found}
    status = end_of_target(status, run_status)
    return Hit(target["metric"], target["direction"], target.get("value"), status, brackets, target.get("plateau"))


def check_record(record) -> tuple[dict, list[Hit]]:
    """Check a record; give it with its numbers mended, and its targets. Raises UnusableError."""
    if not isinstance(record, dict) or "version" not in record:
        raise UnusableError("not a run record (no version)")
    if record["version"] != RECORD_VERSION:
        raise UnusableError(f"record version {record['version']!r}; this report reads version {RECORD_VERSION}")
    record = numbers(record)
    for name, kind in REQUIRED.items():
        value = look_up(record, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UnusableError(f"{name} is {'missing' if value is None else repr(value)}")
    if record["status"] not in STATUSES:
        raise UnusableError(f"status {record['status']!r} is not one of {', '.join(STATUSES)}")
    if record["batch"]["global"] < 1:
        raise UnusableError(f"batch.global is {record['batch']['global']}")
    return record, [read_hit(target, record["status"]) for target in record["targets"]]


def read_record(path: Path) -> Run:
    """Read and check one record.json. Raises UnusableError with the reason."""
    try:
        record, hits = check_record(json.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnusableError(f"not readable as JSON ({error})") from None
    return Run(str(path.parent), record, hits, path.parent / "curve.csv")


def find_records(folder: Path) -> Iterator[Path]:
    """Walk to every record.json below a folder, without descending into runs."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        if "record.json" in files:
            folders.clear()
            yield Path(here) / "record.json"


def read_runs(folder: Path) -> tuple[list[Run], list[tuple[str, str]]]:
    """Read every run below a folder; give the runs, and (path, reason) of what was left out."""
    runs, left_out = [], []
    for path in find_records(folder):
        try:
            run = read_record(path)
            run.curve  # noqa: B018  read now, so that a broken curve is named here and not met later
        except UnusableError as reason:
            left_out.append((str(path.parent), str(reason)))
        else:
            runs.append(run)
    return runs, left_out
