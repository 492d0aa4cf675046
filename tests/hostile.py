"""Data that lets a run end badly, for the sweep's tests."""

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from pytorch_lightning import Callback, Trainer

from callbacks import rolling_checkpoint, run_record
from datamodules.base import Examples
from tests.tiny import Tiny


class Hostile(Tiny):
    """Tiny data whose loading writes a line in `journal` and does what `fate` says.

    Args:
        fate: fine, raise, memory, kill, hang, or slow.
        journal: a file that gets a line for every time that a run begins.
    """

    def __init__(self, fate: str = "fine", journal: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fate, self.journal = fate, journal

    def load(self) -> dict[str, Examples]:
        if self.journal:
            with open(self.journal, "a") as file:
                file.write(f"{self.seed} {time.time()}\n")
        if self.fate == "raise":
            raise RuntimeError("the disc is on fire")
        if self.fate == "memory":
            raise MemoryError("no more of it")
        if self.fate == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.fate == "hang":
            time.sleep(1)
        if self.fate == "slow":
            time.sleep(2)
        return super().load()


class KillAt(Callback):
    """Sends this process's group a signal at one moment of a run, once.

    The environment says when, so that the config is that of the undisturbed run: KILL_AT is `signal last marker phase`,
    with `last` the run's last step and `marker` a file that is there once it was done.
    """

    def __init__(self) -> None:
        number, last, self.marker, self.phase = os.environ.get("KILL_AT", "9 0 / never").split(maxsplit=3)
        self.signal, self.last = int(number), int(last)
        self._at("instantiation")

    def _at(self, phase: str) -> None:
        if phase == self.phase and os.environ.get("LOCAL_RANK", "0") == "0" and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.killpg(0, self.signal)

    def setup(self, trainer: Trainer, task: Any, stage: str) -> None:
        if stage == "fit":
            self._at("setup")
            self.save, rolling_checkpoint.torch.save = torch.save, self._save
            self.write, run_record.write_atomically = run_record.write_atomically, self._write

    def teardown(self, trainer: Trainer, task: Any, stage: str) -> None:
        if stage == "fit":
            rolling_checkpoint.torch.save = self.save

    def _save(self, checkpoint: Any, file: BinaryIO) -> None:
        """Write half of a checkpoint, then the whole."""
        final = "final.ckpt" in file.name
        phase = "final checkpoint" if final else "checkpoint write" if checkpoint["global_step"] > 2 else ""
        if phase == self.phase:
            held = io.BytesIO()
            self.save(checkpoint, held)
            file.write(held.getvalue()[: held.tell() // 2])
            file.flush()
            self._at(phase)
            file.seek(0)
        self.save(checkpoint, file)

    def _write(self, path: Path, text: str) -> None:
        ending = path.name == "record.json" and json.loads(text)["ended"]
        if ending:
            self._at("record's end")
        self.write(path, text)
        if ending:
            self._at("after the record's end")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 0:
            self._at("first step")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.last:
            self._at("last step")

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.state.fn == "fit" and trainer.global_step >= 2:
            self._at("evaluation")
            if trainer.global_step == self.last:
                self._at("last evaluation")

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        self._at("closing test")


class KillOnce(Callback):
    """Kills the process after step 2 of a run that has left no `marker` yet."""

    def __init__(self, marker: str, seed: int = 0) -> None:
        self.marker, self.seed = Path(marker), seed

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2 and trainer.datamodule.seed == self.seed and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


CONFIG = {
    "model": {
        "class_path": "ImageClassification",
        "init_args": {
            "network": {"class_path": "SmallCNN"},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
    },
    "data": {"class_path": "tests.hostile.Hostile", "init_args": {"batch_size": 4}},
    "trainer": {"max_steps": 3, "accelerator": "cpu"},
    "run": {"study": "tiny"},
}


def write_sweep(folder: Path, name: str = "tiny", **parameters: list[Any]) -> Path:
    """A sweep file over `parameters` (two underscores stand for a dot), and its config."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    path = folder / f"{name}.yaml"
    command = ["${interpreter}", "-m", "tasks", "fit", "--config", str(config), "${args}"]
    values = {name.replace("__", "."): {"values": given} for name, given in parameters.items()}
    content = {"program": "tasks/__main__.py", "method": "grid", "command": command, "parameters": values}
    path.write_text(yaml.safe_dump(content))
    return path
