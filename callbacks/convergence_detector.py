"""When did a run reach its targets, and when is there nothing left to learn from it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.hit import crossing, diverged, plateau

Row = dict[str, float]  # one evaluation, by contract 4's names
POSITIONS = {"steps": "step", "examples": "examples", "epochs": "epoch", "seconds": "seconds"}


@dataclass(frozen=True)
class Plateau:
    """Convergence without a goal: the best of the last `window` examples is less than `improvement` (relative)
    better than the best before them."""

    window: int
    improvement: float = 0.01

    def __post_init__(self) -> None:
        if self.window < 1 or not 0 <= self.improvement < math.inf:
            raise ValueError("plateau: window is at least 1 example and improvement a finite number, at least 0")


@dataclass(frozen=True)
class Target:
    """What counts as arriving: a metric, which way is better, and either a value or a plateau.

    Args:
        metric: such as val/accuracy or trainset/loss.
        direction: max where larger is better, min where smaller is.
        value: the goal.
        plateau: stop looking for a value; arrive where the metric stops improving.
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

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "Target":
        """A target from its fields as YAML has them. Raises ValueError."""
        try:
            plateau, value = fields.get("plateau"), fields.get("value")
            if isinstance(value, str):
                raise TypeError
            return cls(**fields | {"plateau": None if plateau is None else Plateau(**plateau)})
        except TypeError:
            raise ValueError(
                f"convergence.targets: {fields} is not a target: give metric, direction (max or min), and value or "
                "plateau: {window: examples}"
            ) from None


@dataclass(frozen=True)
class Rules:
    """How a run is judged: a budget runs out when both `steps` and `examples` are spent (protocol rule 6)."""

    steps: int | None = None
    examples: int | None = None
    consecutive: int = 3
    extra_evaluations: int = 3


@dataclass(frozen=True)
class Verdict:
    """What the evaluations so far say: per target its record, whether to stop, and why."""

    targets: list[dict[str, Any]]
    stopped_by: Literal["targets", "budget", "diverged"] | None

    def status(self, ended: bool) -> str:
        """`reached`, `diverged`, `budget` or, while not `ended`, `running`."""
        statuses = [t["status"] for t in self.targets]
        if statuses and all(s == "reached" for s in statuses):
            return "reached"
        if self.stopped_by == "diverged":
            return "diverged"
        return "budget" if ended else "running"


def bracket(rows: Sequence[Row], i: int | None) -> dict[str, list[float]] | None:
    """Where the hit at evaluation i lies: (the evaluation before, this one] in every unit."""
    if i is None:
        return None
    before = rows[i - 1] if i else dict.fromkeys(POSITIONS.values(), 0)
    return {unit: [before[name], rows[i][name]] for unit, name in POSITIONS.items()}


def judge_target(rows: Sequence[Row], target: Target, consecutive: int) -> tuple[int | None, dict[str, Any]]:
    """The evaluation that hit, by the primary rule, and the record of all rules."""
    values = [row.get(target.metric, math.nan) for row in rows]
    if target.plateau is not None:
        examples = [row["examples"] for row in rows]
        hit = plateau(examples, values, target.direction, target.plateau.window, target.plateau.improvement)
        return hit, {"bracket": bracket(rows, hit), "first": None, "consecutive": None}
    goal = (values, target.direction, target.value)
    hit = crossing(*goal)
    first, row = crossing(*goal, rule="first"), crossing(*goal, rule="consecutive", k=consecutive)
    return hit, {
        "bracket": bracket(rows, hit),
        "first": bracket(rows, first),
        "consecutive": bracket(rows, row),
    }


def judge(rows: Sequence[Row], targets: Sequence[Target], rules: Rules) -> Verdict:
    """Decide, from all evaluations so far and nothing else, what was reached and whether to stop."""
    records, waiting = [], False
    for target in targets:
        hit, record = judge_target(rows, target, rules.consecutive)
        extra = 0 if target.plateau else rules.extra_evaluations
        waiting |= hit is None or len(rows) - 1 - hit < extra
        fields = {"metric": target.metric, "direction": target.direction, "value": target.value}
        fields["plateau"] = vars(target.plateau) if target.plateau else None
        records.append(fields | {"status": "running" if hit is None else "reached"} | record)
    stopped_by = None
    if rows and _has_diverged(rows):
        stopped_by = "diverged"
    elif targets and not waiting:
        stopped_by = "targets"
    elif rows and rules.steps is not None and rules.examples is not None:
        spent = rows[-1]["step"] >= rules.steps and rows[-1]["examples"] >= rules.examples
        stopped_by = "budget" if spent else None
    if stopped_by in ("diverged", "budget"):
        for record in records:
            record["status"] = stopped_by if record["status"] == "running" else record["status"]
    return Verdict(records, stopped_by)


def _has_diverged(rows: Sequence[Row]) -> bool:
    losses = [row["trainset/loss"] for row in rows]
    broken = any(not math.isfinite(row.get("train/loss", 0.0)) for row in rows)
    return broken or diverged([row["step"] for row in rows], losses, losses[0]) is not None


class ConvergenceDetector(Callback):
    """Judges the run at every evaluation and stops it when all is decided (protocol rules 1, 6, 7).

    Args:
        targets: what to reach, as {metric: val/accuracy, direction: max, value: 0.8}, or plateau: {window: examples}
            for value; a hit is the first crossing by the centred median of 3 evaluations.
        budget_steps: give up unreached once these steps and `budget_examples` are both spent.
        budget_examples: see `budget_steps`; give both or neither.
        consecutive: the length of the run of crossings recorded beside the primary hit.
        extra_evaluations: evaluations after the last hit before the run stops.
        stop: false runs on to the end of training when all targets are decided; divergence always stops.
    """

    def __init__(
        self,
        targets: list[dict[str, Any]] | None = None,  # of Target, jsonargparse would fill gaps from an earlier config
        budget_steps: int | None = None,
        budget_examples: int | None = None,
        consecutive: int = 3,
        extra_evaluations: int = 3,
        stop: bool = True,
    ) -> None:
        if (budget_steps is None) != (budget_examples is None):
            raise ValueError("convergence: give both budget_steps and budget_examples, or neither")
        if extra_evaluations < 1 or consecutive < 1:
            raise ValueError("convergence: consecutive and extra_evaluations are at least 1")
        if budget_steps is not None and min(budget_steps, budget_examples) < 1:
            raise ValueError("convergence: budget_steps and budget_examples are at least 1")
        self.targets = [t if isinstance(t, Target) else Target.parse(t) for t in targets or []]
        self.stop = stop
        self.rules = Rules(budget_steps, budget_examples, consecutive, extra_evaluations)
        self.rows: list[Row] = []
        self.verdict = judge(self.rows, self.targets, self.rules)

    def budget_end(self, batch_size: int) -> float:
        """The step at which the budget is spent at this batch size."""
        if self.rules.steps is None or not self.stop:
            return math.inf
        return max(self.rules.steps, math.ceil(self.rules.examples / batch_size))

    def setup(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        names = [f"{split}/{metric}" for split in trainer.datamodule.evaluated for metric in task.metrics]
        for target in self.targets:
            if target.metric not in names:
                raise ValueError(
                    f"{type(task).__name__} does not produce the target metric {target.metric}: "
                    f"choose among {', '.join(names)}"
                )

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._decide(trainer)  # a run that was resumed after its last decision stops again

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
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
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        self.verdict = judge(self.rows, self.targets, self.rules)
