"""The noisy quadratic model as a task and data of the real command line."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from datamodules.base import Draw, Examples, InMemoryDataModule
from tasks.base import ExactBatchTask
from tests.helpers.quadratic_model import CURVATURE, NOISE


class Valley(nn.Module):
    """Gives x - z for examples z [m, dimensions]; x starts at one."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(dimensions))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.x - inputs


class Quadratic(ExactBatchTask):
    """An example's loss is sum(h (x - z)^2) / 2, its gradient h (x - z)."""

    def __init__(self, network: Callable[[int], nn.Module], **options) -> None:
        super().__init__(network, **options)

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return (torch.as_tensor(CURVATURE, dtype=outputs.dtype) * outputs**2).sum() / 2


class Noise(InMemoryDataModule):
    """Examples that are all zero: what training sees is noise, drawn anew at every step as an augmentation is.

    So gradients scatter by NOISE, independently from step to step, as in the analysis; noise that belonged to
    the examples would cancel over an epoch.
    """

    dimensions = (len(CURVATURE),)

    def __init__(self, n: int = 512, **options) -> None:
        super().__init__(**options)
        self.n = n

    def load(self) -> dict[str, Examples]:
        sizes = {"train": self.n, "val": 1, "test": 1}
        return {split: Examples(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64)) for split, n in sizes.items()}

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        if draw is None:
            return inputs.expand(-1, len(CURVATURE)), targets
        spread = torch.as_tensor((12 * NOISE) ** 0.5 / CURVATURE, dtype=inputs.dtype)  # uniform numbers vary by 1/12
        return (draw(0, len(CURVATURE)) - 0.5) * spread, targets
