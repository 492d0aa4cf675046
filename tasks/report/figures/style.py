"""One look for every figure and table: colour-blind safe, readable on a phone, vector and PNG; CSV, Markdown, text."""

import csv
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from tasks.report.analysis.curves import Observation, Workload, group, main_curve
from tasks.report.analysis.intervals import Interval, number

# Okabe and Ito's palette without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#777777"
MARKERS = "osD^vPX"
STYLE: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with a dollar is no formula
    "svg.hashsalt": "report",
}


class Command(str):
    """A command line, which the page offers to copy."""


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
    ends = ("value", "low", "high")

    def spread(cell: object, is_wide: bool) -> list[object]:
        if isinstance(cell, Interval):
            return [getattr(cell, end) for end in ends]
        return [cell, "", ""] if is_wide else [cell]

    header: list[list[object]] = [
        [f"{name} {end}" for end in ends] if w else [name] for name, w in zip(table.columns, wide, strict=True)
    ]
    rows = [[spread(cell, w) for cell, w in zip(row, wide, strict=True)] for row in table.rows]
    with open(file, "w", newline="") as out:
        for row in [header, *rows]:
            cells = [cell for part in row for cell in part]
            csv.writer(out).writerow(["" if isinstance(c, float) and math.isnan(c) else c for c in cells])


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


Panels = Sequence[Axes]  # left to right
ByBatch = Mapping[str, Mapping[int, Interval]]  # lines of values by batch size, with what the legend says


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
    table: Table  # the numbers beside the figure
    caption: str
    height: float = 0.0  # inches, where it is not the usual

    def save(self, files: list[Path]) -> list[Spot]:
        """Draw the figure into files; return its noted points."""
        with plt.rc_context(STYLE):
            width, height = (7.0, 4.6) if self.panels == 1 else (5.6 * self.panels + 0.4, 4.4)  # inches
            drawing, axes = plt.subplots(ncols=self.panels, squeeze=False, figsize=(width, self.height or height))
            self.draw(axes[0])
            with warnings.catch_warnings():  # long names of curves may leave it no room, which is no harm
                warnings.filterwarnings("ignore", "constrained_layout not applied")
                drawing.draw_without_rendering()
            drawing.set_layout_engine("none")  # laid out once is enough for both files
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                drawing.savefig(file, dpi=160)
                if file.suffix == ".svg":
                    file.write_text(shortened(file.read_text()))
            plt.close(drawing)
        spots = []
        for panel in axes[0]:
            for x, y, text in panel.__dict__.get("noted", []):
                across, up = drawing.transFigure.inverted().transform(panel.transData.transform((x, y)))
                spots.append(Spot(float(across), 1 - float(up), text))
        return spots


def shortened(svg: str) -> str:
    """Return a figure at half its length: to a tenth of a point, each look and each name said once."""
    names: dict[str, str] = {}  # of what is referred to
    classes: dict[str, str] = {}  # of looks
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<=[dxy])="[^"]*"|(?<=transform)="[^"]*"', lambda place: tenths(place[0]), svg)  # of no text
    svg = re.sub(r"\b[mp][0-9a-f]{10}\b", lambda m: names.setdefault(m[0], f"i{len(names)}"), svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(
        r"; font-family: [^;\"]*|; stroke-dashoffset: 0|; stroke-linejoin: round|; stroke-linecap: butt", "", svg
    )
    svg = re.sub(r'style="([^"]*)"', lambda m: f'class="{classes.setdefault(m[1], f"c{len(classes)}")}"', svg)
    rules = "".join(f".{name}{{{look}}}" for look, name in classes.items())
    return svg.replace("</style>", f"text{{font-family: DejaVu Sans, sans-serif}}{rules}</style>", 1)


def tenths(places: str) -> str:
    """Return coordinates to a tenth of a point."""
    return re.sub(r"\d+\.\d{2,}", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), places)


def note(axes: Axes, x: float, y: float, text: str) -> None:
    """Note a point, so that the page can say what it is."""
    axes.__dict__.setdefault("noted", []).append((x, y, text))


def look(index: int) -> dict[str, Any]:
    """Return the colour and marker of the curve of this index, the same in every figure."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def draw_intervals(axes: Axes, values: Iterable[tuple[float, Interval]], index: int, **more: Any) -> None:
    """Draw values with their intervals at their places; `more` is how the values' markers and line look."""
    known = [(x, i) for x, i in values if math.isfinite(i.value)]
    axes.plot([x for x, _ in known], [i.value for _, i in known], **(look(index) | {"markersize": 5} | more))
    bounded = [(x, i.low, i.high if math.isfinite(i.high) else i.value) for x, i in known if math.isfinite(i.low)]
    across = [at for x, _, _ in bounded for at in (x, x, math.nan)]  # bars with gaps between them
    up = [end for _, low, high in bounded for end in (low, high, math.nan)]
    axes.plot(across, up, color=look(index)["color"], linewidth=1.2)


def any_known(curves: ByBatch) -> bool:
    """Return whether any of the values is known."""
    return any(math.isfinite(i.value) for values in curves.values() for i in values.values())


def against_batch(axes: Axes, curves: ByBatch, label: str, log: bool = False) -> None:
    """Draw values with their intervals against batch size, a line a name."""
    for index, (name, values) in enumerate(curves.items()):
        draw_intervals(axes, values.items(), index, label=name)
    axes.set_ylabel(label)
    if log:
        log_axis(axes, label)
    if sizes := [size for values in curves.values() for size in values]:
        batch_axis(axes, sizes)


def largest(workloads: Iterable[Workload]) -> Workload:
    """Choose the workload with the most runs."""
    return max(workloads, key=lambda w: sum(len(c.counted) for c in w.curves))


def choose(
    workloads: Iterable[Workload], able: Callable[[Observation], bool]
) -> tuple[Workload, dict[int, list[Observation]]] | None:
    """Choose the workload with the most runs among those that can show something, with these runs by batch size."""
    found = {w: [o for o in main_curve(w).counted if able(o)] for w in workloads}
    shown = [w for w, runs in found.items() if runs]
    return (w := largest(shown), group(found[w], lambda o: o.run.batch_size)) if shown else None


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


def log_axis(axes: Axes, label: str, side: str = "y", ticks: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Make the vertical or the horizontal axis logarithmic, with its ticks at these times the powers of ten."""
    axes.set(**{f"{side}scale": "log", f"{side}label": label})
    axis = axes.yaxis if side == "y" else axes.xaxis
    if axis.get_view_interval()[0] <= 0:  # nothing is drawn
        axes.set(**{f"{side}lim": (1.0, 10.0)})
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
