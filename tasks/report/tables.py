"""Plain tables: the same rows for the terminal, Markdown, HTML and CSV."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from tasks.report.intervals import Interval


@dataclass(frozen=True)
class Table:
    """A titled table; cells are numbers, text, or intervals (one cell to read, three to compute with)."""

    title: str
    columns: list[str]
    rows: list[list]
    note: str = ""


def number(value) -> str:
    """Write a number with three to four figures, "never" for infinity, and a dash for what is not known."""
    if isinstance(value, Interval):
        return interval(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval(value: Interval) -> str:
    """Write a value with its interval behind it."""
    if math.isnan(value.value) and math.isnan(value.low) and math.isnan(value.high):
        return "-"
    if math.isnan(value.low) and math.isnan(value.high):
        return number(value.value)
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def sort_key(value) -> float | str:
    """Give what a column is sorted by."""
    if isinstance(value, Interval):
        value = value.value
    if isinstance(value, int | float):
        return "" if math.isnan(value) else value
    return str(value)


def write_csv(table: Table, file: Path) -> None:
    """Write a table with full precision; an interval takes three columns; what is not known is empty."""
    wide = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    header = []
    for name, is_wide in zip(table.columns, wide, strict=True):
        header += [f"{name} value", f"{name} low", f"{name} high"] if is_wide else [name]
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        for row in table.rows:
            cells = []
            for cell, is_wide in zip(row, wide, strict=True):
                full = isinstance(cell, Interval)
                cells += [cell.value, cell.low, cell.high] if full else [cell, "", ""] if is_wide else [cell]
            writer.writerow(["" if isinstance(c, float) and math.isnan(c) else c for c in cells])


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    lines = [table.columns, ["---"] * len(table.columns)]
    lines += [[" ".join(number(cell).split()).replace("|", "\\|") for cell in row] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(table: Table) -> str:
    """Write a table for a terminal, in aligned columns."""
    text = [table.columns, *([number(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(table.columns))]
    lines = []
    for first, *others in text:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
