"""The mean loss of a batch as a function of all trained weights in one vector: values, gradients, curvature."""

import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tasks.protocols import Batch, Span, Task


class LossSurface:
    """The mean loss of `batch`, or of its examples of `span`, near the task's present weights.

    In evaluation mode: no dropout, augmentation or label smoothing; the statistics of batch normalization stay those
    of the last evaluation. The weights are as before after every call.
    """

    def __init__(self, task: Task, batch: Batch, span: Span | None = None) -> None:
        refuse_shards(task)
        if not batch.exact:
            raise ValueError("the loss surface needs data whose counted elements are known before they are read")
        self.task, self.batch, self.span = task, batch, span
        self.weights = [p for p in task.network.parameters() if p.requires_grad]

    @property
    def size(self) -> int:
        """Return the number of trained weights."""
        return sum(w.numel() for w in self.weights)

    def loss(self, move: Tensor | None = None) -> float:
        """Return the mean loss at the weights + `move` [size]."""
        with self._moved(move), torch.no_grad():
            return float(self._together(sum(p.double() for p in self.task.loss_parts(self.batch, self.span))))

    def gradient(self, move: Tensor | None = None) -> tuple[float, Tensor]:
        """Return the mean loss and its gradient [size] at the weights + `move` [size]."""
        with self._moved(move):
            total, gradient = torch.zeros((), dtype=torch.float64, device=self.task.device), self._zeros()
            for part in self.task.loss_parts(self.batch, self.span):
                gradient += flat(torch.autograd.grad(part, self.weights))
                total += part.detach()
            return float(self._together(total)), self._together(gradient)

    def hessian_times(self, vector: Tensor) -> Tensor:
        """Return the Hessian at the weights times `vector`, both [size].

        It is the gradient of gradient . vector (Pearlmutter 1994).
        """
        with self._moved(None), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            product = self._zeros()
            for part in self.task.loss_parts(self.batch, self.span):
                slope = flat(torch.autograd.grad(part, self.weights, create_graph=True))
                again = torch.autograd.grad(slope @ vector, self.weights, materialize_grads=True)
                product += flat(again)
            return self._together(product)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.size, dtype=self.weights[0].dtype, device=self.weights[0].device)

    def _together(self, share: Tensor | float) -> Tensor:
        """Return the sum over the ranks; an empty share is the number 0."""
        total = torch.as_tensor(share, device=self.task.device)
        if self.span is None and dist.is_initialized():
            dist.all_reduce(total)
        return total

    @contextmanager
    def _moved(self, move: Tensor | None) -> Iterator[None]:
        """Be in evaluation mode with gradients, at the weights + `move`; cuDNN's recurrent layers can do neither."""
        network, training = self.task.network, self.task.network.training
        before = None if move is None else [w.detach().clone() for w in self.weights]
        with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            try:
                network.eval()
                if move is not None:
                    self._shift(move)
                yield
            finally:
                network.train(training)
                if before is not None:
                    with torch.no_grad():
                        for weight, old in zip(self.weights, before, strict=True):
                            weight.copy_(old)

    @torch.no_grad()
    def _shift(self, move: Tensor) -> None:
        for weight, part in zip(self.weights, torch.split(move, [w.numel() for w in self.weights]), strict=True):
            weight.add_(part.view_as(weight))


class AfterTraining(Callback):
    """Measures something of the loss surface once, at the end of training, for the record's final numbers."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    @abstractmethod
    def measure(self, trainer: Trainer, task: Task) -> dict[str, float]:
        """Return the final numbers by name."""

    def on_train_end(self, trainer: Trainer, task: Task) -> None:
        """Measure; where that fails, most likely out of memory, the run is kept without these numbers."""
        try:
            self.found = self.measure(trainer, task)
        except Exception as error:  # whatever it is, the training itself succeeded
            if trainer.world_size > 1:  # the other ranks wait in the middle of it
                raise
            print(f"{type(self).__name__} measured nothing: {type(error).__name__}: {error}", file=sys.stderr)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what the run's record says, under `final`."""
        return {"final": self.found}


def refuse_shards(task: Task) -> None:
    """Refuse a task of which each rank holds a part of the weights only: no instrument puts them together.

    Raises:
        ValueError: with what to use instead.
    """
    if task.sharded:
        raise ValueError("an instrument cannot see sharded parameters whole: use strategy ddp, or leave it out")


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """Return all entries in one vector [size]."""
    return torch.cat([t.reshape(-1) for t in tensors])


def top_eigenvalue(surface: LossSurface, iterations: int, tolerance: float = 1e-3, seed: int = 0) -> float:
    """Return the Hessian's eigenvalue of largest magnitude, by power iteration.

    Args:
        surface: whose Hessian is meant.
        iterations: at most; after few the result is a lower bound of the magnitude.
        tolerance: the relative change of the eigenvalue below which the iteration ends.
        seed: of the vector that it starts from, the same on every rank and device.
    """
    generator = torch.Generator().manual_seed(seed)
    like = surface.weights[0]
    vector = torch.randn(surface.size, generator=generator, dtype=torch.float64).to(like.device, like.dtype)
    value = 0.0
    for _ in range(iterations):
        vector = vector / vector.norm().clamp(min=1e-30)
        product = surface.hessian_times(vector)
        before, value = value, float(vector @ product)
        if abs(value - before) <= tolerance * abs(value):
            break
        vector = product
    return value
