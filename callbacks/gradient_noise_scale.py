"""How noisy is the gradient: the batch at which noise and gradient are equally large (McCandlish et al. 2018)."""

import math
from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from callbacks.loss_surface import refuse_shards
from tasks.protocols import Batch, Task


def two_batch_estimate(parts: float, whole: float, count: int, batch: int, population: int) -> tuple[float, float]:
    """Return unbiased |G|^2 and tr(Sigma) (a variance per example) from one batch that is cut into parts.

    For parts of one size this is McCandlish et al. 2018, appendix A.1.

    Args:
        parts: sum over the parts i of (B / b_i) |d_i|^2, where d_i = (b_i / B) g_i is the part's contribution to the
            batch's gradient.
        whole: |sum of d_i|^2.
        count: the number of parts.
        batch: B, in examples.
        population: N, the examples that the batch is drawn from without replacement.

    Ragged parts: with E|g_i|^2 = |G|^2 + S / b_i and E|g|^2 = |G|^2 + S / B the squares between the parts,
    `parts - whole` = sum of (b_i / B) |g_i - g|^2, have the expectation (count - 1) S / B whatever the b_i.
    Without replacement from `population` N: Cov(g_i) = (1/b_i - 1/N) N/(N-1) Sigma. The 1/N drops out of the squares
    between the parts, which then estimate N/(N-1) tr(Sigma); it stays in |g|^2, which at B = N has no noise at all.
    """
    spread = (parts - whole) * batch / (count - 1)
    return whole - spread * (1 / batch - 1 / population), spread * (population - 1) / population


def ratio(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the noise scale tr(Sigma) / |G|^2, in examples, and its jackknife standard error.

    Args:
        pairs: samples of (|G|^2, tr(Sigma)); each of the two is averaged by itself.

    Returns:
        nan where the mean |G|^2 is not positive; the error is nan where that happens without one of the samples.
    """
    n = len(pairs)
    squares, traces = sum(g for g, _ in pairs), sum(s for _, s in pairs)
    if not squares > 0:
        return math.nan, math.nan
    if n < 2 or any(squares - g <= 0 for g, _ in pairs):
        return traces / squares, math.nan
    without = [(traces - s) / (squares - g) for g, s in pairs]
    mean = sum(without) / n
    return traces / squares, math.sqrt((n - 1) / n * sum((r - mean) ** 2 for r in without))


def steps_between(batch_size: int) -> int:
    """Return the number of steps from one sample to the next: 64 steps or 4,000 examples, whichever is less.

    Small batches cost more to cut up, and are cut up more rarely: the cost stays below 5 % of 1,000 steps.
    """
    return max(1, min(64, 4000 // batch_size))


def sampled(step: int, every: int) -> bool:
    """Return whether a step is sampled: each `every` steps, and before that at powers of 2."""
    return step % every == 0 or (step < every and step & (step - 1) == 0)


class GradientNoiseScale(Callback):
    """Adds `noise_scale/simple` = tr(Sigma) / |G|^2, in examples, and its parts to every evaluation.

    From the raw gradients of micro-batches and ranks, before clipping and momentum. Where examples count unequally
    many elements, a micro-batch weighs as its elements do. At a sampled step the batch is cut into at least `parts`
    micro-batches, which changes the step by rounding only. An average runs over the later half of the run so far:
    gradients are largest at its beginning, and would hide what came after. On other numbers of ranks the estimate is
    the same where `parts` and ranks divide the batch, else that of another cut of it. Augmentation and dropout draw
    anew what another pass over the data would: their noise is counted, but not as drawn without replacement.

    Args:
        every: steps between two samples (null: by `steps_between`); the first ones are at powers of 2.
        parts: micro-batches, over all ranks, that a sampled batch is cut into at least.
        window: sampled steps that an average runs over at most.
    """

    def __init__(self, every: int | None = None, parts: int = 4, window: int = 30) -> None:
        if (every is not None and every < 1) or parts < 2 or window < 2:
            raise ValueError("noise scale: every is at least 1, parts and window are at least 2")
        self.every, self.parts = every or 0, parts
        self.samples: deque[tuple[int, float, float]] = deque(maxlen=window)  # step, |G|^2, tr(Sigma)

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Refuse a batch that cannot be cut up.

        Raises:
            ValueError: if batch normalization or the batch size leaves only one part.
        """
        refuse_shards(task)
        size, ghost = task.data.batch_size, task.facts()["batch"]["ghost"]
        if ghost == "global":
            raise ValueError(
                "the noise scale compares micro-batches, which batch normalization over the global batch ties "
                "together: give a model.ghost_batch_size of at most half of data.batch_size, or norm: group"
            )
        if size < 2 * (ghost or 1):
            raise ValueError(
                f"the noise scale compares parts of a batch, and data.batch_size {size} has only one: "
                f"give at least {2 * (ghost or 1)}, or leave GradientNoiseScale out"
            )
        self.every = self.every or steps_between(size)
        self._population = len(task.data.splits["train"])

    def on_train_batch_start(self, trainer: Trainer, task: Task, batch: Batch, batch_idx: int) -> None:
        """Observe the step if it is sampled."""
        step = trainer.global_step
        if sampled(step, self.every):
            task.observers.append(self)
            self._step = step

    def on_train_batch_end(self, trainer: Trainer, task: Task, *_: object) -> None:
        """Observe no further."""
        if self in task.observers:
            task.observers.remove(self)

    # as the task's observer ----------------------------------------------------------------------------

    def largest_micro_batch(self, batch_size: int) -> int:
        """Return the micro-batch that cuts a batch of this size into `parts`."""
        return max(batch_size // self.parts, 1)

    def begin(self, gradient: Tensor) -> None:
        """Receive the empty buffer that the micro-batches' gradients will be added to."""
        self._gradient, self._last = gradient, torch.zeros_like(gradient)
        self._sums = torch.zeros(3, dtype=torch.float64, device=gradient.device)

    def add(self, weight: float) -> None:
        """Add up the contribution of a micro-batch that has the share `weight` of the batch's elements."""
        if weight > 0:
            contribution = torch.sub(self._gradient, self._last, out=self._last)
            self._sums[0] += square(contribution) / weight
            self._sums[1] += weight
            self._sums[2] += 1
            self._last.copy_(self._gradient)

    def end(self, batch: Batch) -> None:
        """Take a sample from the whole batch's gradient."""
        if dist.is_initialized():
            dist.all_reduce(self._sums)
        parts, weights, count = self._sums.tolist()  # weights: 1, or less where `elements` was an upper bound
        if count > 1:
            whole = float(square(self._gradient))
            found = two_batch_estimate(parts / weights, whole, int(count), len(batch), self._population)
            self.samples.append((self._step, *found))
        del self._gradient, self._last

    # what others read and what a checkpoint keeps ------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Add the averages to the evaluation."""
        if trainer.state.fn == "fit":
            recent = [(g, s) for step, g, s in self.samples if step >= trainer.global_step / 2]
            n = len(recent) or math.nan
            simple, error = ratio(recent)
            task.evaluation |= {
                "noise_scale/simple": simple,
                "noise_scale/standard_error": error,
                "noise_scale/gradient_square": sum(g for g, _ in recent) / n,
                "noise_scale/trace": sum(s for _, s in recent) / n,
            }

    def state_dict(self) -> dict[str, Any]:
        """Return the samples that averages still run over."""
        return {"samples": list(self.samples)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the samples of the run that is resumed."""
        self.samples.extend(state["samples"])


def square(x: Tensor) -> Tensor:
    """Return |x|^2, a scalar in double precision."""
    return torch.linalg.vector_norm(x, dtype=torch.float64).square()
