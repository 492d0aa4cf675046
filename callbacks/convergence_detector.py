"""When did a run reach its targets, and when is there nothing left to learn from it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pytorch_lightning import Callback, Trainer

from callbacks.hit import POSITIONS, crossing_at, crossing_so_far, diverged, hits, plateau
from callbacks.record import Plateau, Status, TargetResult
from tasks.protocols import DataModule, Task

T = TypeVar("T")
Stop = Literal["targets", "budget", "outrun", "diverged"]
Row = dict[str, float]  # one evaluation, by the metric names of docs/design.md, contract 4
FORM = "give metric, direction (max or min), and value or plateau: {window: examples}"


@dataclass(frozen=True)
class Target:
    """A goal of training: a metric, which way is better, and either a value or a plateau.

    Args:
        metric: such as val/accuracy or trainset/loss.
        direction: max where larger is better, min where smaller is.
        value: the goal.
        plateau: in place of a value: the goal is reached where the metric stops improving.
    """

    metric: str
    direction: Literal["max", "min"]
    value: float | None = None
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("max", "min"):
            raise ValueError(f"target {self.metric}: its direction is max or min, not {self.direction}")
        if (self.value is None) == (self.plateau is None):
            raise ValueError(f"target {self.metric}: give either value or plateau")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"target {self.metric}: its value is {self.value}: give a finite number")

    @property
    def goal(self) -> float:
        """Return the value of a target that has one."""
        assert self.value is not None
        return self.value

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "Target":
        """Return the target of these fields, as YAML has them.

        Raises:
            ValueError: if they make no target.
        """
        try:
            plateau, value = fields.get("plateau"), fields.get("value")
            if isinstance(value, str | bool):
                raise TypeError
            return cls(**fields | {"plateau": None if plateau is None else Plateau(**plateau)})
        except TypeError:
            raise ValueError(f"convergence.targets: {fields} is not a target: {FORM}") from None


@dataclass(frozen=True)
class Rules:
    """When a run gives up: its budget is spent when both `steps` and `examples` are, unless it is outrun before."""

    steps: int | None = None
    examples: int | None = None
    outrun_steps: int | None = None

    def asked(self, all_targets: Sequence[T]) -> Sequence[T]:
        """Return what is waited for of a run's targets, or of their results: a race is about the first alone."""
        return all_targets if self.outrun_steps is None else all_targets[:1]


@dataclass(frozen=True)
class Verdict:
    """What the evaluations so far say: each target's result, and what stops the run, if anything does."""

    targets: tuple[TargetResult, ...]
    stopped_by: Stop | None

    def status(self, ended: bool) -> Status:
        """Return `reached`, `diverged`, `outrun`, `budget` or, while not `ended`, `running`."""
        if self.stopped_by in ("diverged", "outrun"):
            return "reached" if self._all_reached() else self.stopped_by
        if self._all_reached() or self.stopped_by == "targets":
            return "reached"
        return "budget" if ended else "running"

    def _all_reached(self) -> bool:
        return bool(self.targets) and all(t.status == "reached" for t in self.targets)

    def closed(self, status: Status) -> tuple[TargetResult, ...]:
        """Return the targets of a run that ended with `status`: those not reached end as it did, censored at least."""
        undecided: Status = "budget" if status == "reached" else status
        return tuple(replace(t, status=undecided) if t.status == "running" else t for t in self.targets)


def judge_target(rows: Sequence[Row], target: Target) -> TargetResult:
    """Return the target's result, of the evaluations that measured it: `reached` or `running`."""
    rows = [row for row in rows if target.metric in row]
    steps, values = [row["step"] for row in rows], [row[target.metric] for row in rows]
    columns = {name: [row[name] for row in rows] for name in POSITIONS.values()}
    asked = (target.metric, target.direction, target.value)
    if target.plateau is not None:
        examples = [row["examples"] for row in rows]
        at = plateau(examples, values, target.direction, target.plateau.window, target.plateau.improvement)
        reached = None if at is None else crossing_at(columns, steps[at])
        return TargetResult(*asked, "running" if reached is None else "reached", target.plateau, reached)
    found = hits(steps, values, target.direction, target.goal)
    if found is None:
        return TargetResult(*asked, "running")
    hit, line, first = (crossing_at(columns, step) for step in found)
    return TargetResult(*asked, "reached", hit=hit, line=line, first=first)


def judge(rows: Sequence[Row], targets: Sequence[Target], rules: Rules) -> Verdict:
    """Return what all evaluations so far, and nothing else, say of the targets and of stopping."""
    results = tuple(judge_target(rows, target) for target in targets)
    asked = rules.asked(results)
    stopped_by: Stop | None = None
    if rows and _has_diverged(rows):
        stopped_by = "diverged"
    elif asked and all(r.status == "reached" for r in asked):
        stopped_by = "targets"
    elif rows and targets and _is_outrun(rows, targets[0], rules):
        stopped_by = "outrun"
    elif rows and rules.steps is not None and rules.examples is not None:
        spent = rows[-1]["step"] >= rules.steps and rows[-1]["examples"] >= rules.examples
        stopped_by = "budget" if spent else None
    verdict = Verdict(results, stopped_by)
    if stopped_by is None or stopped_by == "targets":
        return verdict
    return replace(verdict, targets=verdict.closed(stopped_by))


def _is_outrun(rows: Sequence[Row], target: Target, rules: Rules) -> bool:
    if rules.outrun_steps is None or rows[-1]["step"] < rules.outrun_steps:
        return False
    return target.plateau is not None or next_crossing(rows, target) is None


def next_crossing(rows: Sequence[Row], target: Target) -> float | None:
    """Return the step of the crossing that the run has to follow up, None where there is none so far."""
    values = [row.get(target.metric, math.nan) for row in rows]
    return crossing_so_far([row["step"] for row in rows], values, target.direction, target.goal)


def _has_diverged(rows: Sequence[Row]) -> bool:
    splits = ("trainset", "val", "trainset_clean")
    known = next(f"{split}/loss" for split in splits if all(f"{split}/loss" in row for row in rows))
    losses = [row[known] for row in rows]
    broken = any(not math.isfinite(row.get("train/loss", 0.0)) for row in rows)
    return broken or diverged([row["step"] for row in rows], losses, losses[0]) is not None


def detector_of(trainer: Trainer) -> "ConvergenceDetector | None":
    """Return the trainer's convergence detector, None where it has none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared
    return next((c for c in callbacks if isinstance(c, ConvergenceDetector)), None)


def end_of(trainer: Trainer, task: Task) -> float:
    """Return the step at which a run ends at the latest: its data's, the trainer's or its budget's."""
    ends: list[float] = [trainer.num_training_batches]
    ends += [trainer.max_steps] if trainer.max_steps > 0 else []
    detector = detector_of(trainer)
    return min([*ends, detector.last_step(task.data)] if detector else ends)


class ConvergenceDetector(Callback):
    """Judges the run at every evaluation and stops it when all is decided (docs/protocol.md, rules 1, 6 and 7).

    Args:
        targets: what to reach, as {metric: val/accuracy, direction: max, value: 0.8}, or plateau: {window: examples}
            for value; a hit is the crossing of the isotonic regression on log step, followed up to 1.5 times its step.
        budget_steps: give up unreached once these steps and `budget_examples` are both spent.
        budget_examples: see `budget_steps`; give both or neither.
        outrun_steps: of a run that races others for the first target: give up, as outrun, once these steps are done
            and that target is not crossed.
        stop: false runs on to the end of training when all targets are decided; divergence always stops.
    """

    def __init__(
        self,
        targets: list[dict[str, Any]] | None = None,  # of Target, jsonargparse would fill gaps from an earlier config
        budget_steps: int | None = None,
        budget_examples: int | None = None,
        outrun_steps: int | None = None,
        stop: bool = True,
    ) -> None:
        if (budget_steps is None) != (budget_examples is None):
            raise ValueError("convergence: give both budget_steps and budget_examples, or neither")
        limits = {"budget_steps": budget_steps, "budget_examples": budget_examples, "outrun_steps": outrun_steps}
        for name, value in limits.items():
            if value is not None and value < 1:
                raise ValueError(f"convergence.{name} is {value}: give at least 1, or null for no such limit")
        self.targets = [t if isinstance(t, Target) else Target.parse(t) for t in targets or []]
        if outrun_steps is not None and not self.targets:
            raise ValueError("convergence.outrun_steps needs a target to race for: give convergence.targets")
        self.stop = stop
        self.rules = Rules(budget_steps, budget_examples, outrun_steps)
        self.rows: list[Row] = []
        self.verdict = judge(self.rows, self.targets, self.rules)

    def last_step(self, data: DataModule) -> float:
        """Return the step at which the run gives up on these data, infinity where nothing makes it."""
        steps, examples = self.rules.steps, self.rules.examples
        if not self.stop or steps is None or examples is None:
            return math.inf
        return max(steps, data.steps_to(examples))

    def open_targets(self) -> list[Target]:
        """Return the targets with a value that the run is still after."""
        both = zip(self.rules.asked(self.targets), self.verdict.targets, strict=False)
        return [target for target, result in both if target.plateau is None and result.status == "running"]

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:
        """Refuse a target that the task does not measure.

        Raises:
            ValueError: with the metrics that there are.
        """
        if stage != "fit":
            return
        names = [f"{split}/{metric}" for split in task.data.evaluated for metric in task.metrics]
        for target in self.targets:
            if target.metric not in names:
                raise ValueError(
                    f"{type(task).__name__} does not produce the target metric {target.metric}: "
                    f"choose among {', '.join(names)}"
                )

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """Decide by the evaluations of the run before it was resumed."""
        self._decide(trainer)  # a run that was resumed after its last decision stops again

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Decide by all evaluations so far."""
        if trainer.state.fn == "fit":
            self.rows.append(dict(task.evaluation))
            self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        self.verdict = judge(self.rows, self.targets, self.rules)
        reason = self.verdict.stopped_by
        ends = reason == "diverged" or (reason is not None and self.stop)
        # metrics are the same on all ranks; the reduction makes sure that all stop together
        if trainer.strategy.reduce_boolean_decision(ends, all=False):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the evaluations so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the evaluations of the run that is resumed."""
        self.rows = state["rows"]
        self.verdict = judge(self.rows, self.targets, self.rules)
