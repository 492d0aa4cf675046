"""What of a curve is fitted, one value per batch size, and what a target that is an outcome adds (rules 13 and 14)."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from callbacks.record import Rule
from tasks.report.analysis import fits
from tasks.report.analysis.curves import Curve, Observation, Point, T
from tasks.report.analysis.intervals import DRAWS, Interval, middle_log

ARRIVAL = 0.8  # a point with fewer arrivals leaves the fit and bounds the useful range
SHARE_OF_DATA = 4  # batches above a quarter of the data have visibly less gradient noise


@dataclass(frozen=True)
class View:
    """One way of looking at the same runs: by another rule for the hit, or at half of the seeds."""

    rule: Rule = "hit"
    seeds: Literal["all", "first", "last"] = "all"  # or half of them


PRIMARY = View()
HALVES: tuple[Literal["first", "last"], ...] = ("first", "last")


@dataclass(frozen=True)
class FitData:
    """One value per batch size, ready to be fitted, and what was not fitted and why."""

    sizes: np.ndarray
    log_steps: np.ndarray
    within: float  # variance of a point that the seeds explain
    runs: int
    left_out: dict[int, str] = field(default_factory=dict)


def half_of(items: list[T], which: str) -> list[T]:
    """Return all of them, or the first or the last half; the middle one of an odd number is in both."""
    middle = len(items) // 2
    return {"all": items, "first": items[: len(items) - middle], "last": items[middle:]}[which]


def half(point: Point, which: str) -> list[Observation]:
    """Return a point's runs, or the first or the last half of its seeds."""
    return half_of(sorted(point.counted, key=lambda o: o.seed), which)


def effective_size(point: Point) -> float:
    """Return the batch size that gradient noise sees: of a ragged epoch, the mean."""
    record = point.observations[0].run.record
    n = record.data.train_examples
    return n / math.ceil(n / point.batch_size) if n and record.batch.epoch_end == "keep" else float(point.batch_size)


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
        seen = half(point, view.seeds)
        values = [o.value("steps", view.rule) for o in seen]
        reason = reason_to_leave_out(point, values)
        if reason:
            left_out[point.batch_size] = reason
            continue
        finite = np.log([v for v in values if math.isfinite(v)])
        squares += float(((finite - finite.mean()) ** 2).sum()) + quantization(seen, view.rule)
        dof += len(finite) - 1
        runs += len(values)
        sizes.append(effective_size(point))
        log_steps.append(middle_log(np.array(values)))
        lost = len(finite) < len(values)  # then it is a median, whose variance is so much larger
        shares.append((math.pi / 2 if lost and len(values) > 2 else 1) / len(values))
    within = squares / dof * float(np.mean(shares)) if dof else 0.0
    return FitData(np.array(sizes), np.array(log_steps), within, runs, left_out)


# a target that is an outcome is drawn again ---------------------------------------------------------------


def medians(log_values: np.ndarray) -> np.ndarray:
    """Return medians along the last axis, where infinite values are the largest and NaN is no value."""
    ordered = np.sort(log_values, axis=-1)
    count = (~np.isnan(log_values)).sum(axis=-1, keepdims=True)
    ends = (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, log_values.shape[-1] - 1))
    low, high = (np.take_along_axis(ordered, i, axis=-1)[..., 0] for i in ends)
    return (low + high) / 2


def log_steps(o: Observation) -> np.ndarray:
    """Return a run's log steps in every draw of its target."""
    return np.full(DRAWS, np.inf) if o.status == "diverged" else np.array(o.hit.drawn)


def target_spread(curve: Curve) -> tuple[float, float]:
    """Return by how much log B2 lies lower and higher with the target of other seeds (95 %), 0 for a fixed target."""
    points = [p for p in curve.points if p.n]
    if not points or points[0].observations[0].hit.redraw is None:
        return 0.0, 0.0
    sizes = np.array([float(p.batch_size) for p in points])
    drawn = np.stack([medians(np.stack(list(map(log_steps, p.counted)), axis=1)) for p in points], axis=1)
    found = []
    for row in drawn:
        there = np.isfinite(row)
        if there.sum() >= 2:
            found.append(math.log(fits.convex_size_at(sizes[there], row[there], 2.0)))
    if not found or math.isinf(np.median(found)):
        return 0.0, 0.0
    low, middle, high = np.quantile(found, [0.025, 0.5, 0.975], method="inverted_cdf")
    return float(middle - low), float(high - middle)


def with_target(b2: Interval, spread: tuple[float, float], last: float) -> Interval:
    """Widen B2's interval by its target's spread, which is independent of the scatter along the curve."""
    if spread == (0.0, 0.0) or not 0 < b2.value < math.inf or not b2.low > 0:
        return b2
    low, high = (math.hypot(math.log(end / b2.value), by) for end, by in zip((b2.low, b2.high), spread, strict=True))
    high = b2.value * math.exp(high)
    return Interval(b2.value, b2.value * math.exp(-low), high if high <= last else math.inf, b2.dof)
