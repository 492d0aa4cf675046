"""Regression: numbers for each example."""

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, R2Score

from tasks.base import ExactBatchTask


class Regression(ExactBatchTask):
    """Mean squared error, and r2, the share of the targets' variance that is explained.

    The data's dimensions are (inputs, outputs); targets are float [m] or [m, outputs].
    """

    metrics = ("loss", "r2")

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum over examples of the squared error, averaged over an example's outputs."""
        if label_smoothing:
            raise ValueError("model.label_smoothing is for classes: leave it out")
        squares = F.mse_loss(outputs.flatten(1), targets.to(outputs.dtype).reshape(len(targets), -1), reduction="none")
        return squares.mean(1).sum()

    def check_targets(self) -> None:
        """Take whole numbers, too: targets are no classes."""

    def make_metric(self) -> Metric:
        """Return R2 over all outputs alike."""
        return FlatR2()

    def scores(self, loss: float, metric: Metric | None) -> dict[str, float]:
        """Return loss and r2."""
        assert metric is not None
        return {"loss": loss, "r2": float(metric.compute())}

    def prediction(self, outputs: Tensor) -> Tensor:
        """Return the outputs themselves."""
        return outputs


class FlatR2(R2Score):
    """R2 of all numbers together, however they are shaped."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take up some examples' outputs and targets."""
        super().update(outputs.flatten().float(), targets.flatten().float())
