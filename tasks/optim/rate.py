"""The learning rate of every step: scaling rule, warm-up and schedule put together for one batch size."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tasks.optim.scaling import AverageRule, Duration, LRRule, lr_factor, warmup_steps
from tasks.optim.schedules import Constant, Schedule, warmed_up

LONGEST_WARMUP = 0.3  # of the baseline's steps


@dataclass(frozen=True)
class RateOptions:
    """What a config says of the learning rate, and of the averages that scale with it.

    Args:
        lr_scaling: what the base rate is multiplied by: 1 (none), k = batch_size / base_batch_size (linear),
            or its square root (sqrt, and legw, whose warm-up has the base batch's number of steps).
        base_batch_size: the batch at which the base rate, momentum and warm-up were chosen.
        warmup: length of the linear warm-up, such as "5 epochs", "300 steps" or "64000 examples" (null: none).
        warmup_from: the rate that the warm-up begins at: zero, or the base rate.
        schedule: what follows, over the horizon (null: a constant rate).
        horizon: the length of the schedule, written as the warm-up's (null: the run's own).
        momentum_scaling: of momentum or beta1: none; noise (held noise scale); half-life (held in examples).
        beta2_scaling: of Adam's and LAMB's second average: none (held per step), or half-life (held in examples).
        baseline_steps: what the tuned run at the base batch needed; a warm-up in epochs that takes more than 30 %
            of it there is refused (null: not known, or a replication with the warm-up of its paper).

    Raises:
        ValueError: for a length that is none, and for averages that scale without a base batch.
    """

    lr_scaling: LRRule = "none"
    base_batch_size: int | None = None
    warmup: str | None = None
    warmup_from: Literal["zero", "base"] = "zero"
    schedule: Schedule | None = None
    horizon: str | None = None
    momentum_scaling: AverageRule = "none"
    beta2_scaling: Literal["none", "half-life"] = "none"
    baseline_steps: int | None = None

    def __post_init__(self) -> None:
        for duration in (self.warmup, self.horizon):
            if duration is not None:
                Duration.parse(duration)
        for name, rule in (("momentum", self.momentum_scaling), ("beta2", self.beta2_scaling)):
            if rule != "none" and not self.base_batch_size:
                raise ValueError(f"model.{name}_scaling needs model.base_batch_size, the batch of the base {name}")


@dataclass(frozen=True)
class Rate:
    """The learning rate: rate(step) = base rate x `factor` x `at(step)`.

    Args:
        options: what the config says of it.
        batch_size: of the run, which durations are counted for.
        train_examples: of an epoch.
        total_steps: the schedule's horizon (None: the run has no set end).

    Raises:
        ValueError: if a rule needs a base batch, or a schedule a horizon, that is not given, and for a warm-up in
            epochs that is too long for the baseline (protocol rule 8).
    """

    options: RateOptions
    batch_size: int
    train_examples: int
    total_steps: int | None

    def __post_init__(self) -> None:
        options = self.options
        if options.lr_scaling != "none" and not options.base_batch_size:
            raise ValueError(
                f"model.lr_scaling={options.lr_scaling} needs model.base_batch_size, the batch of the base rate"
            )
        if self.total_steps is None and self.schedule.needs_horizon:
            raise ValueError(
                f"model.schedule={self.schedule!r} needs the run's length: "
                "give model.horizon, data.epochs or trainer.max_steps"
            )
        if options.baseline_steps is not None and options.warmup is not None:
            self._check_warmup(Duration.parse(options.warmup), options.baseline_steps)

    def _check_warmup(self, warmup: Duration, baseline_steps: int) -> None:
        """Refuse epochs that look short at a huge batch but exceed 30 % of the baseline (protocol rule 8)."""
        base = self.options.base_batch_size
        if base is None:
            raise ValueError("model.baseline_steps needs model.base_batch_size, the batch that it was measured at")
        steps = warmup.steps(base, self.train_examples)
        if warmup.unit == "epochs" and steps > LONGEST_WARMUP * baseline_steps:
            raise ValueError(
                f"model.warmup={self.options.warmup} takes {steps} of the baseline's {baseline_steps} steps at batch "
                f"{base}: give at most {LONGEST_WARMUP:.0%}, or a number of steps"
            )

    @property
    def schedule(self) -> Schedule:
        """Return what follows the warm-up."""
        return self.options.schedule or Constant()

    @property
    def factor(self) -> float:
        """Return what the base rate is multiplied by at this batch size."""
        return lr_factor(self.options.lr_scaling, self.batch_size, self.options.base_batch_size or self.batch_size)

    @cached_property
    def warmup_steps(self) -> int:
        """Return the length of the warm-up, in steps."""
        options = self.options
        if options.warmup is None:
            return 0
        length = Duration.parse(options.warmup)
        return warmup_steps(length, options.lr_scaling, self.batch_size, options.base_batch_size, self.train_examples)

    @cached_property
    def resolved(self) -> Schedule:
        """Return the schedule with its durations in steps."""
        return self.schedule.resolved(lambda d: d.steps(self.batch_size, self.train_examples))

    def at(self, step: int) -> float:
        """Return the factor of the effective rate at update number `step`, counted from 0."""
        start = 1 / self.factor if self.options.warmup_from == "base" else 0.0
        return warmed_up(self.resolved, step, self.total_steps or 1, self.warmup_steps, start)
