"""What of a curve is fitted, one value per batch size, and the bootstrap of it (rules 13 and 14).

In the bootstrap seeds are drawn again, settings chosen again, and an outcome's target is taken again.
A choice that was never confirmed has no fresh runs. It is estimated by all its tuning runs, as they were: on the noisy
quadratic model (README.md) the scatter of a tuned point is then 0.9 to 1.3 times the true one; by those drawn it is
chosen for its luck (up to 6 % too fast), by those not drawn 1.0 to 1.6 times as scattered, and with the choice kept
among what was confirmed 0.6 to 0.9 times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from callbacks.record import Rule
from tasks.report.analysis import fits
from tasks.report.analysis.curves import COUNTED, Curve, Observation, Point, Setting, T, group, setting
from tasks.report.analysis.intervals import DRAWS, Interval, middle_log, resampled_interval

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

    def without(self, index: int) -> "FitData":
        """Return the data without one size."""
        keep = np.arange(len(self.sizes)) != index % len(self.sizes)
        return replace(self, sizes=self.sizes[keep], log_steps=self.log_steps[keep])


def half_of(items: list[T], which: str) -> list[T]:
    """Return all of them, or the first or the last half; the middle one of an odd number is in both."""
    middle = len(items) // 2
    return {"all": items, "first": items[: len(items) - middle], "last": items[middle:]}[which]


def half(point: Point, which: str) -> list[Observation]:
    """Return a point's runs, or the first or the last half of its seeds."""
    return half_of(sorted(point.counted, key=lambda o: o.seed), which)


def effective_size(point: Point) -> float:
    """Return the batch size that gradient noise sees: of a ragged epoch, the mean."""
    size = float(point.batch_size)
    record = point.observations[0].run.record
    n = record.data.train_examples
    if n and record.batch.epoch_end == "keep":
        size = n / math.ceil(n / size)
    return size


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


# the bootstrap ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resampled:
    """What redrawing the seeds says of a curve."""

    b2: Interval  # percentiles over the draws, with the settings chosen again in each
    held: Interval  # the same with the settings held as they were chosen
    scatter: float  # of log S at a point, with the settings chosen again: root mean square over the sizes
    held_scatter: float  # with the settings held
    changed: float  # share of the points and draws at which another setting is chosen


def medians(log_values: np.ndarray) -> np.ndarray:
    """Return medians along the last axis, where infinite values are the largest and NaN is no value."""
    ordered = np.sort(log_values, axis=-1)
    count = (~np.isnan(log_values)).sum(axis=-1, keepdims=True)
    ends = (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, log_values.shape[-1] - 1))
    low, high = (np.take_along_axis(ordered, i, axis=-1)[..., 0] for i in ends)
    return (low + high) / 2


def choices(trials: np.ndarray, usual: int) -> np.ndarray:
    """Choose a setting in every draw from log steps [draws, settings, seeds]; `usual` where none ever arrives."""
    finite = np.isfinite(trials)
    mean = np.where(finite, trials, 0).sum(axis=-1) / np.maximum(finite.sum(axis=-1), 1)
    score = medians(trials) + 1e-6 * mean  # the mean decides between equal medians
    score = np.where(np.isnan(score), np.inf, score)
    return np.where(np.isinf(score).all(axis=-1), usual, score.argmin(axis=-1))


def redrawn(log_values: np.ndarray, random: np.random.Generator, draws: int) -> np.ndarray:
    """Draw seeds with replacement, the same for all settings: [1 or draws, settings, seeds] -> [draws, ...]."""
    seeds = log_values.shape[-1]
    drawn = random.integers(seeds, size=(draws, 1, seeds))
    return np.take_along_axis(np.broadcast_to(log_values, (draws, *log_values.shape[1:])), drawn, axis=-1)


def point_draws(
    trials: np.ndarray, fresh: np.ndarray | None, usual: int, random: np.random.Generator, draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return log S of a tuned point in every draw, the same with the choice held, and how often the choice changed.

    `trials` and `fresh` are log steps [1 or draws, settings, seeds], NaN where there is no run; without `fresh` the
    choice and the estimate come from the same runs, as they did.
    """
    tried, rows = redrawn(trials, random, draws), np.arange(draws)
    chosen = choices(tried, usual)
    if fresh is None:
        found = medians(tried)
    else:
        found = medians(redrawn(fresh, random, draws))
        found = np.where(np.isnan(found), medians(trials), found)
    return found[rows, chosen], found[:, usual], float((chosen != usual).mean())


def log_steps(o: Observation) -> np.ndarray:
    """Return a run's log steps in every draw of its target, or once where the target is fixed."""
    if o.hit.redraw is not None:
        return np.array(o.hit.drawn) if o.status != "diverged" else np.full(DRAWS, np.inf)
    value = o.value("steps")
    return np.array([np.log(value) if value > 0 else np.nan])


def matrix(runs: Sequence[Observation], settings: Sequence[Setting] = ()) -> np.ndarray:
    """Lay out log steps by draw, setting and seed, [1 or draws, settings, seeds]; NaN where there is no run.

    Without settings there is one row, with a column for each run.
    """
    rows = {s: i for i, s in enumerate(settings)}
    columns = {seed: i for i, seed in enumerate(sorted({o.seed for o in runs}))}
    cells = {(rows[setting(o.run.record)], columns[o.seed]) if settings else (0, i): o for i, o in enumerate(runs)}
    values = {cell: log_steps(o) for cell, o in cells.items()}
    shape = (len(settings), len(columns)) if settings else (1, len(runs))
    found = np.full((max(map(len, values.values())), *shape), np.nan)
    for (row, column), steps in values.items():
        found[:, row, column] = steps
    return found


def runs_of(point: Point, tuned: bool) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return a point's tuning runs, its fresh ones (None: the same), and the index of the setting chosen."""
    if not tuned:
        return matrix(point.counted), None, 0
    usual = setting(point.observations[0].run.record)
    trials = [o for o in point.trials if o.status in COUNTED] or point.counted
    stages = group((o for o in point.every if o.status in COUNTED), lambda o: o.run.record.stage)
    settings = list(dict.fromkeys([usual, *(setting(o.run.record) for o in trials)]))
    confirmed = [o for o in stages.get("confirm", []) if setting(o.run.record) in settings]
    fresh = None if not confirmed or confirmed == trials else matrix(confirmed, settings)
    return matrix(trials, settings), fresh, 0


def b2_of_draws(sizes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Read B2 off every draw [draws, sizes]; a size that does not arrive in a draw is left out of it."""
    found = []
    for row in drawn:
        there = np.isfinite(row)
        if there.sum() >= 2:
            x, y = sizes[there], row[there]
            found.append(fits.size_at(x, fits.convex_steps(x, y), 2.0))
    return np.array(found)


def resample(curve: Curve) -> Resampled | None:
    """Draw all seeds of a curve again; None where there is neither a choice nor a target to be drawn again."""
    data = fit_data(curve)
    points = [p for p in curve.points if p.batch_size not in data.left_out]
    if len(points) < 2 or not (curve.tuned or points[0].observations[0].hit.redraw):
        return None
    random = np.random.default_rng(0)
    drawn, held, changed = zip(*(point_draws(*runs_of(p, curve.tuned), random) for p in points), strict=True)
    both = [np.stack(rows, axis=1) for rows in (drawn, held)]
    scatter = [np.sqrt(np.nanmean(np.nanvar(np.where(np.isfinite(y), y, np.nan), axis=0))) for y in both]
    value = float(b2_of_draws(data.sizes, data.log_steps[None])[0])
    found = [resampled_interval(value, b2_of_draws(data.sizes, y)) for y in both]
    return Resampled(found[0], found[1], float(scatter[0]), float(scatter[1]), float(np.mean(changed)))


def target_spread(curve: Curve) -> tuple[float, float]:
    """Return by how much log B2 lies lower and higher with the target of other seeds (95 %), 0 for a fixed target."""
    points = [p for p in curve.points if p.n]
    if not points or points[0].observations[0].hit.redraw is None:
        return 0.0, 0.0
    y = np.stack([medians(matrix(p.counted)[:, 0]) for p in points], axis=1)
    found = np.log(b2_of_draws(np.array([float(p.batch_size) for p in points]), y))
    if not len(found) or np.isinf(np.median(found)):
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
