"""The hit rule of the measurement protocol: pure functions of plain numbers, for training and report."""

import math
from collections.abc import Sequence

# Divergence (protocol rule 7): this many times the initial loss, over this many evaluations and steps.
DIVERGED_RATIO = 3.0
DIVERGED_EVALUATIONS = 3
DIVERGED_STEPS = 20


def costs(values: Sequence[float], direction: str) -> list[float]:
    """Turn a metric into "smaller is better", with everything that is not finite as the worst there is."""
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', not {direction!r}")
    sign = 1.0 if direction == "min" else -1.0
    return [sign * value if math.isfinite(value) else math.inf for value in values]


def centred_medians(values: Sequence[float], direction: str) -> list[float]:
    """Smooth a metric by the centred median of 3 evaluations, as costs; NaN at the two ends."""
    cost = costs(values, direction)
    inner = [sorted(cost[i - 1 : i + 2])[1] for i in range(1, len(cost) - 1)]
    return [math.nan, *inner, math.nan][: len(cost)]


def crossing(values: Sequence[float], direction: str, goal: float, rule: str = "median", k: int = 3) -> int | None:
    """Find the evaluation i at which the metric first meets the goal, so that the hit lies in (i - 1, i].

    `median`: the first centred median of 3 evaluations that meets it (the primary rule; the first
    evaluation cannot be centred, the last not yet); `first`: the first raw value; `consecutive`: the
    first of k in a row. NaN never meets a goal. To meet is to be at least the goal for `max`, at most
    for `min`.
    """
    cost_of_goal = goal if direction == "min" else -goal
    if rule == "median":
        curve, k = centred_medians(values, direction), 1
    elif rule == "first":
        curve, k = costs(values, direction), 1
    elif rule == "consecutive":
        curve = costs(values, direction)
    else:
        raise ValueError(f"hit rule must be 'median', 'first' or 'consecutive', not {rule!r}")
    met = 0
    for i, cost in enumerate(curve):
        met = met + 1 if cost <= cost_of_goal else 0
        if met == k:
            return i - k + 1
    return None


def plateau(
    examples: Sequence[float], values: Sequence[float], direction: str, window: float, improvement: float
) -> int | None:
    """Find the first evaluation at which the best of the last `window` examples hardly beats the best before.

    "Hardly" is by less than `improvement`, relative to the best before; both sides must hold evaluations.
    """
    cost = costs(values, direction)
    for i in range(len(cost)):
        start = examples[i] - window
        before = [c for c, e in zip(cost, examples, strict=True) if e <= start]
        recent = [c for c, e in zip(cost[: i + 1], examples[: i + 1], strict=True) if e > start]
        best = min(before, default=math.inf)
        if math.isfinite(best):
            gain = best - min(recent)
            if gain <= 0 or gain < improvement * abs(best):
                return i
    return None


def diverged(steps: Sequence[float], losses: Sequence[float], initial_loss: float) -> int | None:
    """Find the evaluation at which a run counts as diverged (protocol rule 7), or None.

    That is the first loss which is not finite, or the one that completes at least 3 evaluations in a row,
    spanning at least 20 steps, above 3 times the initial loss.
    """
    start = None
    for i, loss in enumerate(losses):
        if not math.isfinite(loss):
            return i
        if loss <= DIVERGED_RATIO * initial_loss:
            start = None
            continue
        start = i if start is None else start
        long_enough = i - start + 1 >= DIVERGED_EVALUATIONS
        if long_enough and steps[i] - steps[start] >= DIVERGED_STEPS:
            return i
    return None
