"""The project's own figures: noise scale against measurement, tuning budget."""

import math

from tasks.report.critical import critical
from tasks.report.curves import COUNTED, Workload, group
from tasks.report.figures.drawing import Drawing, points_of
from tasks.report.figures.golmant import main_curve
from tasks.report.figures.style import batch_axis, log_axis, look
from tasks.report.intervals import Interval
from tasks.report.predicted import NOISE, curvature_batch_of, noise_scale_of
from tasks.report.tables import Table
from tasks.report.tuning import best_of
from tasks.report.verdicts.studies import same_but_target

LEAST_TARGETS = 4


def noise_scale(workloads: list[Workload]) -> Drawing | str:
    """What noise and curvature predict at a target against the batch size measured there, at four targets or more."""
    rows = []
    for members in group(workloads, same_but_target).values():
        for w in members:
            found, curve = critical(main_curve(w)), main_curve(w)
            noise, curvature = noise_scale_of(curve), curvature_batch_of(curve)
            if found and not math.isnan(noise.value):
                rows.append([w.name, w.target, noise, curvature, found.hyperbola, found.b2])
    if len(rows) < LEAST_TARGETS:
        return f"fewer than {LEAST_TARGETS} targets with {NOISE} and a fitted curve (choose more with --target)"

    def draw(panels) -> None:
        for index, (name, points) in enumerate(group(rows, lambda row: row[0]).items()):
            style = look(index) | {"linestyle": "none"}
            for column, label, more in ((2, "noise scale", {}), (3, "curvature, m*", {"markerfacecolor": "none"})):
                known = [(r[column], r[4]) for r in points if r[column].value > 0 and math.isfinite(r[4].value)]
                for predicted, measured in known:
                    draw_interval(panels[0], predicted.value, measured, style["color"])
                if known:
                    at = zip(*((x.value, y.value) for x, y in known), strict=True)
                    panels[0].plot(*at, **(style | more), label=f"{name}: {label}")
        ends = [f(r[i].value for r in rows for i in (2, 3) if r[i].value > 0) for f in (min, max)]
        panels[0].plot(ends, ends, "--", color="#777777", label="equal")
        log_axis(panels[0], "predicted critical batch size (examples)", "x")
        log_axis(panels[0], "measured B_crit of the hyperbola (examples)")
        panels[0].legend(fontsize=7)

    columns = ["workload", "target", "noise scale", "m* (curvature)", "measured B_crit", "measured B2"]
    caption = "The noise scale is that at the target, m* that at the final weights of the same runs."
    return Drawing(1, draw, Table("Predicted and measured", columns, rows), caption)


def draw_interval(axes, x: float, interval: Interval, colour: str) -> None:
    """Draw an interval's finite part."""
    ends = [v for v in (interval.low, interval.high) if math.isfinite(v) and v > 0]
    if len(ends) == 2:
        axes.plot([x, x], ends, color=colour)


def tuning_budget(workloads: list[Workload]) -> Drawing | str:
    """How the curve looks when each batch size was tuned with only k trials."""
    tuned = [(w, c) for w in workloads for c in w.curves if c.tuned and any(len(p.trials) > 2 for p in c.points)]
    if not tuned:
        return "no tuned curve with more than two trials a batch size"
    w, curve = max(tuned, key=lambda item: points_of(item[1]))
    trials = {p.batch_size: [o.value("steps") for o in p.trials if o.status in COUNTED] for p in curve.points}
    most = min(len(v) for v in trials.values() if v)
    budgets = sorted({1, 2, most // 2, most} - {0})
    rows = [[k, size, best_of(v, k)] for k in budgets for size, v in trials.items() if len(v) >= k]

    def draw(panels) -> None:
        for index, k in enumerate(budgets):
            points = [(r[1], r[2]) for r in rows if r[0] == k and math.isfinite(r[2])]
            panels[0].plot(*zip(*points, strict=True), **look(index), label=f"best of {k}") if points else None
        batch_axis(panels[0], list(trials))
        log_axis(panels[0], "median of the fewest steps of k trials")
        if panels[0].lines:
            panels[0].legend()

    return Drawing(
        1, draw, Table("Steps by tuning budget", ["k", "batch size", "steps"], rows), f"{w.name}, {w.target}."
    )
