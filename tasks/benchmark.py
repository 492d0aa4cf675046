"""`python -m tasks.benchmark memory|instruments|speed`: what runs cost in memory, with instruments, and over peers.

memory: at the micro-batch against the whole data set as one batch; each run is a process of its own, since a peak
belongs to a process. instruments: CPU time of steps with and without the noise scale in turn, since it changes the
step; of all others the time spent in their own methods. speed: tasks/speed.py.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from scipy.stats import binom

from tasks.speed import speed

Result = TypeVar("Result")
MICRO = 256
CONFIG = "configs/image_classification/fashion_mnist.yaml"
WIDE = ["--model.network", "SimpleCNN", "--model.network.channels", "[64, 64]"]  # activations that outweigh the rest
QUIET = ["--progress.show", "false", "--convergence.stop", "false"]
ROUNDS, STEPS = 6, 1_000  # of each instrument's runs


def peak(batch_size: int, micro: int | None, steps: int) -> int:
    """Return the peak memory of a run of `steps` steps, in bytes."""
    with tempfile.TemporaryDirectory() as root:
        flags = ["--data.batch_size", str(batch_size), "--model.micro_batch_size", str(micro or "null")]
        flags += ["--trainer.max_steps", str(steps), "--trainer.default_root_dir", root]
        command = [sys.executable, "-m", "tasks", "fit", "--config", CONFIG, *WIDE, *flags, *QUIET]
        subprocess.run(command, check=True, capture_output=True)
        (record,) = Path(root).glob("*/*/record.json")
        return json.loads(record.read_text())["cost"]["peak_memory_bytes"]


def memory() -> None:
    """Print the peaks and their ratio."""
    small = peak(MICRO, MICRO, 3)
    print(f"batch {MICRO:6,}, micro-batch {MICRO}: {small / 2**20:6,.0f} MiB")
    large = peak(10_000, MICRO, 1)
    print(f"batch 10,000, micro-batch {MICRO}: {large / 2**20:6,.0f} MiB, {large / small:.3f} x (at most 1.15)")
    uncut = peak(2_048, 2_048, 1)
    print(f"batch  2,048, not cut:         {uncut / 2**20:6,.0f} MiB, {uncut / small:.3f} x")


class Clock(Callback):
    """Notes the CPU seconds of each step, and of each call of the watched instrument, in this process's last fit."""

    watched = ""  # its class
    steps: list[float] = []
    calls: dict[str, list[float]] = {}  # by the method called

    def setup(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        """Begin anew, and time what the watched instrument overrides."""
        if stage != "fit":
            return
        Clock.steps, Clock.calls = [], defaultdict(list)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared
        for callback in callbacks:
            if type(callback).__name__ == Clock.watched:
                self.watch(callback)

    def watch(self, callback: Callback) -> None:
        """Time each method that a callback overrides."""
        for name in (*vars(Callback), "facts"):
            own = getattr(type(callback), name, None) is not getattr(Callback, name, None)
            if own and not name.startswith("_"):
                setattr(callback, name, self.timed(getattr(callback, name)))

    @staticmethod
    def timed(method: Callable[..., Result]) -> Callable[..., Result]:
        """Return the method with its CPU seconds added to `calls`."""

        def call(*args: Any) -> Result:
            began = time.process_time()
            try:
                return method(*args)
            finally:
                Clock.calls[method.__name__].append(time.process_time() - began)

        return call

    def on_train_batch_start(self, *_: object) -> None:
        """Start timing a step."""
        Clock.steps.append(-time.process_time())

    def on_train_batch_end(self, *_: object) -> None:
        """Stop timing a step."""
        Clock.steps[-1] += time.process_time()


def fit(batch_size: int, steps: int, *flags: str) -> np.ndarray:
    """Return the CPU seconds of each step of a fit, [steps]."""
    from tasks.cli import run

    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        sizes = ["--data.batch_size", str(batch_size), "--trainer.max_steps", str(steps)]
        clock = ["--trainer.callbacks+=tasks.benchmark.Clock", "--trainer.default_root_dir", root]
        run(["fit", "--config", CONFIG, *flags, *sizes, *clock, *QUIET])
    return np.array(Clock.steps)


def middle(values: Sequence[float] | np.ndarray) -> str:
    """Return the median with its 95 % interval, from the order statistics, as text."""
    rank = int(binom.ppf(0.025, len(values), 0.5)) - 1
    ordered = np.sort(values)
    found = np.median(values), ordered[rank], ordered[-rank - 1]
    median, low, high = (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.2g}" for x in found)
    return f"{median} [{low}, {high}]"


def noise_scale() -> None:
    """Print what the gradient noise scale costs in per cent of the steps: every second one is sampled, in pairs."""
    from callbacks.gradient_noise_scale import sampled, steps_between

    for size, steps in {8: 400, 16: 400, 64: 300, 128: 160, 256: 120, 512: 80, 1024: 60}.items():
        flags = ["--evaluation.ratio=3", "--trainer.callbacks+=GradientNoiseScale", "--trainer.callbacks.every=2"]
        found = fit(size, steps + 10, *flags)
        with_it, without = found[10::2], found[11::2]
        costs = []
        for length in (STEPS, STEPS // 5):
            share = np.mean([sampled(step, steps_between(size)) for step in range(length)])
            costs.append(f"{middle(100 * share * (with_it / without - 1))} % of {length:,} steps")
        print(f"gradient_noise_scale, batch {size:5,}: {', '.join(costs)} of {1e3 * np.median(without):.2f} ms")


def instruments() -> None:
    """Print what each instrument costs, in per cent of the steps of a run."""
    torch.set_num_threads(1)
    noise_scale()
    first = np.median([fit(64, 1)[0] for _ in range(ROUNDS)])
    for overlay in sorted(Path("configs/instruments").glob("*.yaml")):
        if overlay.stem == "gradient_noise_scale":
            continue
        (callback,) = yaml.safe_load(overlay.read_text())["trainer"]["callbacks+"]
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            Clock.watched = callback["class_path"]
            steps = fit(64, STEPS, "--config", str(overlay))
            spent = {name: sum(calls) for name, calls in Clock.calls.items()}
            within = sum(spent.pop(name, 0.0) for name in ("on_train_batch_start", "on_train_batch_end"))
            evaluating = spent.pop("on_validation_end", 0.0)
            once = sum(spent.values()) + max(steps[0] - first, 0.0)  # the first step: Cost counts its operations
            step = steps.mean() / 100
            found["every step"].append(within / len(steps) / step)
            found["an evaluation"].append(evaluating / max(len(Clock.calls["on_validation_end"]), 1) / step)
            found["once a run"].append(once / step)
            found[f"in all, of {STEPS:,} steps"].append((within + evaluating + once) / steps.sum() * 100)
        print(f"{overlay.stem}, batch 64, % of a step: " + "; ".join(f"{k} {middle(v)}" for k, v in found.items()))


def main() -> None:
    """Choose the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tasks.benchmark", description=__doc__)
    parser.add_argument("which", nargs="?", choices=("memory", "instruments", "speed"), default="memory")
    parser.add_argument("--json", help="where to write the table of speed, too")
    args = parser.parse_args()
    if args.which == "speed":
        speed(args.json)
    else:
        {"memory": memory, "instruments": instruments}[args.which]()


if __name__ == "__main__":
    from tasks.benchmark import main  # not the copy named __main__: the command line must find the same Clock

    main()
