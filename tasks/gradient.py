"""The gradient of a global batch in one flat buffer: the same however it is cut up or spread (contract 1)."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from tasks.protocols import Batch, Differentiable, Plan

EXTRA = 3  # behind the gradients: the loss, the elements where they were counted, the ranks that failed
NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory", "bad_alloc")
FATAL = 1000  # what a rank adds to the failures for an error other than out of memory


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device, or the host, ran out of memory."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in NO_MEMORY)


class FlatGradient:
    """One buffer for all gradients, so that a step needs one collective.

    Behind the gradients it holds the step's loss, its elements (as a share of the upper bound) and the number of
    failed ranks: all ranks learn what failed before they wait for each other.
    """

    def __init__(self, task: Differentiable) -> None:
        self.task = task
        self._parameters = [p for p in task.network.parameters() if p.requires_grad]
        first, sizes = self._parameters[0], [p.numel() for p in self._parameters]
        self._flat = torch.zeros(sum(sizes) + EXTRA, dtype=first.dtype, device=first.device)
        self.values, self._loss, self._counted = self._flat[:-EXTRA], self._flat[-3], self._flat[-2]
        views = torch.split(self.values, sizes)
        self._views = [  # laid out in memory as the parameters are
            view.as_strided(p.size(), p.stride(), view.storage_offset())
            for view, p in zip(views, self._parameters, strict=True)
        ]

    @property
    def loss(self) -> Tensor:
        """Return the mean loss of the last batch, a scalar."""
        return self._loss

    def compute(self, batch: Batch, plan: Plan) -> Exception | None:
        """Leave the gradient of the batch's mean loss in the parameters and the mean loss in `loss`.

        Args:
            batch: the global batch.
            plan: how it is cut up.

        Returns:
            None, or on every rank an out-of-memory error where any rank ran out: a finer plan may do.

        Raises:
            Exception: this rank's error of any other kind, or RuntimeError for another rank's, on every rank.
        """
        error = self._try_accumulate(batch, plan)
        if error is not None or dist.is_initialized():
            fatal = error is not None and not is_out_of_memory(error)
            self._flat[-1] = FATAL if fatal else int(error is not None)
            if dist.is_initialized():
                dist.all_reduce(self._flat)
            failures = int(self._flat[-1])
            if failures >= FATAL:
                raise error or RuntimeError("another rank failed in this step")
            if failures:
                try:
                    return error or RuntimeError("another rank ran out of memory")
                finally:
                    del error  # its traceback reaches this frame: together they would keep the failed pass's tensors
        if not batch.exact:  # where every element is ignored, the sum is 0 as well
            self._flat[:-2] /= self._counted.clamp(min=1 / plan.total)
        return None

    def clip(self, norm: float) -> None:
        """Scale the gradient down to `norm`."""
        self.values *= (norm / (self.values.norm() + 1e-6)).clamp(max=1.0)

    def _try_accumulate(self, batch: Batch, plan: Plan) -> Exception | None:
        """Sum this rank's gradients; return what went wrong."""
        self._flat.zero_()
        for p, view in zip(self._parameters, self._views, strict=True):
            p.grad = view  # at every step: Lightning sets gradients to None before each validation
        try:
            self._accumulate(batch, plan)
        except (RuntimeError, ValueError, OSError) as error:  # the last two: a file that cannot be read
            return error
        return None

    def _accumulate(self, batch: Batch, plan: Plan) -> None:
        task, spans = self.task, plan.spans[self.task.global_rank]
        for observer in task.observers:
            observer.begin(self.values)
        with task.no_sync() if dist.is_initialized() else nullcontext():
            for span, part in zip(spans, batch.parts(spans, task.device), strict=True):
                loss = task.training_loss(part) / plan.total
                loss.backward()  # type: ignore[no-untyped-call]
                self._loss.add_(loss.detach())
                if not batch.exact:
                    self._counted.add_(task.count(part.targets) / plan.total)
                for observer in task.observers:
                    elements = batch.elements(*span) if batch.exact else float(task.count(part.targets))
                    observer.add(elements / plan.total)
