"""How the distance from the initial weights grows: log t (Hoffer et al.), a power of t, or a power of log t.

Each form is a shape on a grid with its height free, fitted to the log of the distance, so that the three are
compared by AIC on the same footing (two parameters each).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.report.intervals import Interval

DISTANCE = "distance/total"  # ||w_t - w_0|| over all weights, a column of the curve
LEAST_DECADES = 2.0  # from step 60 on, where the form no longer depends on where the fit begins, to 10,000
LEAST_ROWS = 12
BLOCK = 5  # evaluations in a block of the bootstrap: neighbours are not independent
RESAMPLES = 400
GAIN = 10.0  # difference in AIC from which a form wins
LATER = (3, 10, 30)  # times the first step: where the fit begins anew, to see whether the answer stays


@dataclass(frozen=True)
class Growth:
    """One run's comparison: AIC(power) - AIC(log) and the forms' parameters, with 95 % block-bootstrap intervals."""

    gain: float
    low: float
    high: float
    parameters: dict[str, Interval]  # of each form: a/b of a + b log t; p of c t^p; q of (log t)^q
    heights: dict[str, Interval]  # of each form: b; c; the factor of (log t)^q
    aic: dict[str, float]


def forms(steps: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give, by form, its grid of parameters and the log shapes [grid, rows]."""
    log_t = np.log(steps)
    shift = np.exp(np.linspace(-5, 6, 400)) - log_t[0]  # keeps a/b + log t positive
    power, exponent = np.linspace(0.005, 2, 400), np.linspace(0.02, 8, 400)
    return {
        "log": (shift, np.log(shift[:, None] + log_t[None])),
        "power": (power, power[:, None] * log_t[None]),
        "power of log": (exponent, exponent[:, None] * np.log(log_t)[None]),
    }


def squares(y: np.ndarray, shapes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the weighted squares [resamples, grid] of y [rows] around shapes [grid, rows], and the fitted heights."""
    residuals = y[None] - shapes
    total = weights.sum(axis=1, keepdims=True)
    heights = weights @ residuals.T / total
    return weights @ (residuals**2).T - heights**2 * total, heights


def gain_from(t: np.ndarray, d: np.ndarray) -> float:
    """Give AIC(power) - AIC(log) of these rows."""
    shapes = {name: shape for name, (_, shape) in forms(t).items()}
    least = {name: squares(np.log(d), shapes[name], np.ones((1, len(t))))[0].min() for name in ("log", "power")}
    return len(t) * math.log(max(least["power"], 1e-12) / max(least["log"], 1e-12))


def middle(values: np.ndarray) -> Interval:
    """Give the first value with the 95 % interval of the others, its resamples."""
    return Interval(float(values[0]), *(float(q) for q in np.quantile(values[1:], [0.025, 0.975])))


def block_weights(rows: int, random: np.random.Generator) -> np.ndarray:
    """Draw how often each row is in each moving-block resample, [resamples, rows]; first the data."""
    blocks = -(-rows // BLOCK)
    starts = random.integers(0, rows - BLOCK + 1, size=(RESAMPLES, blocks))
    drawn = (starts[:, :, None] + np.arange(BLOCK)).reshape(RESAMPLES, -1)[:, :rows]
    weights = np.zeros((RESAMPLES + 1, rows))
    weights[0] = 1
    np.add.at(weights, (np.arange(1, RESAMPLES + 1)[:, None], drawn), 1)
    return weights


def growth(steps: Sequence[float], distances: Sequence[float], warmup: float = 0.0) -> Growth | str:
    """Compare the three forms on the part after warm-up, or say why that cannot be done.

    The first steps run straight ahead: where a fit that begins later turns
    the answer around, there is none.
    """
    t, d = np.asarray(steps, dtype=float), np.asarray(distances, dtype=float)
    keep = (t > max(warmup, 1)) & np.isfinite(d) & (d > 0)
    t, d = t[keep], d[keep]
    if len(t) < LEAST_ROWS or math.log10(t[-1] / t[0]) < LEAST_DECADES:
        decades = math.log10(t[-1] / t[0]) if len(t) else 0.0
        return f"not identifiable: {decades:.1f} decades of steps after warm-up, {LEAST_DECADES:.0f} are needed"
    weights = block_weights(len(t), np.random.default_rng(0))
    aic, parameters, heights = {}, {}, {}
    for name, (grid, shapes) in forms(t).items():
        found, height = squares(np.log(d), shapes, weights)
        best = np.maximum(found.min(axis=1), 1e-12)
        aic[name] = len(t) * np.log(best / len(t)) + 2 * 2
        at = found.argmin(axis=1)
        parameters[name] = middle(grid[at])
        heights[name] = middle(np.exp(height[np.arange(len(at)), at]))
    gain = middle(aic["power"] - aic["log"])
    for later in LATER:
        rest = t >= later * t[0]
        if rest.sum() >= LEAST_ROWS and (other := gain_from(t[rest], d[rest])) * np.sign(gain.value) < -GAIN:
            return (
                f"not identifiable: AIC(power) - AIC(log) is {gain.value:+.0f} from step {t[0]:,.0f} on, "
                f"{other:+.0f} from step {t[rest][0]:,.0f} on"
            )
    return Growth(gain.value, gain.low, gain.high, parameters, heights, {k: float(v[0]) for k, v in aic.items()})
