"""The probe: its decision, a descent without noise whose answer is known, and that it leaves no trace."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.critical_batch_probe import CriticalBatchProbe, bracket
from datamodules.base import Examples, InMemoryDataModule
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tests.linear import LinearRegression
from tests.tiny import Tiny, fit, weights


def test_bracket_ends_at_the_first_size_that_falls_behind():
    assert bracket([(4, 1.0), (8, 1.009), (16, 1.02), (32, 0.5)], 0.01) == (8, 16)
    assert bracket([(4, 1.0), (8, 0.9)], 0.01) == (8, math.inf)
    assert bracket([(4, 1.0), (8, math.nan)], 0.01) == (4, 8)


class Same(InMemoryDataModule):
    """One example 512 times: batches have no noise, so the loss is 0.5 w^2 and w shrinks by 1 - rate a step."""

    dimensions = (1,)

    def load(self):
        examples = Examples(torch.ones(512, 1), torch.zeros(512))
        return {"train": examples, "val": examples.at(torch.arange(4))}


def one(dimension):
    network = nn.Linear(dimension, 1, bias=False)
    nn.init.ones_(network.weight)
    return network


def test_probe_finds_the_batch_at_which_a_descent_without_noise_overshoots():
    """(1 - 0.1 k)^(n / k) falls in k up to 8, |1 - 0.8|^(1/8) = 0.82 an own step; at 16, 0.6^(1/16) = 0.97 > 0.9."""
    probe = CriticalBatchProbe([0, 2], examples=128)
    task = LinearRegression(one, partial(torch.optim.SGD, lr=0.1))
    fit(task, Same(batch_size=2), 3, callbacks=(probe, ConvergenceDetector()))
    first, second = probe.found
    assert (first["low"], first["high"]) == (second["low"], second["high"]) == (16, 32)
    for size, loss in first["losses"]:
        assert loss == pytest.approx(0.5 * (1 - 0.1 * size / 2) ** (2 * 128 / size), rel=1e-9)


def test_probe_leaves_the_run_as_it_was():
    def run(*instruments):
        optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        task = ImageClassification(partial(SmallCNN, channels=(4,)), optimizer=optimizer)
        fit(task, Tiny(batch_size=3), 9, callbacks=(*instruments, ConvergenceDetector()))
        return task

    probe = CriticalBatchProbe([0, 4], examples=24)
    plain, probed = run(), run(probe)
    assert torch.equal(weights(plain), weights(probed))
    assert plain.evaluation["trainset/loss"] == probed.evaluation["trainset/loss"]
    assert [f["step"] >= at for f, at in zip(probe.found, (0, 4), strict=True)] == [True, True]


def test_probe_refuses_a_batch_that_cannot_grow():
    with pytest.raises(ValueError, match=r"at least twice data\.batch_size 400"):
        fit(LinearRegression(one, torch.optim.SGD), Same(batch_size=400), 1, callbacks=(CriticalBatchProbe([0]),))
