"""Numbers with their 95 % intervals, from runs of which some may never have arrived."""

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

    def mapped(self, change: Callable[[float], float]) -> "Interval":
        """Return the interval of an increasing function of the value."""
        return Interval(change(self.value), change(self.low), change(self.high))

    def over(self, other: "Interval") -> "Interval":
        """Return the interval of the ratio of two positive values, as wide as both together can make it."""
        return Interval(self.value / other.value, self.low / other.high, self.high / other.low)


NOTHING = Interval(math.nan, math.nan, math.nan)
SAME = 1e-9  # values no further apart are equal: scipy warns of lost precision
# By how much the median of so few normal values is less certain than their mean (standard errors, 2e6 draws).
MEDIAN_OVER_MEAN = {2: 1.0, 3: 1.159, 4: 1.093, 5: 1.197}


def exact(value: float) -> Interval:
    """Return a value that is known exactly."""
    return Interval(value, value, value)


def log_median(values: np.ndarray) -> float:
    """Take the median, halfway on the log scale between the middle two; infinite values are the largest."""
    values = np.sort(values)
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return float(high if math.isinf(high) or low <= 0 else math.sqrt(low) * math.sqrt(high))


def middle_log(values: np.ndarray) -> float:
    """Return the mean of the logs of positive values; the log of their median where some are infinite."""
    return float(np.log(values).mean()) if np.isfinite(values).all() else math.log(log_median(values))


def middle_interval(values: Sequence[float], resolution: float = 1.0) -> Interval:
    """Return what positive values cost in the middle: the mean of their logs with Student's t interval.

    Where some are infinite, the median by ranks. Equal values reach over the ratio of two that could be told apart.
    """
    found = mean_interval([math.log(v) for v in values]) if all(0 < v < math.inf for v in values) else NOTHING
    if math.isnan(found.value):
        return median_interval(values, resolution)
    reach = math.log(resolution) / 2 if len(set(values)) < len(values) else 0.0
    return Interval(math.exp(found.value), math.exp(found.low - reach), math.exp(found.high + reach))


def rank_of(n: int) -> tuple[int, float]:
    """Return the rank k whose order statistics hold the median in 95 % or more, and the weight of k + 1; 0: too few."""
    k = int(stats.binom.ppf(0.025, n, 0.5))
    if k == 0:
        return 0, 0.0
    wide, narrow = (1 - 2 * stats.binom.cdf(rank - 1, n, 0.5) for rank in (k, k + 1))
    share = (wide - 0.95) / (wide - narrow)
    return k, float((n - k) * share / (k + (n - 2 * k) * share))


def median_interval(values: Sequence[float], resolution: float = 1.0) -> Interval:
    """Return the median with its 95 % interval; an infinite value is a run that never arrived, and the largest.

    From 6 values on by two order statistics, interpolated on the log scale (Hettmansperger and Sheather 1986). With
    fewer by Student's t on that scale, where 2 or more arrived and the median is finite; the upper end is infinite if
    any run did not arrive. Equal values reach over their resolution.
    """
    x = np.sort(np.asarray(values, dtype=float))
    if not len(x) or np.isnan(x).any():
        return NOTHING
    median, reach = log_median(x), math.sqrt(resolution)
    rank, weight = rank_of(len(x))
    if rank:
        outer_and_inner = (x[rank - 1], x[rank]), (x[-rank], x[-rank - 1])
        low, high = (float(outer ** (1 - weight) * inner**weight) for outer, inner in outer_and_inner)
        return Interval(median, low / reach, high * reach)
    finite = np.log(x[np.isfinite(x) & (x > 0)])
    n = len(finite)
    if n < 2 or math.isinf(median):
        return Interval(median, math.nan, math.inf if np.isinf(x).any() else math.nan)
    half = stats.t.ppf(0.975, n - 1) * MEDIAN_OVER_MEAN[n] * finite.std(ddof=1) / math.sqrt(n)
    factor = math.exp(min(half, 500)) * (reach if len(set(finite)) < n else 1.0)
    return Interval(median, median / factor, math.inf if n < len(x) else median * factor)


def resampled_interval(value: float, draws: Sequence[float] | np.ndarray) -> Interval:
    """Return a value with the middle 95 % of what drawing the data again gave; infinite draws are allowed."""
    if not len(draws):
        return NOTHING
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))


def proportion(hits: int, n: int, level: float = 0.95) -> Interval:
    """Return a share with its exact (Clopper-Pearson) interval."""
    if n == 0:
        return NOTHING
    found = stats.binomtest(hits, n).proportion_ci(level)
    return Interval(hits / n, float(found.low), float(found.high))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return a mean with Student's t interval; not known with fewer than two values."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2 or not np.isfinite(x).all():
        return NOTHING
    half = stats.t.ppf((1 + level) / 2, n - 1) * x.std(ddof=1) / math.sqrt(n)
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of a less that of b, of different runs; not known with fewer than two values each."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if min(len(x), len(y)) < 2 or not np.isfinite([*x, *y]).all():
        return NOTHING
    value = float(x.mean() - y.mean())
    if max(np.ptp(x), np.ptp(y)) <= SAME:
        return Interval(value, value, value)
    ends = stats.ttest_ind(x, y, equal_var=False).confidence_interval(level)
    return Interval(value, float(ends.low), float(ends.high))


def shift_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Return by how much a exceeds b, where infinite values are the largest (Hodges and Lehmann).

    The median of all differences, with the shifts that the rank-sum test does not reject; two infinite values are
    tied whatever the shift. Not bounded where there are too few values for a test at this level.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    m, n = len(x), len(y)
    with np.errstate(invalid="ignore"):
        differences = np.subtract.outer(x, y).ravel()
    differences = np.sort(differences[~np.isnan(differences)])  # of two infinite values it is not known
    if np.isnan([*x, *y]).any() or not len(differences):
        return NOTHING
    middle = differences[[(len(differences) - 1) // 2, len(differences) // 2]]
    value = float(middle[0] if middle[0] == middle[1] else middle.mean() if np.isfinite(middle).all() else math.nan)
    lost = np.isinf(x).sum(), np.isinf(y).sum()
    ties = (sum(lost) ** 3 - sum(lost)) / ((m + n) * (m + n - 1))
    spread = math.sqrt(m * n / 12 * (m + n + 1 - ties))
    rank = math.floor(m * n / 2 - stats.norm.ppf((1 + level) / 2) * spread - math.prod(lost) / 2)
    if rank < 0 or 2 / math.comb(m + n, m) > 1 - level + 1e-9:
        return Interval(value, -math.inf, math.inf)
    return Interval(value, float(differences[rank]), float(differences[-1 - rank]))


def number(value: object) -> str:
    """Return a number or an interval with three to four figures; infinity as ∞, what is not known as a dash."""
    if isinstance(value, Interval):
        if math.isnan(value.low) and math.isnan(value.high):
            return number(value.value)
        return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"
