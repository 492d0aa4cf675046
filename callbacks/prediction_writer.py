"""Predictions on disk: what `python -m tasks predict` is for."""

from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter


class PredictionWriter(BasePredictionWriter):
    """Writes `predictions-<rank>.npz` into the run's directory: example ids `index`, classes `prediction`."""

    def __init__(self) -> None:
        super().__init__("epoch")
        self.directory: Path | None = None  # of the run, set by the command line

    def write_on_epoch_end(self, trainer: Trainer, task: LightningModule, predictions: Any, indices: Any) -> None:
        arrays = {k: np.concatenate([p[k].numpy() for p in predictions]) for k in predictions[0]}
        path = self.directory / f"predictions-{trainer.global_rank}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{len(arrays['index']):,} predictions: {path}")
