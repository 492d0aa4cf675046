"""A training set's size, how clean its labels are and how many classes it tells apart: axes of the data."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """A smaller or noisier training set, or fewer classes; but for those, validation and test stay as they are.

    What is kept grows with the size (25 % lies inside 50 %), what is relabelled with the noise, at one seed.

    Args:
        fraction: share of the training examples kept, above 0, at most 1.
        examples: how many training examples are kept (null: `fraction` says it).
        balanced: keep equally many examples of each class, as long as a class lasts.
        label_noise: share of all training labels replaced by another class, each equally likely.
        classes: merge the classes into so many, in every split: class c becomes c modulo `classes` (null: as they are).
        seed: of what is kept and relabelled; it is not the run's seed, so that every run has the same data.
    """

    fraction: float = 1.0
    examples: int | None = None
    balanced: bool = False
    label_noise: float = 0.0
    classes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"data.variant.fraction is {self.fraction}: give more than 0 and at most 1")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"data.variant.label_noise is {self.label_noise}: give a share, 0 to 1")
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"data.variant.classes is {self.classes}: give at least 2, or null")
        if self.examples is not None and self.fraction != 1:
            raise ValueError("data.variant has both fraction and examples: give one of them")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"data.variant.examples is {self.examples}: give at least 1, or null")

    def size(self, n: int) -> int:
        """Return how many of n examples are kept.

        Raises:
            ValueError: if there are not that many.
        """
        if self.examples is None:
            return max(round(self.fraction * n), 1)
        if self.examples > n:
            raise ValueError(f"data.variant.examples is {self.examples}, but the training set has {n}")
        return self.examples

    def order(self, n: int, targets: Tensor) -> Tensor:
        """Return the ids int64 [n] in the order in which they are kept: the first ones are the smallest subset."""
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        if not self.balanced:
            return shuffled
        labels = class_labels(targets)[shuffled]
        by_class = labels.argsort(stable=True)
        counts = labels.bincount()
        place = torch.arange(n) - (counts.cumsum(0) - counts)[labels[by_class]]  # each one's place in its class
        turn = torch.empty(n, dtype=torch.int64).scatter_(0, by_class, place)
        return shuffled[turn.argsort(stable=True)]  # one of each class, then the next of each, ...

    def merge(self, targets: Tensor) -> Tensor:
        """Return the labels int64 [n] with the classes merged."""
        assert self.classes is not None
        return class_labels(targets) % self.classes

    def relabel(self, targets: Tensor, classes: int) -> Tensor:
        """Return the labels int64 [n], the share `label_noise` of them wrong."""
        labels = class_labels(targets)
        generator = torch.Generator().manual_seed(self.seed + 1)  # apart from the order of what is kept
        chosen = torch.randperm(len(labels), generator=generator)[: round(self.label_noise * len(labels))]
        shift = torch.randint(1, classes, labels.shape, generator=generator)
        return labels.index_copy(0, chosen, ((labels + shift) % classes)[chosen])


def class_labels(targets: Tensor) -> Tensor:
    """Return `targets` as it is, int64 [n].

    Raises:
        ValueError: if it does not hold one class an example.
    """
    if not isinstance(targets, Tensor) or targets.dim() != 1:
        raise ValueError("data.variant.balanced, classes and label_noise need data with one class an example")
    return targets
