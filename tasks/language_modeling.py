"""Language modelling: the next token at each position of a window; an example is a window."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from tasks.base import ExactBatchTask


class LanguageModeling(ExactBatchTask):
    """Cross-entropy per token and perplexity, its exponential.

    Args:
        network: called with (vocabulary size), maps int [m, L] to logits [m, L, vocabulary].
    """

    metrics = ("loss", "perplexity")
    class_dimension = -1

    def __init__(self, network: Callable[[int], nn.Module], **options: Any) -> None:
        super().__init__(network, **options)  # type: ignore[arg-type]  # called with the vocabulary alone

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum of the tokens' losses: outputs [m, L, vocabulary] and targets int [m, L] give a scalar."""
        return super().loss_sum(outputs.flatten(0, 1), targets.flatten(), label_smoothing)

    def scores(self, loss: float, metric: Metric | None) -> dict[str, float]:
        """Return loss and perplexity."""
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}  # e^700 is the last finite power
