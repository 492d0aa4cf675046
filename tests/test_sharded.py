"""Sharded parameters (FSDP2, ModelParallelStrategy) over gloo give the step of one process."""


import pytest
import torch
from pytorch_lightning.strategies import ModelParallelStrategy

from tasks.sharding import whole
from tests.ranks import on_ranks
from tests.test_exact_batches import NETWORKS, OPTIMIZERS
from tests.tiny import TASKS, Tiny, difference, fit

CASES = [
    ("small cnn", 7, 3, "momentum"),
    ("unet", 1, 2, "momentum"),
    ("lstm, dropout", 23, 4, "adamw"),
    ("transformer, dropout", 5, 9, "adamw"),
]


def train(ranks):
    torch.set_default_dtype(torch.float64)  # ModelParallelStrategy refuses precision 64-true
    try:
        return [train_case(ranks, *case) for case in CASES]
    finally:
        torch.set_default_dtype(torch.float32)


def train_case(ranks, name, batch_size, micro, optimizer):
    kind, network = NETWORKS[name]
    task = TASKS[kind](network=network, optimizer=OPTIMIZERS[optimizer], micro_batch_size=micro, clip_norm=1.0)
    strategy = {}
    if ranks > 1:
        sizes = {"data_parallel_size": ranks, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
        strategy = {"strategy": ModelParallelStrategy(**sizes), "devices": ranks}
    fit(task, Tiny(kind, batch_size=batch_size), steps=6, precision="32-true", **strategy)
    vector = torch.cat([whole(p.detach()).flatten() for p in task.network.parameters()])
    return vector, task.evaluation


def test_sharding_changes_nothing():
    expected = train(1)
    for rank in on_ranks(2, train, 2):
        for (got, scores), (want, scores1) in zip(rank, expected, strict=True):
            assert difference(got, want) < 1e-12
            assert scores["val/loss"] == pytest.approx(scores1["val/loss"], rel=1e-12)
            assert scores["train/loss"] == pytest.approx(scores1["train/loss"], rel=1e-12)
