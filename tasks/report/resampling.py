"""The bootstrap of rules 13 and 14: seeds drawn again, settings chosen again, an outcome's target taken again.

A choice that was never confirmed has no fresh runs. It is estimated by all its tuning runs, as they were: on the noisy
quadratic model (README.md) the scatter of a tuned point is then 0.9 to 1.3 times the true one; by those drawn it is
chosen for its luck (up to 6 % too fast), by those not drawn 1.0 to 1.6 times as scattered, and with the choice kept
among what was confirmed 0.6 to 0.9 times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.report import fits
from tasks.report.curves import COUNTED, Curve, Observation, Point, group
from tasks.report.fit_data import fit_data
from tasks.report.intervals import NOTHING, Interval
from tasks.report.settings import setting
from tasks.report.targets import DRAWS, log_steps_to


@dataclass(frozen=True)
class Resampled:
    """What redrawing the seeds says of a curve."""

    b2: Interval  # percentiles over the draws, with the settings chosen again in each
    held: Interval  # the same with the settings held as they were chosen
    scatter: float  # of log S at a point, with the settings chosen again: root mean square over the sizes
    held_scatter: float  # with the settings held
    changed: float  # share of the points and draws at which another setting is chosen


def medians(log_values: np.ndarray) -> np.ndarray:
    """Give medians along the last axis, where infinite values are the largest and NaN is no value."""
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
    """Give log S of a tuned point in every draw, the same with the choice held, and how often the choice changed.

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


@lru_cache(maxsize=2**14)
def log_steps(o: Observation) -> np.ndarray:
    """Give a run's log steps in every draw of its target, or once where the target is fixed."""
    if o.hit.redraw is not None:
        return log_steps_to(o.run, o.hit) if o.status != "diverged" else np.full(DRAWS, np.inf)
    value = o.value("steps")
    return np.array([np.log(value) if value > 0 else np.nan])


def matrix(runs: Sequence[Observation], settings: Sequence[tuple] = ()) -> np.ndarray:
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
    """Give a point's tuning runs, its fresh ones (None: the same), and the index of the setting chosen."""
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


def percentiles(value: float, found: np.ndarray) -> Interval:
    """Give a value with the middle 95 % of what the draws gave."""
    if not len(found):
        return NOTHING
    low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return Interval(value, float(low), float(high))


@lru_cache(maxsize=512)  # every figure looks at the same curves
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
    found = [percentiles(value, b2_of_draws(data.sizes, y)) for y in both]
    return Resampled(*found, *map(float, scatter), float(np.mean(changed)))


@lru_cache(maxsize=512)
def target_spread(curve: Curve) -> tuple[float, float]:
    """Give by how much log B2 lies lower and higher with the target of other seeds (95 %), 0 for a fixed target."""
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
