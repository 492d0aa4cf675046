"""You et al. 2020, claims 1 to 11, each decided as its row of the protocol says."""

import math
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from tasks.report.curves import Curve, Observation, Workload, tuned_point
from tasks.report.distance import DISTANCE, GAIN, Growth, growth
from tasks.report.fit_data import View, half
from tasks.report.intervals import NOTHING, Interval, difference_interval, proportion
from tasks.report.settings import constant_rate
from tasks.report.verdicts import studies as s
from tasks.report.verdicts.decide import Evidence, Missing, Part
from tasks.report.verdicts.golmant import SHARE, deficit_share

Found = Evidence | Missing
MATCHED = 0.05  # distances are the same within 5 %
RESAMPLES = 2000


def claim_6(workloads: list[Workload], view: View) -> Found:
    """The distance from the initial weights grows as log t rather than as a power of t."""
    return diffusion(workloads, view, "log")


def claim_3(workloads: list[Workload], view: View) -> Found:
    """Results contradict ultra-slow (logarithmic) diffusion: you-6 seen from the other side."""
    return diffusion(workloads, view, "power")


def diffusion(workloads: list[Workload], view: View, wins: str) -> Found:
    """Count the runs in which one form of growth beats the other by more than 10 in AIC."""
    reason = f"no study with {DISTANCE} over 3 decades of steps at constant rate, 4 batch sizes and 5 seeds"
    for w in workloads:
        for curve in w.curves:
            points = [p for p in curve.points if s.seeds([p]) >= s.LEAST_SEEDS]
            runs = [o for p in points for o in half(p, view.seeds) if p.batch_size != view.drop]
            fits = [growth_of(o) for o in runs]
            known = [g for g in fits if isinstance(g, Growth)]
            if len(points) < 4 or len(known) < len(fits) or not known:
                continue
            log, power = sum(g.low > GAIN for g in known), sum(g.high < -GAIN for g in known)
            won, lost = (log, power) if wins == "log" else (power, log)
            surely, perhaps = proportion(won, len(known)), proportion(len(known) - lost, len(known))
            interval = replace(surely, high=perhaps.high)
            part = Part(
                f"share of runs in which the {wins} form wins by more than {GAIN:g} in AIC",
                interval,
                above=0.8,
            )
            return s.evidence([part], (w, curve))
    return Missing(reason)


@lru_cache(maxsize=4096)
def growth_of(o: Observation) -> Growth | str:
    """Compare the forms of growth in one run."""
    curve = o.run.curve
    if DISTANCE not in curve or not constant_rate(o.run.record):
        return "no distances at constant rate"
    return growth(curve["step"], curve[DISTANCE], o.run.record.rate.warmup_steps)


def claim_4(workloads: list[Workload], view: View) -> Found:
    """It is important to understand huge-batch training."""
    return Missing("no empirical content")


def claim_7(workloads: list[Workload], view: View) -> Found:
    """At equal updates the largest batch is as good as the smallest."""
    for w, curve in s.tuned_curves(workloads):
        first, last = s.ends(curve, view)
        if not s.went_on(first + last) or any("val/accuracy" not in o.run.curve for o in first + last):
            continue
        updates = min(o.run.curve["step"][-1] for o in first + last)
        small, large = (s.by_seed(runs, partial(value_at, axis="step", at=updates)) for runs in (first, last))
        part = Part(
            f"accuracy after {updates:.0f} updates, largest - smallest batch (points)",
            difference_interval(large, small),
            -0.5,
            0.5,
        )
        return s.evidence([part], (w, curve))
    return Missing("no tuned classification curve whose runs went on to their budget, with validation accuracies")


def value_at(o: Observation, axis: str, at: float) -> float:
    """Give validation accuracy in per cent where a column of the curve first reaches a value."""
    x, y = o.run.curve[axis], o.run.curve["val/accuracy"]
    return 100 * float(np.interp(at, x, y)) if max(x) >= at * (1 - 1e-9) else math.nan


def claim_8(workloads: list[Workload], view: View) -> Found:
    """Matching the distance from the initial weights closes the gap in accuracy."""
    for w in workloads:
        for curve in w.curves:
            first, last = s.ends(curve, view)
            runs = first + last
            if s.seeds((curve.points[0], curve.points[-1])) < s.LEAST_SEEDS or any(
                DISTANCE not in o.run.curve for o in runs
            ):
                continue
            reach = min(max(o.run.curve[DISTANCE]) for o in runs)
            if any(nearest(o, reach) > MATCHED for o in runs):
                continue
            ends = [s.by_seed(r, lambda o: 100 * o.run.curve["val/accuracy"][-1]) for r in (first, last)]
            there = [
                s.by_seed(r, partial(value_at, axis=DISTANCE, at=reach * (1 - MATCHED / 2))) for r in (first, last)
            ]
            share = shrinkage(ends, there)
            half_or_more = Interval(share.value, share.value, math.inf)
            parts = [
                Part("share of the gap that matched distances close", share, above=0.25),
                Part("the gap shrinks by half or more", half_or_more, above=0.5),
            ]
            return s.evidence(parts, (w, curve))
    return Missing(f"no study with {DISTANCE} in 5 seeds at both ends of the batch sizes, matched within 5 %")


def nearest(o: Observation, distance: float) -> float:
    """Give how near, relatively, a run's evaluations come to a distance."""
    return min(abs(d / distance - 1) for d in o.run.curve[DISTANCE] if math.isfinite(d))


def shrinkage(ends: list[dict[int, float]], there: list[dict[int, float]]) -> Interval:
    """Give 1 - gap where distances match / gap at the end, small minus large batch, by resampling seeds."""
    if any(len(values) < 2 for values in ends + there):
        return NOTHING
    random = np.random.default_rng(0)
    end, match = [], []
    for i in (0, 1):
        seeds = sorted(set(ends[i]) & set(there[i]))
        drawn = random.integers(0, len(seeds), size=(RESAMPLES, len(seeds)))
        end.append(np.array([ends[i][k] for k in seeds])[drawn].mean(axis=1))
        match.append(np.array([there[i][k] for k in seeds])[drawn].mean(axis=1))
    mean = [[float(np.mean(list(v.values()))) for v in pair] for pair in (ends, there)]
    if mean[0][0] - mean[0][1] <= 0 or np.quantile(end[0] - end[1], 0.025) <= 0:
        return NOTHING  # no gap to close
    low, high = np.quantile(1 - (match[0] - match[1]) / (end[0] - end[1]), [0.025, 0.975])
    return Interval(1 - (mean[1][0] - mean[1][1]) / (mean[0][0] - mean[0][1]), float(low), float(high))


def claim_9(workloads: list[Workload], view: View) -> Found:
    """The huge-batch deficit is mostly one of training accuracy."""
    for w, curve in s.tuned_curves(workloads):
        first, last = s.ends(curve, view)
        if s.went_on(first + last) and known_at_both_ends(curve):
            share = deficit_share(first, last)
            return s.evidence([Part(SHARE, share, above=0.5)], (w, curve))
    return Missing("no tuned curve whose runs went on to their budget, with training and test accuracies at both ends")


def known_at_both_ends(curve: Curve) -> bool:
    """Say whether training and test accuracy are recorded at the smallest and the largest size."""
    runs = [o for p in (curve.points[0], curve.points[-1]) for o in p.counted]
    return all(s.test_accuracy(o) is not None and "trainset/accuracy" in o.run.final for o in runs)


def arms_at_sizes(workload: Workload, view: View) -> dict[int, dict[str, list[Observation]]]:
    """Give, by batch size, the best runs of linear scaling, and of LARS with and without warm-up."""
    found: dict[int, dict[str, list[Observation]]] = {}
    for o in s.every_run(workload):
        name, rule = o.run.record.optimizer.name, o.run.record.rate.scaling_rule
        kind = "LARS, warm-up" if o.run.record.rate.warmup_steps > 0 else "LARS"
        if name == "SGD" and rule == "linear":
            kind = "linear"
        elif name != "LARS":
            continue
        if o.run.batch_size != view.drop:
            found.setdefault(o.run.batch_size, {}).setdefault(kind, []).append(o)
    for arms in found.values():
        for kind, runs in arms.items():
            arms[kind] = tuned_point(runs[0].run.batch_size, runs).observations
    return found


def claim_11(workloads: list[Workload], view: View) -> Found:
    """Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains."""
    kinds = ("linear", "LARS, warm-up", "LARS")
    for w in workloads:
        reach = {
            size: {k: arrivals(runs) for k, runs in arms.items()}
            for size, arms in arms_at_sizes(w, view).items()
            if set(kinds) <= set(arms) and min(len({o.seed for o in runs}) for runs in arms.values()) >= 5
        }
        if not reach:
            continue
        best = max(reach, key=lambda b: reach[b]["LARS, warm-up"].value - reach[b]["linear"].value)
        parts = [
            Part(f"P(linear scaling arrives) at B = {best}", reach[best]["linear"], below=0.5),
            Part(f"P(warm-up + LARS arrives) at B = {best}", reach[best]["LARS, warm-up"], above=0.5),
        ]
        return s.evidence(parts, *((w, c) for c in w.curves))
    return Missing("no study with linear scaling, LARS with warm-up, and LARS without as control, 5 seeds each")


def arrivals(runs: list[Observation]) -> Interval:
    """Give the share of runs that arrived."""
    return proportion(sum(o.status == "reached" for o in runs), len(runs))
