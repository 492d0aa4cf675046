"""Golmant et al. 2018, figures 1 to 5, from whatever runs there are."""

import math
from collections.abc import Callable

import numpy as np

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Curve, Observation, Workload, group, main_curve, same_but_target
from tasks.report.analysis.intervals import log_median, mean_interval
from tasks.report.analysis.measures import LINEAR_ERROR, test_accuracy
from tasks.report.figures.steps import Named, curves_panel, steps_table
from tasks.report.figures.style import (
    Drawing,
    NotDrawable,
    Table,
    batch_axis,
    largest,
    log_axis,
    look,
    plt,
    points_of,
)

LEVELS = 8
LOSS = "trainset/loss"
TRAIN, VALIDATION = "trainset/", "val/"


def first_below(o: Observation, level: float) -> float:
    """Return the first step at which a run's training loss is at a level, infinite if never."""
    steps, losses = o.run.curve.get("step", []), o.run.curve.get(LOSS, [])
    return next((s for s, v in zip(steps, losses, strict=False) if v <= level), math.inf)


def contour_levels(curve: Curve) -> list[float]:
    """Return losses evenly spaced on the log scale, from what all sizes pass to the lowest that any reaches."""
    lows = [min(v) for p in curve.points for o in p.counted if (v := finite(o)) and len(v) > 1]
    starts = [finite(o)[0] for p in curve.points for o in p.counted if finite(o)]
    if not lows or min(lows) <= 0 or min(starts) <= min(lows):
        return []
    return list(np.geomspace(0.8 * min(starts), 1.02 * min(lows), LEVELS))


def finite(o: Observation) -> list[float]:
    """Return a run's training losses that are numbers, none where it was measured now and then only."""
    found = o.run.curve.get(LOSS, [])
    numbers = [v for v in found if math.isfinite(v)]
    return numbers if 2 * len(numbers) > len(found) else []


def contours(curve: Curve) -> list[tuple[float, list[tuple[int, float]]]]:
    """Give, by loss, the median steps to it at each size that gets there."""
    found = []
    for level in contour_levels(curve):
        medians = [(p.batch_size, [first_below(o, level) for o in p.counted]) for p in curve.points if p.n]
        steps = [(size, log_median(np.array(values))) for size, values in medians]
        found.append((level, [(size, s) for size, s in steps if math.isfinite(s) and s > 0]))
    return found


def figure_1(analysis: Analysis) -> Drawing | NotDrawable:
    """Contours of equal training loss over batch size and iterations, one panel a domain."""
    tasks = {task: largest(ws) for task, ws in group(analysis.workloads, lambda w: w.task).items()}
    shown = {w.task: (w, contours(main_curve(w))) for w in tasks.values()}
    shown = {task: (w, lines) for task, (w, lines) in shown.items() if any(points for _, points in lines)}
    if not shown:
        return NotDrawable("no runs with trainset/loss in their curves")
    rows = [
        [task, main_curve(w).name, level, size, steps]
        for task, (w, lines) in shown.items()
        for level, points in lines
        for size, steps in points
    ]

    def draw(panels) -> None:
        for axes, (task, (w, lines)) in zip(panels, shown.items(), strict=True):
            colours = plt.colormaps["viridis"](np.linspace(0.9, 0, len(lines)))
            for (level, points), colour in zip(lines, colours, strict=True):
                axes.plot(
                    *zip(*points, strict=True), color=colour, marker=".", label=f"{level:.3g}"
                ) if points else None
            batch_axis(axes, [p.batch_size for p in main_curve(w).points])
            log_axis(axes, "iterations (optimizer updates)")
            axes.set_title(f"{task}\n{main_curve(w).name}", fontsize=9, loc="left")
            axes.legend(title="training loss", title_fontsize=8, fontsize=7)

    table = Table("Iterations to a training loss", ["task", "curve", "training loss", "batch size", "iterations"], rows)
    return Drawing(len(shown), draw, table, "Lines of equal training loss; a line ends where larger batches miss it.")


def rule_curves(workloads: list[Workload]) -> tuple[Workload, list[Curve]] | None:
    """Find the study of learning-rate rules with the most runs."""
    found = [(w, [c for c in w.curves if not c.tuned]) for w in workloads]
    found = [(w, cs) for w, cs in found if len({c.facts["rate.scaling_rule"] for c in cs}) > 1]
    return max(found, key=lambda item: sum(points_of(c) for c in item[1]), default=None)


def speedups(curve: Curve) -> list[tuple[int, float, float]]:
    """Return (batch size, speed-up over the smallest, the ideal)."""
    steps = [(p.batch_size, p.interval("steps").value) for p in curve.points if p.n]
    if not steps or not math.isfinite(steps[0][1]):
        return []
    return [(size, steps[0][1] / s, size / steps[0][0]) for size, s in steps if math.isfinite(s)]


def by_size(curve: Curve, value: Callable[[Observation], float | None]) -> list[tuple]:
    """Return (batch size, mean with interval or single value) of a number over seeds."""
    found = []
    for p in curve.points:
        values = [v for v in map(value, p.counted) if v is not None and math.isfinite(v)]
        if values:
            found.append((p.batch_size, float(np.mean(values)), mean_interval(values)))
    return found


def linear_error(o: Observation) -> float | None:
    """Return a run's error of the linear approximation."""
    return o.run.final.get(LINEAR_ERROR)


def mean_panel(axes, curves: list[Curve], value: Callable, label: str) -> None:
    """Draw a number's mean over seeds with its interval against batch size."""
    for index, curve in enumerate(curves):
        for size, _, interval in by_size(curve, value):
            if math.isfinite(interval.low):
                axes.plot([size, size], [interval.low, interval.high], color=look(index)["color"])
        points = by_size(curve, value)
        axes.plot([p[0] for p in points], [p[1] for p in points], **look(index), label=curve.name)
    batch_axis(axes, [p.batch_size for c in curves for p in c.points])
    axes.set_ylabel(label)


def figure_2(analysis: Analysis) -> Drawing | NotDrawable:
    """Speed-up by rule; test accuracy and the error of the linear approximation."""
    study = rule_curves(analysis.workloads)
    if study is None:
        return NotDrawable("no study with two or more learning-rate scaling rules")
    w, curves = study
    has_error = any(by_size(c, linear_error) for c in curves)
    rows = [[c.name, *row] for c in curves for row in speedups(c)]

    def draw(panels) -> None:
        axes = panels[0]
        for index, curve in enumerate(curves):
            points = speedups(curve)
            axes.plot([p[0] for p in points], [p[1] for p in points], **look(index), label=curve.name)
        ideal = {size: best for c in curves for size, _, best in speedups(c)}
        axes.plot(*zip(*sorted(ideal.items()), strict=True), "--", color="#777777", label="ideal")
        batch_axis(axes, [p.batch_size for c in curves for p in c.points])
        log_axis(axes, "speed-up s(m; m0) = k(m0) / k(m)")
        axes.legend()
        mean_panel(panels[1], curves, test_accuracy, "test accuracy at the end (%)")
        if has_error:
            mean_panel(panels[2], curves, linear_error, "error of the linear approximation (loss)")
            panels[2].axhline(1, color="#777777", linestyle="--")

    table = Table("Speed-up by rule", ["curve", "batch size", "speed-up", "ideal"], rows)
    return Drawing(2 + has_error, draw, table, f"{w.name}, {w.target}.")


def panel_of(named: Named) -> Callable:
    """Make a panel that draws these curves."""
    return lambda axes: curves_panel(axes, named)


def compared(
    analysis: Analysis, groups: list[tuple[str, list[Workload], Callable[[Workload], str]]], none: str
) -> Drawing | NotDrawable:
    """Draw, per group with two or more members, their main curves in one panel."""
    shown = []
    for title, members, label in groups:
        named = {label(w): (label(w), *analysis.main(w)) for w in members}
        if len(named) > 1:
            shown.append((title, list(named.values())))
    if not shown:
        return NotDrawable(none)

    def draw(panels) -> None:
        for axes, (title, named) in zip(panels, shown, strict=True):
            curves_panel(axes, named)
            axes.set_title(title, fontsize=9, loc="left")

    return Drawing(len(shown), draw, steps_table([(t, n, c) for t, named in shown for n, c, _ in named]), "")


def largest_group(workloads: list[Workload], key: Callable, label: Callable[[Workload], str]) -> list[Workload]:
    """Find the group of workloads that agree in a key with the most different labels."""
    groups = group(workloads, key).values()
    return max(groups, key=lambda ws: (len({label(w) for w in ws}), len(ws)), default=[])


def figure_3(analysis: Analysis) -> Drawing | NotDrawable:
    """Architectures on the same data; data sets (or label noise) with the same architecture."""

    def data(w: Workload) -> str:
        noise = w.data.label_noise
        return w.data.name + (f", {100 * noise:g} % label noise" if noise else "")

    def network(w: Workload) -> str:
        return f"{w.network}, {w.parameters:,} parameters" if w.parameters else w.network

    same_data = largest_group(analysis.workloads, lambda w: (w.study, w.data.hash, w.hit.metric), network)
    same_network = largest_group(
        analysis.workloads, lambda w: (w.study, w.network, w.data.fraction, w.hit.metric), data
    )
    groups = [("Architecture", same_data, network), ("Complexity of the data", same_network, data)]
    return compared(analysis, groups, "no study with two or more networks, data sets or levels of label noise")


def figure_4(analysis: Analysis) -> Drawing | NotDrawable:
    """The same data set at several sizes."""

    def fraction(w: Workload) -> str:
        return f"{100 * w.data.fraction:g} % of the data"

    key = lambda w: (w.study, w.data.name, w.network, w.data.label_noise, w.hit.metric)  # noqa: E731
    return compared(
        analysis,
        [("Size of the data", largest_group(analysis.workloads, key, fraction), fraction)],
        "no study with two or more data fractions",
    )


def figure_5(analysis: Analysis) -> Drawing | NotDrawable:
    """Steps to a training and to a validation target, and test accuracy at the end."""
    kinds = (TRAIN, VALIDATION)
    groups = group([w for w in analysis.workloads if w.hit.metric.startswith(kinds)], same_but_target).values()
    members = max(groups, key=lambda ws: (len({w.hit.metric.startswith(TRAIN) for w in ws}), len(ws)), default=[])
    if not members:
        return NotDrawable("no run with a training or validation target")
    named = [(w.target, *analysis.main(w)) for w in members]
    tested = [c for _, c, _ in named[:1] if by_size(c, test_accuracy)]

    def draw(panels) -> None:
        curves_panel(panels[0], named)
        if tested:
            mean_panel(panels[1], tested, test_accuracy, "test accuracy at the end (%)")

    table = steps_table([("", n, c) for n, c, _ in named])
    return Drawing(1 + len(tested), draw, table, members[0].name)
