"""The record of a run, typed: what was run, when each target was reached, how it ended (docs/design.md, contract 3)."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

VERSION: Final = 2
UNITS = ("steps", "examples", "epochs", "seconds")
TOO_EARLY = "but the budget was spent before 1.5 times the crossing: raise convergence.budget_steps and budget_examples"
Unit = Literal["steps", "examples", "epochs", "seconds"]
Rule = Literal["hit", "line", "first"]
# `outrun` is a tuning run that was beaten; with `budget` it is censored, and it is never scored as a miss
Status = Literal["reached", "budget", "outrun", "diverged", "failed", "running"]


def _numbers(value: object) -> object:
    """Return `value` with the texts nan, inf and -inf, at any depth, as the numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value


Number = Annotated[float, BeforeValidator(_numbers)]  # may be nan or infinite, which JSON holds as text
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, lt=10**15)]
Whole = Annotated[int, Field(gt=-(10**18), lt=10**18)]
Text = Annotated[str, Field(max_length=2_000)]


@dataclass(frozen=True)
class Data:
    """The data set as it was trained on; `hash` is of its contents, `classes` how many its own were merged into."""

    name: Text
    hash: Text | None = None
    train_examples: Count | None = None
    val_examples: int | None = None
    test_examples: int | None = None
    elements_per_example: Positive | None = None
    fraction: Positive = 1.0
    label_noise: Finite = 0.0
    classes: Count | None = None
    growth: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class Optimizer:
    """The optimizer's class and what it was set to, the rate apart."""

    name: Text
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rate:
    """The learning rate: as given, as scaled to the batch, and its warm-up and schedule."""

    base: Finite
    effective: Finite
    scaling_rule: str = "none"
    base_batch_size: Count | None = None
    schedule: str = "constant"
    warmup: str = "none"
    warmup_steps: Finite = 0.0
    horizon_steps: int | None = None
    momentum_scaling: str = "none"
    beta2_scaling: str = "none"
    baseline_steps: int | None = None


@dataclass(frozen=True)
class Batch:
    """The global batch, how it was cut up, and how its examples were chosen."""

    size: Count
    micro: int | None = None
    ghost: int | str | None = None
    epoch_end: str = "wrap"
    sampling: str = "without replacement"


@dataclass(frozen=True)
class Regularization:
    """What holds for every step whatever the batch."""

    label_smoothing: float = 0.0
    decay_norm_bias: bool = True


@dataclass(frozen=True)
class Budget:
    """What ended the run if no target did; both `steps` and `examples` must be spent."""

    steps: int | None = None
    examples: int | None = None
    max_steps: Count | None = None
    max_epochs: Positive | None = None
    outrun_steps: int | None = None


@dataclass(frozen=True)
class Crossing:
    """Where training was when a target was reached, between two evaluations."""

    steps: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    examples: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epochs: Number = math.nan
    seconds: Number = math.nan


@dataclass(frozen=True)
class Plateau:
    """Convergence without a goal: a metric has stopped improving.

    The best of the last `window` examples is less than `improvement` (relative) better than the best before them.
    """

    window: int
    improvement: float = 0.01

    def __post_init__(self) -> None:
        if self.window < 1 or not 0 <= self.improvement < math.inf:
            raise ValueError("plateau: window is at least 1 example and improvement a finite number, at least 0")


@dataclass(frozen=True)
class TargetResult:
    """One target of one run: what was asked, how it ended, and where it was reached by each rule.

    `hit` is the crossing of the isotonic regression, which counts; `line` is as unbiased, `first` the raw crossing.
    """

    metric: Text
    direction: Literal["min", "max"]
    value: Finite | None
    status: Status
    plateau: Plateau | None = None
    hit: Crossing | None = None
    line: Crossing | None = None
    first: Crossing | None = None

    def __post_init__(self) -> None:
        if self.status == "reached" and self.hit is None:
            raise ValueError(f"target {self.metric} is 'reached' but has no hit")

    @property
    def label(self) -> str:
        """Return the target as people write it."""
        if self.value is None:
            return f"{self.metric} at its plateau" if self.plateau else self.metric
        return f"{self.metric} {'≥' if self.direction == 'max' else '≤'} {self.value:g}"

    def gap(self, value: float) -> float:
        """Return how far a value of the metric is from the target's, 0 or less past it; nan where it has none."""
        return math.nan if self.value is None else (self.value - value) * (1 if self.direction == "max" else -1)

    def at(self, unit: Unit, rule: Rule = "hit") -> float:
        """Return when the target was reached: infinity where it was not, nan where the rule or unit cannot tell."""
        if self.status != "reached":
            return math.inf
        found = getattr(self, rule)
        return math.nan if found is None else getattr(found, unit)


@dataclass(frozen=True)
class Cost:
    """What the run used; what could not be read is None."""

    peak_memory_bytes: int | None = None
    training_seconds: Finite | None = None
    wall_seconds: Finite | None = None
    examples_per_second: Finite | None = None
    flops_per_example: Finite | None = None
    flops: Finite | None = None
    energy_joules: Finite | None = None
    money: Finite | None = None
    currency: str | None = None
    device_hour: Finite | None = None
    prices_of: str | None = None


@dataclass(frozen=True)
class Plan:
    """The frozen plan that the run belongs to, its stage, and what the stage before it found.

    `margins` are what verdicts are judged by, by claim; a `smoke` study decides nothing; `amended` says that the plan
    changed after the first of its runs.
    """

    hash: str
    stage: str = "confirm"
    tuned: bool | None = None
    trials: int | None = None
    smoke: bool = False
    amended: bool = False
    margins: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All that is known of a run but its curve.

    `settings` is its whole configuration, callbacks with their arguments included; `instruments` holds what callbacks
    measured beside the curve, by name; `copied_from` is the run directory that another study's equal run came from.
    """

    version: Literal[2]
    status: Status
    study: Text
    run: Text
    task: Text
    network: Text
    seed: Whole
    data: Data
    optimizer: Optimizer
    rate: Rate
    batch: Batch
    targets: tuple[TargetResult, ...]
    final: dict[str, Number]
    stopped_by: str | None = None
    parameters: Count | None = None
    regularization: Regularization = field(default_factory=Regularization)
    budget: Budget = field(default_factory=Budget)
    test: dict[str, Number] | None = None
    cost: Cost = field(default_factory=Cost)
    plan: Plan | None = None
    recipe: tuple[str, ...] | None = None
    world_size: Count = 1
    precision: str = "32-true"
    accelerator: str = "cpu"
    instruments: Annotated[dict[str, Any], BeforeValidator(_numbers)] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    started: str | None = None
    ended: str | None = None
    resumes: int = 0
    error: str | None = None
    copied_from: str | None = None

    @property
    def stage(self) -> str | None:
        """Return the stage of its plan, None where it has no plan."""
        return self.plan.stage if self.plan else None

    @property
    def cut_short(self) -> list[str]:
        """Return the metrics of the targets that the run was past when its budget ended, too early to count as hits."""
        unreached = [t for t in self.targets if t.status == "budget"]
        return [t.metric for t in unreached if t.gap(self.final.get(t.metric, math.nan)) <= 0]


@dataclass(frozen=True)
class Unusable:
    """Why a text is no record."""

    reason: str


_PARTS = (Data, Optimizer, Rate, Batch, Regularization, Budget, Crossing, Plateau, TargetResult, Cost, Plan)
for _class in (*_PARTS, Record):
    _class.__pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[union-attr]  # for pydantic
_RECORDS = TypeAdapter(Record)
_PLANS = TypeAdapter(Plan)


def as_json(value: object) -> object:
    """Return `value` with every number that JSON cannot hold as the text nan, inf or -inf."""
    if isinstance(value, Mapping):
        return {k: as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def to_json(record: Record) -> str:
    """Return the record as JSON, one field a line."""
    return json.dumps(as_json(asdict(record)), indent=1, allow_nan=False) + "\n"


def _why(error: ValidationError) -> str:
    """Return the first fault in words, its field as a dotted name."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained-")))
    message = first["msg"].removeprefix("Value error, ")[:200]
    if first["type"] == "json_invalid":
        return f"not readable as JSON ({message.removeprefix('Invalid JSON: ')})"
    if not name:
        return f"not a run record ({message})"
    return f"{name} is {'missing' if first['type'] == 'missing' else f'wrong: {message}'}"


def from_json(text: str | bytes) -> Record | Unusable:
    """Return the record that a text holds, or why it is none."""
    try:
        return _RECORDS.validate_json(text)
    except ValidationError as error:
        return Unusable(_version_fault(text) or _why(error))
    except (ValueError, RecursionError, OverflowError) as error:
        return Unusable(f"not readable as JSON ({error})")


def _version_fault(text: str | bytes) -> str | None:
    try:
        version = json.loads(text).get("version")
    except (ValueError, RecursionError, AttributeError):
        return None
    if version is None:
        return "not a run record (no version)"
    return None if version == VERSION else f"record version {version!r}, this program reads {VERSION}"


def from_fields(fields: Mapping[str, Any]) -> Record | Unusable:
    """Return the record of nested fields, such as an export has, or why they are none."""
    try:
        return from_json(json.dumps(as_json(fields), default=str))
    except (ValueError, RecursionError) as error:
        return Unusable(f"not a run record ({error})")


def read_plan_fields(fields: Mapping[str, Any]) -> Plan:
    """Return the plan of a run from its fields as YAML has them.

    Raises:
        ValueError: if a field is unknown or of the wrong type.
    """
    try:
        return _PLANS.validate_json(json.dumps(fields))
    except ValidationError as error:
        raise ValueError(f"run.plan: {_why(error)}") from None


def read_record(path: Path) -> Record | Unusable:
    """Return the record in a file, or why there is none."""
    try:
        return from_json(path.read_bytes())
    except OSError as error:
        return Unusable(f"not readable ({error.strerror})")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`, so that a reader sees the old file or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:  # a full disk is not to be filled with parts
        part.unlink(missing_ok=True)
