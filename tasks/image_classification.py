"""Image classification: one class an image."""

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from tasks.base import ExactBatchTask


class ImageClassification(ExactBatchTask):
    """Cross-entropy and accuracy (the share of images whose most likely class is the true one)."""

    metrics = ("loss", "accuracy")

    def make_metric(self) -> Metric:
        return MulticlassAccuracy(self.trainer.datamodule.dimensions[-1], average="micro", validate_args=False)

    def scores(self, loss: float, metric: Metric) -> dict[str, float]:
        return {"loss": loss, "accuracy": round(float(metric.compute()), 7)}
