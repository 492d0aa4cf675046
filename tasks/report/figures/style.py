"""One look for every figure and table: colour-blind safe, readable on a phone, vector and PNG; CSV, Markdown, text."""

import csv
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

from tasks.report.analysis.curves import Workload
from tasks.report.analysis.intervals import Interval, number

# Okabe and Ito's palette without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#777777"
PANEL = (5.6, 4.4)  # inches
MARKERS = "osD^vPX"
STYLE: dict[Any, Any] = {
    "figure.figsize": (7.0, 4.6),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with a dollar is no formula
    "svg.hashsalt": "report",
    "lines.linewidth": 1.6,
}


# tables ---------------------------------------------------------------------------------------------------


class Command(str):
    """A command line, which the page offers to copy."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """A titled table; cells are numbers, text, or intervals. Pages show the first `shown` columns, CSV all."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""
    shown: int | None = None

    @property
    def visible(self) -> list[int]:
        """Return which columns pages show: of the first `shown`, those in which anything is known."""
        some = range(self.shown or len(self.columns))
        return [i for i in some if not self.rows or any(number(row[i]) not in ("", "-") for row in self.rows)]


def sort_key(value: object) -> str:
    """Return what a column of numbers is sorted by, empty where it is not known."""
    number = value.value if isinstance(value, Interval) else value
    return f"{number:.9g}" if isinstance(number, int | float) and not math.isnan(number) else ""


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
            cells: list[Any] = []
            for cell, is_wide in zip(row, wide, strict=True):
                full = isinstance(cell, Interval)
                cells += [cell.value, cell.low, cell.high] if full else [cell, "", ""] if is_wide else [cell]
            writer.writerow(["" if isinstance(c, float) and math.isnan(c) else c for c in cells])


def markdown(table: Table) -> str:
    """Return a table's shown columns as Markdown."""
    kept = [i for i in table.visible if not any(isinstance(row[i], Command) for row in table.rows)]
    lines = [[table.columns[i] for i in kept], ["---"] * len(kept)]
    lines += [[" ".join(number(row[i]).split()).replace("|", "\\|") for i in kept] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(table: Table) -> str:
    """Return a table for a terminal, in aligned columns."""
    text = [table.columns, *([number(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(table.columns))]
    lines = []
    for first, *others in text:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


# figures --------------------------------------------------------------------------------------------------


Panels = Sequence[Axes]  # left to right


@dataclass(frozen=True)
class NotDrawable:
    """Why the runs do not give a figure."""

    reason: str


@dataclass(frozen=True)
class Spot:
    """A point of a drawn figure, as shares of its width and height, and what it says when pointed at."""

    left: float
    top: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn: `draw` is given its panels and may note points on them."""

    panels: int
    draw: Callable[[Panels], None]
    table: Table
    caption: str
    more: tuple[Table, ...] = ()
    height: float = 0.0  # inches, where it is not the usual

    @property
    def tables(self) -> list[Table]:
        """Return the numbers beside the figure."""
        return [self.table, *self.more]

    def save(self, files: list[Path]) -> list[Spot]:
        """Draw the figure into files; return its noted points."""
        with plt.rc_context(STYLE):
            width, height = STYLE["figure.figsize"] if self.panels == 1 else (PANEL[0] * self.panels + 0.4, PANEL[1])
            size = (width, self.height or height)
            drawing, axes = plt.subplots(ncols=self.panels, squeeze=False, figsize=size)
            self.draw(axes[0])
            for axis in (axis for a in axes[0] for axis in (a.xaxis, a.yaxis)):
                if isinstance(axis.get_major_formatter(), LogFormatter):  # its powers are formulas
                    axis.set_major_formatter(plain_number)
            with warnings.catch_warnings():  # long names of curves may leave it no room, which is no harm
                warnings.filterwarnings("ignore", "constrained_layout not applied")
                drawing.draw_without_rendering()
            drawing.set_layout_engine("none")  # laid out once is enough for both files
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                drawing.savefig(file, dpi=160, metadata={"Date": None} if file.suffix == ".svg" else None)
                if file.suffix == ".svg":
                    file.write_text(shortened(file.read_text()))
            found = [spot for panel in axes[0] for spot in spots(panel)]
            plt.close(drawing)
        return found


def shortened(svg: str) -> str:
    """Return a figure at less than half its length: to a hundredth of a point, and what is the same said once."""
    svg = re.sub(r" <metadata>.*?</metadata>\n|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: DejaVu Sans, sans-serif", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", tag[0]), svg)

    def styled_once(found: re.Match[str]) -> str:
        styles = set(re.findall(r' style="[^"]*"', found[2]))
        style = styles.pop() if len(styles) == 1 else ""
        return f"<g{found[1]}{style}>{found[2].replace(style, '') if style else found[2]}</g>"

    return re.sub(r"<g([^>]*)>(\s*(?:<use [^>]*/>\s*){2,})</g>", styled_once, svg)


def note(axes: Axes, x: float, y: float, text: str) -> None:
    """Note a point, so that the page can say what it is."""
    axes.__dict__.setdefault("noted", []).append((x, y, text))


def spots(axes: Axes) -> list[Spot]:
    """Return the noted points of a panel."""
    found = []
    for x, y, text in axes.__dict__.get("noted", []):
        across, up = axes.figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
        found.append(Spot(float(across), 1 - float(up), text))
    return found


def look(index: int) -> dict[str, Any]:
    """Return the colour and marker of the curve of this index, the same in every figure."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def draw_intervals(axes: Axes, values: Iterable[tuple[float, Interval]], index: int, **more: Any) -> None:
    """Draw values with their intervals at their places; `more` is how the values' markers and line look."""
    known = [(x, i) for x, i in values if math.isfinite(i.value)]
    axes.plot([x for x, _ in known], [i.value for _, i in known], **(look(index) | {"markersize": 5} | more))
    for x, i in known:
        if math.isfinite(i.low):
            ends = [i.low, i.high if math.isfinite(i.high) else i.value]
            axes.plot([x, x], ends, color=look(index)["color"], linewidth=1.2)


def largest(workloads: Iterable[Workload]) -> Workload:
    """Choose the workload with the most runs."""
    return max(workloads, key=lambda w: sum(len(c.counted) for c in w.curves))


def plain_number(value: float, _: object) -> str:
    """Return a tick's number without a power of ten."""
    return f"{value:,.10g}"


def batch_axis(axes: Axes, sizes: Iterable[int]) -> None:
    """Make the horizontal axis the global batch size, with a tick at each that was run and has room for its label."""
    axes.set_xscale("log", base=2)
    axes.set_xlabel("global batch size (examples)")
    few = sorted(set(sizes), reverse=True)
    room, ticks = math.log(few[0] / few[-1]) / 11, few[:1]  # the largest size has one always
    for size in few[1:]:
        if math.log(ticks[-1] / size) >= 0.99 * room:
            ticks.append(size)
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=0 if len(ticks) < 9 else 35)


def log_axis(axes: Axes, label: str, side: str = "y") -> None:
    """Make the vertical or the horizontal axis logarithmic."""
    axes.set(**{f"{side}scale": "log", f"{side}label": label})
    axis = axes.yaxis if side == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(plain_number)
