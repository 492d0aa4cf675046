"""Targets chosen again from the curves, without training again."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from callbacks.hit import crossing_at, hits
from tasks.report.analysis.curves import experiment, group
from tasks.report.analysis.intervals import DRAWS
from tasks.report.sources.runs import Hit, Redraw, Run

QUARTILE = 0.25
HELP = "give METRIC>=VALUE, METRIC<=VALUE, METRIC:golmant, METRIC:quantile=Q or METRIC:baseline=SHARE"
Goal = tuple[float, set[int], Redraw | None]  # a target's value, the ids of runs it does not score, and its draws


@dataclass(frozen=True)
class TargetSpec:
    """A target to be looked for: absolute, or worked out for each workload from its own runs."""

    metric: str
    direction: Literal["min", "max"]
    kind: str  # value, golmant, quantile, baseline
    number: float = math.nan


def parse(text: str) -> TargetSpec:
    """Read a target from the command line. Raises ValueError with the forms there are."""
    absolute = re.fullmatch(r"([\w/.-]+?)(>=|<=)([-+\w.]+)", text)
    relative = re.fullmatch(r"([\w/.-]+):(golmant|quantile=([\w.]+)|baseline=([\w.]+))", text)
    try:
        if absolute:
            metric, sign, value = absolute.groups()
            return TargetSpec(metric, "max" if sign == ">=" else "min", "value", float(value))
        if relative:
            metric, (kind, _, value) = relative[1], relative[2].partition("=")
            number = float(value or 1)
            if 0 < number <= 1:
                falls = re.search(r"loss|perplexity|error", metric)
                return TargetSpec(metric, "min" if falls else "max", kind, number)
    except ValueError:
        pass
    raise ValueError(f"target {text!r} is not understood; {HELP}.")


def bests(runs: list[Run], spec: TargetSpec) -> list[float]:
    """Return the best values that runs reach, of those that have one."""
    known = [[v for v in run.curve.get(spec.metric, []) if math.isfinite(v)] for run in runs]
    return [min(values) if spec.direction == "min" else max(values) for values in known if values]


def quartile(run: Run, spec: TargetSpec) -> float:
    """Return the value that a quarter of a run's iterations were better than.

    Evaluations lie at geometric steps, so each stands for the steps since the one before.
    """
    step, value = (np.array(run.curve.get(name, []), dtype=float) for name in ("step", spec.metric))
    if len(step) < 2 or len(step) != len(value):
        return math.nan
    weight, value = np.diff(step), value[1:]
    keep = np.isfinite(value)
    order = np.argsort(value[keep] if spec.direction == "min" else -value[keep])
    share = weight[keep][order].cumsum() / weight[keep].sum()
    return float(value[keep][order][np.searchsorted(share, QUARTILE)])


def golmant_goal(runs: list[Run], spec: TargetSpec) -> Goal:
    """Return Golmant's target, the lowest quartile of the largest batch's values.

    It is an outcome, so the seeds of the largest batch that it came from give no steps of their own where there are
    others; and it is taken again from as many seeds drawn with replacement among all of them.
    """
    largest = max(run.batch_size for run in runs)
    there = group((r for r in runs if r.batch_size == largest), lambda r: r.record.seed)
    values = {seed: [v for v in (quartile(r, spec) for r in there[seed]) if math.isfinite(v)] for seed in sorted(there)}
    seeds = list(values)
    first = seeds[: max(1, len(seeds) // 2)]

    def goal(drawn: Sequence[int]) -> float:
        found = [v for seed in drawn for v in values[seed]]
        return float(np.median(found)) if found else math.nan

    if len(seeds) == 1:
        return goal(first), set(), None
    drawn = [[seeds[i] for i in row] for row in np.random.default_rng(0).integers(len(seeds), size=(DRAWS, len(first)))]
    redraw = Redraw(largest, tuple(map(goal, drawn)), tuple(map(frozenset, drawn)))
    return goal(first), {id(r) for seed in first for r in there[seed]}, redraw


def goal_of(runs: list[Run], spec: TargetSpec) -> Goal:
    """Work out a spec's value for one workload."""
    if spec.kind == "golmant":
        return golmant_goal(runs, spec)
    if spec.kind == "value":
        return spec.number, set(), None
    if spec.kind == "quantile":  # the value that this share of the runs gets to
        values, factor = bests(runs, spec), 1.0
        share = spec.number if spec.direction == "min" else 1 - spec.number
    else:  # so near to what the smallest batch comes to
        smallest = min(run.batch_size for run in runs)
        values, share = bests([r for r in runs if r.batch_size == smallest], spec), 0.5
        factor = spec.number if spec.direction == "max" else 1 / spec.number
    return (float(np.quantile(values, share)) * factor if values else math.nan), set(), None


def hit_of(run: Run, spec: TargetSpec, goal: float, redraw: Redraw | None = None) -> Hit:
    """Return a goal's result in a run's curve; a run that stopped before it is censored there."""
    found = hits(run.curve["step"], run.curve[spec.metric], spec.direction, goal)
    rules = dict(zip(("hit", "line", "first"), found or (), strict=False))
    crossings: dict[str, Any] = {rule: crossing_at(run.curve, step) for rule, step in rules.items()}
    ended = run.record.status
    status = "reached" if found and ended != "failed" else "budget" if ended == "reached" else ended
    drawn = tuple(log_steps_to(run, spec, redraw)) if redraw else ()
    return Hit(spec.metric, spec.direction, goal, status, **crossings, redraw=redraw, drawn=drawn)


def log_steps_to(run: Run, spec: TargetSpec, redraw: Redraw) -> np.ndarray:
    """Return log steps to each of the redrawn goals, [draws]; infinite where not reached.

    NaN where the draw took its goal from this run's seed.
    """
    goals, which = np.unique(redraw.goals, return_inverse=True)
    reached = [hits(run.curve["step"], run.curve[spec.metric], spec.direction, goal) for goal in goals]
    found = np.array([math.log(r.isotonic) if r and r.isotonic else math.inf for r in reached])[which]
    if run.batch_size != redraw.batch_size:
        return found
    return np.where([run.record.seed in used for used in redraw.used], np.nan, found)


def retarget(runs: list[Run], specs: list[TargetSpec]) -> list[Run]:
    """Return the runs with these targets instead of their own. Raises ValueError if no run has a metric."""
    chosen: dict[int, list[Hit]] = {id(run): [] for run in runs}
    for spec in specs:
        able = [run for run in runs if spec.metric in run.curve]
        if not able:
            known = sorted({name for run in runs for name in run.curve if "/" in name})
            raise ValueError(f"no run has {spec.metric!r} in its curve; there are {', '.join(known) or 'none'}.")
        for same in group(able, lambda run: experiment(run.record)).values():
            goal, unscored, redraw = goal_of(same, spec)
            for run in same:
                if math.isfinite(goal) and id(run) not in unscored:
                    chosen[id(run)].append(hit_of(run, spec, goal, redraw))
    return [replace(run, hits=chosen[id(run)]) for run in runs]
