"""Targets chosen again from the curves, without training again."""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from callbacks.hit import crossing_at, hits
from tasks.report.analysis.curves import experiment, group
from tasks.report.sources.runs import Hit, Run

Goal = tuple[float, set[int]]  # a target's value, and the ids of runs it does not score


@dataclass(frozen=True)
class TargetSpec:
    """A target to be looked for: absolute, or worked out for each workload from its own runs."""

    metric: str
    direction: Literal["min", "max"]
    kind: str  # value, golmant, baseline
    number: float = math.nan


def parse(text: str) -> TargetSpec:
    """Read a target from the command line. Raises ValueError with the forms there are."""
    absolute = re.fullmatch(r"\s*([\w/.-]+?)\s*(>=|<=)\s*([-+\w.]+)\s*", text)
    relative = re.fullmatch(r"([\w/.-]+):(?:(golmant)|baseline=([\w.]+))", text)
    try:
        if absolute and math.isfinite(float(absolute[3])):
            metric, sign, value = absolute.groups()
            return TargetSpec(metric, "max" if sign == ">=" else "min", "value", float(value))
        if relative:
            metric, golmant, share = relative.groups()
            falls = re.search(r"loss|perplexity|error", metric)
            spec = TargetSpec(metric, "min" if falls else "max", golmant or "baseline", float(share or 1))
            if 0 < spec.number <= 1:
                return spec
    except ValueError:
        pass
    forms = "METRIC>=VALUE, METRIC<=VALUE, METRIC:golmant or METRIC:baseline=SHARE"
    raise ValueError(f"target {text!r} is not understood; give {forms}.")


def quartile(run: Run, spec: TargetSpec) -> float:
    """Return the value that a quarter of a run's iterations were better than; an evaluation stands for those before."""
    step, value = (np.array(run.curve.get(name, []), dtype=float) for name in ("step", spec.metric))
    if len(step) < 2 or len(step) != len(value):
        return math.nan
    weight, value = np.diff(step), value[1:]
    keep = np.isfinite(value)
    if not keep.any():
        return math.nan
    order = np.argsort(value[keep] if spec.direction == "min" else -value[keep])
    share = weight[keep][order].cumsum() / weight[keep].sum()
    return float(value[keep][order][np.searchsorted(share, 0.25)])


def golmant_goal(runs: list[Run], spec: TargetSpec) -> Goal:
    """Return Golmant's target, the lowest quartile of the largest batch's values, from half of its seeds."""
    largest = max(run.batch_size for run in runs)
    there = group((r for r in runs if r.batch_size == largest), lambda r: r.record.seed)
    first = sorted(there)[: max(1, len(there) // 2)]
    used = [run for seed in first for run in there[seed]]
    values = [v for v in (quartile(run, spec) for run in used) if math.isfinite(v)]
    unscored = {id(run) for run in used if len(there) > 1}  # the target is their outcome
    return float(np.median(values)) if values else math.nan, unscored


def goal_of(runs: list[Run], spec: TargetSpec) -> Goal:
    """Work out a spec's value for one workload."""
    if spec.kind == "value":
        return spec.number, set()
    if spec.kind == "golmant":
        return golmant_goal(runs, spec)
    smallest = min(run.batch_size for run in runs)
    known = [[v for v in r.curve[spec.metric] if math.isfinite(v)] for r in runs if r.batch_size == smallest]
    best, factor = (max, spec.number) if spec.direction == "max" else (min, 1 / spec.number)
    return float(np.median([best(values) for values in known if values] or [math.nan])) * factor, set()


def hit_of(run: Run, spec: TargetSpec, goal: float) -> Hit:
    """Return a goal's result in a run's curve; a run that stopped before it is censored there."""
    found = hits(run.curve["step"], run.curve[spec.metric], spec.direction, goal)
    rules = dict(zip(("hit", "line", "first"), found or (), strict=False))
    crossings: dict[str, Any] = {rule: crossing_at(run.curve, step) for rule, step in rules.items()}
    ended = run.record.status
    status = "reached" if found and ended != "failed" else "budget" if ended == "reached" else ended
    return Hit(spec.metric, spec.direction, goal, status, **crossings)


def retarget(runs: list[Run], specs: list[TargetSpec]) -> list[Run]:
    """Return the runs with these targets instead of their own. Raises ValueError if no run has a metric."""
    chosen: dict[int, list[Hit]] = {id(run): [] for run in runs}
    for spec in specs:
        able = [run for run in runs if spec.metric in run.curve]
        if not able:
            known = sorted({name for run in runs for name in run.curve if "/" in name})
            raise ValueError(f"no run has {spec.metric!r} in its curve; there are {', '.join(known) or 'none'}.")
        for same in group(able, lambda run: experiment(run.record)).values():
            goal, unscored = goal_of(same, spec)
            for run in same:
                if math.isfinite(goal) and id(run) not in unscored:
                    chosen[id(run)].append(hit_of(run, spec, goal))
    return [replace(run, hits=chosen[id(run)]) for run in runs]
