"""The critical batch size of a curve: B2, the hyperbola beside it, and whether it is identified.

Protocol rules 16-19. One rule is changed here: B2's interval takes K - 3 instead of K - 2 degrees of
freedom, since the family it is profiled over has three parameters (tests/test_report_coverage.py).
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.report import fits, shapes
from tasks.report.curves import Curve
from tasks.report.fit_data import PRIMARY, FitData, View, fit_data
from tasks.report.intervals import NOTHING, Interval
from tasks.report.resampling import Resampled, resample, target_spread, with_target

LEAST_STEPS = 20  # at the largest batch, below which steps are too coarse a measure
LEAST_SIZES = 5
CANDIDATES_AGREE = 1.5
WORTH_DOUBLING = 0.2


@dataclass(frozen=True)
class Candidate:
    """A form of curve with its leave-one-size-out error (root mean square of log S) and its B2."""

    name: str
    error: float
    standard_error: float  # of the mean square
    b2: float


@dataclass(frozen=True)
class Critical:
    """What a curve says about batch size; intervals are infinite where the data do not bound them."""

    data: FitData
    b2: Interval
    identified: bool
    why_not: list[str]
    linear_end: Interval = NOTHING  # largest B with E <= 1.25 min E
    useful_end: Interval = NOTHING  # largest B whose doubling still saves 20 % of the steps
    hyperbola: Interval = NOTHING
    hyperbola_lack_of_fit: float = math.nan
    candidates: list[Candidate] = field(default_factory=list)
    chosen: str = ""
    doublings: list[tuple[int, Interval]] = field(default_factory=list)  # (B, share of steps saved by 2 B)
    tau: float = math.nan
    largest_residual: float = math.nan
    sensitivity: dict[str, float] = field(default_factory=dict)
    fit: fits.Fit | None = None
    resampled: Resampled | None = None

    @property
    def bound(self) -> str:
        """Say what is known of B2 where it is not identified."""
        low, high = self.b2.low, self.b2.high
        if math.isfinite(high) and high < self.data.sizes[-1]:
            return f"between {low:,.0f} and {high:,.0f}" if low > self.data.sizes[0] else f"below {high:,.0f}"
        if math.isfinite(low) and low > self.data.sizes[0]:
            return f"above {low:,.0f}"
        return "not bounded"


def b2_of(data: FitData, factor: float = 2.0) -> float:
    """Estimate the largest B with E <= factor x min E from the convex fit, which assumes no form."""
    return fits.size_at(data.sizes, fits.convex_steps(data.sizes, data.log_steps), factor)


def size_interval(data: FitData, fitted: fits.Fit | None, factor: float) -> Interval:
    """Give the largest B with E <= factor x min E, infinite past the largest size studied."""
    value = b2_of(data, factor)
    if fitted is None:
        return Interval(value, float(data.sizes[0]), math.inf)
    found = fitted.interval(fitted.family.size_at(factor, float(data.sizes[0])))
    last = float(data.sizes[-1])
    # the estimate assumes no form, the family does: the interval holds as well what the family's would be around it
    moved = value / found.value if math.isfinite(value) and math.isfinite(found.value) else 1.0
    low, high = min(found.low, moved * found.low), max(found.high, moved * found.high)
    high = math.inf if high > last else max(high, value)
    return Interval(value, min(low, value, last), high, fitted.dof)


def candidates_of(data: FitData) -> list[Candidate]:
    """Compare the candidate forms by leave-one-size-out error, simplest first."""
    x, y = data.sizes, data.log_steps
    slope = -np.polyfit(np.log(x), y, 1)[0]
    power_b2 = x[0] * 2 ** (1 / (1 - slope)) if slope < 1 else math.inf
    rows = [("power law", fits.predictions_of_line(x, y), power_b2)]
    for make in (shapes.hyperbola, shapes.softened, shapes.pieces):
        family = make(tuple(x))
        centred, norms = family.centred
        best = (norms - 2 * centred @ (y - y.mean())).argmin()
        rows.append((family.name, fits.predictions(family, y), family.size_at(2.0, x[0])[best]))
    rows.append(("isotonic", fits.predictions_of_isotonic(x, y), fits.size_at(x, fits.isotonic_steps(y), 2.0)))
    found = []
    for name, predicted, b2 in rows:
        squares = (predicted - y) ** 2
        error = float(np.sqrt(squares.mean()))
        found.append(Candidate(name, error, float(squares.std(ddof=1) / math.sqrt(len(x))), float(b2)))
    return found


def choose(candidates: list[Candidate]) -> tuple[Candidate, list[Candidate]]:
    """Choose the simplest form within one standard error of the best; give also all that are within it."""
    best = min(candidates, key=lambda c: c.error)
    near = [c for c in candidates if c.error**2 <= best.error**2 + best.standard_error]
    return near[0], near


def reasons_not_identified(
    curve: Curve, data: FitData, b2: Interval, fitted: fits.Fit | None, near: list[Candidate]
) -> list[str]:
    """List what stands between the estimate and a critical batch size (rule 18); empty if nothing does."""
    reasons = []
    if not curve.tuned:
        reasons.append("the rate was not tuned at each batch size, so this is the saturation batch of a rule")
    if len(data.sizes) < LEAST_SIZES:
        return [*reasons, f"{len(data.sizes)} batch sizes fitted, at least {LEAST_SIZES} are needed"]
    untuned = [p.batch_size for p in curve.points if p.untuned and p.batch_size not in data.left_out]
    if curve.tuned and untuned:
        reasons.append(f"best rate at the edge of those tried at batch {', '.join(map(str, untuned))}")
    if math.exp(data.log_steps[-1]) < LEAST_STEPS:
        reasons.append(f"too short: fewer than {LEAST_STEPS} steps at the largest batch")
    if not math.isfinite(b2.high):
        reasons.append("its interval reaches beyond the largest batch studied")
    if fitted is None:
        return reasons
    low_end = fitted.interval(fitted.family.slope(data.sizes[0]))
    high_end = fitted.interval(fitted.family.slope(data.sizes[-1]))
    if low_end.low <= 0.8:
        reasons.append(f"scaling at the smallest batch may be less than perfect (slope ≥ {low_end.low:.2f})")
    if high_end.high >= 0.3:
        reasons.append(f"the largest batch may still pay (slope ≤ {high_end.high:.2f})")
    b2s = [c.b2 for c in near if not math.isnan(c.b2)]
    if max(b2s) > CANDIDATES_AGREE * min(b2s):
        reasons.append(f"forms of curve that fit as well differ: B2 from {min(b2s):,.0f} to {max(b2s):,.0f}")
    return reasons


def hyperbola_of(data: FitData) -> tuple[Interval, float]:
    """Fit the two-parameter hyperbola; give B_crit and the p-value of its lack of fit."""
    fitted = fits.fit(shapes.hyperbola(tuple(data.sizes)), data.log_steps, data.within, data.runs)
    if fitted is None:
        return NOTHING, math.nan
    values = fitted.family.critical
    found = fitted.interval(values)
    low = 0.0 if found.low <= values[0] else found.low
    high = math.inf if found.high >= values[-1] else found.high
    return replace(found, low=low, high=high), fits.lack_of_fit(fitted)


def doublings_of(data: FitData, fitted: fits.Fit) -> list[tuple[int, Interval]]:
    """Give the share of the steps that each doubling inside the studied range saves."""
    found = []
    for size in data.sizes[2 * data.sizes <= data.sizes[-1] * 1.001]:
        at = fitted.family.log_steps(np.array([size, 2 * size]))
        found.append((round(size), fitted.interval(1 - np.exp(at[:, 1] - at[:, 0]))))
    return found


def useful_end(data: FitData, fitted: fits.Fit) -> Interval:
    """Give the largest B whose doubling still saves 20 % of the steps, infinite past the largest size."""
    if not isinstance(fitted.family, shapes.Hyperbolas):
        return NOTHING
    found = fitted.interval(fitted.family.size_whose_doubling_saves(WORTH_DOUBLING))
    return found.mapped(lambda v: math.inf if v > data.sizes[-1] else v)


def sensitivity_of(data: FitData) -> dict[str, float]:
    """Give B2 without the smallest and without the largest size."""
    ends = {"without the smallest size": 0, "without the largest size": -1}
    return {name: b2_of(data.without(i)) for name, i in ends.items()}


def family_of(data: FitData, view: View):
    """Make the family of the view."""
    make = {"softened": shapes.softened, "pieces": shapes.pieces, "hyperbola": shapes.hyperbola}
    return make[view.family](tuple(data.sizes))


def critical(curve: Curve, view: View = PRIMARY, full: bool = True) -> Critical | None:
    """Work out what a curve says, or only B2 and B_lin without `full`; None with fewer than two sizes."""
    data = fit_data(curve, view)
    if len(data.sizes) < 2:
        return None
    fitted = fits.fit(family_of(data, view), data.log_steps, data.within, data.runs)
    b2 = with_target(size_interval(data, fitted, 2.0), target_spread(curve), float(data.sizes[-1]))
    found = Critical(data, b2, False, [], size_interval(data, fitted, 1.25), fit=fitted)
    if not full:
        return found
    if fitted is None:
        return replace(found, why_not=reasons_not_identified(curve, data, b2, fitted, []))
    candidates = candidates_of(data)
    chosen, near = choose(candidates)
    why_not = reasons_not_identified(curve, data, b2, fitted, near)
    hyperbola, p = hyperbola_of(data)
    return replace(
        found,
        identified=not why_not,
        why_not=why_not,
        useful_end=useful_end(data, fitted),
        hyperbola=hyperbola,
        hyperbola_lack_of_fit=p,
        candidates=candidates,
        chosen=chosen.name,
        doublings=doublings_of(data, fitted),
        tau=math.sqrt(max(fitted.variance - data.within, 0)),
        largest_residual=float(np.abs(fitted.residuals).max()),
        sensitivity=sensitivity_of(data),
        resampled=resample(curve),
    )
