"""Image classification: one class an image."""

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from tasks.base import ExactBatchTask


class ImageClassification(ExactBatchTask):
    """Cross-entropy and accuracy (the share of images whose most likely class is the true one)."""

    metrics = ("loss", "accuracy")

    def make_metric(self) -> Metric:
        """Return the share of images that are classified correctly."""
        return MulticlassAccuracy(self.data.dimensions[-1], average="micro", validate_args=False)

    def scores(self, loss: float, metric: Metric | None) -> dict[str, float]:
        """Return loss and accuracy."""
        assert metric is not None
        return {"loss": loss, "accuracy": round(float(metric.compute()), 7)}
