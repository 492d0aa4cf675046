"""Data, network and loss of one's own: a noisy wave, a perceptron, the Huber loss. The config beside it names them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.base import Examples, InMemoryDataModule
from tasks.regression import Regression


class Waves(InMemoryDataModule):
    """Points on a noisy wave: x float [N, 1], y float [N, 1]."""

    dimensions = (1, 1)  # what the network is called with: its inputs and its outputs

    def load(self) -> dict[str, Examples]:
        """Return the splits; here they are made up, of one's own they are read from files."""
        generator = torch.Generator().manual_seed(0)  # the data set's own seed: the same data in every run
        x = 6 * torch.rand(20_000, 1, generator=generator) - 3
        y = torch.sin(2 * x) + 0.2 * torch.randn(20_000, 1, generator=generator)
        ends = {"train": (0, 16_000), "val": (16_000, 18_000), "test": (18_000, 20_000)}
        return {split: Examples(x[a:b], y[a:b]) for split, (a, b) in ends.items()}


class Perceptron(nn.Sequential):
    """A network is any module whose first arguments are the data's `dimensions`."""

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


class Robust(Regression):
    """A loss of one's own is the SUM over examples; the suite divides by the size of the whole global batch."""

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum of the Huber losses."""
        return F.huber_loss(outputs, targets, reduction="sum")
