"""Other ways to score a tuned batch size: Shallue's steps-to-result, and the best of k trials."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tasks.report.curves import Observation, Point

Trial = tuple[str, Sequence[float], Sequence[float]]  # identifier, steps, values


def steps_to_result(trials: Iterable[Trial], direction: str, goal: float) -> tuple[float, str] | None:
    """Give the fewest steps to a result over all trials, and the trial, as Shallue et al. (2019) score.

    That is the first logged measurement, unsmoothed, strictly better than the goal; ties go to the smaller
    identifier; None if no trial gets there. Diverged trials are to be left out by the caller.
    """
    better = (lambda v: v < goal) if direction == "min" else (lambda v: v > goal)
    hits = [
        next(((step, name) for step, v in zip(steps, values, strict=True) if better(v)), None)
        for name, steps, values in trials
    ]
    return min((hit for hit in hits if hit), default=None)


def shallue(point: Point) -> tuple[float, str] | None:
    """Score a batch size by Shallue's steps-to-result over all its trials that did not diverge."""
    every = dict.fromkeys([*point.observations, *point.trials])
    kept = [o for o in every if o.status in ("reached", "budget") and o.hit.value is not None]
    trials = [(o.run.source, o.run.curve["step"], o.run.curve[o.hit.metric]) for o in kept if has_metric(o)]
    return steps_to_result(trials, kept[0].hit.direction, kept[0].hit.value) if trials else None


def has_metric(o: Observation) -> bool:
    """Say whether a run's curve has the metric of its target."""
    return "step" in o.run.curve and o.hit.metric in o.run.curve


def best_of(steps: Sequence[float], k: int) -> float:
    """Give the median of the fewest steps among k trials drawn without repeats; misses are infinite.

    The best of k is at most the i-th smallest of n with probability 1 - C(n - i, k) / C(n, k).
    """
    ordered, n = np.sort(np.asarray(steps, dtype=float)), len(steps)
    for i in range(1, n + 1):
        if 1 - math.comb(n - i, k) / math.comb(n, k) >= 0.5:
            return float(ordered[i - 1])
    return math.inf
