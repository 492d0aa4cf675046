"""Steps to the target against batch size, and figures 1 to 5 of Golmant et al. 2018, from whatever runs there are."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import (
    TRAIN,
    VALIDATION,
    Curve,
    Observation,
    Workload,
    group,
    main_curve,
    same_but_target,
)
from tasks.report.analysis.intervals import Interval, log_median, number
from tasks.report.analysis.measures import LINEAR_ERROR, mean_of, test_accuracy
from tasks.report.claims.rules import Evidence, Part
from tasks.report.figures.style import (
    COLOURS,
    GREY,
    Drawing,
    NotDrawable,
    Panels,
    Table,
    batch_axis,
    draw_intervals,
    largest,
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


# steps against batch size ---------------------------------------------------------------------------------


def with_seeds(name: str, curve: Curve) -> str:
    """Return a curve's name with how many runs it has at a batch size."""
    fewest, most = (f([p.n for p in curve.points if p.n], default=0) for f in (min, max))
    return f"{name} (n = {most if fewest == most else f'{fewest} to {most}'} a size)"


def draw_points(axes: Axes, name: str | None, curve: Curve, index: int, shift: float, fitted: bool) -> None:
    """Draw what each batch size took, with its interval, and its single runs."""
    seen = [(p, p.batch_size * shift, p.interval("steps")) for p in curve.points if p.n]
    more = {"label": name, "linestyle": "none" if fitted else "-", "zorder": 3}
    draw_intervals(axes, [(at, i) for _, at, i in seen], index, **more)
    for p, at, i in seen:
        if math.isfinite(i.value):
            text = f"batch {p.batch_size:,}: {number(i)} steps, {p.count('reached')} of {p.n} runs arrived"
            note(axes, at, i.value, text)
    draw_runs(axes, [(at, o) for p, at, _ in seen for o in p.counted], look(index)["color"])


def draw_runs(axes: Axes, runs: list[tuple[float, Observation]], colour: str) -> None:
    """Draw single runs, and those that never arrived where they stopped."""
    for status, (marker, alpha, size) in MARKS.items():
        ended = [(x, o) for x, o in runs if o.status == status]
        at = [o.value("steps") if status == "reached" else o.run.stopped_at("steps") for _, o in ended]
        kind: dict[str, Any] = {"color": colour, "alpha": alpha, "markersize": size, "markerfacecolor": "none"}
        axes.plot([x for x, _ in ended], at, marker, rasterized=len(runs) > MOST_MARKS, **kind)


def perfect_scaling(axes: Axes, curves: list[Curve]) -> None:
    """Draw the line on which twice the batch takes half the steps, through the smallest batch's median."""
    points = [p for c in curves for p in c.points]
    starts = [(p.batch_size, steps) for p in points if p.n and math.isfinite(steps := p.interval("steps").value)]
    if starts:
        size, steps = min(starts)
        ends = [size, max(p.batch_size for p in points)]
        axes.plot(ends, [steps * size / b for b in ends], "--", color=GREY, label="perfect scaling")


def missing_legend(axes: Axes, curves: list[Curve]) -> None:
    """Explain the marks of the runs that never arrived, where there are any."""
    for status, words in NEVER.items():
        count = sum(p.count(status) for c in curves for p in c.points)
        if count:
            label = f"{words} ({count} runs)"
            axes.plot([], [], MARKS[status][0], color="#444444", markerfacecolor="none", label=label)


def draw_fit(axes: Axes, found: Critical | None, index: int, shift: float) -> None:
    """Draw the fitted curve and, where it is identified, the critical batch size with its interval."""
    if found is None or found.fit is None:
        return
    sizes = np.geomspace(found.data.sizes[0], found.data.sizes[-1], 60)
    colour = look(index)["color"]
    axes.plot(sizes * shift, found.fit.curve(sizes), color=colour, alpha=0.35, linewidth=4, zorder=1)
    if found.identified:
        axes.axvspan(found.b2.low, found.b2.high, color=colour, alpha=0.08, zorder=0)
        words = "twice the fewest examples"
        label = None if words in axes.get_legend_handles_labels()[1] else words  # once, whatever its colour
        axes.axvline(found.b2.value, color=colour, linestyle=":", zorder=0, label=label)


def curves_panel(axes: Axes, named: Named) -> None:
    """Draw steps against batch size for several curves, with fits, perfect scaling, and what never arrived."""
    if len(named) > IN_LEGEND:
        axes.plot([], [], linestyle="none", label=f"{len(named)} curves, the first {IN_LEGEND} named; see the table")
    crowded = len(named) >= CROWDED
    for index, (name, curve, found) in enumerate(named):
        shown = (name if crowded else with_seeds(name, curve)) if index < IN_LEGEND else None
        shift = 1.03 ** (index - (len(named) - 1) / 2)  # so that curves do not hide each other
        draw_points(axes, shown, curve, index, shift, fitted=bool(found and found.fit))
        draw_fit(axes, found, index, shift)
    curves = [curve for _, curve, _ in named]
    perfect_scaling(axes, curves)
    missing_legend(axes, curves)
    batch_axis(axes, [p.batch_size for c in curves for p in c.points])
    log_axis(axes, "steps to target (optimizer updates)")
    axes.legend(fontsize=6.5 if crowded else None).set_in_layout(False)  # its width is not to narrow the panel


def steps_table(named: Iterable[tuple[str, str, Curve]]) -> Table:
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

    def draw(panels: Panels) -> None:
        curves_panel(panels[0], [(curve.name, curve, found) for curve, found in pairs])
        panels[0].set_title(f"{workload.name}\n{workload.target}", fontsize=10, loc="left")

    return Drawing(1, draw, steps_table(("", c.name, c) for c in workload.curves), workload.name)


# claims ---------------------------------------------------------------------------------------------------


def as_claimed(part: Part, value: float) -> float:
    """Return how far a value lies on the claim's side of the nearest margin, as a share of what its interval spans."""
    margins = [(1, part.above), (-1, part.below)]

    def beyond(v: float) -> float:
        return min(sign * (v - margin) for sign, margin in margins if margin is not None)

    i = part.interval
    span = max((abs(beyond(v)) for v in (i.value, i.low, i.high) if math.isfinite(v)), default=0.0)
    return float(np.clip(beyond(value) / span, -1.2, 1.2)) if span else 0.0


def effects_panel(axes: Axes, parts: list[Part]) -> None:
    """Draw every part's effect with its interval against the margin that the claim sets, each on its own scale."""
    axes.axvspan(0, 1.3, color=COLOURS[2], alpha=0.1, linewidth=0)
    axes.axvline(0, color=GREY, linestyle="--")
    for row, part in enumerate(parts):
        words = f"{part.what}\n{number(part.interval)}, claimed {part.claimed}"
        axes.annotate(words, (-1.27, row - 0.3), fontsize=min(8, 8 * 88 / len(part.what))).set_in_layout(False)
        value, low, high = (as_claimed(part, v) for v in (part.interval.value, part.interval.low, part.interval.high))
        if not math.isnan(part.interval.value):
            axes.plot([min(low, value, high), max(low, value, high)], [row, row], color=COLOURS[0])
            axes.plot(value, row, "o", color=COLOURS[0])
    axes.set(xlim=(-1.3, 1.3), ylim=(len(parts) - 0.7, -0.8), yticks=[])
    axes.set_xticks([-0.65, 0, 0.65], ["against the claim", "margin", "as claimed"])
    axes.grid(visible=False)


def claim_figure(analysis: Analysis, seen: Evidence) -> Drawing:
    """Draw what a verdict stands on: the curves of several studies, and each effect against its margin."""
    named = [(name, curve, analysis.found[curve]) for name, curve in seen.curves]
    several = seen.counts_steps and len({c.record.study for _, c in seen.curves}) > 1  # one study's own figure shows it
    parts = [*([seen.premise] if seen.premise else []), *seen.parts]

    def draw(panels: Panels) -> None:
        if several:
            curves_panel(panels[0], named)
        effects_panel(panels[-1], parts)

    height = 0.0 if several else 0.7 + 0.8 * len(parts)
    table = steps_table(("", name, curve) for name, curve, _ in named)
    return Drawing(1 + several, draw, table, seen.scale, height=height)


# figure 1 -------------------------------------------------------------------------------------------------


def finite(o: Observation) -> list[float]:
    """Return a run's training losses that are numbers, none where it was measured now and then only."""
    found = o.run.curve.get(LOSS, [])
    numbers = [v for v in found if math.isfinite(v)]
    return numbers if 2 * len(numbers) > len(found) else []


def first_below(o: Observation, level: float) -> float:
    """Return the first step at which a run's training loss is at a level, infinite if never."""
    steps, losses = o.run.curve.get("step", []), o.run.curve.get(LOSS, [])
    return next((s for s, v in zip(steps, losses, strict=False) if v <= level), math.inf)


def contours(curve: Curve) -> list[tuple[float, list[tuple[int, float]]]]:
    """Give, by loss, the median steps to it at each size that gets there.

    The losses are evenly spaced on the log scale, from what all sizes pass to the lowest that any reaches.
    """
    seen = [v for o in curve.counted if (v := finite(o))]
    start, low = (min((v[0] for v in seen), default=0.0), min((min(v) for v in seen if len(v) > 1), default=0.0))
    if low <= 0 or start <= low:
        return []
    found = []
    for level in np.geomspace(0.8 * start, 1.02 * low, LEVELS):
        medians = [(p.batch_size, np.array([first_below(o, level) for o in p.counted])) for p in curve.points if p.n]
        steps = [(size, log_median(values)) for size, values in medians]
        found.append((float(level), [(size, s) for size, s in steps if math.isfinite(s) and s > 0]))
    return found


def figure_1(analysis: Analysis) -> Drawing | NotDrawable:
    """Contours of equal training loss over batch size and iterations, one panel a domain."""
    tasks = {task: main_curve(largest(ws)) for task, ws in group(analysis.workloads, lambda w: w.task).items()}
    found = {task: (curve, contours(curve)) for task, curve in tasks.items()}
    shown = {task: (curve, lines) for task, (curve, lines) in found.items() if any(points for _, points in lines)}
    if not shown:
        return NotDrawable("no runs with trainset/loss in their curves")

    def draw(panels: Panels) -> None:
        for axes, (task, (curve, lines)) in zip(panels, shown.items(), strict=True):
            colours = colormaps["viridis"](np.linspace(0.9, 0, len(lines)))
            for (level, points), colour in zip(lines, colours, strict=True):
                x, y = [size for size, _ in points], [steps for _, steps in points]
                axes.plot(x, y, color=colour, marker=".", label=f"{level:.3g}" if points else None)
            batch_axis(axes, [p.batch_size for p in curve.points])
            log_axis(axes, "iterations (optimizer updates)")
            axes.set_title(f"{task}\n{curve.name}", fontsize=9, loc="left")
            axes.legend(title="training loss", title_fontsize=8, fontsize=7)

    rows = [
        [task, curve.name, level, size, steps]
        for task, (curve, lines) in shown.items()
        for level, points in lines
        for size, steps in points
    ]
    table = Table("Iterations to a training loss", ["task", "curve", "training loss", "batch size", "iterations"], rows)
    return Drawing(len(shown), draw, table, "Lines of equal training loss; a line ends where larger batches miss it.")


# figure 2 -------------------------------------------------------------------------------------------------


def rule_curves(workloads: list[Workload]) -> tuple[Workload, list[Curve]] | None:
    """Find the study of learning-rate rules with the most runs."""
    fixed = [(w, [c for c in w.curves if not c.tuned]) for w in workloads]
    found = [(w, cs) for w, cs in fixed if len({c.record.rate.scaling_rule for c in cs}) > 1]
    return max(found, key=lambda item: sum(len(c.counted) for c in item[1]), default=None)


def speedups(curve: Curve) -> list[tuple[int, float, float]]:
    """Return (batch size, speed-up over the smallest, the ideal)."""
    steps = [(p.batch_size, p.interval("steps").value) for p in curve.points if p.n]
    if not steps or not math.isfinite(steps[0][1]):
        return []
    return [(size, steps[0][1] / s, size / steps[0][0]) for size, s in steps if math.isfinite(s)]


def by_size(curve: Curve, value: Callable[[Observation], float | None]) -> list[tuple[float, Interval]]:
    """Return (batch size, mean) of a number over seeds, where it is known."""
    found = [(p.batch_size, mean_of(map(value, p.counted))) for p in curve.points]
    return [(size, i) for size, i in found if not math.isnan(i.value)]


def linear_error(o: Observation) -> float | None:
    """Return a run's error of the linear approximation."""
    return o.run.final.get(LINEAR_ERROR)


def mean_panel(axes: Axes, curves: list[Curve], value: Callable[[Observation], float | None], label: str) -> None:
    """Draw a number's mean over seeds with its interval against batch size."""
    for index, curve in enumerate(curves):
        draw_intervals(axes, by_size(curve, value), index, label=curve.name)
    batch_axis(axes, [p.batch_size for c in curves for p in c.points])
    axes.set_ylabel(label)


def figure_2(analysis: Analysis) -> Drawing | NotDrawable:
    """Speed-up by rule; test accuracy and the error of the linear approximation."""
    study = rule_curves(analysis.workloads)
    if study is None:
        return NotDrawable("no study with two or more learning-rate scaling rules")
    w, curves = study
    has_error = any(by_size(c, linear_error) for c in curves)
    gained = {c.name: speedups(c) for c in curves}

    def draw(panels: Panels) -> None:
        axes = panels[0]
        for index, (name, points) in enumerate(gained.items()):
            axes.plot([p[0] for p in points], [p[1] for p in points], **look(index), label=name)
        ideal = sorted({size: best for points in gained.values() for size, _, best in points}.items())
        axes.plot([size for size, _ in ideal], [best for _, best in ideal], "--", color=GREY, label="ideal")
        batch_axis(axes, [p.batch_size for c in curves for p in c.points])
        log_axis(axes, "speed-up s(m; m0) = k(m0) / k(m)")
        axes.legend()
        mean_panel(panels[1], curves, test_accuracy, "test accuracy at the end (%)")
        if has_error:
            mean_panel(panels[2], curves, linear_error, "error of the linear approximation (loss)")
            panels[2].axhline(1, color=GREY, linestyle="--")

    rows = [[name, *point] for name, points in gained.items() for point in points]
    table = Table("Speed-up by rule", ["curve", "batch size", "speed-up", "ideal"], rows)
    return Drawing(2 + has_error, draw, table, f"{w.name}, {w.target}.")


# figures 3 to 5: curves beside each other -----------------------------------------------------------------

Label = Callable[[Workload], str]
Compared = tuple[str, list[Workload], Label]  # the panel's title, what it compares, and how that is told apart


def compared(analysis: Analysis, groups: list[Compared], none: str) -> Drawing | NotDrawable:
    """Draw, per group with two or more members, their main curves in one panel."""
    shown: list[tuple[str, Named]] = []
    for title, members, label in groups:
        named = {label(w): (label(w), *analysis.main(w)) for w in members}
        if len(named) > 1:
            shown.append((title, list(named.values())))
    if not shown:
        return NotDrawable(none)

    def draw(panels: Panels) -> None:
        for axes, (title, named) in zip(panels, shown, strict=True):
            curves_panel(axes, named)
            axes.set_title(title, fontsize=9, loc="left")

    return Drawing(len(shown), draw, steps_table((t, n, c) for t, named in shown for n, c, _ in named), "")


def most_told_apart(title: str, workloads: list[Workload], key: Callable[[Workload], object], label: Label) -> Compared:
    """Find the group of workloads that agree in a key with the most different labels."""
    groups = group(workloads, lambda w: str(key(w))).values()
    return title, max(groups, key=lambda ws: (len({label(w) for w in ws}), len(ws)), default=[]), label


def figure_3(analysis: Analysis) -> Drawing | NotDrawable:
    """Architectures on the same data; data sets (or label noise) with the same architecture."""

    def data(w: Workload) -> str:
        noise = w.data.label_noise
        return w.data.name + (f", {100 * noise:g} % label noise" if noise else "")

    def network(w: Workload) -> str:
        return f"{w.network}, {w.parameters:,} parameters" if w.parameters else w.network

    found = analysis.workloads
    same_data = most_told_apart("Architecture", found, lambda w: (w.study, w.data.hash, w.hit.metric), network)
    same_network = most_told_apart(
        "Complexity of the data", found, lambda w: (w.study, w.network, w.data.fraction, w.hit.metric), data
    )
    none = "no study with two or more networks, data sets or levels of label noise"
    return compared(analysis, [same_data, same_network], none)


def figure_4(analysis: Analysis) -> Drawing | NotDrawable:
    """The same data set at several sizes."""
    same = most_told_apart(
        "Size of the data",
        analysis.workloads,
        lambda w: (w.study, w.data.name, w.network, w.data.label_noise, w.hit.metric),
        lambda w: f"{100 * w.data.fraction:g} % of the data",
    )
    return compared(analysis, [same], "no study with two or more data fractions")


def figure_5(analysis: Analysis) -> Drawing | NotDrawable:
    """Steps to a training and to a validation target, and test accuracy at the end."""
    groups = group([w for w in analysis.workloads if w.hit.metric.startswith((TRAIN, VALIDATION))], same_but_target)
    kinds = [(len({w.hit.metric.startswith(TRAIN) for w in ws}), len(ws)) for ws in groups.values()]
    if not kinds:
        return NotDrawable("no run with a training or validation target")
    members = list(groups.values())[kinds.index(max(kinds))]
    named = [(w.target, *analysis.main(w)) for w in members]
    tested = [c for _, c, _ in named[:1] if by_size(c, test_accuracy)]

    def draw(panels: Panels) -> None:
        curves_panel(panels[0], named)
        if tested:
            mean_panel(panels[1], tested, test_accuracy, "test accuracy at the end (%)")

    return Drawing(1 + len(tested), draw, steps_table(("", n, c) for n, c, _ in named), members[0].name)
