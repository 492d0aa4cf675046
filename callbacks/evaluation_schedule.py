"""Evaluations at steps that grow by a ratio, close together where a target is near."""

import math
import random
from collections.abc import Sequence

import numpy as np
from pytorch_lightning import Callback, Trainer

from callbacks.convergence_detector import Row, Target, detector_of, end_of, next_crossing
from callbacks.hit import FOLLOW, as_losses
from tasks.protocols import Batch, Task

NEAR = 1.7  # a target is near once the curve points to a crossing within so many times the steps done
LOOK_BACK = 4  # evaluations whose line says where the curve is going


def is_near(rows: Sequence[Row], target: Target) -> bool:
    """Return whether the last evaluations point to a crossing within NEAR times the steps done, or were beyond it."""
    if next_crossing(rows, target) is not None:
        return True
    recent = [row for row in rows if row["step"] > 0][-LOOK_BACK:]
    goal = target.goal if target.direction == "min" else -target.goal
    logs = np.log([row["step"] for row in recent])
    losses = as_losses([row.get(target.metric, math.nan) for row in recent], target.direction)
    if len(recent) < 3 or not np.isfinite(losses).all():
        return False
    slope, level = np.polyfit(logs - logs[-1], losses, 1)
    return bool(level <= goal or (slope < 0 and (goal - level) / slope <= math.log(NEAR)))


def next_step(step: int, ratio: float) -> int:
    """Return the step to evaluate after `step`."""
    return max(step + 1, round(step * ratio))


def step_after(rows: Sequence[Row], targets: Sequence[Target], ratio: float, wide: float) -> int:
    """Return the step to evaluate after the last of `rows`: it depends on the run's own curve alone.

    Args:
        rows: the evaluations so far, more than one.
        targets: the goals that are not yet reached.
        ratio: of two evaluated steps where a target is near, and where there is none.
        wide: of two evaluated steps elsewhere.
    """
    step = int(rows[-1]["step"])
    near = not targets or any(is_near(rows, target) for target in targets)
    following = next_step(step, ratio if near else wide)
    crossings = [next_crossing(rows, target) for target in targets]
    known = [crossing for crossing in crossings if crossing is not None]
    if targets and len(known) == len(targets):  # all that is left is to follow them up
        following = min(following, max(math.ceil(FOLLOW * max(known)), step + 1))
    return following


class EvaluationSchedule(Callback):
    """Evaluates before training, then at steps that grow by a ratio, and at the last step (contract 2).

    Args:
        ratio: of one evaluated step to the one before where a target is near, or where there is no target.
        wide_ratio: the same as long as every target is far; never less than `ratio`.
        first: the earliest step evaluated after step 0; below 20 steps no target counts.
        every_split: measure every split each time; else those that a target names (of a race the first target), and
            all of them where there is no target, and at the end of a run that is no race if it is known beforehand.
    """

    def __init__(self, ratio: float = 1.1, wide_ratio: float = 1.2, first: int = 10, every_split: bool = False) -> None:
        if ratio <= 1:
            raise ValueError(f"evaluation.ratio is {ratio}: give more than 1 (1.1 evaluates 24 times a decade)")
        if first < 1:
            raise ValueError(f"evaluation.first is {first}: give at least step 1")
        self.ratio, self.wide_ratio, self.first = ratio, max(ratio, wide_ratio), first
        self.every_split = every_split

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:
        """Note the splits that are measured, at step 0 as well.

        Raises:
            ValueError: if another callback follows a score that is not among them.
        """
        if stage != "fit":
            return
        self._detector = detector_of(trainer)
        asked = self._detector.rules.asked(self._detector.targets) if self._detector else []
        named = {target.metric.split("/")[0] for target in asked}
        task.measured = self._named = None if self.every_split or not named else named
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared
        for callback in callbacks if self._named else []:
            split, _, metric = str(getattr(callback, "monitor", None)).partition("/")
            if metric and split in set(task.data.evaluated) - named:
                who = f"{type(callback).__name__} follows {split}/{metric}"
                raise ValueError(f"{who}, which no target names: give --evaluation.every_split true")

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """Note the steps that are evaluated whatever the curve: the run's end, and that of a race."""
        end = end_of(trainer, task)
        race = self._detector.rules.outrun_steps if self._detector else None
        self._wanted = [end, *([race] if race else [])]  # evaluated whatever the curve
        self._whole = None if race else end  # evaluated on every split
        self._first = round(self.first * self.wide_ratio ** random.Random(task.data.seed).random())
        self._since = -1

    def _after(self, trainer: Trainer) -> int:
        rows = self._detector.rows if self._detector else []
        step = trainer.global_step
        if self._detector is None or len(rows) < 2:
            following = self._first if step < self._first else next_step(step, self.ratio)
        else:
            following = step_after(rows, self._detector.open_targets(), self.ratio, self.wide_ratio)
        return int(min([following, *(wanted for wanted in self._wanted if wanted > step)]))

    def on_train_batch_start(self, trainer: Trainer, task: Task, batch: Batch, batch_idx: int) -> None:
        """Set the step of the next evaluation, after the last one."""
        rows = self._detector.rows if self._detector else ()
        if len(rows) != self._since:  # after an evaluation, or at the start
            self._since = len(rows)
            trainer.val_check_batch = step = self._after(trainer)
            task.measured = None if step == self._whole else self._named
