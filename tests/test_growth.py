"""Increasing the batch instead of decaying the rate: the batches stay exact, the rates are the paper's."""

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.rolling_checkpoint import RollingCheckpoint, checkpoints
from datamodules.base import Batch, Examples, GlobalBatches
from datamodules.growth import Growth
from datamodules.order import Order
from tasks.__main__ import main
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SimpleCNN, SmallCNN
from tests.helpers.tiny import Tiny, difference, fit, weights

FASHION = "configs/image_classification/fashion_mnist.yaml"


@st.composite
def growing(draw):
    n = draw(st.integers(2, 60))
    batch_size = draw(st.integers(1, n))
    epochs = sorted(draw(st.lists(st.floats(0, 3), max_size=3)))
    growth = Growth(epochs, factor=draw(st.floats(1.1, 8)), largest=draw(st.integers(batch_size, n)))
    return n, batch_size, growth.stages(batch_size, n)


@given(growing(), st.data())
@settings(deadline=None)
def test_batches_are_distinct_every_epoch_is_whole_and_any_step_is_found_from_nowhere(case, data):
    n, batch_size, stages = case
    order = Order(n, batch_size, 3, True, stages)
    steps = order.steps(4)
    batches = [order.batch(k) for k in range(steps)]
    assert all(len(set(b.tolist())) == len(b) for b in batches)
    stream = torch.cat(batches)
    assert 4 * n <= len(stream) < 4 * n + len(batches[-1])  # the steps of 4 epochs, the last one whole
    for epoch in range(4):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    sizes = [len(b) for b in batches]
    assert sizes == sorted(sizes)
    assert sizes[0] >= batch_size
    k = data.draw(st.integers(0, steps - 1))
    assert torch.equal(Order(n, batch_size, 3, True, stages).batch(k), batches[k])


def test_a_resumed_loader_goes_on_with_the_grown_batches():
    stages = Growth([1, 2], factor=2).stages(3, 20)

    def loader():
        examples = Examples(torch.zeros(20), torch.zeros(20))
        order = Order(20, 3, 3, True, stages)
        return GlobalBatches(order, 14, lambda ids, k, following: Batch(examples, ids, lambda *x: x[:2], (3, k)))

    whole = [batch.indices.tolist() for batch in loader()]
    assert {len(b) for b in whole} == {3, 6, 12}
    for k in range(14):
        resumed = loader()
        resumed.load_state_dict({"k": k})
        assert [batch.indices.tolist() for batch in resumed] == whole[k:]


@pytest.mark.parametrize(("largest", "sizes"), [(None, [4, 8, 16]), (10, [4, 8, 10])])
def test_a_run_is_the_plain_loop_of_growing_batches(largest, sizes):
    """The reference: torch alone, with the rate that the growth leaves: none until the batch is at its limit."""
    network, optimizer = partial(SmallCNN, groups=2, channels=(4, 8)), partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    task = ImageClassification(network=network, optimizer=optimizer, micro_batch_size=3)
    data = Tiny(batch_size=4, growth=Growth([1, 2], factor=2, largest=largest))
    fit(task, data, steps=12)

    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        reference = network(*data.dimensions)
    finally:
        torch.set_default_dtype(torch.float32)
    plain, train, seen = optimizer(reference.parameters()), data.splits["train"], 0
    for k in range(12):
        stage = (seen >= 23) + (seen >= 46)  # the drops: 1 and 2 epochs of 23
        plain.param_groups[0]["lr"] = 0.05 * 0.5**stage * sizes[stage] / 4  # the noise scale lr / B is the schedule's
        at = data.order.batch(k)
        assert len(at) == sizes[stage]
        loss = F.cross_entropy(reference(train.inputs[at].double()), train.targets[at])
        plain.zero_grad()
        loss.backward()
        plain.step()
        seen += len(at)
    expected = torch.cat([p.detach().flatten() for p in reference.parameters()])
    assert difference(weights(task), expected) < 1e-12
    assert task.examples == seen


def test_growth_by_the_command_line_stands_in_the_record(tmp_path, capsys):
    flags = ["fit", "--config", FASHION, "--data.variant.examples", "60", "--trainer.accelerator", "cpu"]
    flags += ["--trainer.default_root_dir", str(tmp_path), "--progress.show", "false", "--data.epochs", "3"]
    flags += ["--convergence.stop", "false", "--data.batch_size", "10"]
    growth = ["--data.growth.epochs", "[1,2]", "--data.growth.factor", "4", "--data.growth.largest", "50"]
    assert main([*flags, *growth]) == 0
    (path,) = tmp_path.glob("*/*/record.json")
    record = json.loads(path.read_text())
    assert [tuple(stage.values()) for stage in record["data"]["growth"]] == [
        (0, 0, 10, 1.0),
        (6, 60, 40, 1.0),
        (8, 140, 50, pytest.approx(5 / 16)),
    ]
    assert record["final"]["step"] == 9  # 6 x 10, 2 x 40, 50: the first whole batch at or beyond 180
    assert record["final"]["examples"] == 190
    assert record["final"]["lr"] == pytest.approx(0.01 * 5 / 16)
    capsys.readouterr()
    for wrong, said in (
        (["--data.epoch_end", "keep"], "use data.epoch_end=wrap"),
        (["--data.growth.largest", "61"], "data.growth.largest is 61: give at least data.batch_size (10)"),
        (["--data.growth.factor", "1"], "a factor above 1"),
        (["--model.schedule", "Cosine"], "data.growth takes the place of model.schedule"),
    ):
        assert main([*flags, *growth, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_a_run_resumed_from_any_step_ends_the_same(tmp_path):
    def run(directory, ckpt_path=None):
        network = partial(SimpleCNN, channels=(4,), hidden=(8,), dropout=0.4, grid=2)
        task = ImageClassification(network=network, optimizer=partial(torch.optim.AdamW, lr=0.01), warmup="0.5 epochs")
        rolling = RollingCheckpoint(minutes=0, keep=100)
        rolling.directory = directory
        data = Tiny(batch_size=5, growth=Growth([1, 2], factor=2, largest=15))
        fit(task, data, 10, callbacks=(ConvergenceDetector(), rolling), ckpt_path=ckpt_path, precision="32-true")
        return weights(task), task.examples

    expected, examples = run(tmp_path / "whole")
    assert examples == 5 * 5 + 3 * 10 + 2 * 15
    found = checkpoints(tmp_path / "whole")
    assert len(found) == 10
    for checkpoint in found[1:]:
        got, seen = run(tmp_path / checkpoint.stem, str(checkpoint))
        assert torch.equal(got, expected), checkpoint
        assert seen == examples
