"""The critical batch size that gradients or curvature predict, to stand beside the measured one."""

import math

import numpy as np

from tasks.report.curves import Curve, Observation
from tasks.report.intervals import Interval, median_interval

NOISE = "noise_scale/simple"  # tr(Sigma) / |G|^2 in examples (McCandlish et al. 2018), a column of the curve
CURVATURE = "sharpness/predicted_batch"  # beta / lambda + 1 (Ma, Bassily and Belkin 2018), in `final`


def noise_at_hit(o: Observation) -> float:
    """Give the noise scale where a run reached its target, between the evaluations; NaN if not known."""
    steps, noise = o.run.curve.get("step", []), o.run.curve.get(NOISE, [])
    known = [(s, v) for s, v in zip(steps, noise, strict=False) if math.isfinite(v)]
    at = o.value("steps")
    return float(np.interp(at, *np.array(known).T)) if known and math.isfinite(at) else math.nan


def over_runs(values: list[float]) -> Interval:
    """Give the median over runs of what is known and positive."""
    return median_interval([(v, v) for v in values if 0 < v < math.inf])


def noise_scale_of(curve: Curve) -> Interval:
    """Give the median noise scale at the target over the runs of all batch sizes, in examples."""
    return over_runs([noise_at_hit(o) for p in curve.points for o in p.counted])


def curvature_batch_of(curve: Curve) -> Interval:
    """Give the median m* over the runs that reached the target: at their final weights, whatever the target."""
    runs = [o.run for p in curve.points for o in p.counted if o.status == "reached"]
    return over_runs([run.final.get(CURVATURE, math.nan) for run in runs])
