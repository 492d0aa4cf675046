"""`python -m tasks.benchmark memory|instruments`: peak memory against the batch, and what each instrument costs.

memory: at the micro-batch against the whole data set as one batch; each run is a process of its own, since a peak
belongs to a process. instruments: steps, or fits, with and without one take turns in one process; CPU time.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback
from scipy.stats import binom

MICRO = 256
CONFIG = "configs/image_classification/fashion_mnist.yaml"
WIDE = ["--model.network", "SimpleCNN", "--model.network.channels", "[64, 64]"]  # activations that outweigh the rest
QUIET = ["--progress.show", "false", "--convergence.stop", "false"]
ROUNDS = 6


def peak(batch_size: int, micro: int | None, steps: int) -> int:
    """The peak bytes of a run of `steps` steps."""
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
    """Notes the CPU seconds of each step, and of the whole fit, in this process."""

    steps: list[float] = []
    total = 0.0

    def on_fit_start(self, *_: Any) -> None:
        Clock.steps, Clock.total = [], -time.process_time()

    def on_train_batch_start(self, *_: Any) -> None:
        Clock.steps.append(-time.process_time())

    def on_train_batch_end(self, *_: Any) -> None:
        Clock.steps[-1] += time.process_time()

    def on_fit_end(self, *_: Any) -> None:
        Clock.total += time.process_time()


def seconds(batch_size: int, steps: int, *flags: str) -> tuple[np.ndarray, float]:
    """CPU seconds of each step of a fit, and of the whole."""
    from tasks.cli import run

    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        sizes = ["--data.batch_size", str(batch_size), "--trainer.max_steps", str(steps), "--evaluation.ratio", "3"]
        clock = ["--trainer.callbacks+=tasks.benchmark.Clock", "--trainer.default_root_dir", root]
        run(["fit", "--config", CONFIG, *flags, *sizes, *clock, *QUIET])
    return np.array(Clock.steps), Clock.total


def middle(values: np.ndarray) -> str:
    """The median with its 95 % interval, from the order statistics."""
    low, high = np.sort(values)[[k := int(binom.ppf(0.025, len(values), 0.5)) - 1, -k - 1]]
    return f"{np.median(values):+.2f} [{low:+.2f}, {high:+.2f}]"


def instruments() -> None:
    """Print what the instruments cost: of a step in per cent, and in seconds of a whole run."""
    from callbacks.gradient_noise_scale import steps_between

    torch.set_num_threads(1)
    name = "gradient_noise_scale"
    for size, steps in {16: 400, 64: 300, 128: 160, 256: 120, 512: 80, 1024: 60}.items():
        every = steps_between(size)  # here every second step is sampled, pair by pair
        found, _ = seconds(size, steps + 10, "--trainer.callbacks+=GradientNoiseScale", "--trainer.callbacks.every=2")
        sampled, other = found[10::2], found[11::2]
        extra = 100 * (sampled / other - 1) / every
        step = f"{1e3 * np.median(other):.2f} ms"
        print(f"{name:28} batch {size:5,}: {middle(extra)} % of a step of {step}, every {every}", flush=True)
    for overlay in sorted(Path("configs/instruments").glob("*.yaml")):
        if overlay.stem == name:
            continue
        pairs = [(seconds(64, 101), seconds(64, 101, "--config", str(overlay))) for _ in range(ROUNDS)]
        steps = np.array([100 * (np.median(b[0]) / np.median(a[0]) - 1) for a, b in pairs])
        whole = np.array([b[1] - a[1] for a, b in pairs])
        print(f"{overlay.stem:28} batch    64: {middle(steps)} % of a step, {middle(whole)} s of a run", flush=True)


def main() -> None:
    """Choose the benchmark."""
    {"memory": memory, "instruments": instruments}[sys.argv[1] if len(sys.argv) > 1 else "memory"]()


if __name__ == "__main__":
    from tasks.benchmark import main  # not the copy named __main__: the command line must find the same Clock

    main()
