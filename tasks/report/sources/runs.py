"""Run directories and kept runs, and what every source becomes: runs, and what had to be left out and why."""

import csv
import json
import lzma
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from callbacks.record import (
    Record,
    TargetResult,
    Unit,
    Unusable,
    as_json,
    from_fields,
    read_record,
    to_json,
    write_atomically,
)

Item = TypeVar("Item")
Read = TypeVar("Read")
ENDING = ".jsonl.xz"  # of kept studies: many runs in one file, a line of JSON a run, {"record": ..., "curve": ...}
Columns = dict[str, list[float]]


class UnusableError(ValueError):
    """A source that cannot be read as a run; its text is the reason given in the report."""


@dataclass(frozen=True)
class Hit(TargetResult):
    """A target's result; `resolution` is the ratio of the two values that its source could just tell apart."""

    resolution: float = 1.0
    nominal: bool = False  # steps and examples are known up to a common factor alone


@dataclass(frozen=True, eq=False)
class Run:
    """One run, wherever it came from; `curve` has its evaluations, column by column."""

    source: str
    record: Record
    hits: list[Hit]
    curve: Columns = field(default_factory=dict)
    folder: Path | None = None  # its run directory, where it has one

    @property
    def batch_size(self) -> int:
        """Return the global batch size."""
        return self.record.batch.size

    def stopped_at(self, unit: Unit) -> float:
        """Return how far the run went, NaN if it does not tell."""
        return self.record.final.get({"steps": "step", "epochs": "epoch"}.get(unit, unit), math.nan)


LeftOut = list[tuple[str, str]]  # where, and why
Found = tuple[list[Run], LeftOut]


def read_each(items: Iterable[tuple[str, Item]], read: Callable[[Item], Read]) -> tuple[list[Read], LeftOut]:
    """Read named items; return what they are, and the names of those that cannot be read with the reason."""
    found, left_out = [], []
    for name, item in items:
        try:
            found.append(read(item))
        except UnusableError as reason:
            left_out.append((name, str(reason)))
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            left_out.append((name, f"not what a run has ({type(error).__name__}: {str(error)[:200]})"))
    return found, left_out


def run_of(source: str, found: Record | Unusable, curve: Columns | None = None, folder: Path | None = None) -> Run:
    """Return the run of a record; the targets of a failed run are failed. Raises UnusableError where there is none."""
    if isinstance(found, Unusable):
        raise UnusableError(found.reason)
    failed = {"status": "failed"} if found.status == "failed" else {}
    return Run(source, found, [Hit(**vars(target) | failed) for target in found.targets], curve or {}, folder)


def outside(record: Record) -> dict[str, str | None]:
    """Return what may do anything to a run: callbacks of others, a checkpoint that it began from."""
    given = (record.settings.get("trainer") or {}).get("callbacks") or []
    own = ("callbacks.", "pytorch_lightning.", "lightning.")
    foreign = [c for c in given if isinstance(c, dict) and not str(c.get("class_path")).startswith(own)]
    named = ", ".join(sorted(f"{c.get('class_path')} {c.get('init_args') or ''}".strip() for c in foreign))
    return {"callbacks": named, "begun_from": (record.settings.get("run") or {}).get("begun_from")}


def read_curve(path: Path) -> Columns:
    """Read a curve.csv into columns, NaN where a cell is empty; a last row cut short is left out."""
    try:
        with open(path, newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
        if rows and len(rows[-1]) != len(header):
            rows.pop()
        if any(len(row) != len(header) for row in rows):
            raise ValueError("its rows have different lengths")
        columns = list(zip(*rows, strict=True)) or [()] * len(header)
        filled = [cells if all(cells) else [cell or "nan" for cell in cells] for cells in columns]
        return {name: list(map(float, cells)) for name, cells in zip(header, filled, strict=True)}
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableError(f"curve.csv: {error}") from None


def read_run(folder: Path) -> Run:
    """Read a run directory. Raises UnusableError where its record or its curve is broken, or the curve is cut off."""
    file = folder / "curve.csv"
    run = run_of(str(folder), read_record(folder / "record.json"), folder=folder)
    if file.exists():
        run.curve.update(read_curve(file))
        steps = run.curve.get("step", [])
        if run.record.ended and not (steps and steps[-1] >= run.stopped_at("steps")):
            raise UnusableError("curve.csv ends before the run did")
    return run


def find_runs(folder: Path) -> Iterator[Path]:
    """Walk to every run directory below a folder, without descending into runs."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        if "record.json" in files:
            folders.clear()
            yield Path(here)


def read_runs(folder: Path) -> Found:
    """Read every run below a folder; a run within a run is left out."""
    paths = list(find_runs(folder))
    runs, left_out = read_each([(str(path), path) for path in paths], read_run)
    inner = [(run, path) for path in paths for below in sorted(path.glob("*/")) for run in find_runs(below)]
    return runs, left_out + [(str(run), f"it lies within the run {path}") for run, path in inner]


def keep(runs: list[Run], path: Path) -> None:
    """Write runs to one file: the same runs give the same bytes, in whatever order and wherever they lie."""
    lines = []
    for run in sorted(runs, key=lambda run: (run.record.study, run.record.run)):
        fields = {"record": json.loads(to_json(run.record)), "curve": as_json(run.curve)}
        lines.append(json.dumps(fields, separators=(",", ":"), allow_nan=False) + "\n")
    write_atomically(path, lzma.compress("".join(lines).encode(), preset=9))


def read_kept(source: Path) -> Found:
    """Return the runs of a kept file, and the lines that are none with the reason."""
    try:
        lines = lzma.decompress(source.read_bytes()).decode().splitlines()
    except (lzma.LZMAError, UnicodeDecodeError, EOFError) as error:
        return [], [(str(source), f"no whole file of kept runs ({error})")]
    return read_each([(f"{source}: line {number}", (source, line)) for number, line in enumerate(lines, 1)], kept_run)


def kept_run(place: tuple[Path, str]) -> Run:
    """Return the run of one line of a kept file. Raises what `read_each` names."""
    source, line = place
    fields = json.loads(line)
    curve = {name: [float(v) for v in values] for name, values in fields["curve"].items()}
    record = from_fields(fields["record"])
    if len({len(values) for values in curve.values()}) > 1:
        raise UnusableError("its curve has columns of different lengths")
    return run_of(f"{source}: {getattr(record, 'study', '')}/{getattr(record, 'run', '')}", record, curve)
