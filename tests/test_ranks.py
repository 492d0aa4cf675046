"""The same global batch gives the same step on any number of ranks (contract 1), over gloo."""

import random

import pytest

from tests.ranks import on_ranks
from tests.test_exact_batches import NETWORKS, OPTIMIZERS
from tests.tiny import TASKS, Tiny, difference, fit, weights


def cases(count: int) -> list[dict]:
    """Settings drawn by a fixed seed: every network, batches from 1 to N, any micro-batch."""
    draw = random.Random(0)
    names = list(NETWORKS)
    return [
        {
            "name": names[i % len(names)],
            "batch_size": draw.choice([1, 2, 23, draw.randint(1, 23)]),
            "micro": draw.randint(1, 9),
            "epoch_end": draw.choice(["wrap", "keep"]),
            "optimizer": draw.choice(list(OPTIMIZERS)),
            "guess": names[i % len(names)] == "unet" and i >= len(names),
        }
        for i in range(count)
    ]


def train(case: dict, ranks: int) -> dict:
    kind, network = NETWORKS[case["name"]]
    optimizer = OPTIMIZERS[case["optimizer"]]
    task = TASKS[kind](network=network, optimizer=optimizer, micro_batch_size=case["micro"], clip_norm=1.0)
    side = 16 if case["name"] == "lenet" else 8
    data = Tiny(kind, side=side, guess=case["guess"], batch_size=case["batch_size"], epoch_end=case["epoch_end"])
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    fit(task, data, **strategy)
    return {"weights": weights(task), "evaluation": task.evaluation}


def train_all(ranks: int, count: int) -> list[dict]:
    return [train(case, ranks) for case in cases(count)]


@pytest.mark.parametrize(("ranks", "rounds"), [(2, 2), (3, 1)])
def test_ranks_change_nothing(ranks, rounds):
    count = rounds * len(NETWORKS)
    expected = train_all(1, count)
    got = on_ranks(ranks, train_all, ranks, count)
    for rank in range(ranks):
        for one, many in zip(expected, got[rank], strict=True):
            assert difference(many["weights"], one["weights"]) < 1e-12
            assert many["evaluation"]["val/loss"] == pytest.approx(one["evaluation"]["val/loss"], rel=1e-12)
            assert many["evaluation"]["train/loss"] == pytest.approx(one["evaluation"]["train/loss"], rel=1e-12)
