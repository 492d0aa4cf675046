"""The project's own reading of the abstracts: own-1, the critical batch beside the one that fills the machine."""

import math

import numpy as np

from tasks.report.analysis.curves import Curve, Workload
from tasks.report.analysis.intervals import Interval
from tasks.report.analysis.points import View, half
from tasks.report.claims import studies as s
from tasks.report.claims.rules import Missing, Part, Seeds

FULL = 0.9  # of the largest throughput, from which the machine counts as filled
DRAWS = 2000


def throughputs(curve: Curve, view: View) -> dict[int, Seeds]:
    """Return log examples a second by seed, for each batch size at which the runs recorded it."""
    found = {}
    for p in curve.points:
        rates = s.by_seed(half(p, view.seeds), lambda o: o.run.record.cost.examples_per_second)
        if len(rates) >= s.least_seeds(view):
            found[p.batch_size] = {seed: math.log(v) for seed, v in rates.items() if v > 0}
    return found


def filling_size(sizes: np.ndarray, rates: np.ndarray) -> float:
    """Return where log throughput first comes to 90 % of its largest, interpolated in the log of the batch size."""
    goal = rates.max() + math.log(FULL)
    i = int(np.flatnonzero(rates >= goal)[0])
    if i == 0:
        return float(sizes[0])
    part = (goal - rates[i - 1]) / (rates[i] - rates[i - 1])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** part)


def filling(found: dict[int, Seeds]) -> Interval:
    """Return the batch size that fills the machine, with the percentiles of redrawn runs."""
    sizes, random = np.array(sorted(found), float), np.random.default_rng(0)
    values = [np.array(list(found[b].values())) for b in sorted(found)]
    drawn = np.array([[random.choice(v, len(v)).mean() for v in values] for _ in range(DRAWS)])
    low, high = np.quantile([filling_size(sizes, row) for row in drawn], [0.025, 0.975])
    return Interval(filling_size(sizes, np.array([v.mean() for v in values])), float(low), float(high))


def claim_1(workloads: list[Workload], view: View) -> s.Found:
    """The critical batch size lies below the batch that fills this machine."""
    for w, curve in s.whole_curves(workloads, "own-1", view):
        rates = throughputs(curve, view)
        if len(rates) < s.LEAST_SIZES:
            continue
        b2, full, ratio = s.fitted(curve, view).b2, filling(rates), s.judged("own-1", [curve])[0]["ratio"]
        what = f"B2 / batch at {FULL:.0%} of the largest throughput"
        part = Part(what, Interval(b2.value / full.value, b2.low / full.high, b2.high / full.low), below=ratio)
        return s.evidence("own-1", [part], [(w, curve)])
    return Missing("no tuned curve with examples a second (the Cost callback) at 5 or more batch sizes")
