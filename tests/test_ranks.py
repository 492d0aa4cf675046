"""The same global batch gives the same step on any number of ranks (contract 1), over gloo."""

import contextlib
import os
import random
import weakref

import pytest
import torch

from callbacks.convergence_detector import ConvergenceDetector, Target
from tests.ranks import on_ranks
from tests.test_exact_batches import NETWORKS, OPTIMIZERS
from tests.test_ghost import train as train_ghost
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


class Fault:
    """A network's forward that fails at given calls, on one rank."""

    def __init__(self, network, error: str, calls: set[int]) -> None:
        self.network, self.error, self.calls, self.count = network, error, calls, 0
        self.failed = []  # of each failed pass its inputs, which must be freed before the next pass
        network.register_forward_pre_hook(self)

    def __call__(self, module, inputs) -> None:
        self.count += module.training
        assert not [kept for kept in self.failed if kept() is not None]
        if module.training and self.count in self.calls:
            self.failed.append(weakref.ref(inputs[0]))
            raise RuntimeError(self.error)


def faulty(rank_that_fails: int, error: str) -> dict:
    """Two ranks, `micro_batch_size: null`, the second and third training forward of one rank failing."""

    def network(channels, classes):
        made = NETWORKS["small cnn"][1](channels, classes)
        if int(os.environ.get("LOCAL_RANK", 0)) == rank_that_fails:
            Fault(made, error, {2, 3})
        return made

    task = TASKS["images"](network=network, optimizer=OPTIMIZERS["momentum"])
    ranks = {"strategy": "ddp", "devices": 2} if rank_that_fails < 2 else {}
    fit(task, Tiny(batch_size=23), **ranks)
    return {"weights": weights(task), "micro": task.micro}


def ghosts(ranks: int) -> list[torch.Tensor]:
    """Training with batch normalization over ghost batches of 4, and over the whole global batch."""
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    return [
        torch.cat([weights(t), *(b.flatten() for b in t.network.buffers())])
        for t in (train_ghost(5, size, **strategy) for size in (4, "global"))
    ]


def stops(rank_that_decides: int) -> int:
    """The step at which a run of two ranks ends when one of them alone thinks that all is decided."""
    detector = ConvergenceDetector()
    original = detector._decide

    def decide(trainer) -> None:
        if trainer.global_rank == rank_that_decides and trainer.global_step >= 4:
            detector.targets = [Target("val/loss", "min", 1e9)]
        original(trainer)

    detector._decide = decide
    task = TASKS["images"](network=NETWORKS["small cnn"][1], optimizer=OPTIMIZERS["momentum"])
    return fit(task, Tiny(batch_size=5), 50, callbacks=(detector,), strategy="ddp", devices=2).global_step


def on_two() -> dict:
    out_of_memory = "DefaultCPUAllocator: can't allocate memory"
    found = {"oom": faulty(1, out_of_memory), "ghosts": ghosts(2), "stops": [stops(0), stops(1)]}
    with contextlib.suppress(RuntimeError):
        faulty(0, "a real bug")
        found["bug"] = "was swallowed"
    return found


def test_faults_ghost_batches_and_stops_on_two_ranks():
    alone, whole = faulty(9, ""), ghosts(1)
    first, second = on_ranks(2, on_two)
    for rank in (first, second):
        assert rank["oom"]["micro"] == 3  # 12 a rank, halved twice by both
        assert difference(rank["oom"]["weights"], alone["weights"]) < 1e-12
        for got, want in zip(rank["ghosts"], whole, strict=True):
            assert difference(got, want) < 1e-12
        assert "bug" not in rank  # raised on both ranks, no rank left waiting
    assert first["stops"] == second["stops"]
    assert max(first["stops"]) < 50
