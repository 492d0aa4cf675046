"""One look for every figure: colour-blind safe, readable on a phone, vector and PNG."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

from tasks.report.analysis.curves import Curve, Workload

# Okabe and Ito's palette without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
PANEL = (5.6, 4.4)  # inches
MARKERS = "osD^vPX"
STYLE = {
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


def look(index: int) -> dict:
    """Return the colour and marker of the curve of this index, the same in every figure."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@dataclass(frozen=True)
class NotDrawable:
    """Why the runs do not give a figure."""

    reason: str


@dataclass(frozen=True)
class Table:
    """A titled table; cells are numbers, text, or intervals. Pages show the first `shown` columns, CSV all."""

    title: str
    columns: list[str]
    rows: list[list]
    note: str = ""
    shown: int | None = None


@dataclass(frozen=True)
class Spot:
    """A point of a drawn figure, as shares of its width and height, and what it says when pointed at."""

    left: float
    top: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn: `draw` is given its panels, left to right, and may note points on them."""

    panels: int
    draw: Callable
    table: Table
    caption: str
    more: tuple[Table, ...] = ()

    @property
    def tables(self) -> list[Table]:
        """Return the numbers beside the figure."""
        return [self.table, *self.more]

    def save(self, files: list[Path]) -> list[Spot]:
        """Draw the figure into files; return its noted points."""
        with plt.rc_context(STYLE):
            size = (PANEL[0] * self.panels + 0.4, PANEL[1])
            if self.panels == 1:
                size = STYLE["figure.figsize"]
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
            found = [spot for panel in axes[0] for spot in spots(panel)]
            plt.close(drawing)
        return found


def note(axes, x: float, y: float, text: str) -> None:
    """Note a point, so that the page can say what it is."""
    axes.__dict__.setdefault("noted", []).append((x, y, text))


def spots(axes) -> list[Spot]:
    """Return the noted points of a panel."""
    found = []
    for x, y, text in axes.__dict__.get("noted", []):
        across, up = axes.figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
        found.append(Spot(float(across), 1 - float(up), text))
    return found


def points_of(curve: Curve) -> int:
    """Count the runs with a result along a curve."""
    return sum(p.n for p in curve.points)


def largest(workloads: Iterable[Workload]) -> Workload:
    """Choose the workload with the most runs."""
    return max(workloads, key=lambda w: sum(points_of(c) for c in w.curves))


def plain_number(value: float, _: object) -> str:
    """Return a tick's number without a power of ten."""
    return f"{value:,.10g}"


def batch_axis(axes, sizes) -> None:
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


def log_axis(axes, label: str, side: str = "y") -> None:
    """Make the vertical or the horizontal axis logarithmic."""
    axes.set(**{f"{side}scale": "log", f"{side}label": label})
    axis = axes.yaxis if side == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(plain_number)
