"""Increase the batch instead of decaying the rate (Smith et al. 2018, arXiv 1711.00489)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """A run of steps of one batch size."""

    first_step: int
    first_example: int
    batch_size: int
    lr_factor: float


@dataclass(frozen=True)
class Growth:
    """Multiply the batch where a schedule would divide the rate; it takes the schedule's place.

    Args:
        epochs: when, in epochs from the start, each time.
        factor: by how much each time.
        largest: no batch is larger; what is left of a drop is the rate's (null: the whole training set).
    """

    epochs: Sequence[float]
    factor: float = 5.0
    largest: int | None = None

    def __post_init__(self) -> None:
        if self.factor <= 1 or list(self.epochs) != sorted(self.epochs) or min(self.epochs, default=0) < 0:
            raise ValueError(f"data.growth is {self}: give rising epochs, from 0 on, and a factor above 1")

    def stages(self, batch_size: int, train_examples: int) -> list[Stage]:
        """Return the run's stages.

        Raises:
            ValueError: if `largest` does not lie between the batch and the training set.
        """
        largest = train_examples if self.largest is None else self.largest
        if not batch_size <= largest <= train_examples:
            raise ValueError(
                f"data.growth.largest is {largest}: give at least data.batch_size ({batch_size}) and at most the "
                f"training set's {train_examples} examples"
            )
        drops = [(round(at * train_examples), self.factor**-i) for i, at in enumerate(self.epochs, 1)]
        return growth_stages([(0, 1.0), *drops], batch_size, largest)


def growth_stages(drops: list[tuple[int, float]], batch_size: int, largest_batch_size: int) -> list[Stage]:
    """Return stages that raise the batch where a schedule would lower the rate.

    Each stage's batch is batch_size / factor as far as `largest_batch_size` allows, and the rest of the drop is left to
    the rate; a stage begins with the first whole step at or after its example.

    Args:
        drops: (example from which it counts, factor of the rate), the first at example 0.
        batch_size: of the first stage.
        largest_batch_size: no batch is larger.
    """
    stages: list[Stage] = []
    step = example = 0
    for begin, factor in drops:
        if stages:
            steps = max(0, math.ceil((begin - example) / stages[-1].batch_size))
            step, example = step + steps, example + steps * stages[-1].batch_size
        size = min(round(batch_size / factor), max(batch_size, largest_batch_size))
        stages.append(Stage(step, example, size, factor * size / batch_size))
    return stages


def stage_at(stages: list[Stage], step: int) -> Stage:
    """Return the stage that a step belongs to; of stages that begin at the same step, the last."""
    return [stage for stage in stages if stage.first_step <= step][-1]


def first_example(stages: list[Stage], step: int) -> int:
    """Return the position of a step's first example in the endless stream of epochs."""
    stage = stage_at(stages, step)
    return stage.first_example + (step - stage.first_step) * stage.batch_size


def step_of(stages: list[Stage], example: int) -> int:
    """Return the step whose batch holds the example at this position: the inverse of `first_example`."""
    stage = [stage for stage in stages if stage.first_example <= example][-1]
    return stage.first_step + (example - stage.first_example) // stage.batch_size
