"""What of a curve is fitted: one value per batch size."""

import math
from dataclasses import dataclass, field

import numpy as np

from callbacks.record import Rule
from tasks.report.analysis.curves import Curve, Observation, Point
from tasks.report.analysis.intervals import middle_log

ARRIVAL = 0.8  # a point with fewer arrivals leaves the fit and bounds the useful range
SHARE_OF_DATA = 4  # batches above a quarter of the data have visibly less gradient noise


@dataclass(frozen=True)
class View:
    """One way of looking at the same runs: by which rule for the hit."""

    rule: Rule = "hit"


PRIMARY = View()


@dataclass(frozen=True)
class FitData:
    """One value per batch size, ready to be fitted, and what was not fitted and why."""

    sizes: np.ndarray
    log_steps: np.ndarray
    within: float  # variance of a point that the seeds explain
    runs: int
    left_out: dict[int, str] = field(default_factory=dict)


def reason_to_leave_out(point: Point, values: list[float]) -> str | None:
    """Return why a point cannot be fitted, if so."""
    n = point.observations[0].run.record.data.train_examples
    arrived = sum(math.isfinite(v) for v in values)
    if not values or any(math.isnan(v) or v <= 0 for v in values):
        return "no run with a result"
    if arrived < ARRIVAL * len(values):
        return f"only {arrived} of {len(values)} runs arrived"
    if n and point.batch_size > n / SHARE_OF_DATA:
        return f"more than 1/{SHARE_OF_DATA} of the {n:,} examples"
    return None


def quantization(runs: list[Observation], rule: Rule) -> float:
    """Return the squares of log S that equal steps hide: of a uniform as wide as the source could tell them apart."""
    arrived = [o for o in runs if 0 < o.value("steps", rule) < math.inf]
    if len({o.value("steps", rule) for o in arrived}) == len(arrived):
        return 0.0
    return sum(math.log(o.hit.resolution) ** 2 / 12 for o in arrived)


def fit_data(curve: Curve, view: View = PRIMARY) -> FitData:
    """Return a curve as one value of log S per batch size: the mean, or the median where runs did not arrive."""
    sizes, log_steps, shares, squares, dof, runs, left_out = [], [], [], 0.0, 0, 0, {}
    for point in curve.points:
        seen = point.counted
        values = [o.value("steps", view.rule) for o in seen]
        reason = reason_to_leave_out(point, values)
        if reason:
            left_out[point.batch_size] = reason
            continue
        finite = np.log([v for v in values if math.isfinite(v)])
        squares += float(((finite - finite.mean()) ** 2).sum()) + quantization(seen, view.rule)
        dof += len(finite) - 1
        runs += len(values)
        record, size = seen[0].run.record, point.batch_size
        n = record.data.train_examples if record.batch.epoch_end == "keep" else None
        sizes.append(n / math.ceil(n / size) if n else float(size))  # of a ragged epoch, the mean
        log_steps.append(middle_log(np.array(values)))
        lost = len(finite) < len(values)  # then it is a median, whose variance is so much larger
        shares.append((math.pi / 2 if lost and len(values) > 2 else 1) / len(values))
    within = squares / dof * float(np.mean(shares)) if dof else 0.0
    return FitData(np.array(sizes), np.array(log_steps), within, runs, left_out)
