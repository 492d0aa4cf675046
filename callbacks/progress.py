"""What a person sees while a run trains: one line that moves on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any, TextIO

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.convergence_detector import ConvergenceDetector, Target


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def distance(target: Target, value: float) -> str:
    """How far a metric is from its target, in words."""
    if target.value is None:
        return f"{target.metric} {value:.4g} (to its plateau)"
    gap = (target.value - value) * (1 if target.direction == "max" else -1)
    return f"{target.metric} {value:.4g} ({f'{gap:.3g} to go' if gap > 0 else 'there'})"


class Progress(Callback):
    """Steps, examples, loss, distance to each target, and training time left to the budget (evaluations not counted).

    Args:
        every: seconds between two refreshes on a terminal; elsewhere a plain line every 20 times as long.
        show: false prints nothing.
    """

    def __init__(self, every: float = 0.5, show: bool = True) -> None:
        self.every, self.show = every, show
        self.out: TextIO = sys.stderr

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._terminal = self.out.isatty()
        self._next = time.monotonic() + self.every
        self._first = (trainer.global_step, task.seconds)
        self._detector = next(c for c in trainer.callbacks if isinstance(c, ConvergenceDetector))
        ends = [trainer.num_training_batches, self._detector.last_step(trainer.datamodule.batch_size)]
        self._end = min(ends + ([trainer.max_steps] if trainer.max_steps > 0 else []))

    def on_train_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if not self.show or now < self._next or not trainer.is_global_zero:
            return
        self._next = now + (self.every if self._terminal else 20 * self.every)
        self._print(self._line(trainer, task), end="")

    def _line(self, trainer: Trainer, task: LightningModule) -> str:
        step, rows = trainer.global_step, self._detector.rows
        parts = [f"step {step:,}", f"{task.examples:,} examples", f"loss {task.loss_now():.4g}"]
        parts += [distance(t, rows[-1][t.metric]) for t in self._detector.targets if rows]
        if self._end < 10**9:
            done = step - self._first[0]
            left = (task.seconds - self._first[1]) / max(done, 1) * (self._end - step)
            parts.append(f"{step / self._end:.0%} of the budget, {clock(left)} of training left")
        return " | ".join(parts)

    def _print(self, line: str, end: str) -> None:
        if self._terminal:
            self.out.write(f"\r\x1b[K{line[:200]}{end}")
        else:
            self.out.write(line + "\n")
        self.out.flush()

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        if self.show and trainer.is_global_zero:
            self._print(self._line(trainer, task), end="\n")
