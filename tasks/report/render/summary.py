"""summary.json: the report for machines (contract 6)."""

import math

from tasks.report.analysis.answer import Analysis, Answer
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import Curve, Point, Workload
from tasks.report.analysis.intervals import NOTHING, Interval
from tasks.report.analysis.points import Resampled
from tasks.report.claims.rules import Part, Verdict
from tasks.report.claims.table import Claim


def plain_number(value):
    """Return what JSON can hold: infinity and NaN become the record's strings, throughout."""
    if isinstance(value, dict):
        return {key: plain_number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_number(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def interval_summary(interval: Interval, name: str = "estimate") -> dict:
    """Return an interval's three numbers."""
    return {name: interval.value, "low": interval.low, "high": interval.high}


def point_summary(point: Point) -> dict:
    """Return one point."""
    summary = {"batch_size": point.batch_size, "n": point.n}
    for name, status in (("reached", "reached"), ("censored", "budget"), ("diverged", "diverged")):
        summary[name] = point.count(status)
    for unit in ("steps", "examples", "seconds"):
        summary[unit] = interval_summary(point.interval(unit), "median")
    summary["untuned"] = point.untuned
    return summary


def critical_summary(found: Critical) -> dict:
    """Return B2, and the hyperbola's B_crit beside it."""
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
        "ends": {str(factor): interval_summary(end) for factor, end in found.ends.items()},
        "useful_end": interval_summary(found.useful_end),
    }


def resampled_summary(again: Resampled) -> dict:
    """Return what the choice of settings, or a target that is an outcome, adds."""
    scatters = {"scatter": again.scatter, "scatter_choice_held": again.held_scatter, "changed": again.changed}
    return {"b2": interval_summary(again.b2), "b2_choice_held": interval_summary(again.held), **scatters}


def fit_summary(found: Critical) -> dict:
    """Return the forms compared and how far the points lie from the curve."""
    return {
        "chosen": found.chosen,
        "candidates": [{"name": c.name, "error": c.error, "b2": c.b2} for c in found.candidates],
        "tau": found.tau,
        "largest_residual": found.largest_residual,
        "left_out": {str(size): reason for size, reason in found.data.left_out.items()},
        "sensitivity": found.sensitivity,
    }


def doubling_summary(size: int, saves: Interval) -> dict:
    """Return what going from B to 2 B saves in steps and costs in examples, in per cent."""
    costs = Interval(*(100 * (2 * (1 - s) - 1) for s in (saves.value, saves.high, saves.low)))
    return {
        "batch_size": size,
        "saves_percent": interval_summary(saves.mapped(lambda s: 100 * s), "value"),
        "costs_percent": interval_summary(costs, "value"),
    }


def curve_summary(workload: Workload, curve: Curve, found: Critical | None) -> dict:
    """Return one curve of one workload."""
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
        predicted = {"noise_scale": found.noise, "curvature": found.curvature}
        summary["predicted"] = {name: interval_summary(i) for name, i in predicted.items()}
        if found.resampled:
            summary["resampled"] = resampled_summary(found.resampled)
    return summary


def part_summary(part: Part) -> dict:
    """Return one measured part of a claim."""
    return {"what": part.what, **interval_summary(part.interval, "effect"), "verdict": part.verdict} | {
        "above": part.above,
        "below": part.below,
    }


def claim_summary(claim: Claim, found: Verdict) -> dict:
    """Return one claim with its verdict; effect, low and high are those of its first part."""
    seen = found.evidence
    parts = [part_summary(p) for p in seen.parts] if seen else []
    effect = parts[0] if parts else interval_summary(NOTHING, "effect")
    return {
        **{"id": claim.id, "paper": claim.paper, "statement": claim.statement},
        **{"verdict": found.verdict, "reason": found.reason},
        **{name: effect[name] for name in ("effect", "low", "high")},
        **{"n": seen.n if seen else 0, "scale": seen.scale if seen else "", "rerun": claim.rerun},
        "parts": parts,
        "robustness": [{"row": row, "verdict": verdict} for row, verdict in found.rows],
    }


def summary(analysis: Analysis, given: list[Answer], claims: list[dict]) -> dict:
    """Return the whole report."""
    workloads = [curve_summary(w, c, found) for w in analysis.workloads for c, found in analysis.pairs(w)]
    answers = [
        {"workload": a.workload.name, "answer": a.text, "confident": a.confident, "because": a.because} for a in given
    ]
    left_out = [{"path": path, "reason": reason} for path, reason in analysis.left_out]
    return plain_number(
        {"version": 2, "answers": answers, "workloads": workloads, "claims": claims, "left_out": left_out}
    )
