"""One value a batch size, and up to where a batch costs so many times the fewest examples (rules 16 to 19)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from callbacks.record import Rule
from tasks.report.analysis import fits
from tasks.report.analysis.curves import ARRIVAL, Curve, Observation, Point
from tasks.report.analysis.intervals import NOTHING, Interval, middle_log
from tasks.report.analysis.measures import curvature_batch_of, noise_scale_of

SHARE_OF_DATA = 4  # batches above a quarter of the data have visibly less gradient noise
LEAST_STEPS = 20  # at the largest batch, below which steps are too coarse a measure
LEAST_SIZES, LEAST_SEEDS = 5, 5
CANDIDATES_AGREE = 1.5
WORTH_DOUBLING = 0.2
FACTORS = (1.2, 1.25, 2.0)  # of the fewest examples
Predictor = Callable[[np.ndarray, np.ndarray, float], float]  # of log S at a log size, from log sizes and log S


@dataclass(frozen=True)
class FitData:
    """One value per batch size, ready to be fitted, and what was not fitted and why."""

    sizes: np.ndarray
    log_steps: np.ndarray
    within: float  # variance of a point that the seeds explain
    runs: int
    left_out: dict[int, str] = field(default_factory=dict)


def reason_to_leave_out(point: Point, values: list[float]) -> str | None:
    """Return why a point cannot be fitted, if so."""
    n = point.observations[0].run.record.data.train_examples
    arrived = sum(math.isfinite(v) for v in values)
    if not values or any(math.isnan(v) or v <= 0 for v in values):
        return "no run with a result"
    if arrived < ARRIVAL * len(values):
        return f"only {arrived} of {len(values)} runs arrived"
    return f"more than 1/{SHARE_OF_DATA} of the {n:,} examples" if n and point.batch_size > n / SHARE_OF_DATA else None


def quantization(runs: list[Observation], rule: Rule) -> float:
    """Return the squares of log S that equal steps hide: of a uniform as wide as the source could tell them apart."""
    arrived = [o for o in runs if 0 < o.value("steps", rule) < math.inf]
    if len({o.value("steps", rule) for o in arrived}) == len(arrived):
        return 0.0
    return sum(math.log(o.hit.resolution) ** 2 / 12 for o in arrived)


def fit_data(curve: Curve, rule: Rule = "hit") -> FitData:
    """Return a curve as one value of log S per batch size: the mean, or the median where runs did not arrive."""
    sizes, log_steps, shares, squares, dof, runs, left_out = [], [], [], 0.0, 0, 0, {}
    for point in curve.points:
        seen = point.counted
        values = [o.value("steps", rule) for o in seen]
        reason = reason_to_leave_out(point, values)
        if reason:
            left_out[point.batch_size] = reason
            continue
        finite = np.log([v for v in values if math.isfinite(v)])
        squares += float(((finite - finite.mean()) ** 2).sum()) + quantization(seen, rule)
        dof += len(finite) - 1
        runs += len(values)
        record, size = seen[0].run.record, point.batch_size
        n = record.data.train_examples if record.batch.epoch_end == "keep" else None
        sizes.append(n / math.ceil(n / size) if n else float(size))  # of a ragged epoch, the mean
        log_steps.append(middle_log(np.array(values)))
        lost = len(finite) < len(values)  # then it is a median, whose variance is so much larger
        shares.append((math.pi / 2 if lost and len(values) > 2 else 1) / len(values))
    within = squares / dof * float(np.mean(shares)) if dof else 0.0
    return FitData(np.array(sizes), np.array(log_steps), within, runs, left_out)


@dataclass(frozen=True)
class Candidate:
    """A form of curve with its leave-one-size-out error (root mean square of log S) and its B2."""

    name: str
    error: float
    standard_error: float  # of the mean square
    b2: float


@dataclass(frozen=True)
class Doubling:
    """What going from one batch size to twice as much saves and costs, in per cent."""

    size: int
    saves: Interval  # of the steps
    costs: Interval  # more examples


@dataclass(frozen=True)
class Fitted:
    """The fitted curve; intervals are infinite where the data do not bound them."""

    data: FitData
    fit: fits.Fit | None  # None with too few sizes
    ends: dict[float, Interval]  # by factor: the largest B with E(B) <= factor x min E

    @property
    def b2(self) -> Interval:
        """Return the largest batch that needs at most twice the examples of the cheapest."""
        return self.ends[2.0]


@dataclass(frozen=True)
class Critical(Fitted):
    """What a curve says about batch size."""

    why_not: list[str]  # what stands between the estimate and a critical batch size
    noise: Interval  # the noise scale at the target
    curvature: Interval  # m*, the batch that curvature predicts
    useful_end: Interval = NOTHING  # largest B whose doubling saves 20 % of the steps; infinite past, 0 below the range
    hyperbola: Interval = NOTHING
    candidates: list[Candidate] = field(default_factory=list)
    chosen: str = ""
    doublings: list[Doubling] = field(default_factory=list)

    @property
    def identified(self) -> bool:
        """Return whether this is a critical batch size."""
        return not self.why_not

    @property
    def tau(self) -> float:
        """Return the scatter of log S between batch sizes, beyond that of the seeds."""
        return math.sqrt(max(self.fit.variance - self.data.within, 0)) if self.fit else math.nan


def size_interval(data: FitData, fitted: fits.Fit | None, factor: float) -> Interval:
    """Return the largest B with E <= factor x min E, infinite past the largest size studied."""
    value = fits.size_at(data.sizes, fits.convex_steps(data.sizes, data.log_steps), factor)
    first, last = float(data.sizes[0]), float(data.sizes[-1])
    if fitted is None:
        return Interval(value, first, math.inf)
    found = fitted.interval(fitted.family.size_at(factor, first))
    # the estimate assumes no form, the family does: the interval holds as well what the family's would be around it
    moved = value / found.value if math.isfinite(value) and math.isfinite(found.value) else 1.0
    low, high = min(found.low, moved * found.low), max(found.high, moved * found.high)
    return Interval(value, min(low, value, last), math.inf if high > last else max(high, value))


@lru_cache(maxsize=4096)  # claims look at the same curves as the analysis
def fit_curve(curve: Curve, rule: Rule = "hit") -> Fitted | None:
    """Fit a curve and read its ends off it; None with fewer than two sizes."""
    data = fit_data(curve, rule)
    if len(data.sizes) < 2:
        return None
    fitted = fits.fit(fits.softened(tuple(data.sizes)), data.log_steps, data.within, data.runs)
    return Fitted(data, fitted, {factor: size_interval(data, fitted, factor) for factor in FACTORS})


def critical(curve: Curve) -> Critical | None:
    """Work out what a curve says; None with fewer than two sizes."""
    seen = fit_curve(curve)
    if seen is None:
        return None
    data, predicted = seen.data, (noise_scale_of(curve), curvature_batch_of(curve))
    hyperbola = fits.fit(fits.hyperbola(tuple(data.sizes)), data.log_steps, data.within, data.runs)
    if seen.fit is None or hyperbola is None:
        return Critical(data, seen.fit, seen.ends, reasons_not_identified(curve, seen, []), *predicted)
    candidates = candidates_of(data, (hyperbola, seen.fit))
    best = min(candidates, key=lambda c: c.error)
    near = [c for c in candidates if c.error**2 <= best.error**2 + best.standard_error]
    useful_end = seen.fit.interval(seen.fit.family.size_whose_doubling_saves(WORTH_DOUBLING))
    first, last = data.sizes[0], data.sizes[-1]
    return Critical(
        *(data, seen.fit, seen.ends, reasons_not_identified(curve, seen, near), *predicted),
        useful_end=useful_end.mapped(lambda size: math.inf if size > last else 0.0 if size < first else size),
        hyperbola=bend_of(hyperbola),
        candidates=candidates,
        chosen=near[0].name,  # the simplest
        doublings=doublings_of(data, seen.fit),
    )


def bend_of(hyperbola: fits.Fit) -> Interval:
    """Return B_crit, its interval open where it reaches the end of the grid."""
    values = hyperbola.family.critical
    found = hyperbola.interval(values)
    low = 0.0 if found.low <= values[0] else found.low
    return replace(found, low=low, high=math.inf if found.high >= values[-1] else found.high)


def doublings_of(data: FitData, fitted: fits.Fit) -> list[Doubling]:
    """Return what each doubling inside the studied range saves and costs."""
    found = []
    for size in data.sizes[2 * data.sizes <= data.sizes[-1] * 1.001]:
        at = fitted.family.log_steps(np.array([size, 2 * size]))
        left = np.exp(at[:, 1] - at[:, 0])  # of the steps
        found.append(Doubling(round(size), *(fitted.interval(100 * share) for share in (1 - left, 2 * left - 1))))
    return found


def candidates_of(data: FitData, fitted: tuple[fits.Fit, ...]) -> list[Candidate]:
    """Compare the candidate forms by leave-one-size-out error, simplest first."""
    x, y = np.log(data.sizes), data.log_steps
    stairs_b2 = fits.size_at(data.sizes, fits.isotonic_steps(y), 2.0)
    slope = -np.polyfit(x, y, 1)[0]
    power_b2 = data.sizes[0] * 2 ** (1 / (1 - slope)) if slope < 1 else math.inf
    rows: list[tuple[str, float, Predictor]] = [
        ("power law", power_b2, lambda x, y, at: float(np.polyval(np.polyfit(x, y, 1), at))),
        *((f.family.name, f.family.size_at(2.0, data.sizes[0])[f.best], f.family.predict) for f in fitted),
        ("isotonic", stairs_b2, lambda x, y, at: np.interp(at, x, fits.isotonic_steps(y))),
    ]
    found = []
    for name, b2, predict in rows:
        predicted = [predict(x[keep], y[keep], x[i]) for i, keep in enumerate(~np.eye(len(x), dtype=bool))]
        squares = (np.array(predicted) - y) ** 2
        spread = float(squares.std(ddof=1) / math.sqrt(len(x)))
        found.append(Candidate(name, float(np.sqrt(squares.mean())), spread, float(b2)))
    return found


def reasons_not_identified(curve: Curve, seen: Fitted, near: list[Candidate]) -> list[str]:
    """List what stands between the estimate and a critical batch size (rule 18); empty if nothing does."""
    data = seen.data
    reasons: list[str] = []
    if not curve.tuned:
        reasons.append("the rate was not tuned at each batch size, so this is the saturation batch of a rule")
    if len(data.sizes) < LEAST_SIZES:
        return [*reasons, f"{len(data.sizes)} batch sizes fitted, at least {LEAST_SIZES} are needed"]
    untuned = [p.batch_size for p in curve.points if p.untuned and p.batch_size not in data.left_out]
    if curve.tuned and untuned:
        reasons.append(f"best rate at the edge of those tried at batch {', '.join(map(str, untuned))}")
    if math.exp(data.log_steps[-1]) < LEAST_STEPS and not curve.runs[0].hit.nominal:
        reasons.append(f"too short: fewer than {LEAST_STEPS} steps at the largest batch")
    if not math.isfinite(seen.b2.high):
        reasons.append("its interval reaches beyond the largest batch studied")
    return reasons if seen.fit is None else reasons + reasons_of_shape(seen.fit, near)


def reasons_of_shape(fitted: fits.Fit, near: list[Candidate]) -> list[str]:
    """List what in the curve's shape leaves its bend open: its slope at either end, and forms that fit as well."""
    reasons: list[str] = []
    low_end, high_end = (fitted.interval(fitted.family.slope(fitted.family.sizes[i])) for i in (0, -1))
    if low_end.low <= 0.8:
        reasons.append(f"scaling at the smallest batch may be less than perfect (slope ≥ {low_end.low:.2f})")
    if high_end.high >= 0.3:
        reasons.append(f"the largest batch may still pay (slope ≤ {high_end.high:.2f})")
    b2s = [c.b2 for c in near if not math.isnan(c.b2)]
    if max(b2s) > CANDIDATES_AGREE * min(b2s):
        reasons.append(f"forms of curve that fit as well differ: B2 from {min(b2s):,.0f} to {max(b2s):,.0f}")
    return reasons
