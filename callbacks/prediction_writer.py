"""Predictions on disk: what `python -m tasks predict` is for."""

from pathlib import Path

import numpy as np
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from tasks.protocols import Batch, Task


class PredictionWriter(Callback):
    """Writes `predictions-<rank>.npz` into the run's directory: ids `index` and `prediction`, as the task says."""

    def __init__(self) -> None:
        self.directory = Path()  # of the run: set by the command line

    def on_predict_batch_end(
        self, trainer: Trainer, task: Task, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        """Write this rank's predictions."""
        path = self.directory / f"predictions-{trainer.global_rank}.npz"
        np.savez_compressed(path, index=outputs["index"].numpy(), prediction=outputs["prediction"].numpy())
        print(f"{len(outputs['index']):,} predictions: {path}")
