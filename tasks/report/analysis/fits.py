"""Fits of steps against batch size, and intervals for whatever follows from them.

The family is a grid of shapes known up to their height: every shape that is not rejected says what a quantity may be.
One point a batch size is fitted, so that the scatter between sizes makes the interval (protocol rule 16).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from tasks.report.analysis.intervals import Interval

LOG_STEP = 0.014  # of the grid of critical batch sizes; coarser grids make intervals of what is known well too short
MIDDLE_LOGIT = 3.0  # slopes at the middle size that every p offers: from 0.05 to 0.95
POWERS = np.exp(np.linspace(np.log(0.08), np.log(6.0), 80))  # near 0 the curve is a power law
POWERS = POWERS / POWERS[np.abs(POWERS - 1).argmin()]  # the hyperbola itself is one of them


@dataclass(eq=False)
class Hyperbolas:
    """S = S_min [1 + (B_crit / B)^p]^(1/p), McCandlish's hyperbola for p = 1; one value per shape."""

    sizes: tuple[float, ...]  # that were studied
    critical: np.ndarray
    power: np.ndarray
    parameters: int = 3
    name: str = "softened hyperbola"

    def __post_init__(self) -> None:
        self.at_sizes = self.log_steps(np.array(self.sizes))  # log S up to its height, [shapes, sizes]
        shapes = self.at_sizes - self.at_sizes.mean(axis=1, keepdims=True)
        self.centred = shapes, (shapes**2).sum(axis=1)  # the same without the height, and their sums of squares

    def log_steps(self, sizes: np.ndarray) -> np.ndarray:
        """Return log S up to its height, [shapes, sizes]."""
        ratio = np.log(self.critical)[:, None] - np.log(sizes)[None, :]
        return np.logaddexp(0, self.power[:, None] * ratio) / self.power[:, None]

    def predict(self, x: np.ndarray, y: np.ndarray, at: float) -> float:
        """Return log S at one of the studied log sizes by the curve nearest to log S `y` at others of them, `x`."""
        sizes = np.log(self.sizes)
        heights = y - self.at_sizes[:, np.isin(sizes, x)]
        best = heights.var(axis=1).argmin()
        return float(heights[best].mean() + self.at_sizes[best, sizes == at][0])

    def slope(self, size: float) -> np.ndarray:
        """Return beta = -d log S / d log B, one per shape: 1 is perfect scaling, 0 is none."""
        return 1 / (1 + (size / self.critical) ** self.power)

    def size_at(self, factor: float, smallest: float) -> np.ndarray:
        """Return the B at which the examples needed, B S(B), are `factor` times those at the smallest size."""
        p, c = self.power, self.critical / smallest  # relative, so that powers stay small
        return smallest * (factor**p * (1 + c**p) - c**p) ** (1 / p)

    def size_whose_doubling_saves(self, share: float) -> np.ndarray:
        """Return the largest B for which going to 2 B still saves this share of the steps."""
        left = (1 - share) ** self.power
        return self.critical * ((left - 0.5**self.power) / (1 - left)) ** (1 / self.power)


def critical_grid(sizes: tuple[float, ...]) -> np.ndarray:
    """Return critical batch sizes from a quarter of the smallest to 16 times the largest size."""
    return np.exp(np.arange(np.log(min(sizes) / 4), np.log(max(sizes) * 16), LOG_STEP))


@lru_cache(maxsize=32)
def softened(sizes: tuple[float, ...]) -> Hyperbolas:
    """Make the three-parameter family over a range of sizes."""
    first, last = np.log(critical_grid(sizes)[[0, -1]])
    middle, count = np.log(np.array(sizes)).mean(), round((last - first) / LOG_STEP)
    reach = MIDDLE_LOGIT / POWERS
    critical = np.exp(np.linspace(np.minimum(first, middle - reach), np.maximum(last, middle + reach), count))
    return Hyperbolas(sizes, critical.T.ravel(), np.repeat(POWERS, count))


def hyperbola(sizes: tuple[float, ...]) -> Hyperbolas:
    """Make the two-parameter family over a range of sizes."""
    critical = critical_grid(sizes)
    return Hyperbolas(sizes, critical, np.ones_like(critical), parameters=2, name="hyperbola")


@dataclass(frozen=True)
class Fit:
    """A family fitted to one curve."""

    family: Hyperbolas
    log_steps: np.ndarray
    squares: np.ndarray  # one sum of squared residuals per shape
    best: int  # index of the shape with the least squares
    variance: float  # of a point by the residuals between sizes
    dof: int
    within: float  # the same variance by the seeds within each size, a lower bound
    within_dof: int

    def curve(self, sizes: np.ndarray) -> np.ndarray:
        """Return the fitted steps at any sizes."""
        height = (self.log_steps - self.family.at_sizes[self.best]).mean()
        return np.exp(height + self.family.log_steps(sizes)[self.best])

    def interval(self, values: np.ndarray) -> Interval:
        """Return a quantity's 95 % interval from its value for every shape: its range over those not rejected.

        A shape is, if its squares exceed the least by more than variance x t^2, by the variance that rejects less.
        """
        slack = self.variance * stats.t.ppf(0.975, self.dof) ** 2
        if self.within_dof > 0:
            slack = max(slack, self.within * stats.t.ppf(0.975, self.within_dof) ** 2)
        inside = values[self.squares <= self.squares.min() + slack]
        return Interval(float(values[self.best]), float(inside.min()), float(inside.max()))


def fit(family: Hyperbolas, log_steps: np.ndarray, within: float = 0.0, runs: int = 0) -> Fit | None:
    """Fit a family to one point per batch size, which stand on so many runs; None with no degree of freedom left."""
    dof = len(log_steps) - family.parameters
    if dof < 1:
        return None
    y, (shapes, norms) = log_steps - log_steps.mean(), family.centred
    squares = np.maximum((y**2).sum() + norms - 2 * shapes @ y, 0)
    best, variance = int(squares.argmin()), float(squares.min()) / dof
    return Fit(family, log_steps, squares, best, variance, dof, within, max(runs - len(log_steps), 0))


def convex_steps(sizes: np.ndarray, log_steps: np.ndarray) -> np.ndarray:
    """Fit log S by least squares, asking only that examples needed never fall with B and bend upward."""
    x = np.log(sizes)
    hinges = np.maximum(x[:, None] - x[None, :-1], 0)
    hinges -= hinges.mean(0)
    log_examples = log_steps + x
    weights, _ = optimize.nnls(hinges, log_examples - log_examples.mean())
    return log_examples.mean() + hinges @ weights - x


def isotonic_steps(log_steps: np.ndarray) -> np.ndarray:
    """Fit steps that never rise with the batch size (least squares)."""
    return optimize.isotonic_regression(log_steps, increasing=False).x


def size_at(sizes: np.ndarray, log_steps: np.ndarray, factor: float) -> float:
    """Return the largest B with E(B) <= factor x min E, interpolated in log-log; infinite past the last."""
    x = np.log(sizes)
    excess = x + log_steps
    excess = excess - excess.min() - math.log(factor)
    last = int(np.flatnonzero(excess <= 0)[-1])
    if last == len(x) - 1:
        return math.inf
    a, b = excess[last], excess[last + 1]
    return float(np.exp(x[last] + a / (a - b) * (x[last + 1] - x[last])))
