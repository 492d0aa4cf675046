"""Ghost batch normalization against a naive loop over ghost batches with torch's own layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tasks.networks.ghost import GhostBatchNorm, collect, ghost_layers, with_ghost_batches
from tests.helpers.networks import Normed, train_ghost
from tests.helpers.tiny import difference, weights


@pytest.mark.parametrize("size", [1, 3, 4, 11, 20, "global"])
@pytest.mark.parametrize("shape", [(11, 5), (11, 5, 4), (11, 5, 4, 3)])
def test_forward_backward_and_statistics_are_those_of_the_naive_loop(size, shape):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    if size == 1 and len(shape) == 2:
        pytest.skip("one value a channel has no variance; torch refuses it")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    up = torch.randn(shape, generator=generator, dtype=torch.float64)
    naive = kind(5, momentum=None).double()
    nn.init.normal_(naive.weight, generator=generator)
    ghost = GhostBatchNorm(naive, size).double()
    step = 11 if size == "global" else size
    spans = [x[i : i + step] for i in range(0, 11, step)]
    if len(spans[-1]) == 1 and len(shape) == 2:
        pytest.skip("one value a channel has no variance; torch refuses it")
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = torch.cat([naive(a[i : i + step]) for i in range(0, 11, step)])
    (expected * up).sum().backward()
    gradient, naive.weight.grad = naive.weight.grad, None
    with collect(ghost):
        got = ghost(b)
    (got * up).sum().backward()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(naive.weight.grad, gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ghost.running_mean, naive.running_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ghost.running_var, naive.running_var, rtol=1e-12, atol=1e-12)
    naive.eval()
    ghost.eval()
    torch.testing.assert_close(ghost(x), naive(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ghost", [4, 13])
def test_the_ghost_batch_is_independent_of_the_micro_batch(ghost):
    one, many = train_ghost(13, ghost), train_ghost(5, ghost)
    assert difference(weights(many), weights(one)) < 1e-12
    assert many.evaluation["val/loss"] == pytest.approx(one.evaluation["val/loss"], rel=1e-12)
    assert one.facts()["batch"]["ghost"] == ghost


def test_steps_are_those_of_the_naive_loop_over_ghost_batches():
    task = train_ghost(13, 4)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        network = Normed(2, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    data = task.trainer.datamodule
    for k in range(6):
        at = data.order.batch(k)
        optimizer.zero_grad()
        for i in range(0, 13, 4):
            part = at[i : i + 4]
            outputs = network(data.splits["train"].inputs[part].double())
            (F.cross_entropy(outputs, data.splits["train"].targets[part], reduction="sum") / 13).backward()
        optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert difference(weights(task), expected) < 1e-12


def test_global_statistics_are_those_of_one_whole_batch():
    assert difference(weights(train_ghost(None, "global")), weights(train_ghost(13, 13))) < 1e-12


def test_running_statistics_depend_on_the_weights_alone():
    task = train_ghost(5, 4)
    before = [layer.running_mean.clone() for layer in ghost_layers(task.network)]
    task._collect_statistics()
    for layer, mean in zip(ghost_layers(task.network), before, strict=True):
        torch.testing.assert_close(layer.running_mean, mean, rtol=0, atol=0)
    assert all(mean.abs().sum() > 0 for mean in before)


def test_timm_s_norm_keeps_its_activation():
    timm_layers = pytest.importorskip("timm.layers")
    layer = with_ghost_batches(nn.Sequential(timm_layers.BatchNormAct2d(3)), 4)
    assert float(layer(torch.randn(8, 3, 5, 5)).detach().min()) == 0.0  # its ReLU
