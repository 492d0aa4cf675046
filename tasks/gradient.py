"""The gradient of a global batch in one flat buffer: the same however it is cut up or spread (contract 1)."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

EXTRA = 3  # behind the gradients: the loss, the elements where they were counted, the ranks that failed
FATAL = 1000  # what a rank adds to the failures for an error other than out of memory


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device, or the host, ran out of memory."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


class FlatGradient:
    """One buffer for all gradients, the step's loss, its elements (as a share of the guess) and the count of failed
    ranks, so that a step is one collective and all ranks agree on what failed before they wait for each other."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self._parameters = [p for p in task.network.parameters() if p.requires_grad]
        first, sizes = self._parameters[0], [p.numel() for p in self._parameters]
        self._flat = torch.zeros(sum(sizes) + EXTRA, dtype=first.dtype, device=first.device)
        self.values = self._flat[:-EXTRA]
        self._views = [v.view_as(p) for v, p in zip(self.values.split(sizes), self._parameters, strict=True)]

    @property
    def loss(self) -> Tensor:
        """The mean loss of the last batch."""
        return self._flat[-3]

    def compute(self, batch: Any) -> None:
        """Leave the gradient of the batch's mean loss in the parameters and the mean loss in `loss`.

        Raises the error of this rank, or RuntimeError for another's, on every rank.
        """
        while not self._tried(batch):
            self.task.micro = -(-self.task.micro // 2)
        if not batch.exact:  # where every element is ignored, the sum is 0 as well
            self._flat[:-2] /= self._flat[-2].clamp(min=1 / batch.elements())

    def clip(self, norm: float) -> None:
        """Scale the gradient down to `norm`."""
        self.values *= (norm / (self.values.norm() + 1e-6)).clamp(max=1.0)

    def _tried(self, batch: Any) -> bool:
        """Sum the gradients over micro-batches and ranks; False if memory ran out where a smaller one can be tried."""
        self._flat.zero_()
        for p, view in zip(self._parameters, self._views, strict=True):
            p.grad = view  # at every step: Lightning sets gradients to None before each validation
        error = None
        try:
            self._add(batch)
        except (RuntimeError, ValueError, OSError) as e:  # the last two: a file that cannot be read
            error = e
        if error is None and not dist.is_initialized():
            return True
        fatal = error is not None and not is_out_of_memory(error)
        self._flat[-1] = FATAL if fatal else int(error is not None)
        if dist.is_initialized():
            dist.all_reduce(self._flat)
        failures = int(self._flat[-1])
        if failures >= FATAL:
            raise error or RuntimeError("another rank failed in this step")
        if failures and (self.task.micro_batch_size is not None or self.task.micro == 1):
            raise error or RuntimeError("another rank ran out of memory")
        error = None  # its traceback holds this frame, and with it all of the failed pass
        return not failures

    def _add(self, batch: Any) -> None:
        task = self.task
        total, spans = batch.elements(), task.micro_batches(len(batch))
        for observer in task.observers:
            observer.begin(self.values)
        with task.trainer.strategy.block_backward_sync() if dist.is_initialized() else nullcontext():
            for span, part in zip(spans, batch.parts(spans, task.device), strict=True):
                loss = task.training_loss(part) / total
                loss.backward()
                self._flat[-3] += loss.detach()
                if not batch.exact:
                    self._flat[-2] += task.count(part.targets) / total
                for observer in task.observers:
                    observer.add((batch.elements(*span) if batch.exact else float(task.count(part.targets))) / total)
