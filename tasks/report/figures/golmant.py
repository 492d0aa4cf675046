"""Steps to the target against batch size, and figures 1 to 5 of Golmant et al. 2018, from whatever runs there are."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import (
    COUNTED,
    TRAIN,
    VALIDATION,
    Curve,
    Observation,
    Workload,
    experiment,
    group,
    main_curve,
)
from tasks.report.analysis.intervals import Interval, exact, log_median, number
from tasks.report.analysis.measures import LINEAR_ERROR, mean_of, test_accuracy
from tasks.report.claims.rules import Evidence, Part
from tasks.report.figures.style import (
    COLOURS,
    GREY,
    Drawing,
    NotDrawable,
    Panels,
    Table,
    against_batch,
    any_known,
    batch_axis,
    draw_intervals,
    log_axis,
    look,
    note,
)

IN_LEGEND, CROWDED = 10, 4  # curves in a legend, and from where on it is kept small
MOST_MARKS = 100  # single runs on a curve drawn one by one; more are a picture, which keeps the page small
MARKS = {"reached": (".", 0.35, 4), "budget": ("^", 0.8, 6), "diverged": ("x", 0.8, 6)}  # marker, alpha, size
NEVER = {"budget": "budget spent without arriving", "diverged": "diverged"}
LEVELS = 8
LOSS = "trainset/loss"
Named = list[tuple[str, Curve, Critical | None]]  # what the legend says, the curve, its fit


def draw_points(axes: Axes, curve: Curve, index: int, shift: float, **more: Any) -> None:
    """Draw what each batch size took, with its interval, and its single runs."""
    points = [(p.batch_size * shift, p, p.interval("steps")) for p in curve.points if p.n]
    draw_intervals(axes, [(at, i) for at, _, i in points], index, zorder=3, **more)
    for at, p, i in points:
        if math.isfinite(i.value):
            text = f"batch {p.batch_size:,}: {number(i)} steps, {p.count('reached')} of {p.n} runs arrived"
            note(axes, at, i.value, text)
    marks: dict[str, Any] = {"color": look(index)["color"], "markerfacecolor": "none"}
    marks["rasterized"] = len(curve.counted) > MOST_MARKS
    for status, (marker, alpha, size) in MARKS.items():
        runs = [(at, o) for at, p, _ in points for o in p.counted if o.status == status]
        steps = [o.value("steps") if status == "reached" else o.run.stopped_at("steps") for _, o in runs]
        axes.plot([at for at, _ in runs], steps, marker, alpha=alpha, markersize=size, **marks)


def draw_fit(axes: Axes, found: Critical | None, index: int, shift: float) -> None:
    """Draw the fitted curve and, where it is identified, the critical batch size with its interval."""
    if found is None or found.fit is None:
        return
    sizes = np.geomspace(found.data.sizes[0], found.data.sizes[-1], 40)
    colour = look(index)["color"]
    axes.plot(sizes * shift, found.fit.curve(sizes), color=colour, alpha=0.35, linewidth=4, zorder=1)
    if found.identified:
        axes.axvspan(found.b2.low, found.b2.high, color=colour, alpha=0.08, zorder=0)
        words = "twice the fewest examples"
        label = None if words in axes.get_legend_handles_labels()[1] else words  # once, whatever its colour
        axes.axvline(found.b2.value, color=colour, linestyle=":", zorder=0, label=label)


def curves_panel(axes: Axes, named: Named, title: str = "") -> None:
    """Draw steps against batch size for several curves, with fits, perfect scaling, and what never arrived."""
    for index, (name, curve, found) in enumerate(named):
        shift = 1.03 ** (index - (len(named) - 1) / 2)  # so that curves do not hide each other
        linestyle = "none" if found and found.fit else "-"
        draw_points(axes, curve, index, shift, linestyle=linestyle, label=name if index < IN_LEGEND else None)
        draw_fit(axes, found, index, shift)
    points = [p for _, curve, _ in named for p in curve.points]
    sizes = [p.batch_size for p in points]
    arrived = [(p.batch_size, p.interval("steps").value) for p in points if math.isfinite(p.interval("steps").value)]
    if arrived:
        first, steps = min(arrived)
        axes.plot([first, max(sizes)], [steps, steps * first / max(sizes)], "--", color=GREY, label="perfect scaling")
    for status, words in NEVER.items():
        if count := sum(p.count(status) for p in points):
            label = f"{words} ({count} runs)"
            axes.plot([], [], MARKS[status][0], color="#444444", markerfacecolor="none", label=label)
    if len(named) > IN_LEGEND:
        axes.plot([], [], " ", label=f"{len(named)} curves, the first {IN_LEGEND} named")
    batch_axis(axes, sizes)
    log_axis(axes, "steps to target (optimizer updates)")
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(fontsize=6.5 if len(named) >= CROWDED else None).set_in_layout(False)  # not to narrow the panel


def steps_table(panels: dict[str, Named]) -> Table:
    """List the points of several curves by panel."""
    rows = [
        [panel, name, p.batch_size, p.n, *map(p.count, COUNTED), p.interval("steps"), p.interval("examples")]
        for panel, named in panels.items()
        for name, curve, _ in named
        for p in curve.points
        if p.n
    ]
    columns = ["panel", "curve", "batch size", "n", "reached", "censored", "diverged", "steps", "examples"]
    return Table("The numbers", columns, rows)


def side_by_side(panels: dict[str, Named], caption: str = "") -> Drawing:
    """Draw curves together in panels, by title."""

    def draw(axes: Panels) -> None:
        for panel, (title, named) in zip(axes, panels.items(), strict=True):
            curves_panel(panel, named, title)

    return Drawing(len(panels), draw, steps_table(panels), caption)


def as_claimed(part: Part) -> list[float]:
    """Return how far a part's value and its interval's ends lie on the claim's side of its margin."""
    margins = [(sign, margin) for sign, margin in ((1, part.above), (-1, part.below)) if margin is not None]
    ends = part.interval.value, part.interval.low, part.interval.high
    beyond = [min(sign * (end - margin) for sign, margin in margins) for end in ends]
    span = max((abs(b) for b in beyond if math.isfinite(b)), default=0.0)
    return [float(np.clip(b / span, -1.2, 1.2)) if span else 0.0 for b in beyond]


def effects_panel(axes: Axes, parts: list[Part]) -> None:
    """Draw every part's effect with its interval against the margin that the claim sets, each on its own scale."""
    axes.axvspan(0, 1.3, color=COLOURS[2], alpha=0.1, linewidth=0)
    axes.axvline(0, color=GREY, linestyle="--")
    for row, part in enumerate(parts):
        words = f"{part.what}\n{number(part.interval)}, claimed {part.claimed}"
        axes.annotate(words, (-1.27, row - 0.3), fontsize=min(8, 8 * 88 / len(part.what))).set_in_layout(False)
        if not math.isnan(part.interval.value):
            found = as_claimed(part)
            axes.plot([min(found), max(found)], [row, row], color=COLOURS[0])
            axes.plot(found[0], row, "o", color=COLOURS[0])
    axes.set(xlim=(-1.3, 1.3), ylim=(len(parts) - 0.7, -0.8), yticks=[])
    axes.set_xticks([-0.65, 0, 0.65], ["against the claim", "margin", "as claimed"])
    axes.grid(visible=False)


def claim_figure(analysis: Analysis, seen: Evidence) -> Drawing:
    """Draw what a verdict stands on: the curves of several studies, and each effect against its margin."""
    named = [(name, curve, analysis.found[curve]) for name, curve in seen.curves]
    several = seen.counts_steps and len({c.record.study for _, c in seen.curves}) > 1  # one study's own figure shows it

    def draw(panels: Panels) -> None:
        if several:
            curves_panel(panels[0], named)
        effects_panel(panels[-1], seen.judged)

    height = 0.0 if several else 0.7 + 0.8 * len(seen.judged)
    return Drawing(1 + several, draw, steps_table({"": named}), seen.scale, height=height)


def losses(o: Observation) -> np.ndarray:
    """Return a run's steps and training losses, [evaluations, 2], none where it was measured now and then only."""
    measured = zip(o.run.curve.get("step", []), o.run.curve.get(LOSS, []), strict=False)
    found = np.array(list(measured), dtype=float).reshape(-1, 2)
    known = found[np.isfinite(found[:, 1])]
    return known if 2 * len(known) > len(found) else known[:0]


def contours(curve: Curve) -> list[tuple[float, int, float]]:
    """Return (training loss, batch size, median steps to it) where a size gets there, losses evenly spaced in log."""
    seen = {o: losses(o) for o in curve.counted}
    start = min((found[0, 1] for found in seen.values() if len(found)), default=0.0)
    low = min((found[:, 1].min() for found in seen.values() if len(found) > 1), default=0.0)
    rows = []
    for level in np.geomspace(0.8 * start, 1.02 * low, LEVELS) if 0 < low < start else []:
        for p in (p for p in curve.points if p.n):
            first = [min(seen[o][seen[o][:, 1] <= level, 0], default=math.inf) for o in p.counted]
            steps = log_median(np.array(first))
            if math.isfinite(steps) and steps > 0:
                rows.append((float(level), p.batch_size, steps))
    return rows


def figure_1(analysis: Analysis) -> Drawing | NotDrawable:
    """Contours of equal training loss over batch size and iterations, one panel a domain."""
    tasks = group(analysis.workloads, lambda w: w.task)
    curves = {
        task: max(map(main_curve, found), key=lambda c: (LOSS in c.runs[0].run.curve) * len(c.points))
        for task, found in tasks.items()
    }
    shown = {task: found for task, curve in curves.items() if (found := contours(curve))}
    if not shown:
        return NotDrawable("no runs with trainset/loss in their curves")

    def draw(panels: Panels) -> None:
        for axes, (task, found) in zip(panels, shown.items(), strict=True):
            lines = group(found, lambda row: row[0])
            colours = colormaps["viridis"](np.linspace(0.9, 0, len(lines)))
            for (level, points), colour in zip(lines.items(), colours, strict=True):
                sizes, steps = [p[1] for p in points], [p[2] for p in points]
                axes.plot(sizes, steps, color=colour, marker=".", label=f"{level:.3g}")
            batch_axis(axes, [p.batch_size for p in curves[task].points])
            log_axis(axes, "iterations (optimizer updates)")
            axes.set_title(f"{task}\n{curves[task].name}", fontsize=9, loc="left")
            axes.legend(title="training loss", title_fontsize=8, fontsize=7)

    rows = [[task, curves[task].name, *row] for task, found in shown.items() for row in found]
    table = Table("Iterations to a training loss", ["task", "curve", "training loss", "batch size", "iterations"], rows)
    return Drawing(len(shown), draw, table, "Lines of equal training loss; a line ends where larger batches miss it.")


def speedups(curve: Curve) -> dict[int, tuple[float, float]]:
    """Return by batch size the speed-up over the smallest, and the ideal."""
    steps = {p.batch_size: p.interval("steps").value for p in curve.points if p.n}
    smallest, most = next(iter(steps.items()), (0, math.inf))
    return {size: (most / s, size / smallest) for size, s in steps.items() if math.isfinite(s) and math.isfinite(most)}


def by_size(curve: Curve, value: Callable[[Observation], float | None]) -> dict[int, Interval]:
    """Return by batch size the mean of a number over seeds."""
    return {p.batch_size: mean_of(map(value, p.counted)) for p in curve.points}


def figure_2(analysis: Analysis) -> Drawing | NotDrawable:
    """Speed-up by rule; test accuracy and the error of the linear approximation."""
    fixed = {w: [c for c in w.curves if not c.tuned] for w in analysis.workloads}
    found = [w for w, curves in fixed.items() if len({c.record.rate.scaling_rule for c in curves}) > 1]
    if not found:
        return NotDrawable("no study with two or more learning-rate scaling rules")
    w = max(found, key=lambda w: sum(len(c.counted) for c in fixed[w]))
    curves = fixed[w]
    tested = {c.name: by_size(c, test_accuracy) for c in curves}
    errors = {c.name: by_size(c, lambda o: o.run.record.final.get(LINEAR_ERROR)) for c in curves}
    gained = {c.name: speedups(c) for c in curves}

    def draw(panels: Panels) -> None:
        faster = {name: {size: exact(s) for size, (s, _) in points.items()} for name, points in gained.items()}
        against_batch(panels[0], faster, "speed-up s(m; m0) = k(m0) / k(m)", log=True)
        ideal = sorted({size: best for points in gained.values() for size, (_, best) in points.items()}.items())
        panels[0].plot([size for size, _ in ideal], [best for _, best in ideal], "--", color=GREY, label="ideal")
        panels[0].legend()
        against_batch(panels[1], tested, "test accuracy at the end (%)")
        for axes in panels[2:]:
            against_batch(axes, errors, "error of the linear approximation (loss)")
            axes.axhline(1, color=GREY, linestyle="--")

    rows = [[name, size, *found] for name, points in gained.items() for size, found in points.items()]
    table = Table("Speed-up by rule", ["curve", "batch size", "speed-up", "ideal"], rows)
    return Drawing(2 + any_known(errors), draw, table, f"{w.name}, {w.hit.label}.")


def told_apart(analysis: Analysis, key: Callable[[Workload], object], label: Callable[[Workload], str]) -> Named:
    """Return the main curves of the workloads that agree in a key and have the most labels, none with one label."""
    groups = group(analysis.workloads, lambda w: str(key(w))).values()
    best = max(groups, key=lambda ws: (len({label(w) for w in ws}), len(ws)))
    named = {label(w): (label(w), *analysis.main(w)) for w in best}
    return list(named.values()) if len(named) > 1 else []


def data_of(w: Workload) -> str:
    """Return a workload's data set, with its label noise."""
    return w.data.name + (f", {100 * w.data.label_noise:g} % label noise" if w.data.label_noise else "")


def network_of(w: Workload) -> str:
    """Return a workload's network, with its size."""
    return f"{w.network}, {w.parameters:,} parameters" if w.parameters else w.network


def figure_3(analysis: Analysis) -> Drawing | NotDrawable:
    """Architectures on the same data; data sets (or label noise) with the same architecture."""
    architecture = told_apart(analysis, lambda w: (w.study, w.data.hash, w.hit.metric), network_of)
    complexity = told_apart(analysis, lambda w: (w.study, w.network, w.data.fraction, w.hit.metric), data_of)
    panels = {"Architecture": architecture, "Complexity of the data": complexity}
    shown = {title: named for title, named in panels.items() if named}
    none = NotDrawable("no study with two or more networks, data sets or levels of label noise")
    return side_by_side(shown) if shown else none


def figure_4(analysis: Analysis) -> Drawing | NotDrawable:
    """The same data set at several sizes."""
    named = told_apart(
        analysis,
        lambda w: (w.study, data_of(w), w.network, w.hit.metric),
        lambda w: f"{100 * w.data.fraction:g} % of the data",
    )
    none = NotDrawable("no study with two or more data fractions")
    return side_by_side({"Size of the data": named}) if named else none


def figure_5(analysis: Analysis) -> Drawing | NotDrawable:
    """Steps to a training and to a validation target, and test accuracy at the end."""
    groups = group(
        [w for w in analysis.workloads if w.hit.metric.startswith((TRAIN, VALIDATION))],
        lambda w: experiment(main_curve(w).record),
    )
    if not groups:
        return NotDrawable("no run with a training or validation target")
    members = max(groups.values(), key=lambda ws: (len({w.hit.metric.startswith(TRAIN) for w in ws}), len(ws)))
    named = [(w.hit.label, *analysis.main(w)) for w in members]
    tested = {"": by_size(named[0][1], test_accuracy)}

    def draw(panels: Panels) -> None:
        curves_panel(panels[0], named)
        for axes in panels[1:]:
            against_batch(axes, tested, "test accuracy at the end (%)")

    return Drawing(1 + any_known(tested), draw, steps_table({"": named}), members[0].name)
