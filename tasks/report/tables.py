"""Plain tables: the same rows for the terminal, Markdown, HTML and CSV."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from tasks.report.curves import Workload
from tasks.report.intervals import Interval


@dataclass(frozen=True)
class Table:
    """A titled table; cells are numbers or text."""

    title: str
    columns: list[str]
    rows: list[list]


def number(value) -> str:
    """Write a number with three to four figures, "never" for infinity, and a dash for what is not known."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never" if value > 0 else "-∞"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval_columns(unit: str) -> list[str]:
    """Name the three columns of a unit."""
    return [f"{unit} median", f"{unit} low", f"{unit} high"]


def interval_cells(interval: Interval) -> list[float]:
    """Give the three cells of an interval."""
    return [interval.value, interval.low, interval.high]


def points_table(workload: Workload) -> Table:
    """List every point of a workload's curves with its counts, and its medians with 95 % intervals."""
    columns = ["curve", "batch size", "n", "reached", "censored", "diverged", "failed", "running"]
    for unit in ("steps", "examples", "seconds"):
        columns += interval_columns(unit)
    rows = []
    for curve in workload.curves:
        for p in curve.points:
            counts = [p.count(s) for s in ("reached", "budget", "diverged", "failed", "running")]
            cells = [c for u in ("steps", "examples", "seconds") for c in interval_cells(p.interval(u))]
            rows.append([curve.name, p.batch_size, p.n, *counts, *cells])
    return Table(f"{workload.name}; {workload.target}", columns, rows)


def write_csv(table: Table, file: Path) -> None:
    """Write a table with full precision; infinity is `inf`, what is not known is empty."""
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow(["" if isinstance(c, float) and math.isnan(c) else c for c in row])


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    lines = [table.columns, ["---"] * len(table.columns)]
    lines += [[number(cell).replace("|", "\\|") for cell in row] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(table: Table) -> str:
    """Write a table for a terminal, in aligned columns."""
    text = [table.columns, *([number(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(table.columns))]
    lines = []
    for first, *others in text:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
