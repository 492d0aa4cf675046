"""You et al. 2020, claims 1, 2 and 10: the recipe at full batch, and optimizers with equal budgets."""

import itertools
import math

import numpy as np
from scipy import stats

from tasks.report.curves import Observation, Workload, choose, group
from tasks.report.fit_data import View
from tasks.report.intervals import NOTHING, Interval, difference_interval
from tasks.report.settings import ingredients, setting
from tasks.report.verdicts import studies as s
from tasks.report.verdicts.decide import Evidence, Missing, Part

Found = Evidence | Missing
RESAMPLES = 1000
OPTIMIZERS = ("SGD", "LARS", "LAMB")
UNTUNED, TUNED = "untuned baseline", "baseline"


def accuracy(o: Observation) -> float | None:
    """Give test accuracy in per cent; 0 for a run that diverged, which has none."""
    found = s.test_accuracy(o)
    return 0.0 if found is None and o.status == "diverged" else found


def at_largest(workload: Workload) -> list[Observation]:
    """List the runs with a result at the largest batch size."""
    runs = s.every_run(workload)
    size = max((o.run.batch_size for o in runs), default=0)
    return [o for o in runs if o.run.batch_size == size]


def confirmed(runs: list[Observation]) -> list[Observation]:
    """Keep the runs that count: of the best setting, on fresh seeds where a plan gave them."""
    fresh = [o for o in runs if o.run.record.stage == "confirm"] or runs
    best = choose([o for o in runs if setting(o.run.record) in {setting(f.run.record) for f in fresh}])
    return [o for o in fresh if setting(o.run.record) == best]


def by_recipe(workload: Workload, view: View) -> dict[frozenset, dict[int, float]]:
    """Give test accuracy by seed for each set of ingredients at the largest batch."""
    found = {}
    for names, same in group(at_largest(workload), lambda o: ingredients(o.run.record)).items():
        values = s.by_seed(sorted(confirmed(same), key=lambda o: o.seed), accuracy)
        seeds = list(values)
        middle = (len(seeds) + 1) // 2
        kept = {"all": seeds, "first": seeds[:middle], "last": seeds[len(seeds) - middle :]}[view.seeds]
        if kept:
            found[names] = {k: values[k] for k in kept}
    return found


def recipes(workloads: list[Workload], view: View) -> tuple[Workload, dict, frozenset] | None:
    """Find a study of a recipe: accuracies by ingredients, and the full set; all others lie inside it."""
    for w in workloads:
        found = by_recipe(w, view)
        full = max(found, key=len, default=frozenset())
        inside = [names for names in found if names <= full or names == {UNTUNED}]
        if len(full) > 1 and frozenset() in found and len(inside) == len(found) > 2:
            return w, found, full
    return None


def enough(found: dict, view: View) -> bool:
    """Say whether every rung has the seeds it needs; half the seeds suffice for a robustness row."""
    least = s.LEAST_SEEDS if view.seeds == "all" else 2
    return all(len(values) >= least for values in found.values())


def recipe_evidence(workload: Workload, parts: list[Part], wide_enough: bool = True) -> Evidence:
    """Put parts together with the runs of a recipe study."""
    curves = [(workload, c) for c in workload.curves]
    found = s.evidence(parts, *curves, wide_enough=wide_enough)
    return Evidence(parts, found.n, found.censored, found.scale, wide_enough, found.post_hoc)


def claim_1(workloads: list[Workload], view: View) -> Found:
    """A staged recipe lifts accuracy far above the tuned and the untuned baseline at a huge batch."""
    study = recipes(workloads, view)
    if study is None or not enough(study[1], view):
        return Missing("no study that adds ingredients to a baseline at its largest batch, 5 seeds each")
    w, found, full = study
    baselines = {name: found.get(frozenset({name}) if name == UNTUNED else frozenset()) for name in (TUNED, UNTUNED)}
    if None in baselines.values():
        return Missing(f"no runs of the {' or the '.join(k for k, v in baselines.items() if v is None)}")
    size = max(o.run.batch_size for o in s.every_run(w))
    critical = [s.critical_of(c, view, False) for v, c in s.tuned_curves(workloads) if v.data.name == w.data.name]
    critical = [c for c in critical if c is not None]
    if not critical:
        return Missing("no measured critical batch size to compare the recipe's batch with")
    parts = [
        Part(f"gain over the {k} (points)", difference_interval(found[full], v), above=5.0)
        for k, v in baselines.items()
    ]
    multiple = Interval(*(size / b for b in (critical[0].b2.value, critical[0].b2.high, critical[0].b2.low)))
    return recipe_evidence(w, [*parts, Part("batch size / B2", multiple, above=10.0)])


def claim_2(workloads: list[Workload], view: View) -> Found:
    """A step-by-step comparison attributes the gain."""
    study = recipes(workloads, view)
    if study is None or not enough(study[1], view):
        return Missing("no study that adds ingredients to a baseline at its largest batch, 5 seeds each")
    w, found, full = study
    single = {k: frozenset({k}) for k in full}
    without = {k: full - {k} for k in full}
    if not all(v in found for v in (frozenset(), *single.values(), *without.values())):
        return Missing("the recipe needs runs with each ingredient alone and with each one left out")
    drawn = {k: resampled(v) for k, v in found.items()}
    total = drawn[full] - drawn[frozenset()]
    added = np.array([drawn[single[k]] - drawn[frozenset()] for k in full])
    lost = np.array([drawn[full] - drawn[without[k]] for k in full])
    a, b = (stats.zscore(stats.rankdata(gains, axis=0), axis=0) for gains in (added, lost))
    ranks = (a * b).mean(axis=0)
    parts = [Part("rank correlation of gains added alone and lost when left out", spread(ranks), above=0.0)]
    for name, gains in (("added alone", added), ("lost when left out", lost)):
        parts.append(Part(f"sum of gains {name} / total - 1", spread(gains.sum(axis=0) / total - 1), -0.25, 0.25))
    return recipe_evidence(w, parts)


def resampled(values: dict[int, float]) -> np.ndarray:
    """Draw the mean over seeds again and again; the first is that of the data."""
    x = np.array(list(values.values()))
    drawn = np.random.default_rng(len(x)).integers(0, len(x), size=(RESAMPLES, len(x)))
    return np.concatenate([[x.mean()], x[drawn].mean(axis=1)])


def spread(values: np.ndarray) -> Interval:
    """Give the interval of resampled values, of which the first is the estimate."""
    known = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or len(known) < RESAMPLES / 2:
        return NOTHING
    return Interval(float(values[0]), *(float(q) for q in np.quantile(known, [0.025, 0.975])))


def best_of(validation: np.ndarray, test: np.ndarray, k: int) -> float:
    """Give the expected test accuracy of the trial that is best on validation among k drawn without repeats.

    After sorting by validation, trial i is the best of k with probability C(i, k - 1) / C(n, k).
    """
    order = np.argsort(validation, kind="stable")
    weights = np.array([math.comb(i, k - 1) for i in range(len(order))]) / math.comb(len(order), k)
    return float(weights @ test[order])


def trials_of(runs: list[Observation]) -> tuple[np.ndarray, np.ndarray]:
    """Give validation and test accuracy of each trial, in per cent; 0 for those that diverged."""
    values = [(100 * (o.run.final.get("val/accuracy") or 0.0), accuracy(o) or 0.0) for o in runs]
    validation, test = np.nan_to_num(np.array(values)).T
    return validation, test


def best_difference(a: list[Observation], b: list[Observation], k: int) -> Interval:
    """Give the difference of two optimizers' expected best of k, by resampling their trials."""
    random = np.random.default_rng(0)
    found = []
    for runs in (a, b):
        validation, test = trials_of(runs)
        drawn = random.integers(0, len(test), size=(RESAMPLES, len(test)))
        again = [best_of(validation[rows], test[rows], k) for rows in drawn]
        found.append(np.array([best_of(validation, test, k), *again]))
    return spread(found[0] - found[1])


def optimizer_gap(a: list[Observation], b: list[Observation]) -> tuple[str, Interval]:
    """Give how many points one optimizer is ahead of another, and how that was found.

    Where a plan confirmed the best settings on fresh seeds, from those; else from the expected best of k trials.
    """
    fresh = [[o for o in runs if o.run.record.stage == "confirm"] for runs in (a, b)]
    if all(len({o.seed for o in runs}) >= s.LEAST_SEEDS for runs in fresh):
        values = (s.by_seed(confirmed(runs), accuracy) for runs in (a, b))
        return "best settings on fresh seeds", difference_interval(*values)
    k = max(1, min(len(a), len(b)) // 2)
    return f"expected best of {k}", best_difference(a, b, k)


def claim_10(workloads: list[Workload], view: View) -> Found:
    """At full batch LAMB beats LARS and LARS beats momentum, with equal tuning budgets."""
    for w in workloads:
        runs = [o for o in at_largest(w) if accuracy(o) is not None]
        if not runs or runs[0].run.batch_size < w.data.train_examples:
            continue
        arms = group(runs, lambda o: o.run.record.optimizer.name)
        if not set(OPTIMIZERS) <= set(arms) or min(len({o.seed for o in arms[k]}) for k in OPTIMIZERS) < s.LEAST_SEEDS:
            continue
        parts = []
        for b, a in itertools.pairwise(OPTIMIZERS):
            how, gap = optimizer_gap(arms[a], arms[b])
            parts.append(Part(f"{a} - {b}, {how} (points)", gap, above=0.5))
        return recipe_evidence(w, parts)
    return Missing("no study of SGD, LARS and LAMB at B = N with test accuracies and 5 seeds each")
