"""The noisy quadratic model as a task and data of the real command line: its examples are its noise."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from datamodules.base import Examples, InMemoryDataModule
from tasks.base import ExactBatchTask
from tests.noisy_quadratic import CURVATURE, NOISE


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
    """Training examples z whose gradients scatter by NOISE; the one validation example is zero, without noise."""

    dimensions = (len(CURVATURE),)

    def __init__(self, n: int = 20_000, **options) -> None:
        super().__init__(**options)
        self.n = n

    def load(self) -> dict[str, Examples]:
        z = torch.randn(self.n, len(CURVATURE), generator=torch.Generator().manual_seed(0))
        z = (z - z.mean(0)) * torch.as_tensor(NOISE**0.5 / CURVATURE, dtype=torch.float32)
        still = Examples(torch.zeros(1, len(CURVATURE)), torch.zeros(1, dtype=torch.int64))
        return {"train": Examples(z, torch.zeros(self.n, dtype=torch.int64)), "val": still, "test": still}
