"""Fits of steps against batch size, and intervals for whatever follows from them.

The model is log S_ij = log f(B_i) + u_i + e_ij with a scatter u_i per batch size (protocol rule 16). One
point per batch size is fitted, so that the scatter between sizes, not that between seeds, makes the interval.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from tasks.report.intervals import Interval
from tasks.report.shapes import Hyperbolas, Pieces


def sums_of_squares(log_steps: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Give squared residuals [curves, shapes] of curves [curves, sizes] from shapes [shapes, sizes]."""
    y = log_steps - log_steps.mean(axis=1, keepdims=True)
    c = shapes - shapes.mean(axis=1, keepdims=True)
    return np.maximum((y**2).sum(1)[:, None] + (c**2).sum(1)[None, :] - 2 * y @ c.T, 0)


@dataclass(frozen=True)
class Fit:
    """A family fitted to one curve.

    The variance of a point is known twice: from the residuals between sizes, with `dof` degrees of freedom,
    and, as a lower bound, from the seeds within each size (`within`, with `within_dof`).
    """

    family: Hyperbolas | Pieces
    log_steps: np.ndarray
    squares: np.ndarray  # one sum of squared residuals per shape
    dof: int
    within: float = 0.0
    within_dof: int = 0

    @property
    def variance(self) -> float:
        """Give the residual variance of a point between sizes."""
        return float(self.squares.min()) / self.dof

    @property
    def best(self) -> int:
        """Give the index of the shape with the least squares."""
        return int(self.squares.argmin())

    @property
    def residuals(self) -> np.ndarray:
        """Give log S minus the best curve, by size."""
        shape = self.family.at_sizes[self.best]
        return self.log_steps - shape - (self.log_steps - shape).mean()

    def curve(self, sizes: np.ndarray) -> np.ndarray:
        """Give the fitted steps at any sizes."""
        height = (self.log_steps - self.family.at_sizes[self.best]).mean()
        return np.exp(height + self.family.log_steps(sizes)[self.best])

    def interval(self, values: np.ndarray, level: float = 0.95) -> Interval:
        """Give a quantity's interval: its range over all shapes that the data do not reject.

        `values` has the quantity for every shape. A shape is rejected if its squares exceed the least by
        more than variance x t^2: the profile likelihood interval with the scatter between sizes unknown.
        Of the two variances the one that rejects less is taken.
        """
        slack = self.variance * stats.t.ppf((1 + level) / 2, self.dof) ** 2
        if self.within_dof > 0:
            slack = max(slack, self.within * stats.t.ppf((1 + level) / 2, self.within_dof) ** 2)
        inside = values[self.squares <= self.squares.min() + slack]
        return Interval(float(values[self.best]), float(inside.min()), float(inside.max()), self.dof)


def fit(family: Hyperbolas | Pieces, log_steps: np.ndarray, within: float = 0.0, runs: int = 0) -> Fit | None:
    """Fit a family to one point per batch size; None with too few sizes to leave a degree of freedom.

    `within` is the variance of a point that the seeds alone explain, found from so many `runs`.
    """
    dof = len(log_steps) - family.parameters
    if dof < 1:
        return None
    y, (shapes, norms) = log_steps - log_steps.mean(), family.centred
    squares = np.maximum((y**2).sum() + norms - 2 * shapes @ y, 0)
    return Fit(family, log_steps, squares, dof, within, max(runs - len(log_steps), 0))


def convex_steps(sizes: np.ndarray, log_steps: np.ndarray) -> np.ndarray:
    """Fit log S by least squares, asking only that examples needed never fall with B and bend upward."""
    x = np.log(sizes)
    hinges = np.maximum(x[:, None] - x[None, :-1], 0)
    log_examples = log_steps + x
    weights, _ = optimize.nnls(hinges - hinges.mean(0), log_examples - log_examples.mean())
    return log_examples.mean() + (hinges - hinges.mean(0)) @ weights - x


def size_at(sizes: np.ndarray, log_steps: np.ndarray, factor: float) -> float:
    """Give the largest B with E(B) <= factor x min E, interpolated in log-log; infinite past the last."""
    x = np.log(sizes)
    excess = x + log_steps
    excess = excess - excess.min() - math.log(factor)
    last = int(np.flatnonzero(excess <= 0)[-1])
    if last == len(x) - 1:
        return math.inf
    a, b = excess[last], excess[last + 1]
    return float(np.exp(x[last] + a / (a - b) * (x[last + 1] - x[last])))


def isotonic_steps(log_steps: np.ndarray) -> np.ndarray:
    """Fit steps that never rise with the batch size (least squares)."""
    return optimize.isotonic_regression(log_steps, increasing=False).x


def lack_of_fit(fitted: Fit) -> float:
    """Give the p-value of the residuals between sizes being no larger than the seeds' scatter explains."""
    if fitted.within <= 0 or fitted.within_dof < 1:
        return math.nan
    return float(stats.f.sf(fitted.variance / fitted.within, fitted.dof, fitted.within_dof))


def predictions(family: Hyperbolas | Pieces, log_steps: np.ndarray) -> np.ndarray:
    """Predict each size's log S from a fit to all the others."""
    shapes = family.at_sizes
    predicted = np.empty(len(log_steps))
    for i in range(len(log_steps)):
        others = np.arange(len(log_steps)) != i
        best = sums_of_squares(log_steps[None, others], shapes[:, others])[0].argmin()
        predicted[i] = (log_steps[others] - shapes[best, others]).mean() + shapes[best, i]
    return predicted


def predictions_of_line(sizes: np.ndarray, log_steps: np.ndarray) -> np.ndarray:
    """Predict each size's log S from a power law through all the others."""
    x = np.log(sizes)
    predicted = np.empty(len(x))
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        predicted[i] = np.polyval(np.polyfit(x[others], log_steps[others], 1), x[i])
    return predicted


def predictions_of_isotonic(sizes: np.ndarray, log_steps: np.ndarray) -> np.ndarray:
    """Predict each size's log S between its neighbours in an isotonic fit to all the others."""
    x = np.log(sizes)
    predicted = np.empty(len(x))
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        predicted[i] = np.interp(x[i], x[others], isotonic_steps(log_steps[others]))
    return predicted
