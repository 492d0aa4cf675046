"""What a user may get wrong and what is then said, a line each; and data and callbacks that let a run end badly."""

import io
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from pytorch_lightning import Callback, Trainer

from callbacks import rolling_checkpoint, run_record
from datamodules.base import Examples
from tests.helpers.tiny import Tiny

# Flags of a fit, and what its one sentence holds ----------------------------------------------------------
STOPPED = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=max"]
FLAGS = [
    (["--data.batch_sizee", "3"], "data.batch_sizee"),
    (["--nonsense", "3"], "--nonsense"),
    (["--model.optimizer.lrr", "3"], "model.optimizer.lrr"),
    (["--data.batch_size", "abc"], "data.batch_size: Expected a <class 'int'>"),
    (["--data.batch_size", "0"], "data.batch_size is 0: give at least 1"),
    (["--data.batch_size", "-4"], "data.batch_size is -4: give at least 1"),
    (["--data.batch_size", "301"], "the training set has 300 examples"),
    (["--model.micro_batch_size", "0"], "model.micro_batch_size is 0: give at least 1"),
    (["--model.lr_scaling", "cubic"], "model.lr_scaling"),
    (["--model.lr_scaling", "linear", "--model.base_batch_size", "null"], "needs model.base_batch_size"),
    (["--model.schedule", "Cosine", "--trainer.max_steps", "-1"], "needs the run's length"),
    (["--model.warmup", "a while"], "is no duration"),
    (
        ["--convergence.targets", "[{metric: val/miou, direction: max, value: 1}]"],
        "choose among val/loss, val/accuracy, trainset/loss, trainset/accuracy",
    ),
    (["--convergence.targets", "[{metric: val/loss, value: 0.5}]"], "is not a target: give metric, direction"),
    (["--convergence.targets", "[{metric: val/loss, direction: min}]"], "give either value or plateau"),
    (["--convergence.targets", "[{metric: val/loss, direction: up, value: 1}]"], "is max or min, not up"),
    (["--convergence.targets", "[{metric: val/loss, direction: min, value: low}]"], "is not a target"),
    (["--trainer.max_steps", "0"], "trainer.max_steps is 0: give at least 1"),
    (["--convergence.budget_steps", "0", "--convergence.budget_examples", "-5"], "give at least 1"),
    (["--seed_everything", "-1"], "seed_everything: -1 is not in bounds"),
    (["--model.clip_norm", "-1"], "model.clip_norm is -1.0: give more than 0"),
    (["--model.label_smoothing", "2"], "model.label_smoothing is 2.0: give 0 to"),
    (["--data.root", "/nope"], "/nope"),
    (["--trainer.accelerator", "gpu"], "--trainer.accelerator=cpu"),
    (["--trainer.accumulate_grad_batches", "2"], "use model.micro_batch_size"),
    (["--trainer.gradient_clip_val", "1.0"], "use model.clip_norm"),
    (["--trainer.max_epochs", "3"], "use data.epochs"),
    (["--trainer.val_check_interval", "0.5"], "use evaluation.ratio"),
    (["--trainer.precision", "16-mixed"], "use bf16-mixed"),
    (["--config", "nofile.yaml"], "nofile.yaml"),
    (["--model.network", "CifarResNet", "--model.network.norm", "batch"], "set model.ghost_batch_size"),
    (["--trainer.max_time", "00:00:00:00"], "use `timeout 8h python -m tasks fit ...`"),
    (["--trainer.devices", "99999"], "trainer.devices is '99999', and this machine has"),
    (["--trainer.devices", "nan"], "trainer.devices is 'nan': give a number"),
    (["--model.optimizer.lr", "1e400"], "model.optimizer.lr is inf: give a finite number"),
    (["--model.optimizer.lr", ".nan"], "model.optimizer.lr is nan: give a finite number"),
    (["--data.epochs", "1e400"], "data.epochs is inf: give a finite number"),
    (["--evaluation.ratio", ".nan"], "evaluation.ratio is nan: give a finite number"),
    (["--model.network.channels", "[0]"], "does not take the data"),
    (["--convergence.targets", "[{metric: val/loss, direction: min, value: .nan}]"], "its value is nan: give a finite"),
    (["--convergence.targets", "[{metric: val/loss, direction: min, plateau: {window: 0}}]"], "window is at least 1"),
    (["--convergence.targets", "&a [*a]"], "holds itself"),
    (["--convergence.budget_steps", "0", "--convergence.budget_examples", "5"], "give at least 1"),
    (["--convergence.budget_steps", "-1", "--convergence.budget_examples", "-1"], "give at least 1"),
    (["--run.name", ""], "run.name is '': give the name of one folder"),
    (["--run.name", "."], "run.name is '.': give the name of one folder"),
    (["--run.name", ".."], "run.name is '..': give the name of one folder"),
    (["--run.name", "../../evil"], "run.name is '../../evil': give the name of one folder"),
    (["--run.name", "/tmp/evil"], "run.name is '/tmp/evil': give the name of one folder"),
    (["--run.study", "../evil"], "run.study is '../evil': give the name of one folder"),
    (["--run.study", ".sweep"], "run.study is '.sweep': give the name of one folder"),
    (["--run.name", "x" * 5000], "at most 200 bytes"),
    (["--trainer.default_root_dir", "README.md"], "trainer.default_root_dir: 'README.md"),
    (["--trainer.default_root_dir", "x" * 5000], "File name too long"),
    (["--trainer.default_root_dir", "/proc/nowhere"], "trainer.default_root_dir: '/proc/nowhere"),
    (["--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:00:00:00"], "Timer is not supported here"),
    (
        ["--trainer.callbacks+=tests.helpers.hostile.Stopper", "--trainer.max_steps", "30"],
        "a callback stopped the run before",
    ),
    (STOPPED, "EarlyStopping is not supported here: use convergence.targets with a plateau"),
    (
        ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"],
        "StochasticWeightAveraging is not supported here: use model.schedule",
    ),
    (["--ckpt_path", "x.ckpt"], "--ckpt_path: there is no file 'x.ckpt'"),
]

# The bytes of a --config file ------------------------------------------------------------------------------
LAUGHS = b"a0: &a0 [1]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)
)
CONFIGS = [
    (b"", "holds no settings"),
    (b"[1, 2]", "holds no settings"),
    (b"a: [", "is not YAML"),
    (b"a: \xff\xfe", "is not UTF-8 text"),
    (b"a: &a [*a]", "holds itself"),
    (b"data: {batch_size: 1}\ndata: {batch_size: 2}", "has the key 'data' twice (line 2)"),
    (b"a: " + b"[" * 3000 + b"]" * 3000, "is nested too deep"),
    (b"a: " + b"{a: " * 300 + b"1" + b"}" * 300, "is nested too deep"),
    (LAUGHS, "stands for more than 1,000,000 values"),
    (b"!!python/object/apply:os.system [exit]", "is not YAML"),
]

# What is done to a run's directory after a fit of 2 steps; the same fit then says this, or goes on ---------
DIRECTORIES = [
    (lambda run: (run / "record.json").write_text("{}"), "holds a damaged record.json"),
    (lambda run: (run / "record.json").write_text("[]"), "holds a damaged record.json"),
    (lambda run: (run / "record.json").write_text("[" * 100_000), "holds a damaged record.json"),
    (lambda run: (run / "record.json").write_bytes(b"\xff"), "holds a damaged record.json"),
    (lambda run: (run / "config.yaml").write_text(""), "holds a damaged record.json or config.yaml"),
    (lambda run: (run / "config.yaml").write_text("a: &a [*a]"), "holds a damaged record.json or config.yaml"),
    (lambda run: (run / "config.yaml").unlink(), "holds a record.json without its config.yaml"),
    (lambda run: (run / "record.json").unlink(), "but no record.json and none to go on from"),
    (lambda run: (run / "inner").mkdir() or (run / "inner/record.json").write_text("{}"), "one within the other"),
    (lambda run: (run.parent / "record.json").write_text("{}"), "one within the other"),
]

# What the data hold, a `fate` of Hostile, and what is then said -----------------------------------------------
DATA = [
    ("nan target", "1 of the 23 targets of train hold nan or infinity (the first is example 5): mend them"),
    ("infinite input", "1 of the 7 inputs of val hold nan or infinity (the first is example 5): mend them"),
    ("class 3 of 3", "test has a target of 3: the classes are 0 to 2"),
]

# A sweep file's fields over those of a good one ------------------------------------------------------------
SWEEPS = [
    ({"parameters": {"seed_everything": {"min": 0, "max": 9999999999}}}, "only W&B's server draws values"),
    ({"parameters": {f"a{i}": {"values": [1, 2, 3]} for i in range(30)}}, "runs: give at most 100,000"),
    ({"parameters": {"data.batch_size": {"values": [4, None]}}}, "null reaches a run as the text None"),
    ({"parameters": {"data.batch_size": {"values": [4, float("inf")]}}}, "is inf: give finite numbers"),
    (
        {"parameters": {"seed_everything": {"values": [1, 2]}, "run.name": {"value": "a"}}},
        "2 runs cannot share 1 name",
    ),
    (
        {"parameters": {"seed_everything": {"values": [1, 2]}, "run.name": {"values": ["a", "b"]}}},
        "4 runs cannot",
    ),
    ({"parameters": {"run.name": {"values": ["../../evil", "/tmp/evil"]}}}, "run.name is '../../evil': give the name"),
    ({"parameters": {"run.study": {"values": ["a/b"]}}}, "run.study is 'a/b': give the name of one folder"),
    ({"parameters": {"config": {"values": ["README.md", 3]}}}, "README.md"),
    ({"method": ["grid"]}, "method: is ['grid']: give grid"),
    ({"run_cap": 10**30}, "run_cap: give the most runs of the grid"),
]


class Hostile(Tiny):
    """Tiny data whose loading writes a line in `journal` and does what `fate` says.

    Args:
        fate: fine, raise, memory, kill, hang, slow, or one of the table DATA.
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
        splits = super().load()
        if self.fate == "nan target":
            splits["train"] = replace(splits["train"], targets=splits["train"].targets.float())
            splits["train"].targets[5] = torch.nan
        if self.fate == "infinite input":
            splits["val"].inputs[5, 0, 0, 0] = torch.inf
        if self.fate == "class 3 of 3":
            splits["test"].targets[4] = 3
        return splits


class KillAt(Callback):
    """Sends this process's group a signal at one moment of a run, once.

    The environment says when, so that the config is that of the undisturbed run: KILL_AT is `signal last marker phase`,
    with `last` the run's last step and `marker` a file that is there once it was done.
    """

    def __init__(self) -> None:
        number, last, self.marker, self.phase = os.environ.get("KILL_AT", "9 0 / never").split(maxsplit=3)
        self.signal, self.last = int(number), int(float(last))
        self._at("instantiation")

    def _at(self, phase: str) -> None:
        if phase == self.phase and os.environ.get("LOCAL_RANK", "0") == "0" and not Path(self.marker).exists():
            Path(self.marker).touch()
            if os.environ.get("WORLD_SIZE", "1") != "1":
                time.sleep(0.5)  # by then the other rank waits for this one
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
    "data": {"class_path": "tests.helpers.hostile.Hostile", "init_args": {"batch_size": 4}},
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


class Stopper(Callback):
    """Ends a run, as no callback may."""

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        trainer.should_stop = True
