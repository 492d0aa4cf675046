"""Checkpoints by time, atomic, a fixed number of them: what a killed run goes on from."""

import errno
import os
import re
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from tasks.protocols import Task

FINAL = "final.ckpt"  # the end of training, for validate, test and predict; no run goes on from it


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then renames: a checkpoint is whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: if it cannot be written; the target is as before.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except RuntimeError as error:  # torch's, whose words do not name the file
            raise OSError(errno.EIO, "cannot be written (is the disk full?)", str(path)) from error
        finally:  # a full disk is not to be filled with parts
            part.unlink(missing_ok=True)


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints that a run can go on from, newest first; files of other names are left alone."""
    files = (directory / "checkpoints").glob("step=*.ckpt")
    named = [path for path in files if re.fullmatch(r"step=[0-9]{1,18}\.ckpt", path.name) and path.is_file()]
    return sorted(named, key=lambda path: int(path.stem[5:]), reverse=True)


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, None where every part has the checksum that it was written with.

    `torch.load` reads past a flipped bit.
    """
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except Exception as error:  # zipfile raises many kinds for a damaged header
        return type(error).__name__
    return f"the checksum of its part {part} is wrong" if part else None


def owner(path: Path) -> str | None:
    """Return the identity of the run that wrote a checkpoint, None where it cannot be read."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return held["callbacks"]["RollingCheckpoint"]["identity"]
    except Exception:  # torch.load raises many kinds for a file that is no checkpoint
        return None


def newest_whole(directory: Path, identity: str) -> tuple[Path | None, list[str]]:
    """Return a run's newest checkpoint that is whole and its own, and a sentence for each that is passed over."""
    refused: list[str] = []
    for path in checkpoints(directory):
        wrong = damage(path)
        own = None if wrong else owner(path)
        if own == identity:
            return path, refused
        if own is None:
            refused.append(f"{path} is no whole checkpoint ({wrong or 'it cannot be read'}): it is passed over")
        else:
            refused.append(f"{path} belongs to a run of another config: it is passed over")
    return None, refused


class RollingCheckpoint(Checkpoint):
    """Saves into the run's `checkpoints/` every `minutes`, keeping the newest `keep`, and `final.ckpt` at the end.

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
        self.directory, self.identity = Path(), ""  # of the run, and a hash of its config: set by the command line
        self._due = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """Let a signal end training after a checkpoint."""
        self._last, self._signal, self._handlers = time.monotonic(), 0, {}
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            print("\nstopping after a checkpoint; Ctrl-C again stops at once", file=sys.stderr)
        self._signal = number

    def _end_on_signal(self) -> None:
        """Let a signal end this process at once, as nothing is left to save."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:
        """Let a signal end a process that only measures."""
        if stage != "fit":
            self._end_on_signal()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def on_exception(self, trainer: Trainer, task: Task, exception: BaseException) -> None:
        """Restore the handlers of signals."""
        self._restore_handlers()

    def on_train_batch_end(self, trainer: Trainer, task: Task, *_: object) -> None:
        """Save after the step where that is due and no evaluation follows."""
        late = self._signal or time.monotonic() - self._last >= 60 * self.minutes
        self._due |= trainer.strategy.reduce_boolean_decision(bool(late), all=False)  # all ranks save the same step
        if self._due and trainer.fit_loop.total_batch_idx + 1 != trainer.val_check_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Save after the evaluation where that is due."""
        if trainer.state.fn == "fit" and self._due:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, task: Task) -> None:
        """Save the end of training."""
        self._end_on_signal()
        trainer.save_checkpoint(self.directory / "checkpoints" / FINAL)

    def discard(self) -> None:
        """Delete what only a resumed run would need."""
        for old in checkpoints(self.directory):
            old.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Return whose checkpoint this is."""
        return {"identity": self.identity}

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.directory / "checkpoints" / f"step={trainer.global_step}.ckpt")
        self._due, self._last = False, time.monotonic()
        if trainer.is_global_zero:
            for old in checkpoints(self.directory)[self.keep :]:
                old.unlink(missing_ok=True)
        if trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False):
            # on every rank; the command line makes them exit statuses 130 and 143
            raise KeyboardInterrupt if self._signal == signal.SIGINT else SIGTERMException
