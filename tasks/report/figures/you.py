"""You et al. 2020: optimizers at the largest batch, the recipe as a ladder, the distance from the start."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Observation, Workload, at_largest, confirmed, every_run, group, ingredients
from tasks.report.analysis.intervals import Interval, difference_interval, mean_interval
from tasks.report.analysis.measures import DISTANCE, GAIN, Growth, accuracy, mean_of
from tasks.report.figures.style import Drawing, NotDrawable, Panels, Table, draw_intervals, largest, log_axis, look

Rung = tuple[frozenset[str], dict[int, float]]  # ingredients, and test accuracy by seed


def known(runs: list[Observation]) -> dict[Observation, float]:
    """Return the test accuracies of the runs that have one."""
    return {o: value for o in runs if (value := accuracy(o)) is not None}


def trials_by_optimizer(w: Workload) -> dict[str, list[Observation]]:
    """Return the runs with a test accuracy at the largest batch size, by optimizer."""
    return group(known(at_largest(w)), lambda o: o.run.record.optimizer.name)


def optimizers(analysis: Analysis) -> Drawing | NotDrawable:
    """Test accuracy by optimizer at the largest batch: every trial, and the confirming runs of the best setting."""
    found = [(w, trials_by_optimizer(w)) for w in analysis.workloads]
    found = [(w, arms) for w, arms in found if len(arms) > 1]
    if not found:
        return NotDrawable("no study with test accuracies of two or more optimizers at its largest batch")
    w, arms = max(found, key=lambda item: (len(item[1]), sum(map(len, item[1].values()))))
    best = {name: mean_interval(list(known(confirmed(runs)).values())) for name, runs in arms.items()}
    values = {name: list(known(runs).values()) for name, runs in arms.items()}
    size = next(iter(arms.values()))[0].run.batch_size
    rows = [[name, size, len(trials), float(np.median(trials)), best[name]] for name, trials in values.items()]

    def draw(panels: Panels) -> None:
        for i, (name, trials) in enumerate(values.items()):
            jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))
            panels[0].plot(i + jitter, trials, ".", color=look(i)["color"], alpha=0.5)
            panels[0].plot(i, best[name].value, "_", color=look(i)["color"], markersize=24, markeredgewidth=3)
        panels[0].set_xticks(range(len(arms)), list(arms))
        panels[0].set_ylabel("test accuracy (%); bar: the best setting's mean")

    columns = ["optimizer", "batch size", "trials", "median accuracy", "accuracy of the best setting"]
    return Drawing(1, draw, Table("Test accuracy at the largest batch (%)", columns, rows), w.name)


def by_recipe(w: Workload) -> dict[frozenset[str], dict[int, float]]:
    """Return test accuracy by seed for each set of ingredients at the largest batch."""
    found = {}
    for names, same in group(at_largest(w), lambda o: ingredients(o.run.record)).items():
        values = known(sorted(confirmed(same), key=lambda o: o.seed))
        if values:
            found[names] = {o.seed: value for o, value in values.items()}
    return found


def rungs(w: Workload) -> list[Rung]:
    """Return the ladder from the baseline up: at each rung the one more ingredient with which accuracy is best."""
    found = by_recipe(w)
    ladder: list[Rung] = [(frozenset(), found[frozenset()])] if frozenset() in found else []
    while ladder:
        higher = [names for names in found if names > ladder[-1][0]]
        fewest = min((len(names) for names in higher), default=0)
        step = [names for names in higher if len(names) == fewest]
        if not step:
            break
        best = max(step, key=lambda names: float(np.mean(list(found[names].values()))))
        ladder.append((best, found[best]))
    return ladder


def recipe(analysis: Analysis) -> Drawing | NotDrawable:
    """The recipe as a ladder: test accuracy at each rung, and what each step gains."""
    ladder: list[tuple[frozenset[str], dict[int, float]]] = max(
        (rungs(w) for w in analysis.workloads), key=len, default=[]
    )
    if len(ladder) < 3:  # two rungs are a comparison of rules, not a recipe
        return NotDrawable("no study that adds ingredients to a baseline at its largest batch")
    rows: list[list[Any]] = []
    names: list[str] = []
    for i, (added, values) in enumerate(ladder):
        names.append("+ " + ", ".join(sorted(added - ladder[i - 1][0])) if i else "baseline")
        gain = difference_interval(values, ladder[i - 1][1]) if i else None
        rows.append([names[-1], len(values), mean_interval(list(values.values())), gain])

    def draw(panels: Panels) -> None:
        axes = panels[0]
        for i, (_, values) in enumerate(ladder):
            draw_rung(axes, i, list(values.values()), rows[i][3])
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_ylabel("test accuracy (%)")

    return Drawing(1, draw, Table("Gain of each step (points)", ["step", "n", "test accuracy", "gain"], rows), "")


def draw_rung(axes: Axes, at: int, values: list[float], gain: Interval | None) -> None:
    """Draw one rung: its runs, their mean with its interval, and what it gains over the one before."""
    mean = mean_of(values)
    axes.plot([at] * len(values), values, ".", color="#888888", alpha=0.6)
    draw_intervals(axes, [(at, mean)], 0, marker="_", markersize=24, markeredgewidth=3)
    if gain is not None and math.isfinite(gain.value):
        place: dict[str, Any] = {"xytext": (0, 10), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(f"{gain.value:+.1f}", (at, mean.value), **place)


def diffusion(analysis: Analysis) -> Drawing | NotDrawable:
    """The distance from the initial weights over steps, by batch size; the table compares two forms of growth."""
    able = [w for w in analysis.workloads if any(DISTANCE in o.run.curve for o in every_run(w))]
    if not able:
        return NotDrawable(f"no runs with {DISTANCE} in their curves")
    w = largest(able)
    by_batch = group([o for o in every_run(w) if DISTANCE in o.run.curve], lambda o: o.run.batch_size)
    by_batch = {size: by_batch[size] for size in sorted(by_batch)}
    rows = []
    for size, runs in by_batch.items():
        fits = [g for o in runs if isinstance(g := analysis.growth[o], Growth)]
        gains = [g.gain for g in fits]
        wins = sum(g.low > GAIN for g in fits), sum(g.high < -GAIN for g in fits)
        rows.append([size, len(runs), len(fits), *wins, float(np.median(gains)) if gains else math.nan])

    def draw(panels: Panels) -> None:
        for index, (size, runs) in enumerate(by_batch.items()):
            for i, o in enumerate(runs):
                steps, path = o.run.curve["step"], o.run.curve[DISTANCE]
                label = f"batch {size:,}" if i == 0 else None
                panels[0].plot(steps[1:], path[1:], color=look(index)["color"], alpha=0.6, linewidth=1, label=label)
        panels[0].set_xscale("log")
        panels[0].set_xlabel("steps (optimizer updates)")
        log_axis(panels[0], "distance from the initial weights")  # as the forms are fitted: a power is a straight line
        panels[0].legend()

    columns = ["batch size", "runs", "identifiable", "log wins", "power wins", "AIC(power) - AIC(log)"]
    return Drawing(1, draw, Table("Forms of growth", columns, rows), w.name)
