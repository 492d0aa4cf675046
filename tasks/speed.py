"""What this suite costs above plain PyTorch: `python -m tasks.benchmark speed [--json FILE]`.

Everything is CPU time of one thread. What is compared runs in turns, so that a slow moment of the machine meets all
of it, and a ratio is the median over the turns, with the smallest and the largest.
"""

import contextlib
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules.fashion_mnist import FashionMNIST
from datamodules.images import standardize
from tasks.cli import run
from tasks.networks.cnn import SmallCNN
from tasks.optim import benchmark as optimizers
from tasks.process import disable_malloc_trim, quiet

CONFIG = "configs/image_classification/fashion_mnist.yaml"
STEPS = {8: 800, 32: 500, 128: 200, 512: 60, 2048: 16}  # timed steps of a turn, by batch size
WARM = 5  # steps before them
RATE, MOMENTUM = 0.01, 0.9
NEVER = ["--evaluation.ratio", "1e9", "--convergence.stop", "false"]
TARGET = ["--model.lr_scaling", "sqrt"]  # to the config's 82 % validation accuracy
DEMO = ("classification", "language", "segmentation")  # its sweeps


class Row(NamedTuple):
    """A measured ratio, turn by turn."""

    what: str
    over: str
    batch: int | None
    ratios: list[float]

    def __str__(self) -> str:
        batch = f"batch {self.batch:,}" if self.batch else ""
        spread = f"[{min(self.ratios):.2f}, {max(self.ratios):.2f}]"
        return f"{self.what:38} {batch:12} {statistics.median(self.ratios):6.2f} {spread:14} over {self.over}"


class Stamps(Callback):
    """Notes the CPU time at which each step of this process's last fit began, and that of all its training."""

    times: list[float] = []
    training = 0.0

    def on_train_start(self, *_: object) -> None:
        """Begin anew."""
        Stamps.times, Stamps.training = [], -time.process_time()

    def on_train_batch_start(self, *_: object) -> None:
        """Note the time at which a step begins."""
        Stamps.times.append(time.process_time())

    def on_validation_start(self, trainer: Trainer, *_: object) -> None:
        """Stop the clock of training."""
        if not trainer.sanity_checking:
            Stamps.training += time.process_time()

    def on_validation_end(self, trainer: Trainer, *_: object) -> None:
        """Let the clock of training go on."""
        if not trainer.sanity_checking:
            Stamps.training -= time.process_time()

    def on_train_end(self, *_: object) -> None:
        """Stop the clock of training."""
        Stamps.training += time.process_time()

    @classmethod
    def step(cls) -> float:
        """Return the mean seconds of a step after the first ones."""
        return (cls.times[-1] - cls.times[WARM]) / (len(cls.times) - 1 - WARM)


class Halt(Callback):
    """Ends the process where the first step begins."""

    def on_train_batch_start(self, *_: object) -> None:
        """End the process."""
        os._exit(0)


# the loops that are compared: each returns the CPU seconds of one training step -----------------------------


def batches(size: int, steps: int) -> Iterator[Tensor]:
    """Return an iterator over shuffled example ids int64 [size], batch after batch."""
    n = 10_000
    endless = (ids for _ in itertools.count() for ids in torch.split(torch.randperm(n), size)[: n // size])
    return itertools.islice(endless, steps)


def raw(images: Tensor, labels: Tensor, size: int, steps: int) -> float:
    """Return the seconds of a step of the shortest loop in plain PyTorch, over pictures that were standardized once."""
    network = SmallCNN(1, 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    for k, ids in enumerate(batches(size, steps + WARM)):
        if k == WARM:
            began = time.process_time()
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images[ids]), labels[ids])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (time.process_time() - began) / steps


class Stock(LightningModule):
    """The usual LightningModule; with `manual` its own optimization and nothing logged."""

    def __init__(self, manual: bool) -> None:
        super().__init__()
        self.network, self.automatic_optimization = SmallCNN(1, 10), not manual

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss, or make the step if that is this module's part."""
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        if self.automatic_optimization:
            self.log("train/loss", loss)
            return loss
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the plain loop's optimizer."""
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=MOMENTUM)


class Slices:
    """A loader without workers or collation: batches cut from tensors."""

    def __init__(self, images: Tensor, labels: Tensor, size: int, steps: int) -> None:
        self.images, self.labels, self.size, self.steps = images, labels, size, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for ids in batches(self.size, self.steps):
            yield self.images[ids], self.labels[ids]


def lightning(images: Tensor, labels: Tensor, size: int, steps: int, manual: bool) -> float:
    """Return the seconds of a step of Lightning.

    With `manual` it optimizes by hand over tensors, else as its manual shows, with DataLoader and self.log.
    """
    loader = (
        Slices(images, labels, size, steps + WARM)
        if manual
        else DataLoader(TensorDataset(images, labels), size, shuffle=True, drop_last=True)
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=-1 if manual else steps + WARM,  # manual steps do not count unless Lightning's optimizer makes them
        max_epochs=1 if manual else -1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Stamps()],
    )
    trainer.fit(Stock(manual), loader)
    return Stamps.step()


def ours(*flags: str) -> tuple[float, dict[str, float]]:
    """Return the CPU seconds of a whole fit in this process, by the command line, and its last evaluation."""
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        began = time.process_time()
        shown = ["--trainer.callbacks+=tasks.speed.Stamps", "--trainer.accelerator", "cpu", "--progress.show", "false"]
        run(["fit", *flags, *shown, "--trainer.default_root_dir", root])
        spent = time.process_time() - began
        (record,) = Path(root).glob("*/*/record.json")
        return spent, json.loads(record.read_text())["final"]


def own_process(*command: str) -> float:
    """Return the CPU seconds of `python ...` in a process of its own."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


# the table -------------------------------------------------------------------------------------------------


def training_steps(images: Tensor, labels: Tensor, sizes: dict[int, int], turns: int) -> Iterator[Row]:
    """Yield a training step of ours and of two kinds of Lightning over the plain loop's."""
    for size, steps in sizes.items():
        flags = ["--config", CONFIG, "--data.batch_size", f"{size}", "--trainer.max_steps", f"{steps + WARM}", *NEVER]
        found: dict[str, list[float]] = {name: [] for name in ("ours", "Lightning, manual", "Lightning, stock")}
        for _ in range(turns):
            plain = raw(images, labels, size, steps)
            ours(*flags)
            found["ours"].append(Stamps.step() / plain)
            for name in ("manual", "stock"):
                step = lightning(images, labels, size, steps, name == "manual")
                found[f"Lightning, {name}"].append(step / plain)
        yield from (Row(f"training step: {name}", "a plain loop", size, ratios) for name, ratios in found.items())


def whole_fits(images: Tensor, labels: Tensor, sizes: dict[int, int], turns: int) -> Iterator[Row]:
    """Yield a whole warm fit to its target over a plain loop of as many steps."""
    for size, steps in sizes.items():
        ratios = []
        for _ in range(turns):
            spent, final = ours("--config", CONFIG, "--data.batch_size", f"{size}", *TARGET)
            ratios.append(spent / (final["step"] * raw(images, labels, size, steps)))
        yield Row("whole warm fit to its target", f"a plain loop of its {final['step']:,.0f} steps", size, ratios)


def shares(names: Iterable[str]) -> Iterator[Row]:
    """Yield training's share of the CPU time of warm cells: those of the demo's sweeps with their first seed."""
    all_trained, all_spent = 0.0, 0.0
    for name in names:
        sweep = yaml.safe_load(Path(f"configs/sweeps/demo/{name}.yaml").read_text())
        chosen = {k: v["value"] if "value" in v else v["values"][0] for k, v in sweep["parameters"].items()}
        config = sweep["command"][sweep["command"].index("--config") + 1]
        trained, spent = 0.0, 0.0
        for size in sweep["parameters"]["data.batch_size"]["values"]:
            flags = [f"--{k}={v}" for k, v in (chosen | {"data.batch_size": size}).items()]
            seconds, _ = ours("--config", config, *flags)
            spent, trained = spent + seconds, trained + Stamps.training
        all_trained, all_spent = all_trained + trained, all_spent + spent
        yield Row(f"training, demo's {name}", "its warm fits", None, [trained / spent])
    yield Row("training, demo", "its warm fits", None, [all_trained / all_spent])


def starts(turns: int) -> Iterator[Row]:
    """Yield `fit` in its own process: up to the first step over importing torch and Lightning, and whole over warm."""
    to_target = ["--config", CONFIG, "--data.batch_size", "64", *TARGET]
    halted, cold = [], []
    for _ in range(turns):
        imports = own_process("-c", "import torch, pytorch_lightning")
        with tempfile.TemporaryDirectory() as root:
            fit = ["-m", "tasks", "fit", *to_target, "--progress.show", "false", "--trainer.default_root_dir", root]
            halted.append(own_process(*fit, "--trainer.callbacks+=tasks.speed.Halt") / imports)
            cold.append(own_process(*fit) / ours(*to_target)[0])
    yield Row("fit to its first step", "importing torch and Lightning", 64, halted)
    yield Row("fit in a process of its own", "a warm one", 64, cold)


def layerwise(turns: int) -> Iterator[Row]:
    """Yield LARS and LAMB over torch's AdamW and over timm's, on ResNet-50's parameters."""
    times = optimizers.measure(rounds=turns)
    for ours_, peer in (("LARS", "timm Lars, foreach"), ("LAMB", "timm Lamb, foreach")):
        for other in (optimizers.REFERENCE, peer):
            ratios = [a / b for a, b in zip(times[ours_], times[other], strict=True)]
            yield Row(f"{ours_}'s step", other, None, ratios)


def table(turns: int = 5) -> Iterator[Row]:
    """Yield all rows, as they are measured."""
    torch.set_num_threads(1)
    quiet()
    disable_malloc_trim()  # for the plain loop as well
    data = FashionMNIST().load()["train"]
    pictures = standardize(data.inputs, FashionMNIST.mean, FashionMNIST.std), data.targets
    raw(*pictures, 128, 20)
    yield from training_steps(*pictures, STEPS, turns)
    yield from whole_fits(*pictures, STEPS, turns=3)
    yield from shares(DEMO)
    yield from starts(turns=2)
    yield from layerwise(2 * turns)


def speed(file: str | None) -> None:
    """Print the table; write it to `file` too."""
    rows = []
    for row in table():
        print(row, flush=True)
        rows.append(row._asdict() | {"ratio": statistics.median(row.ratios)})
    if file:
        Path(file).write_text(json.dumps(rows, indent=1) + "\n")
