"""When a metric reached its target: pure functions of plain numbers, for training and report alike."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from callbacks.record import Crossing

# A hit counts once the run has gone on to so many times its step, by so many evaluations (docs/protocol.md, rule 1).
FOLLOW = 1.5
FOLLOW_EVALUATIONS = 3

POSITIONS = {"steps": "step", "examples": "examples", "epochs": "epoch", "seconds": "seconds"}  # unit: its column

# Divergence (docs/protocol.md, rule 7): this many times the initial loss, over this many evaluations and steps.
DIVERGED_RATIO = 3.0
DIVERGED_EVALUATIONS = 3
DIVERGED_STEPS = 20


class Hits(NamedTuple):
    """The step at which a target was reached, by three rules; None where a rule finds no such step.

    `isotonic` is the one that counts; `line` is as unbiased and tells whether a result depends on the rule; `first`
    is the raw first crossing, which noise makes too early.
    """

    isotonic: float | None
    line: float | None
    first: float | None


def as_losses(values: Sequence[float], direction: str) -> np.ndarray:
    """Return the metric as "smaller is better", with infinity for what is not finite.

    Raises:
        ValueError: if `direction` is neither min nor max.
    """
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', not {direction!r}")
    losses = np.asarray(values, dtype=float) * (1.0 if direction == "min" else -1.0)
    return np.where(np.isfinite(losses), losses, np.inf)


def first_below(log_steps: np.ndarray, losses: np.ndarray, goal: float) -> float | None:
    """Return the log step at which `losses`, joined by straight lines, first come down to `goal`."""
    met = np.flatnonzero(losses <= goal)
    if not len(met):
        return None
    i = met[0]
    if i == 0 or not math.isfinite(losses[i - 1]):
        return float(log_steps[i])
    share = (losses[i - 1] - goal) / (losses[i - 1] - losses[i])
    return float(log_steps[i - 1] + share * (log_steps[i] - log_steps[i - 1]))


def crossing(log_steps: np.ndarray, losses: np.ndarray, goal: float) -> float | None:
    """Return the log step at which the isotonic regression of the losses on log step comes down to `goal`.

    The regression is a staircase; the middles of its steps are joined by straight lines, which at the noise of real
    runs scatters a fifth less than to join the steps' ends.
    """
    finite = np.isfinite(losses)
    if not finite.any() or losses[finite].min() > goal:
        return None
    stairs = isotonic_regression(np.where(finite, losses, losses[finite].max()), increasing=False)
    first, width = stairs.blocks[:-1], np.diff(stairs.blocks)
    if stairs.x[0] <= goal:
        return float(log_steps[0])
    return first_below(np.add.reduceat(log_steps, first) / width, stairs.x[first], goal)


def line_crossing(log_steps: np.ndarray, losses: np.ndarray, goal: float, near: float) -> float | None:
    """Return where the least-squares line through the evaluations within a factor FOLLOW of `near` meets the goal.

    None where these evaluations do not improve, or are fewer than 3; the answer stays within their stretch.
    """
    reach = math.log(FOLLOW)
    used = (np.abs(log_steps - near) <= reach + 1e-9) & np.isfinite(losses)
    x, y = log_steps[used] - near, losses[used]
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    slope, level = np.polyfit(x, y, 1)
    if slope >= 0:
        return None
    return near + float(np.clip((goal - level) / slope, -reach, reach))


def hits(steps: Sequence[float], values: Sequence[float], direction: str, goal: float) -> Hits | None:
    """Return when the goal was reached, None where it was not, or the run ended before the hit was followed up.

    The evaluations are read one after the other up to the first that lies FOLLOW times beyond the crossing so far,
    and is the third beyond it; what comes later changes nothing, so a run that went on and one that stopped there
    give the same. Steps below 1 count as 1.
    """
    losses = as_losses(values, direction)
    target = goal if direction == "min" else -goal
    logs = np.log(np.maximum(np.asarray(steps, dtype=float), 1.0))
    met = np.flatnonzero(losses <= target)
    for n in range(met[0] + 1 if len(met) else len(logs), len(logs) + 1):
        at = crossing(logs[:n], losses[:n], target)
        if at is None:
            continue
        beyond = int((logs[:n] >= at).sum())
        if beyond >= FOLLOW_EVALUATIONS and logs[n - 1] >= at + math.log(FOLLOW) - 1e-9:
            line = line_crossing(logs[:n], losses[:n], target, at)
            first = first_below(logs[:n], losses[:n], target)
            return Hits(*(None if x is None else math.exp(x) for x in (at, line, first)))
    return None


def crossing_so_far(steps: Sequence[float], values: Sequence[float], direction: str, goal: float) -> float | None:
    """Return the step at which all evaluations so far put the crossing, followed up or not."""
    logs = np.log(np.maximum(np.asarray(steps, dtype=float), 1.0))
    at = crossing(logs, as_losses(values, direction), goal if direction == "min" else -goal)
    return None if at is None else math.exp(at)


def crossing_at(columns: Mapping[str, Sequence[float]], step: float | None) -> Crossing | None:
    """Return where training was at `step`, in every unit that a curve's columns tell, between its evaluations."""
    if step is None:
        return None
    known = {unit: columns[name] for unit, name in POSITIONS.items() if name in columns}
    return Crossing(**{unit: float(np.interp(step, columns["step"], values)) for unit, values in known.items()})


def plateau(
    examples: Sequence[float], values: Sequence[float], direction: str, window: float, improvement: float
) -> int | None:
    """Return the first evaluation at which the best of the last `window` examples hardly beats the best before.

    "Hardly" is by less than `improvement`, relative to the best before; both sides must hold evaluations.
    """
    losses = as_losses(values, direction).tolist()
    for i in range(len(losses)):
        start = examples[i] - window
        before = [c for c, e in zip(losses, examples, strict=True) if e <= start]
        recent = [c for c, e in zip(losses[: i + 1], examples[: i + 1], strict=True) if e > start]
        best = min(before, default=math.inf)
        if math.isfinite(best) and math.isfinite(min(recent)):
            gain = best - min(recent)
            if gain <= 0 or gain < improvement * abs(best):
                return i
    return None


def diverged(steps: Sequence[float], losses: Sequence[float], initial_loss: float) -> int | None:
    """Return the evaluation at which a run counts as diverged (docs/protocol.md, rule 7), or None.

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
