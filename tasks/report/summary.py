"""summary.json: the report for machines (contract 6)."""

import math

from tasks.report.critical import Critical
from tasks.report.curves import Curve, Point, Workload
from tasks.report.intervals import Interval
from tasks.report.predicted import curvature_batch_of, noise_scale_of
from tasks.report.resampling import Resampled
from tasks.report.verdicts.claims import CLAIMS, claim_summary
from tasks.report.verdicts.decide import Verdict

Analysis = list[tuple[Workload, list[tuple[Curve, Critical | None]]]]


def plain_number(value):
    """Make a number JSON can hold: infinity and NaN become the record's strings, throughout."""
    if isinstance(value, dict):
        return {key: plain_number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_number(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def interval_summary(interval: Interval, name: str = "estimate") -> dict:
    """Give an interval's three numbers."""
    return {name: interval.value, "low": interval.low, "high": interval.high}


def point_summary(point: Point) -> dict:
    """Give one point."""
    summary = {"batch_size": point.batch_size, "n": point.n}
    for name, status in (("reached", "reached"), ("censored", "budget"), ("diverged", "diverged")):
        summary[name] = point.count(status)
    for unit in ("steps", "examples", "seconds"):
        summary[unit] = interval_summary(point.interval(unit), "median")
    summary["untuned"] = point.untuned
    return summary


def critical_summary(found: Critical) -> dict:
    """Give B2, and the hyperbola's B_crit beside it."""
    hyperbola = interval_summary(found.hyperbola) | {
        "identified": found.identified and math.isfinite(found.hyperbola.high),
        "lack_of_fit_p": found.hyperbola_lack_of_fit,
    }
    return {
        "identified": found.identified,
        "why_not": found.why_not,
        "bound": found.bound,
        **interval_summary(found.b2),
        "method": "largest B with E(B) <= 2 min E: convex fit, profile interval",
        "hyperbola": hyperbola,
        "linear_end": interval_summary(found.linear_end),
        "useful_end": interval_summary(found.useful_end),
    }


def resampled_summary(again: Resampled) -> dict:
    """Give what the choice of settings, or a target that is an outcome, adds."""
    scatters = {"scatter": again.scatter, "scatter_choice_held": again.held_scatter, "changed": again.changed}
    return {"b2": interval_summary(again.b2), "b2_choice_held": interval_summary(again.held), **scatters}


def predicted_summary(curve: Curve) -> dict:
    """Give the batch sizes that gradient noise and curvature predict, in examples."""
    return {
        "noise_scale": interval_summary(noise_scale_of(curve)),
        "curvature": interval_summary(curvature_batch_of(curve)),
    }


def fit_summary(found: Critical) -> dict:
    """Give the forms compared and how far the points lie from the curve."""
    return {
        "chosen": found.chosen,
        "candidates": [{"name": c.name, "error": c.error, "b2": c.b2} for c in found.candidates],
        "tau": found.tau,
        "largest_residual": found.largest_residual,
        "left_out": {str(size): reason for size, reason in found.data.left_out.items()},
        "sensitivity": found.sensitivity,
    }


def doubling_summary(size: int, saves: Interval) -> dict:
    """Give what going from B to 2 B saves in steps and costs in examples, in per cent."""
    costs = Interval(*(100 * (2 * (1 - s) - 1) for s in (saves.value, saves.high, saves.low)))
    return {
        "batch_size": size,
        "saves_percent": interval_summary(saves.mapped(lambda s: 100 * s), "value"),
        "costs_percent": interval_summary(costs, "value"),
    }


def curve_summary(workload: Workload, curve: Curve, found: Critical | None) -> dict:
    """Give one curve of one workload."""
    summary = {
        "name": workload.name,
        "curve": curve.name,
        "target": workload.target,
        "tuned": curve.tuned,
        "points": [point_summary(p) for p in curve.points],
    }
    if found is not None:
        summary["critical_batch_size"] = critical_summary(found)
        summary["next_doubling"] = [doubling_summary(size, saves) for size, saves in found.doublings]
        summary["fit"] = fit_summary(found)
        summary["predicted"] = predicted_summary(curve)
        if found.resampled:
            summary["resampled"] = resampled_summary(found.resampled)
    return summary


def summary(analysis: Analysis, verdicts: dict[str, Verdict], left_out: list[tuple[str, str]]) -> dict:
    """Give the whole report."""
    workloads = [curve_summary(w, c, found) for w, curves in analysis for c, found in curves]
    return plain_number(
        {
            "version": 1,
            "workloads": workloads,
            "claims": [claim_summary(claim, verdicts[claim.id]) for claim in CLAIMS],
            "left_out": [{"path": path, "reason": reason} for path, reason in left_out],
        }
    )
