"""The same global batch gives the same step on any number of ranks (contract 1), over gloo."""

import contextlib
import os
import weakref

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from callbacks.convergence_detector import ConvergenceDetector, Target
from tests.helpers.networks import NETWORKS, OPTIMIZERS, train_ghost
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import TASKS, Tiny, difference, fit, weights


def case(name: str) -> st.SearchStrategy[dict]:
    """Batches from 1 to N, any micro-batch; masks also where their counted elements are not known beforehand."""
    return st.fixed_dictionaries(
        {
            "name": st.just(name),
            "batch_size": st.sampled_from([23, 1, 2]) | st.integers(1, 23),
            "micro": st.sampled_from([4, *range(1, 10)]),
            "epoch_end": st.sampled_from(["wrap", "keep"]),
            "optimizer": st.sampled_from(list(OPTIMIZERS)),
            "smoothing": st.sampled_from([0.0, 0.1]),
            "guess": st.booleans() if name == "unet" else st.just(False),
        }
    )


CASES = st.tuples(*map(case, NETWORKS))


def train(case: dict, ranks: int) -> dict:
    kind, network = NETWORKS[case["name"]]
    optimizer = OPTIMIZERS[case["optimizer"]]
    options = {"clip_norm": 1.0, "label_smoothing": case["smoothing"]}
    task = TASKS[kind](network=network, optimizer=optimizer, micro_batch_size=case["micro"], **options)
    side = 16 if case["name"] == "lenet" else 8
    data = Tiny(kind, side=side, guess=case["guess"], batch_size=case["batch_size"], epoch_end=case["epoch_end"])
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    fit(task, data, **strategy)
    return {"weights": weights(task), "evaluation": task.evaluation}


def train_all(cases: tuple[dict, ...], ranks: int) -> list[dict]:
    return [train(case, ranks) for case in cases]


def check(ranks: int, cases: tuple[dict, ...]) -> None:
    expected = train_all(cases, 1)
    for rank in on_ranks(ranks, train_all, cases, ranks):
        for one, many in zip(expected, rank, strict=True):
            assert difference(many["weights"], one["weights"]) < 1e-12
            assert many["evaluation"]["val/loss"] == pytest.approx(one["evaluation"]["val/loss"], rel=1e-12)
            assert many["evaluation"]["train/loss"] == pytest.approx(one["evaluation"]["train/loss"], rel=1e-12)


@pytest.mark.parametrize(("ranks", "examples"), [(2, 2), (3, 1)])  # the first example is the first of every choice
def test_ranks_change_nothing(ranks, examples):
    few = settings(max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate])
    few(given(cases=CASES)(lambda cases: check(ranks, cases)))()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=20, deadline=None)
@given(ranks=st.sampled_from([2, 3]), cases=CASES)
def test_ranks_change_nothing_at_length(ranks, cases):
    check(ranks, cases)


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
