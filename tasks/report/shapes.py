"""Families of curves for steps against batch size, each a grid of shapes known up to their height.

With the height free, fitting a family is one matrix product, and every shape that the data do not reject says
what a quantity may still be: that is how all intervals on critical batch sizes are made (fits.py).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

LOG_STEP = 0.02  # of the grid of critical batch sizes: 2 %
MIDDLE_LOGIT = 3.0  # slopes at the middle size that every p offers: from 0.05 to 0.95
POWERS = np.exp(np.linspace(np.log(0.08), np.log(6.0), 40))  # near 0 the curve is a power law
POWERS = POWERS / POWERS[np.abs(POWERS - 1).argmin()]  # the hyperbola itself is one of them


@dataclass(frozen=True, eq=False)
class Family:
    """Shapes over the sizes that were studied."""

    sizes: tuple[float, ...]

    def log_steps(self, sizes: np.ndarray) -> np.ndarray:
        """Give log S up to its height, [shapes, sizes]."""
        raise NotImplementedError

    @cached_property
    def at_sizes(self) -> np.ndarray:
        """Give log S up to its height at the studied sizes, [shapes, sizes]."""
        return self.log_steps(np.array(self.sizes))

    @cached_property
    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the shapes at the studied sizes without their height, and their sums of squares."""
        shapes = self.at_sizes - self.at_sizes.mean(axis=1, keepdims=True)
        return shapes, (shapes**2).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Hyperbolas(Family):
    """S = S_min [1 + (B_crit / B)^p]^(1/p), McCandlish's hyperbola for p = 1; one value per shape."""

    critical: np.ndarray
    power: np.ndarray
    parameters: int = 3
    name: str = "softened hyperbola"

    def log_steps(self, sizes: np.ndarray) -> np.ndarray:
        """Give log S up to its height, [shapes, sizes]."""
        ratio = np.log(self.critical)[:, None] - np.log(sizes)[None, :]
        return np.logaddexp(0, self.power[:, None] * ratio) / self.power[:, None]

    def slope(self, size: float) -> np.ndarray:
        """Give beta = -d log S / d log B, one per shape: 1 is perfect scaling, 0 is none."""
        return 1 / (1 + (size / self.critical) ** self.power)

    def size_at(self, factor: float, smallest: float) -> np.ndarray:
        """Give the B at which the examples needed, B S(B), are `factor` times those at the smallest size."""
        p, c = self.power, self.critical / smallest  # relative, so that powers stay small
        return smallest * (factor**p * (1 + c**p) - c**p) ** (1 / p)

    def size_whose_doubling_saves(self, share: float) -> np.ndarray:
        """Give the largest B for which going to 2 B still saves this share of the steps."""
        left = (1 - share) ** self.power
        return self.critical * ((left - 0.5**self.power) / (1 - left)) ** (1 / self.power)


@dataclass(frozen=True, eq=False)
class Pieces(Family):
    """Shallue's pieces: log S falls with slope -1 to `start`, with -`middle` to `end`, then not at all."""

    start: np.ndarray
    end: np.ndarray
    middle: np.ndarray
    parameters: int = 4
    name: str = "three pieces"

    def log_steps(self, sizes: np.ndarray) -> np.ndarray:
        """Give log S up to its height, [shapes, sizes]."""
        x, start, end = np.log(sizes)[None, :], np.log(self.start)[:, None], np.log(self.end)[:, None]
        middle = self.middle[:, None] * (np.clip(x, start, end) - start)
        return -np.minimum(x - start, 0) - middle

    def slope(self, size: float) -> np.ndarray:
        """Give beta = -d log S / d log B, one per shape."""
        return np.where(size < self.start, 1.0, np.where(size < self.end, self.middle, 0.0))

    def size_at(self, factor: float, smallest: float) -> np.ndarray:
        """Give the B at which the examples needed are `factor` times those at the smallest size."""
        goal = np.log(factor) + np.log(smallest) + self.log_steps(np.array([smallest]))[:, 0]
        x1, x2 = np.log(self.start), np.log(self.end)
        bend = x2 - self.middle * (x2 - x1)  # log E where the last piece begins; where it ends, x1
        return np.exp(np.where(goal > bend, goal + x2 - bend, x1 + (goal - x1) / (1 - self.middle)))


def critical_grid(sizes: tuple[float, ...]) -> np.ndarray:
    """Give critical batch sizes from a quarter of the smallest to 16 times the largest size."""
    return np.exp(np.arange(np.log(min(sizes) / 4), np.log(max(sizes) * 16), LOG_STEP))


@lru_cache(maxsize=32)
def softened(sizes: tuple[float, ...]) -> Hyperbolas:
    """Make the three-parameter family over a range of sizes."""
    first, last = np.log(critical_grid(sizes)[[0, -1]])
    middle, count = np.log(np.array(sizes)).mean(), round((last - first) / LOG_STEP)
    reach = MIDDLE_LOGIT / POWERS
    spans = np.minimum(first, middle - reach), np.maximum(last, middle + reach)
    critical = np.exp(np.linspace(*spans, count))  # [count, powers]
    return Hyperbolas(sizes, critical.T.ravel(), np.repeat(POWERS, count))


@lru_cache(maxsize=32)
def hyperbola(sizes: tuple[float, ...]) -> Hyperbolas:
    """Make the two-parameter family over a range of sizes."""
    critical = critical_grid(sizes)
    return Hyperbolas(sizes, critical, np.ones_like(critical), parameters=2, name="hyperbola")


@lru_cache(maxsize=32)
def pieces(sizes: tuple[float, ...]) -> Pieces:
    """Make Shallue's family over a range of sizes."""
    bends = np.exp(np.arange(np.log(min(sizes) / 2), np.log(max(sizes) * 2), 0.15))
    first, last = np.triu_indices(len(bends))
    middle = np.arange(0.1, 0.95, 0.1)
    return Pieces(
        sizes,
        np.repeat(bends[first], len(middle)),
        np.repeat(bends[last], len(middle)),
        np.tile(middle, len(first)),
    )
