"""Run directories, and what every source becomes: runs, and what had to be left out and why."""

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from callbacks.record import Record, TargetResult, Unusable, from_json


class UnusableError(ValueError):
    """A source that cannot be read as a run; its text is the reason given in the report."""


@dataclass(frozen=True, eq=False)
class Redraw:
    """A target that is an outcome, as other seeds of the batch size it comes from would have given it (rule 14)."""

    batch_size: int
    goals: tuple[float, ...]  # one a draw
    used: tuple[frozenset[int], ...]  # the seeds that each came from, which it does not score


@dataclass(frozen=True)
class Hit(TargetResult):
    """A target's result; `resolution` is the ratio of the two values that its source could just tell apart."""

    redraw: Redraw | None = None
    drawn: tuple[float, ...] = ()  # log steps to each of the redrawn goals, as `log_steps_to` gives them
    resolution: float = 1.0
    nominal: bool = False  # steps and examples are known up to a common factor alone


@dataclass(frozen=True, eq=False)
class Run:
    """One run, wherever it came from."""

    source: str
    record: Record
    hits: list[Hit]
    curve_file: Path | None = None
    curve_given: dict[str, list[float]] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Return the global batch size."""
        return self.record.batch.size

    @property
    def final(self) -> dict[str, float]:
        """Return the last evaluation's numbers: step, examples, epoch, seconds, metrics."""
        return self.record.final

    def stopped_at(self, unit: str) -> float:
        """Return how far the run went, NaN if it does not tell."""
        name = {"steps": "step", "epochs": "epoch"}.get(unit, unit)
        return self.final.get(name, math.nan)

    @cached_property
    def curve(self) -> dict[str, list[float]]:
        """Return the evaluations, column by column; empty where there are none. Raises UnusableError."""
        if self.curve_file is None or not self.curve_file.exists():
            return self.curve_given
        return read_curve(self.curve_file)


LeftOut = list[tuple[str, str]]  # where, and why
Found = tuple[list[Run], LeftOut]


def usable(found: Record | Unusable) -> Record:
    """Return the record. Raises UnusableError where there is none."""
    if isinstance(found, Unusable):
        raise UnusableError(found.reason)
    return found


def hits_of(record: Record) -> list[Hit]:
    """Return the record's targets; those of a failed run are failed, whatever they say: it is never scored."""
    status = {"status": "failed"} if record.status == "failed" else {}
    return [Hit(**vars(target) | status) for target in record.targets]


def read_curve(path: Path) -> dict[str, list[float]]:
    """Read a curve.csv into columns, NaN where a cell is empty; a last row cut short is left out."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableError(f"curve.csv: {error}") from None
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


def read_record(path: Path) -> Run:
    """Read and check one record.json. Raises UnusableError with the reason."""
    try:
        record = usable(from_json(path.read_bytes()))
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror})") from None
    return Run(str(path.parent), record, hits_of(record), path.parent / "curve.csv")


def check_curve(run: Run) -> None:
    """Raise UnusableError where the curve is broken, or ends before the record of a run that has ended."""
    steps = run.curve.get("step", [])
    if run.curve_file.exists() and run.record.ended and not (steps and steps[-1] >= run.stopped_at("steps")):
        raise UnusableError("curve.csv ends before the run did")


def find_records(folder: Path) -> Iterator[Path]:
    """Walk to every record.json below a folder, without descending into runs."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        if "record.json" in files:
            folders.clear()
            yield Path(here) / "record.json"


def read_runs(folder: Path) -> Found:
    """Read every run below a folder; return the runs, and (path, reason) of what was left out."""
    runs, left_out = [], []
    for path in find_records(folder):
        try:
            run = read_record(path)
            check_curve(run)
        except UnusableError as reason:
            left_out.append((str(path.parent), str(reason)))
        else:
            runs.append(run)
        inner = [found.parent for below in sorted(path.parent.glob("*/")) for found in find_records(below)]
        left_out += [(str(run), f"it lies within the run {path.parent}") for run in inner]
    return runs, left_out
