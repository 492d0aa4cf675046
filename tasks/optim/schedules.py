"""Schedules: pure functions of (step, total steps) that return a factor of the effective learning rate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.optim.scaling import Duration


class Schedule:
    """A factor of the rate at `step` (updates made so far) of `total_steps`: 1, unless a subclass says otherwise."""

    after_warmup = True  # the horizon begins where the warm-up ends; False: where training begins

    @property
    def needs_horizon(self) -> bool:
        """Return whether it depends on total_steps."""
        return True

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at `step`."""
        return 1.0

    def resolved(self, steps: Callable[[Duration], int]) -> "Schedule":
        """Return the same schedule with its durations counted in steps."""
        return self

    def __repr__(self) -> str:  # of one that is no dataclass: the record says it
        settings = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


@dataclass(frozen=True)
class Constant(Schedule):
    """1 at every step."""

    needs_horizon = False


@dataclass
class Step(Schedule):
    """Multiply by `factor` at each milestone: a fraction of the steps, or a duration such as "30 epochs".

    Raises:
        ValueError: for a milestone that is neither.
    """

    after_warmup = False  # Goyal et al. count epochs 30, 60, 80 from the start

    milestones: Sequence[float | str] = (1 / 3, 2 / 3, 8 / 9)
    factor: float = 0.1

    def __post_init__(self) -> None:
        self.milestones = tuple(self.milestones)  # a list where YAML gave it
        for milestone in self.milestones:
            if isinstance(milestone, str):
                Duration.parse(milestone)
            elif not 0 < milestone < 1:
                raise ValueError(f"milestone {milestone} is no fraction of the steps; write '{milestone} epochs'.")

    def resolved(self, steps: Callable[[Duration], int]) -> "Step":
        """Return the same schedule with its milestones counted in steps."""
        counted = Step((), self.factor)
        counted.milestones = tuple(steps(Duration.parse(m)) if isinstance(m, str) else m for m in self.milestones)
        return counted

    @property
    def needs_horizon(self) -> bool:
        """Return whether any milestone is a fraction of the steps."""
        return any(isinstance(m, float) for m in self.milestones)

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at `step`."""
        passed = sum(step >= (m if isinstance(m, int) else float(m) * total_steps) for m in self.milestones)
        return self.factor**passed


@dataclass(frozen=True)
class Polynomial(Schedule):
    """end + (1 - end) (1 - t/T)^power; LARS's Algorithm 1 has power 2 and end 0."""

    power: float = 2.0
    end: float = 0.0

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at `step`."""
        return self.end + (1 - self.end) * math.pow(1 - _progress(step, total_steps), self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `end`."""

    end: float = 0.0

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at `step`."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * _progress(step, total_steps))) / 2


@dataclass(frozen=True)
class LinearTo(Schedule):
    """Linear from 1 to `end_factor` over `decay_fraction` of the steps, then constant.

    The form of Shallue et al. 2018, whose released search spaces name both numbers; its text was not read.
    """

    end_factor: float = 0.01
    decay_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.decay_fraction <= 1:
            raise ValueError(f"decay_fraction is {self.decay_fraction}; give a fraction of the steps, above 0 up to 1.")

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at `step`."""
        return 1 - (1 - self.end_factor) * min(1.0, _progress(step, total_steps) / self.decay_fraction)


def warmed_up(schedule: Schedule, step: int, total_steps: int, warmup: int, start: float) -> float:
    """Return the schedule's factor, after a linear ramp.

    Update u = 1 ... warmup gets start + (1 - start) u / warmup, so that none has a rate of zero. A schedule that counts
    from the start of training applies within the ramp too.

    Args:
        schedule: what follows the ramp.
        step: updates made so far.
        total_steps: of the whole run.
        warmup: steps of the ramp.
        start: 0, or 1 / lr_factor to begin at the base rate (Goyal et al. 2017).
    """
    ramp = 1.0 if step >= warmup else start + (1 - start) * (step + 1) / warmup
    if not schedule.after_warmup:
        return ramp * schedule(step, total_steps)
    return ramp * schedule(max(0, step - warmup), max(1, total_steps - warmup))


def _progress(step: int, total_steps: int) -> float:
    return min(1.0, step / total_steps)
