"""The figure every report opens with: steps to the target against batch size."""

import math

import numpy as np

from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import Curve, Observation, Workload
from tasks.report.analysis.intervals import number
from tasks.report.figures.style import Drawing, Table, batch_axis, log_axis, look, note

IN_LEGEND = 10
MOST_MARKS = 100  # single runs on a curve drawn one by one; more are a picture, which keeps the page small
MARKS = {"reached": (".", 0.35, 4), "budget": ("^", 0.8, 6), "diverged": ("x", 0.8, 6)}  # marker, alpha, size
Named = list[tuple[str, Curve, Critical | None]]  # what the legend says, the curve, its fit


def draw_points(axes, name: str | None, curve: Curve, index: int, shift: float, fitted: bool) -> None:
    """Draw what each batch size took, with its interval, and its single runs."""
    seen = [(p, p.interval("steps")) for p in curve.points if p.n]
    there = [(p, p.batch_size * shift, i) for p, i in seen if math.isfinite(i.value)]
    style, counts = look(index), sorted({p.n for p, _ in seen})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    axes.plot(
        [x for _, x, _ in there],
        [i.value for _, _, i in there],
        **style,
        label=name and f"{name} (n = {seeds} a size)",
        zorder=3,
        markersize=5,
        linestyle="none" if fitted else "-",
    )
    for p, at, i in there:
        note(
            axes, at, i.value, f"batch {p.batch_size:,}: {number(i)} steps, {p.count('reached')} of {p.n} runs arrived"
        )
        if math.isfinite(i.low):
            axes.plot([at, at], [i.low, i.high if math.isfinite(i.high) else i.value], color=style["color"])
    draw_runs(axes, [(p.batch_size * shift, o) for p, _ in seen for o in p.counted], style["color"])


def draw_runs(axes, runs: list[tuple[float, Observation]], colour: str) -> None:
    """Draw single runs, and those that never arrived where they stopped."""
    for status, (marker, alpha, size) in MARKS.items():
        ended = [(x, o) for x, o in runs if o.status == status]
        at = [o.value("steps") if status == "reached" else o.run.stopped_at("steps") for _, o in ended]
        kind = {
            "rasterized": len(runs) > MOST_MARKS,
            "color": colour,
            "alpha": alpha,
            "markersize": size,
            "markerfacecolor": "none",
        }
        axes.plot([x for x, _ in ended], at, marker, **kind)


def perfect_scaling(axes, curves: list[Curve]) -> None:
    """Draw the line on which twice the batch takes half the steps, through the smallest batch's median."""
    starts = [(p.batch_size, p.interval("steps").value) for c in curves for p in c.points if p.n]
    starts = [(size, steps) for size, steps in starts if math.isfinite(steps)]
    if not starts:
        return
    first = min(starts)
    last = max(p.batch_size for c in curves for p in c.points)
    ends = [first[0], last]
    axes.plot(ends, [first[1] * first[0] / b for b in ends], "--", color="#777777", label="perfect scaling")


def missing_legend(axes, curves: list[Curve]) -> None:
    """Explain the marks of the runs that never arrived, where there are any."""
    counts = {s: sum(p.count(s) for c in curves for p in c.points) for s in ("budget", "diverged")}
    if counts["budget"]:
        text = f"budget spent without arriving ({counts['budget']} runs)"
        axes.plot([], [], "^", color="#444444", markerfacecolor="none", label=text)
    if counts["diverged"]:
        axes.plot([], [], "x", color="#444444", label=f"diverged ({counts['diverged']} runs)")


def draw_fit(axes, found: Critical | None, index: int, shift: float) -> None:
    """Draw the fitted curve and, where it is identified, the critical batch size with its interval."""
    if found is None or found.fit is None:
        return
    sizes = np.geomspace(found.data.sizes[0], found.data.sizes[-1], 60)
    colour = look(index)["color"]
    axes.plot(sizes * shift, found.fit.curve(sizes), color=colour, alpha=0.35, linewidth=4, zorder=1)
    if found.identified:
        axes.axvspan(found.b2.low, found.b2.high, color=colour, alpha=0.08, zorder=0)
        axes.axvline(found.b2.value, color=colour, linestyle=":", zorder=0)


def curves_panel(axes, named: Named) -> None:
    """Draw steps against batch size for several curves, with fits, perfect scaling, and what never arrived."""
    if len(named) > IN_LEGEND:
        axes.plot([], [], linestyle="none", label=f"{len(named)} curves, the first {IN_LEGEND} named; see the table")
    for index, (name, curve, found) in enumerate(named):
        name = name if index < IN_LEGEND else None
        shift = 1.03 ** (index - (len(named) - 1) / 2)  # so that curves do not hide each other
        draw_points(axes, name, curve, index, shift, fitted=bool(found and found.fit))
        draw_fit(axes, found, index, shift)
    curves = [curve for _, curve, _ in named]
    perfect_scaling(axes, curves)
    missing_legend(axes, curves)
    batch_axis(axes, [p.batch_size for c in curves for p in c.points])
    log_axis(axes, "steps to target (optimizer updates)")
    axes.legend()


def steps_table(named: list[tuple[str, str, Curve]]) -> Table:
    """List the points of several curves: (panel, name, curve)."""
    rows = []
    for panel, name, curve in named:
        for p in (p for p in curve.points if p.n):
            counts = [p.count(status) for status in ("reached", "budget", "diverged")]
            rows.append([panel, name, p.batch_size, p.n, *counts, p.interval("steps"), p.interval("examples")])
    columns = ["panel", "curve", "batch size", "n", "reached", "censored", "diverged", "steps", "examples"]
    return Table("The numbers", columns, rows)


def steps_to_target(workload: Workload, pairs: list[tuple[Curve, Critical | None]]) -> Drawing:
    """Draw one workload: steps to the target against batch size, log-log."""

    def draw(panels) -> None:
        curves_panel(panels[0], [(curve.name, curve, found) for curve, found in pairs])
        panels[0].set_title(f"{workload.name}\n{workload.target}", fontsize=10, loc="left")

    return Drawing(1, draw, steps_table([("", c.name, c) for c in workload.curves]), workload.name)
