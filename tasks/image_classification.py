"""Image classification: one class an image."""

from collections.abc import Callable

from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from tasks.base import ExactBatchTask


class ImageClassification(ExactBatchTask):
    """Cross-entropy and accuracy (the share of images whose most likely class is the true one).

    Args:
        network: called with (channels, classes).
    """

    metrics = ("loss", "accuracy")

    def __init__(self, network: Callable[[int, int], nn.Module], **options) -> None:
        super().__init__(network, **options)

    def make_metric(self) -> Metric:
        return MulticlassAccuracy(self.trainer.datamodule.dimensions[-1], average="micro", validate_args=False)

    def scores(self, loss: float, metric: Metric) -> dict[str, float]:
        return {"loss": loss, "accuracy": round(float(metric.compute()), 7)}
