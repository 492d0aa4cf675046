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
    """Return the noise scale where a run reached its target, between the evaluations around it; NaN if not measured.

    Infinite where it is undefined there: the noise hid the gradient. To leave such runs out would favour the low ones.
    """
    steps, noise = np.array(o.run.curve.get("step", [])), np.array(o.run.curve.get(NOISE, []), dtype=float)
    at = o.value("steps")
    known = np.isfinite(noise)
    if len(noise) < len(steps) or not known.any() or not steps[known][0] <= at < math.inf:  # no sample before the first
        return math.nan
    after = min(int(np.searchsorted(steps, at)), len(steps) - 1)
    around = slice(after if steps[after] == at else max(after - 1, 0), after + 1)
    if not known[around].all():
        return math.inf
    return float(np.interp(at, steps[around], noise[around]))


def noise_scale_of(curve: Curve) -> Interval:
    """Return the median noise scale at the target over the runs of all batch sizes, in examples."""
    return median_interval([v for o in curve.counted if (v := noise_at_hit(o)) > 0])


def curvature_batch_of(curve: Curve) -> Interval:
    """Return the median m* over the runs that reached the target: at their final weights, whatever the target."""
    reached = [o.run.final.get(CURVATURE, math.nan) for o in curve.counted if o.status == "reached"]
    return median_interval([v for v in reached if v > 0])


@dataclass(frozen=True)
class NotIdentifiable:
    """Why the forms of growth cannot be told apart in a run."""

    reason: str


@dataclass(frozen=True)
class Growth:
    """One run's comparison: AIC(power) - AIC(log) and the forms' parameters, with 95 % block-bootstrap intervals."""

    gain: float
    low: float
    high: float
    parameters: dict[str, Interval]  # of each form: a/b of a + b log t; p of c t^p; q of (log t)^q
    heights: dict[str, Interval]  # of each form: b; c; the factor of (log t)^q
    aic: dict[str, float]  # of each form, up to a common number


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


def fit_forms(t: np.ndarray, d: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Fit the forms to the log of distances d at steps t, by how often each row counts, [resamples, rows].

    By form: its AIC up to a common number (each has two parameters), its parameter and its height, [3, resamples].
    """
    found, total = {}, weights.sum(axis=1, keepdims=True)
    for name, (grid, shapes) in forms(t).items():
        residuals = np.log(d) - shapes
        heights = weights @ residuals.T / total
        squares = weights @ (residuals**2).T - heights**2 * total
        best = squares.argmin(axis=1)
        least, height = (np.take_along_axis(of_all, best[:, None], axis=1)[:, 0] for of_all in (squares, heights))
        found[name] = np.stack([len(t) * np.log(np.maximum(least, 1e-12) / len(t)), grid[best], np.exp(height)])
    return found


def block_weights(rows: int, random: np.random.Generator) -> np.ndarray:
    """Draw how often each row is in each moving-block resample, [resamples, rows]; first the data."""
    starts = random.integers(0, rows - BLOCK + 1, size=(RESAMPLES, -(-rows // BLOCK), 1))
    drawn = (starts + np.arange(BLOCK)).reshape(RESAMPLES, -1)[:, :rows]
    return np.vstack([np.ones(rows), *(np.bincount(row, minlength=rows) for row in drawn)])


def growth(steps: Sequence[float], distances: Sequence[float], warmup: float = 0.0) -> Growth | NotIdentifiable:
    """Compare the three forms on the part after warm-up, or return why that cannot be done.

    The first steps run straight ahead: where a fit that begins later turns the answer around, there is none.
    """
    t, d = np.asarray(steps, dtype=float), np.asarray(distances, dtype=float)
    keep = (t > max(warmup, 1)) & np.isfinite(d) & (d > 0)
    t, d = t[keep], d[keep]
    decades = math.log10(t[-1] / t[0]) if len(t) else 0.0
    if len(t) < LEAST_ROWS or decades < LEAST_DECADES:
        return NotIdentifiable(f"{decades:.1f} decades of steps after warm-up, {LEAST_DECADES:.0f} are needed")
    found = fit_forms(t, d, block_weights(len(t), np.random.default_rng(0)))
    gain = of_resamples(found["power"][0] - found["log"][0])
    for later in LATER:
        rest = t >= later * t[0]
        if rest.sum() < LEAST_ROWS:
            break
        anew = fit_forms(t[rest], d[rest], np.ones((1, rest.sum())))
        other = anew["power"][0, 0] - anew["log"][0, 0]
        if other * np.sign(gain.value) < -GAIN:
            each = (f"{aic:+.0f} from step {step:,.0f} on" for aic, step in ((gain.value, t[0]), (other, t[rest][0])))
            return NotIdentifiable(f"AIC(power) - AIC(log) is {', '.join(each)}")
    parameters, heights = ({name: of_resamples(form[i]) for name, form in found.items()} for i in (1, 2))
    aic = {name: float(form[0, 0]) for name, form in found.items()}
    return Growth(gain.value, gain.low, gain.high, parameters, heights, aic)


def of_resamples(values: np.ndarray) -> Interval:
    """Return the interval of what is the estimate first and its resamples after it."""
    return resampled_interval(values[0], values[1:])


@lru_cache(maxsize=4096)
def growth_of(o: Observation, from_step: float = 0.0) -> Growth | NotIdentifiable:
    """Compare the forms of growth in one run, from a step on."""
    curve = o.run.curve
    if DISTANCE not in curve or not constant_rate(o.run.record):
        return NotIdentifiable("no distances at constant rate")
    return growth(curve["step"], curve[DISTANCE], max(o.run.record.rate.warmup_steps, from_step))
