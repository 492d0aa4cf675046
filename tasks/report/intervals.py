"""Medians with 95 % intervals from runs that were seen only between evaluations, or never arrived."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; infinite means never reached, NaN not known."""

    value: float
    low: float
    high: float
    dof: float = math.inf  # of the t-distribution behind the interval

    def mapped(self, change: Callable[[float], float]) -> "Interval":
        """Give the interval of an increasing function of the value."""
        return Interval(change(self.value), change(self.low), change(self.high), self.dof)


NOTHING = Interval(math.nan, math.nan, math.nan)


def log_median(values: np.ndarray) -> float:
    """Take the median, halfway on the log scale between the middle two; infinite values are the largest."""
    values = np.sort(values)
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return float(high if math.isinf(high) or low <= 0 else math.sqrt(low * high))


def order_statistics(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """Give the distribution-free interval of the median; None with fewer than 6 values, too few for 95 %."""
    n = len(values)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))
    if rank < 1:
        return None
    values = np.sort(values)
    return float(values[rank - 1]), float(values[n - rank])


def median_interval(brackets: Sequence[tuple[float, float]]) -> Interval:
    """Give the median of what lies in each bracket (low, high], with its 95 % interval.

    A bracket of infinities is a run that never arrived: it counts as infinite in the order of the values.
    From 6 values on the interval is that of the order statistics, which assumes no distribution. With fewer
    it is Student's t on the log scale, where the runs that arrived are at least 2 and the median is finite;
    its upper end is infinite if any run did not arrive.
    """
    if not brackets or any(math.isnan(x) for pair in brackets for x in pair):
        return NOTHING
    low, high = np.array(brackets, dtype=float).T
    values = np.where(low > 0, np.sqrt(low * high), high)
    median = log_median(values)
    free = order_statistics(values)
    if free:
        return Interval(median, *free)
    finite = np.log(values[np.isfinite(values) & (values > 0)])
    n = len(finite)
    if n < 2 or math.isinf(median):
        return Interval(median, math.nan, math.inf if np.isinf(values).any() else math.nan)
    half = stats.t.ppf(0.975, n - 1) * finite.std(ddof=1) / math.sqrt(n)
    end = math.inf if n < len(values) else median * math.exp(half)
    return Interval(median, median * math.exp(-half), end)
