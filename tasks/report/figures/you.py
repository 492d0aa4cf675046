"""You et al. 2020: optimizers at the largest batch, the recipe as a ladder, the distance from the start."""

import math

import numpy as np

from tasks.report.curves import Observation, Workload, group
from tasks.report.distance import DISTANCE, GAIN, Growth, forms
from tasks.report.figures.drawing import Drawing, largest
from tasks.report.figures.style import log_axis, look
from tasks.report.fit_data import PRIMARY
from tasks.report.intervals import difference_interval, mean_interval
from tasks.report.tables import Table
from tasks.report.verdicts.studies import every_run
from tasks.report.verdicts.you import growth_of
from tasks.report.verdicts.you_recipe import accuracy, at_largest, best_of, by_recipe, trials_of

LINES = ("log", "power", "power of log")


def trials_by_optimizer(w: Workload) -> dict[str, list[Observation]]:
    """Give the runs with a test accuracy at the largest batch size, by optimizer."""
    runs = [o for o in at_largest(w) if accuracy(o) is not None]
    return group(runs, lambda o: o.run.record.optimizer.name)


def best_of_all(runs: list[Observation]) -> list[float]:
    """Give the expected best of k trials for k = 1 to all."""
    validation, test = trials_of(runs)
    return [best_of(validation, test, k) for k in range(1, len(test) + 1)]


def optimizers(workloads: list[Workload]) -> Drawing | str:
    """Test accuracy by optimizer at the largest batch: every trial, and the expected best of k."""
    found = [(w, trials_by_optimizer(w)) for w in workloads]
    found = [(w, arms) for w, arms in found if len(arms) > 1]
    if not found:
        return "no study with test accuracies of two or more optimizers at its largest batch"
    w, arms = max(found, key=lambda item: (len(item[1]), sum(map(len, item[1].values()))))
    best = {name: best_of_all(runs) for name, runs in arms.items()}
    rows = [
        [name, runs[0].run.batch_size, len(runs), float(np.median(trials_of(runs)[1])), best[name][0], best[name][-1]]
        for name, runs in arms.items()
    ]

    def draw(panels) -> None:
        for i, (name, runs) in enumerate(arms.items()):
            jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(runs))
            panels[0].plot(i + jitter, trials_of(runs)[1], ".", color=look(i)["color"], alpha=0.5)
            panels[0].plot(i, best[name][-1], "_", color=look(i)["color"], markersize=24, markeredgewidth=3)
            line = look(i) | {"marker": None}
            panels[1].plot(range(1, len(best[name]) + 1), best[name], **line, label=f"{name} (n = {len(runs)})")
        panels[0].set_xticks(range(len(arms)), list(arms))
        panels[0].set_ylabel("test accuracy (%); bar: best on validation")
        panels[1].set_xscale("log")
        panels[1].set_xlabel("trials to tune with, k")
        panels[1].set_ylabel("expected test accuracy of the best of k (%)")
        panels[1].legend()

    columns = ["optimizer", "batch size", "trials", "median accuracy", "expected of 1", "best of all"]
    return Drawing(2, draw, Table("Test accuracy at the largest batch (%)", columns, rows), w.name)


def rungs(w: Workload) -> list[tuple[frozenset[str], dict[int, float]]]:
    """Give the ladder from the baseline up: at each rung the one more ingredient with which accuracy is best."""
    found = by_recipe(w, PRIMARY)
    ladder = [(frozenset(), found[frozenset()])] if frozenset() in found else []
    while ladder:
        higher = [names for names in found if names > ladder[-1][0]]
        fewest = min((len(names) for names in higher), default=0)
        step = [names for names in higher if len(names) == fewest]
        if not step:
            break
        best = max(step, key=lambda names: float(np.mean(list(found[names].values()))))
        ladder.append((best, found[best]))
    return ladder


def recipe(workloads: list[Workload]) -> Drawing | str:
    """The recipe as a ladder: test accuracy at each rung, and what each step gains."""
    ladder = max((rungs(w) for w in workloads), key=len, default=[])
    if len(ladder) < 3:  # two rungs are a comparison of rules, not a recipe
        return "no study that adds ingredients to a baseline at its largest batch"
    rows, names = [], []
    for i, (ingredients, values) in enumerate(ladder):
        new = ingredients - ladder[i - 1][0] if i else frozenset()
        names.append("+ " + ", ".join(sorted(new)) if new else "baseline")
        gain = difference_interval(values, ladder[i - 1][1]) if i else None
        rows.append([names[-1], len(values), mean_interval(list(values.values())), gain])

    def draw(panels) -> None:
        axes = panels[0]
        for i, (_, values) in enumerate(ladder):
            mean = mean_interval(list(values.values()))
            axes.plot([i] * len(values), list(values.values()), ".", color="#888888", alpha=0.6)
            axes.plot([i - 0.3, i + 0.3], [np.mean(list(values.values()))] * 2, color=look(0)["color"], linewidth=3)
            if math.isfinite(mean.low):
                axes.plot([i, i], [mean.low, mean.high], color=look(0)["color"])
            if rows[i][3] is not None and math.isfinite(rows[i][3].value):
                axes.annotate(
                    f"{rows[i][3].value:+.1f}",
                    (i, mean.value),
                    xytext=(0, 10),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_ylabel("test accuracy (%)")

    return Drawing(1, draw, Table("Gain of each step (points)", ["step", "n", "test accuracy", "gain"], rows), "")


def diffusion(workloads: list[Workload]) -> Drawing | str:
    """The distance from the initial weights over steps, by batch size, with the three forms of growth."""
    able = [w for w in workloads if any(DISTANCE in o.run.curve for o in every_run(w))]
    if not able:
        return f"no runs with {DISTANCE} in their curves"
    w = largest(able)
    by_batch = group([o for o in every_run(w) if DISTANCE in o.run.curve], lambda o: o.run.batch_size)
    by_batch = {size: by_batch[size] for size in sorted(by_batch)}
    rows = []
    for size, runs in by_batch.items():
        fits = [g for g in map(growth_of, runs) if isinstance(g, Growth)]
        gains = [g.gain for g in fits]
        wins = sum(g.low > GAIN for g in fits), sum(g.high < -GAIN for g in fits)
        rows.append([size, len(runs), len(fits), *wins, float(np.median(gains)) if gains else math.nan])

    def draw(panels) -> None:
        for index, (size, runs) in enumerate(by_batch.items()):
            for i, o in enumerate(runs):
                steps, path = o.run.curve["step"], o.run.curve[DISTANCE]
                label = f"batch {size:,}" if i == 0 else None
                panels[0].plot(steps[1:], path[1:], color=look(index)["color"], alpha=0.6, linewidth=1, label=label)
        draw_forms(panels[0], next(iter(by_batch.values()))[0])
        panels[0].set_xscale("log")
        panels[0].set_xlabel("steps (optimizer updates)")
        log_axis(panels[0], "distance from the initial weights")  # as the forms are fitted: a power is a straight line
        panels[0].legend()

    columns = ["batch size", "runs", "identifiable", "log wins", "power wins", "AIC(power) - AIC(log)"]
    table = Table("Forms of growth", columns, rows)
    return Drawing(1, draw, table, w.name, (growth_table(by_batch),))


def growth_table(by_batch: dict[int, list[Observation]]) -> Table:
    """List the three fits of every run, or why they cannot be told apart."""
    rows = []
    for size, runs in by_batch.items():
        for o in runs:
            found = growth_of(o)
            if isinstance(found, str):
                rows.append([size, o.seed, found, *[math.nan] * 8])
                continue
            least = min(found.aic.values())
            aic = [found.aic[name] - least for name in LINES]
            log, power, power_of_log = LINES
            fitted = [found.parameters[log], found.heights[log], found.parameters[power], found.heights[power]]
            rows.append([size, o.seed, "", *aic, *fitted, found.parameters[power_of_log]])
    columns = [f"AIC of {form}" for form in ("a + b log t", "c t^p", "(log t)^q")]
    columns += ["a/b of a + b log t", "its b", "p of c t^p", "its c", "q of (log t)^q"]
    note = "AIC: above the best of the three. Intervals: 95 %, moving-block bootstrap of the run's own evaluations."
    return Table("The three forms, run by run", ["batch size", "seed", "why not", *columns], rows, note)


def draw_forms(axes, o: Observation) -> None:
    """Draw the three fitted forms over one run."""
    found = growth_of(o)
    if not isinstance(found, Growth):
        return
    t = np.array([s for s in o.run.curve["step"] if s > 1], dtype=float)
    d = np.interp(t, o.run.curve["step"], o.run.curve[DISTANCE])
    for (name, (grid, shapes)), style in zip(forms(t).items(), ("--", ":", "-."), strict=True):
        shape = shapes[np.abs(grid - found.parameters[name].value).argmin()]
        axes.plot(t, np.exp(shape + (np.log(d) - shape).mean()), style, color="#333333", linewidth=1, label=name)
