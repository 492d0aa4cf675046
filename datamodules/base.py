"""The exact batch: which examples make up global batch k, and how a part of it is gathered."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Protocol

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules.growth import Growth, stage_at
from datamodules.keyed import example_keys, uniform
from datamodules.order import Order
from datamodules.variant import Variant

ENDLESS = 10**9  # steps of a run whose end is left to the trainer or to the convergence detector
LOOK_AHEAD = 16  # parts, of which a streamed split decodes as many as keep its workers busy
TRAIN_SUBSET = 2_000  # training examples measured in evaluation mode (protocol rule 5)

Draw = Callable[[int, int], Tensor]  # draw(salt, count): uniform numbers in [0, 1), float [examples, count]
Prepare = Callable[[Tensor, Tensor, Draw | None], tuple[Tensor, Tensor]]


class Rows(Protocol):
    """What examples can be taken from by their ids, such as files."""

    def __getitem__(self, indices: Tensor) -> Tensor: ...


def rows(source: Tensor | Rows, indices: Tensor) -> Tensor:
    """Return the examples `indices` int64 [n] of a source, [n, ...].

    index_select copies whole examples: 3 to 20 times as fast as indexing, which goes from number to number.
    """
    return source.index_select(0, indices) if isinstance(source, Tensor) else source[indices]


def drawn_for(seed: int, step: int, indices: Tensor, device: torch.device) -> Draw:
    """Return the function that draws these examples' random numbers; keys are made at the first draw, if any."""

    @cache
    def keys() -> Tensor:
        return example_keys(seed, step, indices).to(device)

    return lambda salt, count: uniform(keys(), salt, count)


@dataclass(frozen=True)
class Examples:
    """A split in memory.

    Args:
        inputs: what `prepare` gets, [N, ...].
        targets: [N, ...].
        elements: counted elements of each example (valid pixels, tokens), int [N] (None: one each).
    """

    inputs: Tensor
    targets: Tensor
    elements: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, indices: Tensor) -> "Examples":
        """Return the examples `indices` int64 [n], as a split of their own."""
        elements = None if self.elements is None else self.elements[indices]
        return Examples(self.inputs[indices], self.targets[indices], elements)

    def prefetch(self, plan: Sequence[Tensor]) -> None:
        """Begin to load what will be asked for: the indices of each part, the next one first. In memory: nothing."""

    def digest(self) -> bytes:
        """Return a SHA-256 of the contents."""
        parts = (self.inputs, self.targets)
        return hashlib.sha256(b"".join(p.contiguous().numpy().tobytes() for p in parts)).digest()


@dataclass(frozen=True)
class Part:
    """Some examples of a batch, on the device; `draw` is None in evaluation."""

    inputs: Tensor
    targets: Tensor
    draw: Draw | None


class Batch:
    """A whole *global* batch, not gathered yet.

    It has no `.to`, so Lightning leaves it alone; each part is gathered and moved by itself, and memory does not grow
    with the batch.

    Args:
        examples: the split.
        indices: which of them, int64 [B], in order.
        prepare: turns gathered examples into what the network takes.
        key: seed and step, which random numbers depend on (None: evaluation, nothing is random).
        following: the indices of the next batch, to be prefetched.
        exact: whether `elements` are known; else they are an upper bound, and targets must be counted.
    """

    def __init__(
        self,
        examples: Examples,
        indices: Tensor,
        prepare: Prepare,
        key: tuple[int, int] | None,
        following: Tensor | None = None,
        exact: bool = True,
    ) -> None:
        self.indices, self._examples, self._prepare, self._key = indices, examples, prepare, key
        self._following, self.exact = following, exact
        # a running count, so that any share of the batch knows its elements without a collective
        counts = None if examples.elements is None else examples.elements[indices].to(torch.int64)
        self._cumulative = None if counts is None else torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def __len__(self) -> int:
        return len(self.indices)

    def elements(self, start: int = 0, stop: int | None = None) -> int:
        """Return the counted elements (examples, valid pixels, tokens) of the positions from start to stop."""
        stop = len(self) if stop is None else stop
        if self._cumulative is None:
            return stop - start
        return int(self._cumulative[stop] - self._cumulative[start])

    def parts(self, spans: Sequence[tuple[int, int]], device: torch.device) -> Iterator[Part]:
        """Yield the parts at these (start, stop), in order, while those that come next are read."""
        plan = [self.indices[start:stop] for start, stop in spans]
        if self._following is not None:
            plan += [self._following[start:stop] for start, stop in spans]
        for i, (start, stop) in enumerate(spans):
            self._examples.prefetch(plan[i : i + LOOK_AHEAD])
            yield self.part(start, stop, device)

    def part(self, start: int, stop: int, device: torch.device) -> Part:
        """Return the examples at the positions from start to stop, moved to `device`."""
        indices = self.indices[start:stop]
        inputs = rows(self._examples.inputs, indices).to(device, non_blocking=True)
        targets = rows(self._examples.targets, indices).to(device, non_blocking=True)
        draw = None if self._key is None else drawn_for(*self._key, indices, device)
        return Part(*self._prepare(inputs, targets, draw), draw)


class GlobalBatches:
    """The training loader: global batches from number `k` on, and `k` is all its state (docs/design.md, resuming).

    Args:
        order: which examples make up batch k.
        steps: how many batches the run has.
        make: makes a batch of its indices, its number and the next batch's indices.
    """

    def __init__(self, order: Order, steps: int, make: Callable[[Tensor, int, Tensor | None], Batch]) -> None:
        self.order, self.steps, self.make, self.k = order, steps, make, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        following = None
        for k in range(self.k, self.steps):
            indices = self.order.batch(k) if following is None else following
            following = self.order.batch(k + 1) if k + 1 < self.steps else None
            batch = self.make(indices, k, following)
            self.k = k + 1
            yield batch  # nothing may stand after the last yield

    def state_dict(self) -> dict[str, int]:
        """Return the number of the next batch."""
        return {"k": self.k}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at the batch that a checkpoint names."""
        self.k = state["k"]


class WholeSplit:
    """An evaluation loader: the split as one lazy batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch


def check_finite(splits: dict[str, Examples]) -> None:
    """Refuse numbers that would make any run diverge.

    Raises:
        ValueError: if a split has an input or a target that is infinite or not a number.
    """
    for name, split in splits.items():
        for part, numbers in (("inputs", split.inputs), ("targets", split.targets)):
            if not isinstance(numbers, Tensor) or not numbers.is_floating_point() or not numbers.numel():
                continue
            if not torch.stack(numbers.aminmax()).isfinite().all():  # passes nan on, and takes no memory
                found = (~numbers.flatten(1).isfinite()).any(1) if numbers.ndim > 1 else ~numbers.isfinite()
                raise ValueError(
                    f"{int(found.sum()):,} of the {len(numbers):,} {part} of {name} hold nan or infinity (the first is "
                    f"example {int(found.nonzero()[0])}): mend them or leave them out"
                )


class InMemoryDataModule(LightningDataModule):
    """Data in memory as tensors, handed out as exact global batches.

    A subclass has `load` and `dimensions`, and may override `prepare`. It hands the options below on.

    Args:
        batch_size: the global batch: examples of one optimizer step over all ranks and micro-batches.
        epochs: the run's length in passes over the training set (null: until another budget ends it).
        epoch_end: at an epoch's end, `wrap` into the next permutation or `keep` the ragged last batch.
        variant: a smaller or noisier training set (null: as it is).
        growth: when to raise the batch, from `batch_size` on, instead of lowering the rate (null: never).
    """

    dimensions: tuple[int, ...]  # what the network is called with: (channels, classes) or (vocabulary size,)

    def __init__(
        self,
        batch_size: int = 64,
        epochs: float | None = None,
        epoch_end: Literal["wrap", "keep"] = "wrap",
        variant: Variant | None = None,
        growth: Growth | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}: give at least 1 example a step")
        if epochs is not None and epochs <= 0:
            raise ValueError(f"data.epochs is {epochs}: give more than 0, or null for no such limit")
        if growth is not None and epoch_end == "keep":
            raise ValueError("data.growth counts in whole batches: use data.epoch_end=wrap with it")
        self.batch_size, self.epochs, self.epoch_end, self.growth = batch_size, epochs, epoch_end, growth
        self.variant = variant or Variant()
        self.splits: dict[str, Examples] = {}

    @abstractmethod
    def load(self) -> dict[str, Examples]:
        """Return the splits `train`, `val` and, if there is one, `test`."""

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """Return what the network takes and the targets, of gathered examples that are on the device.

        Args:
            inputs: of the split, [n, ...].
            targets: [n, ...].
            draw: draw(salt, count) returns uniform numbers [n, count] that depend on (seed, step, example) alone, for
                augmentation; None in evaluation, where nothing may be random.
        """
        return inputs, targets

    def exact(self, training: bool) -> bool:
        """Return whether a batch's counted elements are known before its targets are read and augmented."""
        return True

    @property
    def seed(self) -> int:
        """Return the run's one seed (`seed_everything`)."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def setup(self, stage: str) -> None:
        """Load the splits, apply the variant and fix the order of the examples.

        Raises:
            ValueError: if the batch is larger than the training set, or the data hold nan.
        """
        if self.splits:
            return
        loaded = self.load()
        check_finite(loaded)
        splits = self._vary(loaded)
        n = len(splits["train"])
        if self.batch_size > n:
            raise ValueError(
                f"data.batch_size is {self.batch_size}, but the training set has {n} examples: "
                f"give at most {n} (which is exact full-batch descent)"
            )
        stages = self.growth.stages(self.batch_size, n) if self.growth else None
        self.order = Order(n, self.batch_size, self.seed, self.epoch_end == "wrap", stages)
        self.splits = splits

    def _vary(self, splits: dict[str, Examples]) -> dict[str, Examples]:
        """Apply the variant to `train`; add `trainset`, its fixed part, and under label noise `trainset_clean`."""
        if self.variant.classes:
            if self.variant.classes > self.dimensions[-1]:
                raise ValueError(
                    f"data.variant.classes is {self.variant.classes}, but there are {self.dimensions[-1]} classes"
                )
            splits = {name: replace(split, targets=self.variant.merge(split.targets)) for name, split in splits.items()}
            self.dimensions = (*self.dimensions[:-1], self.variant.classes)
        train, n = splits["train"], len(splits["train"])
        order, size = self.variant.order(n, train.targets), self.variant.size(n)
        fixed = order[: min(size, TRAIN_SUBSET)]  # the same for every run and, above 2,000, for every size
        if self.variant.label_noise:
            clean = train.at(fixed)
            train = replace(train, targets=self.variant.relabel(train.targets, self.dimensions[-1]))
            splits = splits | {"trainset_clean": clean}
        kept = train if size == n else train.at(order[:size].sort().values)
        self.fraction = size / n
        return splits | {"train": kept, "trainset": train.at(fixed)}

    @property
    def evaluated(self) -> list[str]:
        """Return the splits of an evaluation, in the order of `val_dataloader`."""
        return ["val", "trainset", *(s for s in self.splits if s == "trainset_clean")]

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return ENDLESS if self.epochs is None else self.order.steps(self.epochs)

    def steps_to(self, examples: int) -> int:
        """Return how many steps it takes to see so many examples."""
        return self.order.steps_to(examples)

    def lr_factor(self, step: int) -> float:
        """Return what growth leaves of the rate at `step`: 1 as long as the batch grows in its place."""
        return stage_at(self.order.stages, step).lr_factor

    def facts(self) -> dict[str, Any]:
        """Return what the run's record says of the data, by the names of its fields."""
        train = self.splits["train"]
        digest = hashlib.sha256(b"".join(self.splits[s].digest() for s in sorted(self.splits))).hexdigest()
        elements = 1.0 if train.elements is None else float(train.elements.sum()) / len(train)
        sizes = {f"{s}_examples": len(self.splits.get(s, ())) for s in ("train", "val", "test")}
        return {
            "name": type(self).__name__,
            "hash": digest,
            **sizes,
            "elements_per_example": elements,
            "fraction": self.fraction,
            "label_noise": self.variant.label_noise,
            "classes": self.variant.classes,
            "growth": [stage._asdict() for stage in self.order.stages] if self.growth else None,
        }

    def batches(self, order: Order, seed: int, steps: int) -> GlobalBatches:
        """Return training batches in any order, their augmentation drawn by `seed`."""
        examples = self.splits["train"]

        def make(indices: Tensor, k: int, following: Tensor | None) -> Batch:
            return Batch(examples, indices, self.prepare, (seed, k), following, self.exact(training=True))

        return GlobalBatches(order, steps, make)

    def train_dataloader(self) -> GlobalBatches:
        """Return the run's global batches."""
        return self.batches(self.order, self.seed, self.steps)

    def branch(self, batch_size: int, seed: int, examples: int) -> GlobalBatches:
        """Return training batches of another size and order, about `examples` in all."""
        order = Order(len(self.splits["train"]), batch_size, seed, wrap=True)
        return self.batches(order, seed, max(round(examples / batch_size), 1))

    def whole(self, split: str) -> Batch:
        """Return all examples of a split, in order, for evaluation."""
        examples = self.splits[split]
        return Batch(examples, torch.arange(len(examples)), self.prepare, None, exact=self.exact(training=False))

    def batch(self, k: int) -> Batch:
        """Return global batch k as it would be evaluated: not augmented."""
        return Batch(self.splits["train"], self.order.batch(k), self.prepare, None, exact=self.exact(training=False))

    def val_dataloader(self) -> list[WholeSplit]:
        """Return the evaluated splits, each as one batch."""
        return [WholeSplit(self.whole(split)) for split in self.evaluated]

    def test_dataloader(self) -> WholeSplit:
        """Return the test split as one batch.

        Raises:
            ValueError: if the data have none.
        """
        if "test" not in self.splits:
            raise ValueError(f"{type(self).__name__} has no test split: use `validate`")
        return WholeSplit(self.whole("test"))

    def predict_dataloader(self) -> WholeSplit:
        """Return the test split as one batch."""
        return self.test_dataloader()
