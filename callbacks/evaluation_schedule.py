"""Evaluations at geometric steps, so that every batch size is measured with the same relative resolution."""

import math
import random
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.convergence_detector import ConvergenceDetector


def next_step(step: int, ratio: float, phase: float) -> int:
    """The first of floor(phase), floor(phase * ratio), floor(phase * ratio^2), ... that is beyond `step`."""
    power = max(0, math.floor(math.log(max(step, 1) / phase) / math.log(ratio)) - 1)
    while (candidate := math.floor(phase * ratio**power)) <= step:
        power += 1
    return candidate


class EvaluationSchedule(Callback):
    """Evaluates before training, then at steps that grow by `ratio`, and at the last step (contract 2).

    Args:
        ratio: of one evaluated step to the one before; the phase of the grid is random, by the run's seed.
    """

    def __init__(self, ratio: float = 1.1) -> None:
        if ratio <= 1:
            raise ValueError(f"evaluation.ratio is {ratio}: give more than 1 (1.1 evaluates 24 times a decade)")
        self.ratio = ratio

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._phase = self.ratio ** random.Random(trainer.datamodule.seed).random()
        ends = [trainer.num_training_batches]
        ends += [trainer.max_steps] if trainer.max_steps > 0 else []
        detectors = [c for c in trainer.callbacks if isinstance(c, ConvergenceDetector)]
        ends += [d.budget_end(trainer.datamodule.batch_size) for d in detectors]
        self._last = min(ends)
        self._next = self._after(trainer.global_step)

    def _after(self, step: int) -> int:
        following = next_step(step, self.ratio, self._phase)
        return min(following, self._last) if step < self._last else following

    def on_train_batch_start(self, trainer: Trainer, task: LightningModule, batch: Any, batch_idx: int) -> None:
        trainer.val_check_batch = self._next

    def on_train_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self._next:
            self._next = self._after(trainer.global_step)
