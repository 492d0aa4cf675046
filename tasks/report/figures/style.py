"""One look for every figure: colour-blind safe, readable on a phone, vector and PNG."""

import math
import warnings
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

# Okabe and Ito's palette without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
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
    """Give the colour and marker of the curve of this index, the same in every figure."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@contextmanager
def figure(files: list[Path], **options):
    """Open a styled figure, give its axes, and save it to the files at the end."""
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(**options)
        yield axes
        for axis in (axis for a in drawing.axes for axis in (a.xaxis, a.yaxis)):
            if isinstance(axis.get_major_formatter(), LogFormatter):  # its powers are formulas
                axis.set_major_formatter(plain_number)
        with warnings.catch_warnings():  # long names of curves may leave it no room, which is no harm
            warnings.filterwarnings("ignore", "constrained_layout not applied")
            drawing.draw_without_rendering()
        drawing.set_layout_engine("none")  # laid out once is enough for both files
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"Date": None} if file.suffix == ".svg" else None
            drawing.savefig(file, dpi=160, metadata=metadata)
        plt.close(drawing)


def plain_number(value: float, _: object) -> str:
    """Write a tick's number without a power of ten."""
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
