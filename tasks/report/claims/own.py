"""The project's own reading: the batch that fills the machine (own-1), other networks and tasks (4), one rate (5)."""

import math

import numpy as np

from tasks.report.analysis.critical import fit_curve
from tasks.report.analysis.curves import Curve, Workload
from tasks.report.analysis.intervals import Interval
from tasks.report.analysis.points import View, half
from tasks.report.claims import contrasts
from tasks.report.claims import studies as s
from tasks.report.claims.rules import Missing, Part, Seeds

FULL = 0.9  # of the largest throughput, from which the machine counts as filled
DRAWS = 2000
LEAST_KINDS = 4  # networks and tasks, for a statement on all of them


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


def claim_4(workloads: list[Workload], view: View) -> s.Found:
    """For every network and task four times the batch saves hardly a step at the top."""
    found = [(w, c) for w, c in s.named(workloads, "own-4") if s.fitted(c, view)]
    if len({(w.task, w.network, w.parameters) for w, _ in found}) < LEAST_KINDS:
        return Missing(f"no tuned curves of {LEAST_KINDS} or more networks and tasks")
    ratio = s.judged("own-4", [c for _, c in found])[0]["ratio"]
    fits = [(w, s.fitted(c, view)) for w, c in found]
    parts = [contrasts.flat_top(f.fit, f.data.sizes[-1], f"{w.name}, {w.hit.metric}", ratio) for w, f in fits]
    return s.evidence("own-4", parts, found)


def claim_5(workloads: list[Workload], view: View) -> s.Found:
    """With one rate for all sizes, as the paper ran it, the curve has the same regimes and a moderate linear end."""
    for w, curve in s.named(workloads, "own-5"):
        found = fit_curve(curve, view)
        if curve.tuned or found is None or found.fit is None or len(found.data.sizes) < s.LEAST_SIZES:
            continue
        margins = s.judged("own-5", [curve])[0]
        parts = contrasts.regimes(found.fit, found.data.sizes, margins["linear"], margins["flat"])
        end = found.linear_end.mapped(lambda b, n=w.data.train_examples: b / n)
        parts.append(Part("end of linear scaling / size of the data", end, below=margins["share"]))
        return s.evidence("own-5", parts, [(w, curve)])
    return Missing("no curve of 5 or more batch sizes at one rate for all of them")
