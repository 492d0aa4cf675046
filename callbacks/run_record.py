"""The run directory: record.json and curve.csv, valid at every instant (contract 3)."""

import contextlib
import csv
import ctypes
import io
import platform
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.convergence_detector import ConvergenceDetector, Row, detector_of
from callbacks.record import (
    VERSION,
    Batch,
    Budget,
    Cost,
    Data,
    Optimizer,
    Rate,
    Record,
    Regularization,
    read_plan_fields,
    read_record,
    to_json,
    write_atomically,
)
from tasks.protocols import Task

POSITION = ["step", "examples", "epoch", "seconds", "lr", "train/loss"]


@runtime_checkable
class Measures(Protocol):
    """A callback that has something to say in the record."""

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return its numbers by the record's part: cost, final, or a part of its own among the instruments."""


def curve_csv(rows: list[Row]) -> str:
    """Return the evaluations as CSV, positions first; a missing value is empty."""
    names = dict.fromkeys(POSITION) | dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@cache
def versions() -> dict[str, str]:
    """Return the versions of the code (its git commit, where there is one) and of its libraries."""
    here = Path(__file__).parent
    git = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    libraries = {name: version(name) for name in ("torch", "pytorch-lightning", "torchvision", "torchmetrics")}
    code = git.stdout.strip() if git.returncode == 0 else version("batch-limit")
    return {"code": code, **libraries, "python": platform.python_version()}


def reset_peak_memory() -> None:
    """Start counting the peak memory of this process anew, where the system can do that."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier run of this process freed is resident as yet
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Return the peak since `reset_peak_memory`, in bytes: of the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class RunRecord(Callback):
    """Writes `<default_root_dir>/<study>/<name>/` and mirrors each evaluation to the loggers.

    Args:
        study: the folder of runs that belong together.
        name: the run's own folder (null: made from batch size, seed and a hash of the config).
        plan: the frozen plan that the run belongs to: its hash, the stage, and what the stage before found.
        recipe: the ingredients by name, where they do not follow from the settings, as of an `untuned baseline`.
        begun_from: the hash of the checkpoint that the run began from (set by --ckpt_path).
    """

    def __init__(
        self,
        study: str = "default",
        name: str | None = None,
        plan: dict[str, Any] | None = None,
        recipe: list[str] | None = None,
        begun_from: str | None = None,
    ) -> None:
        self.study, self.name, self.begun_from = study, name, begun_from
        self.plan = None if plan is None else read_plan_fields(plan)
        self.recipe = tuple(recipe) if recipe else None
        self.settings: dict[str, Any] = {}  # the run's whole configuration: set by the command line
        self.record: Record | None = None

    def directory(self, trainer: Trainer) -> Path:
        """Return the run's directory."""
        return Path(trainer.default_root_dir) / self.study / str(self.name)

    def _detector(self, trainer: Trainer) -> ConvergenceDetector:
        detector = detector_of(trainer)
        assert detector is not None
        return detector

    @property
    def written(self) -> Record:
        """Return the record, once training has begun."""
        assert self.record is not None
        return self.record

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:
        """Measure peak memory from here."""
        if stage == "fit":
            reset_peak_memory()

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """Write the record of a run that begins, or goes on."""
        before = read_record(self.directory(trainer) / "record.json")
        self.record = self._begun(trainer, task, before if isinstance(before, Record) else None)
        for logger in trainer.loggers:
            logger.log_hyperparams(mirrored(self.record))
            for row in self._detector(trainer).rows:
                logger.log_metrics(named(row), step=int(row["step"]))
        self._write(trainer, task)

    def _begun(self, trainer: Trainer, task: Task, before: Record | None) -> Record:
        data, rules, facts = task.data, self._detector(trainer).rules, task.facts()
        parts = {"optimizer": Optimizer, "rate": Rate, "regularization": Regularization}
        max_steps = trainer.max_steps if trainer.max_steps > 0 else None
        return Record(
            version=VERSION,
            status="running",
            study=self.study,
            run=str(self.name),
            **{name: facts[name] for name in ("task", "network", "parameters")},
            **{name: part(**facts[name]) for name, part in parts.items()},
            batch=Batch(**facts["batch"], epoch_end=data.epoch_end),
            seed=data.seed,
            data=Data(**data.facts()),
            targets=(),
            final={},
            budget=Budget(rules.steps, rules.examples, max_steps, data.epochs, rules.outrun_steps),
            cost=Cost(peak_memory_bytes=before.cost.peak_memory_bytes if before else None),
            plan=self.plan,
            recipe=self.recipe,
            world_size=trainer.world_size,
            precision=str(trainer.precision),
            accelerator=task.device.type,
            versions=versions(),
            settings=self.settings,
            started=(before and before.started) or datetime.now(UTC).isoformat(timespec="seconds"),
            resumes=before.resumes + 1 if before else 0,
        )

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Write and log the evaluation."""
        if trainer.state.fn == "fit" and self.record:
            for logger in trainer.loggers:
                logger.log_metrics(named(task.evaluation), step=int(task.evaluation["step"]))
            self._write(trainer, task)

    def on_train_end(self, trainer: Trainer, task: Task) -> None:
        """Write how training ended."""
        verdict = self._detector(trainer).verdict
        if trainer.should_stop and verdict.stopped_by is None:  # cut short, which is no miss
            error = "a callback stopped the run before its targets, its budget and its last step"
            self._write(trainer, task, status="failed", stopped_by="error", error=error)
            return
        self._write(trainer, task, status=verdict.status(ended=True), stopped_by=verdict.stopped_by or "end")

    def close(self, trainer: Trainer, task: Task) -> None:
        """Write that the run is complete; until then a run that is cut off goes on from its last checkpoint."""
        self._write(trainer, task, ended=datetime.now(UTC).isoformat(timespec="seconds"))

    def on_exception(self, trainer: Trainer, task: Task, error: BaseException) -> None:
        """Write why training ended: an interruption is no failure."""
        if not self.record or self.record.ended:
            return
        if isinstance(error, KeyboardInterrupt | SIGTERMException):
            self._write(trainer, task, stopped_by="interrupt")
        else:
            self._write(trainer, task, status="failed", stopped_by="error", error=f"{type(error).__name__}: {error}")

    def on_test_end(self, trainer: Trainer, task: Task) -> None:
        """Write and log the test that ends a fit."""
        if self.record:
            for logger in trainer.loggers:
                logger.log_metrics(task.evaluation, step=int(self.record.final["step"]))
            self._write(trainer, task, test=dict(task.evaluation))

    def _write(self, trainer: Trainer, task: Task, **changes: Any) -> None:
        before, detector = self.written, self._detector(trainer)
        status = changes.get("status", before.status)
        final = {name: float(value) for name, value in detector.rows[-1].items()} if detector.rows else {}
        record = replace(before, **changes, targets=detector.verdict.closed(status), final=final, cost=self._peak(task))
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared
        for callback in callbacks:
            for part, facts in callback.facts().items() if isinstance(callback, Measures) else ():
                record = with_facts(record, part, facts)
        self.record = record
        if trainer.is_global_zero:
            directory = self.directory(trainer)
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "curve.csv", curve_csv(detector.rows))
            write_atomically(directory / "record.json", to_json(record))

    def _peak(self, task: Task) -> Cost:
        cost = self.written.cost
        peaks = cost.peak_memory_bytes, peak_memory(task.device)  # before a resumption, and since
        return replace(cost, peak_memory_bytes=max(filter(None, peaks), default=None))


def with_facts(record: Record, part: str, facts: dict[str, Any]) -> Record:
    """Return the record with what a callback measured."""
    if part == "cost":
        return replace(record, cost=replace(record.cost, **facts))
    if part == "final":
        return replace(record, final=record.final | facts)
    return replace(record, instruments=record.instruments | {part: facts})


def named(row: Row) -> Row:
    """Return an evaluation for a logger, which has the step as its axis already."""
    return {name: value for name, value in row.items() if name != "step"}


def outcome(record: Record) -> dict[str, Any]:
    """Return how a run ended, by the names that one filters by in W&B; a target that was missed has no steps."""
    plan = {"plan": record.plan.hash, "stage": record.plan.stage} if record.plan else {}
    hits = {f"steps_to_target/{t.label}": t.at("steps") for t in record.targets if t.status == "reached"}
    return {"status": record.status, **plan, **hits}


def mirrored(record: Record) -> dict[str, Any]:
    """Return the record's settings by the names that one filters by in W&B."""
    return {
        "batch_size": record.batch.size,
        "micro_batch_size": record.batch.micro,
        "ghost_batch_size": record.batch.ghost,
        "learning_rate": record.rate.effective,
        "base_learning_rate": record.rate.base,
        "lr_scaling": record.rate.scaling_rule,
        "optimizer": record.optimizer.name,
        **{k: getattr(record, k) for k in ("study", "run", "task", "network", "parameters", "seed", "world_size")},
        "precision": record.precision,
        "data": record.data.name,
        "data_hash": record.data.hash,
    }
