"""What of a curve is fitted: one value per batch size, seen in one of several ways."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.report.curves import Curve, Observation, Point
from tasks.report.intervals import middle_log

ARRIVAL = 0.8  # a point with fewer arrivals leaves the fit and bounds the useful range
SHARE_OF_DATA = 4  # batches above a quarter of the data have visibly less gradient noise


@dataclass(frozen=True)
class View:
    """One way of looking at the same runs: the primary one, or a row of the robustness table (rule 21)."""

    rule: str = "hit"
    family: str = "softened"
    drop: int | None = None  # a batch size to leave out
    seeds: str = "all"  # or "first", "last" half
    without_replacement: bool = False  # replace 1/B by (1/B - 1/N) N/(N - 1)

    @property
    def label(self) -> str:
        """Name what differs from the primary view."""
        names = {"rule": "hit rule", "family": "form of fit", "drop": "without batch size", "seeds": "seeds:"}
        primary, words = View(), []
        for name, word in names.items():
            if getattr(self, name) != getattr(primary, name):
                words.append(f"{word} {getattr(self, name)}")
        if self.without_replacement:
            words.append("sampling correction")
        return ", ".join(words) or "primary"


PRIMARY = View()


@dataclass(frozen=True)
class FitData:
    """One value per batch size, ready to be fitted, and what was not fitted and why."""

    sizes: np.ndarray
    log_steps: np.ndarray
    within: float  # variance of a point that the seeds explain
    runs: int
    left_out: dict[int, str] = field(default_factory=dict)

    def without(self, index: int) -> "FitData":
        """Give the data without one size."""
        keep = np.arange(len(self.sizes)) != index % len(self.sizes)
        return replace(self, sizes=self.sizes[keep], log_steps=self.log_steps[keep])


def half(point: Point, which: str) -> list:
    """Take the first or the last half of a point's seeds; the middle one of an odd number is in both."""
    runs = sorted(point.counted, key=lambda o: o.seed)
    middle = len(runs) // 2
    return {"all": runs, "first": runs[: len(runs) - middle], "last": runs[middle:]}[which]


def effective_size(point: Point, view: View) -> float:
    """Give the batch size that gradient noise sees: the mean of a ragged epoch's, or without replacement."""
    size = float(point.batch_size)
    record = point.observations[0].run.record
    n = record.data.train_examples
    if n and record.batch.epoch_end == "keep":
        size = n / math.ceil(n / size)
    if n and view.without_replacement and size < n:
        size = 1 / ((1 / size - 1 / n) * n / (n - 1))
    return size


def reason_to_leave_out(point: Point, values: list[float]) -> str | None:
    """Say why a point cannot be fitted, if so."""
    n = point.observations[0].run.record.data.train_examples
    arrived = sum(math.isfinite(v) for v in values)
    if not values or any(math.isnan(v) or v <= 0 for v in values):
        return "no run with a result"
    if arrived < ARRIVAL * len(values):
        return f"only {arrived} of {len(values)} runs arrived"
    if n and point.batch_size > n / SHARE_OF_DATA:
        return f"more than 1/{SHARE_OF_DATA} of the {n:,} examples"
    return None


def quantization(runs: list[Observation], rule: str) -> float:
    """Return the squares of log S that equal steps hide: of a uniform as wide as the source could tell them apart.

    0 where none are equal.
    """
    values = [(v, o.hit.resolution) for o in runs if 0 < (v := o.value("steps", rule)) < math.inf]
    if len({v for v, _ in values}) == len(values):
        return 0.0
    return sum(math.log(resolution) ** 2 / 12 for _, resolution in values)


def fit_data(curve: Curve, view: View = PRIMARY) -> FitData:
    """Return a curve as one value of log S per batch size: the mean, or the median where runs did not arrive."""
    sizes, log_steps, shares, squares, dof, runs, left_out = [], [], [], 0.0, 0, 0, {}
    for point in curve.points:
        seen = half(point, view.seeds)
        values = [o.value("steps", view.rule) for o in seen]
        reason = "dropped" if point.batch_size == view.drop else reason_to_leave_out(point, values)
        if reason:
            left_out[point.batch_size] = reason
            continue
        finite = np.log([v for v in values if math.isfinite(v)])
        squares += float(((finite - finite.mean()) ** 2).sum()) + quantization(seen, view.rule)
        dof += len(finite) - 1
        runs += len(values)
        sizes.append(effective_size(point, view))
        log_steps.append(middle_log(np.array(values)))
        lost = len(finite) < len(values)  # then it is a median, whose variance is so much larger
        shares.append((math.pi / 2 if lost and len(values) > 2 else 1) / len(values))
    within = squares / dof * float(np.mean(shares)) if dof else 0.0
    return FitData(np.array(sizes), np.array(log_steps), within, runs, left_out)
