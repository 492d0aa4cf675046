"""Checked by mypy alone: the classes are what tasks/protocols.py says that others may rely on."""

import datamodules.base as data
from callbacks.cost import Cost
from callbacks.gradient_noise_scale import GradientNoiseScale
from tasks.base import ExactBatchTask
from tasks.gradient import FlatGradient
from tasks.protocols import Batch, DataModule, Gradient, GradientObserver, Part, Task
from tasks.sharding import ShardedGradient


def data_modules(module: data.InMemoryDataModule, batch: data.Batch, part: data.Part) -> tuple[DataModule, Batch, Part]:
    return module, batch, part


def tasks(task: ExactBatchTask) -> Task:
    return task


def gradients(flat: FlatGradient, sharded: ShardedGradient) -> tuple[Gradient, Gradient]:
    return flat, sharded


def observers(cost: Cost, noise: GradientNoiseScale) -> tuple[GradientObserver, GradientObserver]:
    return cost, noise
