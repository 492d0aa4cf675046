"""Data that lets a run end badly, for the sweep's tests."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Callback, Trainer

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
