"""The run directory: record.json and curve.csv, valid at every instant (contract 3)."""

import contextlib
import csv
import ctypes
import io
import json
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.convergence_detector import ConvergenceDetector, Row

VERSION = 1
POSITION = ["step", "examples", "epoch", "seconds", "lr", "train/loss"]


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, so that a reader sees the old file or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:  # a full disk is not to be filled with parts
        part.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """`value` with every number that JSON cannot hold as the string nan, inf or -inf."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def curve_csv(rows: list[Row]) -> str:
    """The evaluations as CSV, positions first; a missing value is empty."""
    names = dict.fromkeys(POSITION) | dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@cache
def versions() -> dict[str, str]:
    """The versions of the code (with its git commit, where there is one) and of its libraries."""
    here = Path(__file__).parent
    git = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    libraries = {name: version(name) for name in ("torch", "pytorch-lightning", "torchvision", "torchmetrics")}
    code = git.stdout.strip() if git.returncode == 0 else version("batch-limit")
    return {"code": code, **libraries, "python": platform.python_version()}


def reset_peak_memory() -> None:
    """Start counting the peak memory of this process anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier run of this process freed is resident as yet
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `reset_peak_memory`: of the GPU, or resident on the host."""
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
    """

    def __init__(
        self,
        study: str = "default",
        name: str | None = None,
        plan: dict[str, Any] | None = None,
        recipe: list[str] | None = None,
    ) -> None:
        self.study, self.name, self.plan, self.recipe = study, name, plan, recipe
        self.record: dict[str, Any] = {}

    def directory(self, trainer: Trainer) -> Path:
        """The run's directory."""
        return Path(trainer.default_root_dir) / self.study / str(self.name)

    def _detector(self, trainer: Trainer) -> ConvergenceDetector:
        return next(c for c in trainer.callbacks if isinstance(c, ConvergenceDetector))

    def setup(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if stage == "fit":
            reset_peak_memory()

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        facts, rules = task.facts(), self._detector(trainer).rules
        data = trainer.datamodule
        facts["batch"] |= {"epoch_end": data.epoch_end, "sampling": "without replacement"}
        facts["optimizer"] = plain(facts["optimizer"])
        before = self._read(trainer)
        self.record = {
            "version": VERSION,
            "status": "running",
            "stopped_by": None,
            "study": self.study,
            "run": self.name,
            **({"recipe": self.recipe} if self.recipe else {}),
            **facts,
            "seed": data.seed,
            "data": data.facts(),
            "world_size": trainer.world_size,
            "precision": str(trainer.precision),
            "accelerator": task.device.type,
            "budget": {
                "steps": rules.steps,
                "examples": rules.examples,
                "max_steps": trainer.max_steps if trainer.max_steps > 0 else None,
                "max_epochs": data.epochs,
            },
            "targets": [],
            "final": {},
            "test": None,
            "cost": {"peak_memory_bytes": before.get("cost", {}).get("peak_memory_bytes"), "energy_joules": None},
            "plan": self.plan,
            "versions": versions(),
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "ended": None,
            "resumes": before["resumes"] + 1 if before else 0,
        }
        for logger in trainer.loggers:
            logger.log_hyperparams(flat(self.record))
            for row in self._detector(trainer).rows:
                logger.log_metrics(named(row), step=int(row["step"]))
        self._write(trainer, task)

    def _read(self, trainer: Trainer) -> dict[str, Any]:
        try:
            return json.loads((self.directory(trainer) / "record.json").read_text())
        except (OSError, ValueError):
            return {}

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if trainer.state.fn == "fit" and self.record:
            for logger in trainer.loggers:
                logger.log_metrics(named(task.evaluation), step=int(task.evaluation["step"]))
            self._write(trainer, task)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        verdict = self._detector(trainer).verdict
        if trainer.should_stop and verdict.stopped_by is None:  # cut short, which is no miss
            self.record["error"] = "a callback stopped the run before its targets, its budget and its last step"
            self._write(trainer, task, status="failed", stopped_by="error")
            return
        self._write(trainer, task, status=verdict.status(ended=True), stopped_by=verdict.stopped_by or "end")

    def close(self, trainer: Trainer, task: LightningModule) -> None:
        """Say that nothing more will come: before this a run that is cut off goes on from its last checkpoint."""
        self._write(trainer, task, ended=datetime.now(UTC).isoformat(timespec="seconds"))

    def on_exception(self, trainer: Trainer, task: LightningModule, error: BaseException) -> None:
        if not self.record or self.record["ended"]:
            return
        if isinstance(error, KeyboardInterrupt | SIGTERMException):
            self._write(trainer, task, stopped_by="interrupt")
        else:
            self.record["error"] = f"{type(error).__name__}: {error}"
            self._write(trainer, task, status="failed", stopped_by="error")

    def on_test_end(self, trainer: Trainer, task: LightningModule) -> None:
        if self.record:  # the test that ends a fit
            self.record["test"] = plain(task.evaluation)
            for logger in trainer.loggers:
                logger.log_metrics(task.evaluation, step=int(self.record["final"]["step"]))
            self._write(trainer, task)

    def _write(self, trainer: Trainer, task: LightningModule, **changes: Any) -> None:
        detector = self._detector(trainer)
        self.record |= changes
        ending = self.record["status"] not in ("running", "failed")
        undecided = self.record["status"] if ending or self.record["status"] == "failed" else "running"
        for target in detector.verdict.targets:
            if target["status"] == "running":
                target["status"] = "budget" if undecided == "reached" else undecided
        self.record["targets"] = plain(detector.verdict.targets)
        self.record["final"] = plain(detector.rows[-1]) if detector.rows else {}
        peaks = self.record["cost"]["peak_memory_bytes"], peak_memory(task.device)  # before a resumption, and since
        self.record["cost"]["peak_memory_bytes"] = max(filter(None, peaks), default=None)
        for callback in trainer.callbacks:
            for part, facts in callback.facts().items() if hasattr(callback, "facts") else ():
                self.record[part] = self.record.get(part, {}) | plain(facts)
        if trainer.is_global_zero:
            directory = self.directory(trainer)
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "curve.csv", curve_csv(detector.rows))
            write_atomically(directory / "record.json", json.dumps(self.record, indent=1, allow_nan=False) + "\n")


def named(row: Row) -> Row:
    """An evaluation for a logger, which has the step as its axis already."""
    return {name: value for name, value in row.items() if name != "step"}


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """The record's settings by the names that one filters by in W&B."""
    return {
        "batch_size": record["batch"]["global"],
        "micro_batch_size": record["batch"]["micro"],
        "ghost_batch_size": record["batch"]["ghost"],
        "learning_rate": record["lr"]["effective"],
        "base_learning_rate": record["lr"]["base"],
        "lr_scaling": record["lr"]["scaling_rule"],
        "optimizer": record["optimizer"]["name"],
        **{k: record[k] for k in ("study", "run", "task", "network", "parameters", "seed", "world_size", "precision")},
        "data": record["data"]["name"],
        "data_hash": record["data"]["hash"],
    }
