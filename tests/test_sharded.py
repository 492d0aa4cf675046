"""Sharded parameters (FSDP2, ModelParallelStrategy) over gloo give the step of one process."""

import pytest
import torch
from pytorch_lightning.strategies import ModelParallelStrategy

from tasks.sharding import whole
from tests.helpers.networks import NETWORKS, OPTIMIZERS
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import TASKS, Tiny, difference, fit

CASES = [
    ("small cnn", 7, 3, "momentum"),
    ("unet", 1, 2, "momentum"),
    ("lstm, dropout", 23, 4, "adamw"),
    ("transformer, dropout", 5, 9, "adamw"),
    ("small cnn", 9, 2, "lars"),
    ("transformer, dropout", 6, 2, "lamb"),
]


def train(ranks):
    torch.set_default_dtype(torch.float64)  # ModelParallelStrategy refuses precision 64-true
    try:
        return [train_case(ranks, *case) for case in CASES]
    finally:
        torch.set_default_dtype(torch.float32)


def sharded(ranks):
    sizes = {"data_parallel_size": ranks, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
    return {"strategy": ModelParallelStrategy(**sizes), "devices": ranks}


def train_case(ranks, name, batch_size, micro, optimizer):
    kind, network = NETWORKS[name]
    options = {"micro_batch_size": micro, "clip_norm": 1.0, "channels_last": optimizer == "momentum"}
    task = TASKS[kind](network=network, optimizer=OPTIMIZERS[optimizer], **options)
    strategy = sharded(ranks) if ranks > 1 else {}
    fit(task, Tiny(kind, batch_size=batch_size), steps=6, precision="32-true", **strategy)
    vector = torch.cat([whole(p.detach()).flatten() for p in task.network.parameters()])
    return vector, task.evaluation | {"network": task.facts()["network"]}


def test_sharding_changes_nothing():
    expected = train(1)
    for rank in on_ranks(2, train, 2):
        for (got, scores), (want, scores1) in zip(rank, expected, strict=True):
            assert difference(got, want) < 1e-12
            assert scores["val/loss"] == pytest.approx(scores1["val/loss"], rel=1e-12)
            assert scores["network"] == scores1["network"]
            assert scores["train/loss"] == pytest.approx(scores1["train/loss"], rel=1e-12)


class Unreadable(Tiny):
    """Images of which the second rank cannot read its share from the third step on."""

    def prepare(self, inputs, targets, draw):
        if draw is not None and self.trainer.global_step == 2 and self.trainer.global_rank == 1:
            raise OSError("the file is gone")
        return super().prepare(inputs, targets, draw)


def train_unreadable():
    task = TASKS["images"](network=NETWORKS["small cnn"][1], optimizer=OPTIMIZERS["momentum"], micro_batch_size=3)
    try:
        fit(task, Unreadable(batch_size=12), steps=6, precision="32-true", **sharded(2))
    except (RuntimeError, OSError) as error:
        return str(error)


def test_a_file_that_one_rank_cannot_read_ends_the_run_on_all():
    assert on_ranks(2, train_unreadable) == ["another rank failed in this step", "the file is gone"]
