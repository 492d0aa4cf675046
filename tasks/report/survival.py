"""Medians in other ways: Turnbull's estimate and a log-normal fit, from censored steps."""

import math

import numpy as np
from scipy import special

from tasks.report.curves import Observation, Point

ROUNDS = 500


def censoring(o: Observation, unit: str = "steps") -> tuple[float, float]:
    """Give the interval (low, high] that a run's cost lies in: beyond its stop for a budget spent.

    A run that diverged never arrives: (inf, inf].
    """
    if o.status == "budget":
        return (o.run.stopped_at(unit), math.inf)
    half, value = math.sqrt(max(o.hit.resolution, 1 + 1e-6)), o.value(unit)
    return (value / half, value * half)


def turnbull(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a distribution from values in (low, high], without a form (self-consistency).

    Gives the points that carry mass, which are upper ends, and their masses. With right-censoring alone this
    is Kaplan and Meier's estimate.
    """
    points = np.unique(np.append(high, math.inf))
    inside = (points[None, :] > low[:, None]) & (points[None, :] <= high[:, None])
    inside[np.isinf(low), -1] = True
    mass = np.full(len(points), 1 / len(points))
    for _ in range(ROUNDS):
        shares = inside * mass
        new = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - mass).max() < 1e-10:
            break
        mass = new
    return points, mass


def turnbull_median(point: Point) -> float:
    """Give Turnbull's median of a point's steps, in the middle of its interval; infinite if not reached."""
    low, high = np.array([censoring(o) for o in point.counted]).T
    points, mass = turnbull(low, high)
    median = float(points[np.searchsorted(mass.cumsum(), 0.5 - 1e-9)])
    ends = low[(high == median) & (low > 0)]
    return median if math.isinf(median) or not len(ends) else math.sqrt(median * float(ends.min()))


def log_normal(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Fit mean and deviation of the log of values that lie in (low, high]; `high` may be infinite.

    Maximum likelihood by EM: the moments of a truncated normal stand for what was not seen.
    """
    low, high = np.log(np.maximum(low, 1e-9)), np.log(high)
    mean = float(np.where(np.isinf(high), low, (low + high) / 2).mean())
    deviation = 0.2
    for _ in range(ROUNDS):
        a, b = (low - mean) / deviation, np.minimum((high - mean) / deviation, 40.0)
        mass = np.maximum(special.ndtr(b) - special.ndtr(a), 1e-300)
        pa, pb = (np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (a, b))
        narrow = b - a < 1e-4
        first = np.where(narrow, (a + b) / 2, (pa - pb) / mass)
        second = np.where(narrow, first**2, 1 + (a * pa - b * pb) / mass)
        step = deviation * first.mean()
        mean, deviation = mean + step, deviation * math.sqrt(max(second.mean() - first.mean() ** 2, 1e-8))
        if abs(step) < 1e-8:
            break
    return mean, deviation


def log_normal_median(point: Point) -> float:
    """Give the median of a log-normal fit to the runs that did not diverge; NaN where none arrived."""
    pairs = [censoring(o) for o in point.counted if o.status != "diverged"]
    if sum(math.isfinite(high) for _, high in pairs) < 2:
        return math.nan
    return math.exp(log_normal(*np.array(pairs).T)[0])
