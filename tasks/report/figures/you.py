"""You et al. 2020: optimizers at the largest batch, the recipe as a ladder, the distance from the start."""

import itertools
import math
from typing import Any

import numpy as np

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Observation, Workload, at_largest, confirmed, group, ingredients
from tasks.report.analysis.intervals import mean_interval, welch_interval
from tasks.report.analysis.measures import DISTANCE, GAIN, Growth, accuracy, mean_of
from tasks.report.figures.style import Drawing, NotDrawable, Panels, Table, choose, draw_intervals, log_axis, look

Rung = tuple[frozenset[str], dict[int, float]]  # ingredients, and test accuracy by seed
BAR: dict[str, Any] = {"marker": "_", "linestyle": "none", "markersize": 24, "markeredgewidth": 3}


def known(runs: list[Observation]) -> dict[Observation, float]:
    """Return the test accuracies of the runs that have one."""
    return {o: value for o in runs if (value := accuracy(o)) is not None}


def optimizers(analysis: Analysis) -> Drawing | NotDrawable:
    """Test accuracy by optimizer at the largest batch: every trial, and the confirming runs of the best setting."""
    found = {w: group(known(at_largest(w)), lambda o: o.run.record.optimizer.name) for w in analysis.workloads}
    w, arms = max(found.items(), key=lambda item: (len(item[1]), sum(map(len, item[1].values()))))
    if len(arms) < 2:
        return NotDrawable("no study with test accuracies of two or more optimizers at its largest batch")
    best = {name: mean_interval(list(known(confirmed(runs)).values())) for name, runs in arms.items()}
    values = {name: list(known(runs).values()) for name, runs in arms.items()}

    def draw(panels: Panels) -> None:
        for i, (name, trials) in enumerate(values.items()):
            jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))
            panels[0].plot(i + jitter, trials, ".", color=look(i)["color"], alpha=0.5)
            panels[0].plot(i, best[name].value, color=look(i)["color"], **BAR)
        panels[0].set_xticks(range(len(arms)), list(arms))
        panels[0].set_ylabel("test accuracy (%); bar: the best setting's mean")

    size = next(iter(arms.values()))[0].run.batch_size
    rows = [[name, size, len(trials), float(np.median(trials)), best[name]] for name, trials in values.items()]
    columns = ["optimizer", "batch size", "trials", "median accuracy", "accuracy of the best setting"]
    return Drawing(1, draw, Table("Test accuracy at the largest batch (%)", columns, rows), w.name)


def rungs(w: Workload) -> list[Rung]:
    """Return the ladder from the baseline up: at each rung the one more ingredient with which accuracy is best."""
    found: dict[frozenset[str], dict[int, float]] = {}
    for names, same in group(at_largest(w), lambda o: ingredients(o.run.record)).items():
        values = known(sorted(confirmed(same), key=lambda o: o.seed))
        if values:
            found[names] = {o.seed: value for o, value in values.items()}
    ladder: list[Rung] = [(frozenset(), found[frozenset()])] if frozenset() in found else []
    while ladder and (higher := [names for names in found if names > ladder[-1][0]]):
        step = [names for names in higher if len(names) == min(map(len, higher))]
        best = max(step, key=lambda names: float(np.mean(list(found[names].values()))))
        ladder.append((best, found[best]))
    return ladder


def recipe(analysis: Analysis) -> Drawing | NotDrawable:
    """The recipe as a ladder: test accuracy at each rung, and what each step gains."""
    ladder = max(map(rungs, analysis.workloads), key=len)
    if len(ladder) < 3:  # two rungs are a comparison of rules, not a recipe
        return NotDrawable("no study that adds ingredients to a baseline at its largest batch")
    rows: list[list[Any]] = [["baseline", len(ladder[0][1]), mean_of(ladder[0][1].values()), None]]
    for (less, before), (more, values) in itertools.pairwise(ladder):
        gain = welch_interval(list(values.values()), list(before.values()))
        rows.append(["+ " + ", ".join(sorted(more - less)), len(values), mean_of(values.values()), gain])

    def draw(panels: Panels) -> None:
        axes = panels[0]
        for at, (_, values) in enumerate(ladder):
            axes.plot([at] * len(values), list(values.values()), ".", color="#888888", alpha=0.6)
        draw_intervals(axes, [(at, row[2]) for at, row in enumerate(rows)], 0, **BAR)
        for at, (*_, mean, gain) in enumerate(rows):
            if gain is not None and math.isfinite(gain.value):
                axes.text(at, mean.value, f"{gain.value:+.1f}\n", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(rows)), [row[0] for row in rows], rotation=30, ha="right")
        axes.set_ylabel("test accuracy (%)")

    return Drawing(1, draw, Table("Gain of each step (points)", ["step", "n", "test accuracy", "gain"], rows), "")


def diffusion(analysis: Analysis) -> Drawing | NotDrawable:
    """The distance from the initial weights over steps, by batch size; the table compares two forms of growth."""
    found = choose(analysis.workloads, lambda o: DISTANCE in o.run.curve)
    if not found:
        return NotDrawable(f"no runs with {DISTANCE} in their curves")
    w, by_batch = found
    rows = []
    for size, runs in by_batch.items():
        fits = [g for o in runs if isinstance(g := analysis.growth[o], Growth)]
        wins = sum(g.low > GAIN for g in fits), sum(g.high < -GAIN for g in fits)
        rows.append([size, len(runs), len(fits), *wins, float(np.median([g.gain for g in fits])) if fits else math.nan])

    def draw(panels: Panels) -> None:
        for index, (size, runs) in enumerate(by_batch.items()):
            for i, o in enumerate(runs):
                steps, path = o.run.curve["step"], o.run.curve[DISTANCE]
                label = f"batch {size:,}" if i == 0 else None
                panels[0].plot(steps[1:], path[1:], color=look(index)["color"], alpha=0.6, linewidth=1, label=label)
        log_axis(panels[0], "steps (optimizer updates)", "x", (1.0,))
        log_axis(panels[0], "distance from the initial weights")  # as the forms are fitted: a power is a straight line
        panels[0].legend()

    columns = ["batch size", "runs", "identifiable", "log wins", "power wins", "AIC(power) - AIC(log)"]
    return Drawing(1, draw, Table("Forms of growth", columns, rows), w.name)
