"""What a person sees while a run trains: one line that moves on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO

from pytorch_lightning import Callback, Trainer

from callbacks.convergence_detector import Target, detector_of, end_of
from tasks.protocols import Batch, Task

NEVER = 10**9  # steps of a run that has no end
ENDLESS = (
    "this run has no end: give data.epochs, trainer.max_steps, or convergence.targets with a budget and stop: true"
)


def clock(seconds: float) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def distance(target: Target, value: float) -> str:
    """Return how far a metric is from its target, in words."""
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

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """Note where the run begins and where it ends at the latest."""
        self._terminal = self.out.isatty()
        self._next = time.monotonic() + self.every
        self._first = (trainer.global_step, task.seconds)
        self._detector = detector_of(trainer)
        self._end = end_of(trainer, task)
        may_stop = self._detector and self._detector.stop and self._detector.targets
        if self._end >= NEVER and not may_stop and self.show and trainer.is_global_zero:
            self._print(ENDLESS, end="\n")

    def on_train_batch_end(self, trainer: Trainer, task: Task, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Show where the run is, when that is due."""
        now = time.monotonic()
        if not self.show or now < self._next or not trainer.is_global_zero:
            return
        self._next = now + (self.every if self._terminal else 20 * self.every)
        self._print(self._line(trainer, task), end="")

    def _line(self, trainer: Trainer, task: Task) -> str:
        step = trainer.global_step
        parts = [f"step {step:,}", f"{task.examples:,} examples", f"loss {task.loss_now():.4g}"]
        if self._detector and self._detector.rows:
            last = self._detector.rows[-1]
            asked = self._detector.rules.asked(self._detector.targets)  # a race measures nothing else
            parts += [distance(target, last[target.metric]) for target in asked]
        if self._end < NEVER:
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

    def on_train_end(self, trainer: Trainer, task: Task) -> None:
        """Show where the run ended."""
        if self.show and trainer.is_global_zero:
            self._print(self._line(trainer, task), end="\n")
