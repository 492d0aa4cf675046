"""`python -m tasks.benchmark`: peak memory at the micro-batch against the whole data set as one batch.

Each run is a process of its own, since a peak belongs to a process.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MICRO = 256
CONFIG = "configs/image_classification/fashion_mnist.yaml"
WIDE = ["--model.network", "SimpleCNN", "--model.network.channels", "[64, 64]"]  # activations that outweigh the rest


def peak(batch_size: int, micro: int | None, steps: int) -> int:
    """The peak bytes of a run of `steps` steps."""
    with tempfile.TemporaryDirectory() as root:
        flags = ["--data.batch_size", str(batch_size), "--model.micro_batch_size", str(micro or "null")]
        flags += ["--trainer.max_steps", str(steps), "--trainer.default_root_dir", root, "--progress.show", "false"]
        flags += ["--convergence.stop", "false"]
        command = [sys.executable, "-m", "tasks", "fit", "--config", CONFIG, *WIDE, *flags]
        subprocess.run(command, check=True, capture_output=True)
        (record,) = Path(root).glob("*/*/record.json")
        return json.loads(record.read_text())["cost"]["peak_memory_bytes"]


def main() -> None:
    """Print the peaks and their ratio."""
    small = peak(MICRO, MICRO, 3)
    print(f"batch {MICRO:6,}, micro-batch {MICRO}: {small / 2**20:6,.0f} MiB")
    large = peak(10_000, MICRO, 1)
    print(f"batch 10,000, micro-batch {MICRO}: {large / 2**20:6,.0f} MiB, {large / small:.3f} x (at most 1.15)")
    uncut = peak(2_048, 2_048, 1)
    print(f"batch  2,048, not cut:         {uncut / 2**20:6,.0f} MiB, {uncut / small:.3f} x")


if __name__ == "__main__":
    main()
