"""What data, tasks and callbacks are to each other: types alone, so that each of them may import this module."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Span = tuple[int, int]  # positions (start, stop) of a batch
Draw = Callable[[int, int], Tensor]  # draw(salt, count): uniform numbers in [0, 1), float [examples, count]


class Part(Protocol):
    """Some examples of a batch, on the device; without `draw` (evaluation) nothing about them is random."""

    @property
    def inputs(self) -> Tensor:
        """Return what the network is called with, [n, ...]."""

    @property
    def targets(self) -> Tensor:
        """Return the targets, [n, ...]."""

    @property
    def draw(self) -> Draw | None:
        """Return the function that draws these examples' random numbers."""


class Split(Sized, Protocol):
    """Examples, in memory or not."""

    @property
    def targets(self) -> object:
        """Return the targets, int or float [N, ...] where they are in memory."""


class Batch(Protocol):
    """A global batch whose parts are gathered one by one; where it is not `exact`, `elements` is an upper bound."""

    indices: Tensor
    exact: bool

    def __len__(self) -> int: ...

    def elements(self, start: int = 0, stop: int | None = None) -> int:
        """Return how many elements (examples, valid pixels, tokens) the positions from start to stop count."""

    def parts(self, spans: Sequence[Span], device: torch.device) -> Iterator[Part]:
        """Return the parts at these spans, in order, each gathered and moved when it is asked for."""

    def part(self, start: int, stop: int, device: torch.device) -> Part:
        """Return the part from start to stop."""


class Batches(Protocol):
    """A number of global batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class DataModule(Protocol):
    """The run's data, after `setup`."""

    batch_size: int
    epochs: float | None
    epoch_end: Any
    growth: Any  # None, or something true: how the batch grows

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Return what the network is built with."""

    @property
    def splits(self) -> Mapping[str, "Split"]:
        """Return the splits by name; `train` is always there."""

    @property
    def seed(self) -> int:
        """Return the run's seed."""

    @property
    def evaluated(self) -> list[str]:
        """Return the splits of an evaluation, in order."""

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""

    def steps_to(self, examples: int) -> int:
        """Return how many steps it takes to see so many examples."""

    def lr_factor(self, step: int) -> float:
        """Return what the learning rate is multiplied by at `step`, because the batch grows no further."""

    def whole(self, split: str) -> Batch:
        """Return all examples of a split, in order."""

    def batch(self, k: int) -> Batch:
        """Return global batch k, not augmented."""

    def branch(self, batch_size: int, seed: int, examples: int) -> Batches:
        """Return about `examples` examples in training batches of another size and order."""

    def facts(self) -> dict[str, Any]:
        """Return what the run's record says of the data, by the names of its fields."""


@dataclass(frozen=True)
class Plan:
    """How a global batch is cut up: each rank's micro-batches, and the counted elements of the whole batch."""

    spans: list[list[Span]]
    total: int


class GradientObserver(Protocol):
    """Sees how a step's gradient is summed, micro-batch by micro-batch."""

    def largest_micro_batch(self, batch_size: int) -> int:
        """Return the largest micro-batch with which a batch of this size may be observed."""

    def begin(self, gradient: Tensor) -> None:
        """Receive the empty buffer of this rank's gradient, again where a step is repeated for want of memory."""

    def add(self, weight: float) -> None:
        """Called after a micro-batch was added to the buffer; `weight` is its share of the batch's elements."""

    def end(self, batch: Batch) -> None:
        """Called once the buffer holds the gradient of the whole batch, over all ranks."""


class Gradient(Protocol):
    """Sums the gradient of a global batch over micro-batches and ranks."""

    @property
    def loss(self) -> Tensor:
        """Return the mean loss of the last batch, a scalar."""

    def compute(self, batch: Batch, plan: Plan) -> Exception | None:
        """Leave the mean gradient in the parameters; return the error if any rank ran out of memory instead."""

    def clip(self, norm: float) -> None:
        """Scale the gradient down to `norm`."""


class Differentiable(Protocol):
    """A task as its gradient sees it."""

    observers: list[GradientObserver]

    @property
    def network(self) -> nn.Module:
        """Return the network."""

    @property
    def device(self) -> torch.device:
        """Return the device of this rank."""

    @property
    def global_rank(self) -> int:
        """Return the number of this rank."""

    def training_loss(self, part: Part) -> Tensor:
        """Return the sum of a micro-batch's losses, with its graph."""

    def count(self, targets: Tensor) -> Tensor:
        """Return how many of the targets count, a scalar."""

    def parts(self, batch: Batch, spans: list[list[Span]]) -> Iterator[tuple[Part, bool]]:
        """Return this rank's parts, and whether each is real or only keeps step with the other ranks."""

    def no_sync(self) -> AbstractContextManager[None]:
        """Return the context in which backward passes do not synchronize the ranks."""


class Task(Differentiable, Protocol):
    """A task as the callbacks see it."""

    metrics: tuple[str, ...]
    evaluation: dict[str, float]  # the last one; instruments add to it
    measured: Collection[str] | None  # the splits of the next evaluation in training; None: all
    sharded: bool
    examples: int
    micro: int
    gradient: Gradient

    @property
    def data(self) -> DataModule:
        """Return the run's data."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer."""

    @property
    def seconds(self) -> float:
        """Return the training time so far, in seconds, without evaluations."""

    def facts(self) -> dict[str, Any]:
        """Return what the run's record says of the task, by the names of its fields."""

    def loss_now(self) -> float:
        """Return the mean training loss of the last step."""

    def loss_parts(self, batch: Batch, span: Span | None = None) -> Iterable[Tensor]:
        """Return scalars whose sum over parts and ranks is the mean loss in evaluation."""

    def rate_factor(self) -> float:
        """Return what the effective rate is multiplied by in the coming step."""

    def compute_gradient(self, batch: Batch) -> None:
        """Leave the gradient of the batch's mean loss in the parameters."""

    def update(self, batch: Batch, factor: float) -> None:
        """Make one optimizer step at `factor` times the effective rate."""
