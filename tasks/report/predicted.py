"""The critical batch size that gradients or curvature predict, to stand beside the measured one."""

import math

import numpy as np

from tasks.report.curves import Curve, Observation
from tasks.report.intervals import Interval, median_interval

NOISE = "noise_scale/simple"  # tr(Sigma) / |G|^2 in examples (McCandlish et al. 2018), a column of the curve
CURVATURE = "sharpness/predicted_batch"  # beta / lambda + 1 (Ma, Bassily and Belkin 2018), in `final`


def noise_at_hit(o: Observation) -> float:
    """Give the noise scale where a run reached its target, between the evaluations around it; NaN if not measured.

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


def over_runs(values: list[float]) -> Interval:
    """Give the median over runs of what is positive."""
    return median_interval([(v, v) for v in values if v > 0])


def noise_scale_of(curve: Curve) -> Interval:
    """Give the median noise scale at the target over the runs of all batch sizes, in examples."""
    return over_runs([noise_at_hit(o) for p in curve.points for o in p.counted])


def curvature_batch_of(curve: Curve) -> Interval:
    """Give the median m* over the runs that reached the target: at their final weights, whatever the target."""
    runs = [o.run for p in curve.points for o in p.counted if o.status == "reached"]
    return over_runs([run.final.get(CURVATURE, math.nan) for run in runs])
