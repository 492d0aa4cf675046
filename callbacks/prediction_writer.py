"""Predictions on disk: what `python -m tasks predict` is for."""

from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer


class PredictionWriter(Callback):
    """Writes `predictions-<rank>.npz` into the run's directory: ids `index` and `prediction`, as the task says."""

    def __init__(self) -> None:
        self.directory: Path | None = None  # of the run, set by the command line

    def on_predict_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        path = self.directory / f"predictions-{trainer.global_rank}.npz"
        np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in outputs.items()})
        print(f"{len(outputs['index']):,} predictions: {path}")
