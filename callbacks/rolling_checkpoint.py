"""Checkpoints by time, atomic, a fixed number of them: what a killed run goes on from."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then renames: a checkpoint is whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((directory / "checkpoints").glob("step=*.ckpt"), key=lambda p: int(p.stem[5:]), reverse=True)


class RollingCheckpoint(Checkpoint):
    """Saves into the run's `checkpoints/` every `minutes` and at the end, and keeps the newest `keep`.

    A Checkpoint, so Lightning runs it after all other callbacks: it saves after the evaluation of a step
    where one is due, else after the step; anywhere else a resumed run would lose a batch or an evaluation.

    Args:
        minutes: between checkpoints (0: after every step).
        keep: how many to keep; with fewer than 2 a torn file has none before it.
    """

    def __init__(self, minutes: float = 10.0, keep: int = 2) -> None:
        if minutes < 0 or keep < 1:
            raise ValueError("checkpoint: minutes is at least 0 and keep at least 1")
        self.minutes, self.keep = minutes, keep
        self.directory: Path | None = None  # of the run, set by the command line
        self._due = False

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        late = time.monotonic() - self._last >= 60 * self.minutes
        if trainer.world_size > 1:
            late = trainer.strategy.broadcast(late)
        self._due |= late or trainer.received_sigterm
        if self._due and trainer.fit_loop.total_batch_idx + 1 != trainer.val_check_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._due:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        self._save(trainer)  # for validate, test and predict: the record says already that the run is over

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.directory / "checkpoints" / f"step={trainer.global_step}.ckpt")
        self._due, self._last = False, time.monotonic()
        if trainer.is_global_zero:
            for old in checkpoints(self.directory)[self.keep :]:
                old.unlink(missing_ok=True)
