"""The order of the examples: which of them make up global batch k."""

import math

import torch
from torch import Tensor

from datamodules.growth import Stage, first_example, stage_at, step_of


class Order:
    """Which of n examples make up global batch k: a function of (seed, k) and the stages of batch sizes alone.

    `wrap`: batches run on over the ends of epochs, each epoch a permutation, each batch of distinct examples.
    `keep`: the last batch of an epoch is the ragged rest; all batches are of the first stage's size.
    """

    def __init__(self, n: int, batch_size: int, seed: int, wrap: bool, stages: list[Stage] | None = None) -> None:
        self.n, self.batch_size, self.seed, self.wrap = n, batch_size, seed, wrap
        self.stages = stages or [Stage(0, 0, batch_size, 1.0)]
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def steps(self, epochs: float) -> int:
        """Return how many batches there are in so many epochs, the last one whole."""
        if not self.wrap:
            return math.ceil(epochs * math.ceil(self.n / self.batch_size))
        return self.steps_to(math.ceil(epochs * self.n - 1e-9))  # 0.1 x 30 is not an example more

    def steps_to(self, examples: int) -> int:
        """Return how many batches hold the first so many examples."""
        if self.wrap:
            return step_of(self.stages, examples - 1) + 1
        epochs, rest = divmod(examples, self.n)
        return epochs * math.ceil(self.n / self.batch_size) + math.ceil(rest / self.batch_size)

    def batch(self, k: int) -> Tensor:
        """Return the example ids int64 [B] of global batch k."""
        if not self.wrap:
            epoch, i = divmod(k, math.ceil(self.n / self.batch_size))
            return self._epoch_order(epoch)[i * self.batch_size : (i + 1) * self.batch_size]
        size = stage_at(self.stages, k).batch_size
        epoch, start = divmod(first_example(self.stages, k), self.n)
        head = self._epoch_order(epoch)[start : start + size]
        if len(head) == size:
            return head
        return torch.cat([head, self._epoch_order(epoch + 1)[: size - len(head)]])

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.n, generator=generator)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch < self._epoch:
            self._epoch = -1
        if not self.wrap or (self.n % self.batch_size == 0 and len(self.stages) == 1):
            if epoch != self._epoch:
                self._order = self._permutation(epoch)
        else:  # an order depends on the tail before it: walk there (only a resumed run walks far)
            for e in range(self._epoch + 1, epoch + 1):
                self._order = self._after(self._order, e)
        self._epoch = epoch
        return self._order

    def _after(self, previous: Tensor, epoch: int) -> Tensor:
        """Return the permutation of `epoch`, first the examples that its first, shared batch does not have yet."""
        order, shared = self._permutation(epoch), step_of(self.stages, epoch * self.n)
        rest = epoch * self.n - first_example(self.stages, shared)
        if rest == 0:
            return order
        free = torch.ones(self.n, dtype=torch.bool).index_fill(0, previous[self.n - rest :], False)[order]
        first = free & (free.cumsum(0) <= stage_at(self.stages, shared).batch_size - rest)
        return torch.cat([order[first], order[~first]])
