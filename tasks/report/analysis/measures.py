"""What runs measured beside the loss: noise and curvature that predict a batch size, and the growth of the distance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.report.analysis.curves import Curve, Observation, constant_rate
from tasks.report.analysis.intervals import Interval, mean_interval, median_interval, resampled_interval

NOISE = "noise_scale/simple"  # tr(Sigma) / |G|^2 in examples (McCandlish et al. 2018), a column of the curve
LINEAR_ERROR = "linear_error/absolute"
CURVATURE = "sharpness/predicted_batch"  # beta / lambda + 1 (Ma, Bassily and Belkin 2018), in `final`
DISTANCE = "distance/total"  # ||w_t - w_0|| over all weights, a column of the curve
LEAST_DECADES = 2.0  # from step 60 on, where the form no longer depends on where the fit begins, to 10,000
LEAST_ROWS = 12
BLOCK = 5  # evaluations in a block of the bootstrap: neighbours are not independent
RESAMPLES = 400
GAIN = 10.0  # difference in AIC from which a form wins
LATER = (3, 10, 30)  # times the first step: where the fit begins anew, to see whether the answer stays


def test_accuracy(o: Observation) -> float | None:
    """Return a run's test accuracy in per cent."""
    value = (o.run.record.test or {}).get("test/accuracy")
    return None if value is None else 100 * value


def accuracy(o: Observation) -> float | None:
    """Return test accuracy in per cent; 0 for a run that diverged, which has none."""
    found = test_accuracy(o)
    return 0.0 if found is None and o.status == "diverged" else found


def mean_of(values: Iterable[float | None]) -> Interval:
    """Return the mean of what is known with its interval, or the one value there is."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return Interval(known[0], math.nan, math.nan) if len(known) == 1 else mean_interval(known)


def noise_at_hit(o: Observation) -> float:
    """Return the noise scale where a run reached its target, between the evaluations around it; NaN if not measured."""
    steps, noise = np.array(o.run.curve.get("step", [])), np.array(o.run.curve.get(NOISE, []), dtype=float)
    at = o.value("steps")
    known = np.isfinite(noise)
    if len(noise) < len(steps) or not known.any() or not steps[known][0] <= at < math.inf:  # no sample before the first
        return math.nan
    after = min(int(np.searchsorted(steps, at)), len(steps) - 1)
    around = slice(after if steps[after] == at else max(after - 1, 0), after + 1)
    if not known[around].all():
        return math.inf  # the noise hid the gradient; to leave such runs out would favour the low ones
    return float(np.interp(at, steps[around], noise[around]))


def noise_scale_of(curve: Curve) -> Interval:
    """Return the median noise scale at the target over the runs of all batch sizes, in examples."""
    return median_interval([v for o in curve.counted if (v := noise_at_hit(o)) > 0])


def curvature_batch_of(curve: Curve) -> Interval:
    """Return the median m* over the runs that reached the target: at their final weights, whatever the target."""
    reached = [o.run.record.final.get(CURVATURE, math.nan) for o in curve.counted if o.status == "reached"]
    return median_interval([v for v in reached if v > 0])


@dataclass(frozen=True)
class Growth:
    """AIC(power) - AIC(log) of one run's distances, with its 95 % block-bootstrap interval."""

    gain: float
    low: float
    high: float


def gains(t: np.ndarray, d: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return AIC(c t^p) - AIC(a + b log t) of distances d at steps t by how often each counts, [resamples, rows].

    Both forms are grids of shapes of log d with the height free: as many parameters, so that the squares decide.
    """
    log_t, total, least = np.log(t), weights.sum(axis=1, keepdims=True), []
    shift = np.exp(np.linspace(-5, 6, 400)) - log_t[0]  # a / b, which keeps a / b + log t positive
    power = np.linspace(0.005, 2, 400)
    for shapes in (power[:, None] * log_t, np.log(shift[:, None] + log_t)):
        residuals = np.log(d) - shapes
        heights = weights @ residuals.T / total
        squares = weights @ (residuals**2).T - heights**2 * total
        least.append(np.maximum(squares.min(axis=1), 1e-12))
    return len(t) * np.log(least[0] / least[1])


def block_weights(rows: int, random: np.random.Generator) -> np.ndarray:
    """Draw how often each row is in each moving-block resample, [resamples, rows]; first the data."""
    starts = random.integers(0, rows - BLOCK + 1, size=(RESAMPLES, -(-rows // BLOCK), 1))
    drawn = (starts + np.arange(BLOCK)).reshape(RESAMPLES, -1)[:, :rows]
    return np.vstack([np.ones(rows), *(np.bincount(row, minlength=rows) for row in drawn)])


def growth(steps: Sequence[float], distances: Sequence[float], warmup: float = 0.0) -> Growth | None:
    """Compare the two forms on the part after warm-up; None where a run cannot tell them apart."""
    t, d = np.asarray(steps, dtype=float), np.asarray(distances, dtype=float)
    keep = (t > max(warmup, 1)) & np.isfinite(d) & (d > 0)
    t, d = t[keep], d[keep]
    if len(t) < LEAST_ROWS or math.log10(t[-1] / t[0]) < LEAST_DECADES:
        return None
    found = gains(t, d, block_weights(len(t), np.random.default_rng(0)))
    for rest in (t >= later * t[0] for later in LATER):
        if rest.sum() >= LEAST_ROWS:
            anew = gains(t[rest], d[rest], np.ones((1, rest.sum())))
            if anew[0] * np.sign(found[0]) < -GAIN:
                return None  # a fit that begins later turns the answer around: the first steps run straight ahead
    gain = resampled_interval(found[0], found[1:])
    return Growth(gain.value, gain.low, gain.high)


@lru_cache(maxsize=4096)
def growth_of(o: Observation, from_step: float = 0.0) -> Growth | None:
    """Compare the forms of growth in one run at constant rate, from a step on."""
    curve, record = o.run.curve, o.run.record
    if DISTANCE not in curve or not constant_rate(record):
        return None
    return growth(curve["step"], curve[DISTANCE], max(record.rate.warmup_steps, from_step))
