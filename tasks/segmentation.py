"""Semantic segmentation: one class a pixel; pixels of class 255 do not count."""

from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from tasks.base import ExactBatchTask


class Segmentation(ExactBatchTask):
    """Cross-entropy per valid pixel and miou (intersection over union, mean over the classes present).

    Networks of segmentation-models-pytorch come through `tasks.networks.segmentation.SegmentationNetwork`.
    """

    metrics = ("loss", "miou")
    ignore_index = 255

    def make_metric(self) -> Metric:
        """Return the mean intersection over union."""
        classes = self.data.dimensions[-1]
        return MulticlassJaccardIndex(classes, ignore_index=self.ignore_index, validate_args=False)

    def scores(self, loss: float, metric: Metric | None) -> dict[str, float]:
        """Return loss and miou."""
        assert metric is not None
        return {"loss": loss, "miou": round(float(metric.compute()), 7)}
