"""Golmant et al., claim 8: linear scaling fails where the error of the linear approximation passes 1."""

import math

import numpy as np

from tasks.report.analysis.curves import Observation, Workload, group
from tasks.report.analysis.intervals import NOTHING, Interval
from tasks.report.analysis.points import View, half
from tasks.report.claims import studies as s
from tasks.report.claims.rules import Missing, Part

LINEAR_ERROR = "linear_error/absolute"  # |L(w) - linear approximation| at the end of training, in `final`
DRAWS = 1000
Runs = dict[int, list[Observation]]


def crossing(sizes: list[float], values: list[float], level: float) -> float:
    """Return log2 of the size at which values first pass a level on a straight line; NaN if not inside the range."""
    above = [i for i, v in enumerate(values) if v > level]
    if not above or above[0] == 0:
        return math.nan
    i = above[0]
    part = (level - values[i - 1]) / (values[i] - values[i - 1])
    return math.log2(sizes[i - 1]) + part * math.log2(sizes[i] / sizes[i - 1])


def distance(runs: list[list[tuple[float, bool]]], sizes: list[float]) -> float:
    """Return log2(B where the median error passes 1 / B where half of the runs are lost)."""
    errors = [float(np.median([math.log(e) for e, _ in at if e > 0 and math.isfinite(e)] or [math.inf])) for at in runs]
    lost = [float(np.mean([gone for _, gone in at])) for at in runs]
    return crossing(sizes, errors, 0.0) - crossing(sizes, lost, 0.5)


def measured(runs: Runs) -> Interval:
    """Return that distance with the percentiles of redrawn runs; NaN where either crossing is outside the range."""
    sizes = sorted(runs)
    seen = [[(o.run.final.get(LINEAR_ERROR, math.nan), o.status != "reached") for o in runs[b]] for b in sizes]
    value, random = distance(seen, sizes), np.random.default_rng(0)
    drawn = [
        distance([[at[i] for i in random.integers(len(at), size=len(at))] for at in seen], sizes) for _ in range(DRAWS)
    ]
    known = [d for d in drawn if math.isfinite(d)]
    if math.isnan(value) or len(known) < 0.9 * DRAWS:
        return NOTHING
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def claim_8(workloads: list[Workload], view: View) -> s.Found:
    """Linear scaling fails, from every baseline batch, where the error passes 1."""
    linear = [item for item in s.placed(workloads, "golmant-8") if item[1].facts["rate.scaling_rule"] == "linear"]
    parts, used = [], []
    for base, members in group(linear, lambda item: item[1].facts.get("rate.base_batch_size")).items():
        runs: Runs = {}
        for p in (p for _, c in members for p in c.points):
            seen = [o for o in half(p, view.seeds) if o.status == "diverged" or LINEAR_ERROR in o.run.final]
            if len(seen) >= s.least_seeds(view):
                runs.setdefault(p.batch_size, []).extend(seen)
        if len(runs) < 3:
            continue
        margin = s.judged("golmant-8", [c for _, c in members])[0]["doublings"]
        what = f"log2(B where the error passes 1 / B where the rule fails), m0 = {base}"
        parts.append(Part(what, measured(runs), -margin, margin))
        used += members
    if not parts:
        return Missing(f"no linear-scaling runs with {LINEAR_ERROR} at 3 or more batch sizes, 5 seeds each")
    return s.evidence("golmant-8", parts, used, counts_steps=False)
