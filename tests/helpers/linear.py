"""A linear regression in closed form: y = x w* + noise, x ~ N(0, I), w* = 0, and weights that start AWAY from it."""

import math

import torch
from torch import nn

from datamodules.base import Examples, InMemoryDataModule
from tasks.base import ExactBatchTask

NOISE, DIMENSION, AWAY = 0.5, 6, 1.0


class LinearData(InMemoryDataModule):
    """y = x w* + noise, x ~ N(0, I), w* = 0; the task's weights are all AWAY / sqrt(DIMENSION) from it."""

    dimensions = (DIMENSION,)

    def load(self):
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(4000, DIMENSION, generator=generator, dtype=torch.float64)
        y = NOISE * torch.randn(4000, generator=generator, dtype=torch.float64)
        return {"train": Examples(x, y), "val": Examples(x[:9], y[:9])}


class LinearRegression(ExactBatchTask):
    class_dimension = None

    def loss_sum(self, outputs, targets, label_smoothing=0.0):
        return 0.5 * (outputs[:, 0] - targets).square().sum()


def linear(dimension):
    network = nn.Linear(dimension, 1, bias=False)
    nn.init.constant_(network.weight, AWAY / math.sqrt(dimension))
    return network


def still(parameters):
    """An optimizer that leaves the weights where they are."""
    return torch.optim.SGD(parameters, lr=0.0)
