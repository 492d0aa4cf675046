"""Instruments: each against a closed form, a naive reference, or two ranks."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.cost import Cost
from callbacks.critical_batch_probe import CriticalBatchProbe
from callbacks.gradient_noise_scale import GradientNoiseScale, ratio, sampled, two_batch_estimate
from callbacks.linear_approximation_error import LinearApproximationError
from callbacks.rolling_checkpoint import RollingCheckpoint
from callbacks.sharpness import Sharpness
from callbacks.weight_distance import WeightDistance
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tasks.segmentation import Segmentation
from tests.helpers.linear import AWAY, DIMENSION, NOISE, LinearData, LinearRegression, linear, still
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import Tiny, fit, weights


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (1, 1, 1), (2, 1, 2)])
def test_estimate_is_unbiased_over_every_possible_batch_without_replacement(sizes):
    """All ordered draws from 5 examples: the mean of the estimates is the truth, to rounding, also for B = N."""
    gradients = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    mean, batch, found = gradients.mean(0), sum(sizes), []
    for drawn in itertools.permutations(range(5), batch):
        parts = [gradients[list(drawn)][i : i + 1] for i in range(batch)]
        groups = [
            torch.cat(parts[end - size : end]).sum(0) / batch
            for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)
        ]
        weighted = sum(float(d.square().sum()) * batch / b for d, b in zip(groups, sizes, strict=True))
        found.append(two_batch_estimate(weighted, float(sum(groups).square().sum()), len(sizes), batch, 5))
    squares, traces = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    assert squares == pytest.approx(float(mean.square().sum()), rel=1e-10)
    assert traces == pytest.approx(float((gradients - mean).square().sum(1).mean()), rel=1e-10)


def test_equal_parts_give_the_published_formula():
    small, big, b, n = 7.0, 3.0, 4, 32  # mean |G_small|^2, |G_big|^2, B_small, B_big
    square, trace = two_batch_estimate(small, big, n // b, n, 10**15)
    assert square == pytest.approx((n * big - b * small) / (n - b))
    assert trace == pytest.approx((small - big) / (1 / b - 1 / n))


def test_noise_scale_of_a_linear_model_lies_in_its_own_interval():
    """Closed form at w - w* = d: G = d, tr(Sigma) = (D + 1)|d|^2 + D sigma^2; ragged parts of 6 of a batch of 50.

    80 steps are averaged, the later half of 160.
    """
    truth = ((DIMENSION + 1) * AWAY**2 + DIMENSION * NOISE**2) / AWAY**2
    instrument = GradientNoiseScale(every=1, parts=8, window=80)
    task = LinearRegression(linear, still, clip_norm=1e-3)
    fit(task, LinearData(batch_size=50), 160, callbacks=(instrument, ConvergenceDetector()))
    row = task.evaluation
    assert abs(row["noise_scale/simple"] - truth) < 2 * row["noise_scale/standard_error"] < 0.15 * truth
    assert row["noise_scale/simple"] == pytest.approx(row["noise_scale/trace"] / row["noise_scale/gradient_square"])


def test_the_average_forgets_the_first_half_of_the_run():
    """Steps that shrink the gradient tenfold each time: with all samples |G|^2 would be that of the first."""
    instrument = GradientNoiseScale(every=1, parts=8, window=80)
    task = LinearRegression(linear, partial(torch.optim.SGD, lr=0.3))
    fit(task, LinearData(batch_size=400), 8, callbacks=(instrument, ConvergenceDetector()))
    steps, squares, traces = zip(*instrument.samples, strict=True)
    assert steps == tuple(range(8))
    assert squares[0] > 10 * squares[4]
    assert task.evaluation["step"] == 8
    assert task.evaluation["noise_scale/simple"] == pytest.approx(sum(traces[4:]) / sum(squares[4:]))


def test_jackknife_interval_covers_the_truth():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(400):
        g = 2 + torch.randn(30, generator=generator)
        s = 10 + 3 * torch.randn(30, generator=generator)
        value, error = ratio(list(zip(g.tolist(), s.tolist(), strict=True)))
        inside += abs(value - 5) < 2 * error
    assert 0.92 < inside / 400 < 0.98


@pytest.mark.parametrize("every", [1, 3, 7, 62, 64])
def test_every_later_half_has_a_sample(every):
    for now in range(2, 400):
        assert any(sampled(step, every) for step in range(math.ceil(now / 2), now))
    assert sum(sampled(step, 64) for step in range(1000)) == 1 + 6 + 15  # step 0, powers of 2, multiples of 64


def test_noise_scale_is_undefined_where_the_gradient_is_not_positive():
    assert all(math.isnan(v) for v in ratio([(-1.0, 2.0), (0.5, 3.0)]))
    assert all(math.isnan(v) for v in ratio([]))
    value, error = ratio([(1.0, 2.0), (-0.5, 3.0)])
    assert value == 10
    assert math.isnan(error)


@pytest.mark.parametrize("guess", [False, True])
def test_parts_are_weighted_by_their_counted_elements(guess):
    """Masks with ignored pixels: the sums of the estimator from a naive loop over the same micro-batches."""
    task = Segmentation(network=partial(nn.Conv2d, kernel_size=1), optimizer=still, micro_batch_size=4)
    data = Tiny("masks", batch_size=10, guess=guess)
    instrument = GradientNoiseScale(every=1, parts=2)
    fit(task, data, 1, callbacks=(instrument, ConvergenceDetector()))
    indices, train = data.order.batch(0), data.splits["train"]
    gradients, counts = [], []
    for at in indices.split(4):
        targets = train.targets[at].long()
        counts.append(int((targets != 255).sum()))
        loss = F.cross_entropy(task.network(train.inputs[at].double()), targets, ignore_index=255, reduction="sum")
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(task.network.parameters()))]))
    total = sum(counts)
    parts = sum(float((g / total).square().sum()) * total / n for g, n in zip(gradients, counts, strict=True))
    expected = two_batch_estimate(parts, float((sum(gradients) / total).square().sum()), 3, 10, 23)
    assert instrument.samples[0] == pytest.approx((0, *expected), rel=1e-9)


@pytest.mark.parametrize(("batch_size", "ghost"), [(1, None), (2, "global")])
def test_noise_scale_refuses_what_it_cannot_measure(batch_size, ghost):
    def network(channels, classes):
        norm = nn.BatchNorm2d(2) if ghost else nn.Identity()
        return nn.Sequential(nn.Conv2d(channels, 2, 3), norm, nn.Flatten(), nn.Linear(72, classes))

    task = ImageClassification(network, optimizer=still, ghost_batch_size=ghost)
    with pytest.raises(ValueError, match="noise scale"):
        fit(task, Tiny(batch_size=batch_size), 2, callbacks=(GradientNoiseScale(), ConvergenceDetector()))


def test_sampling_leaves_the_training_as_it_is():
    def run(*instruments):
        task = ImageClassification(partial(SmallCNN, channels=(4,)), optimizer=partial(torch.optim.SGD, lr=0.1))
        fit(task, Tiny(batch_size=10), 9, callbacks=(*instruments, ConvergenceDetector()))
        return task

    plain, watched = run(), run(GradientNoiseScale(every=2), WeightDistance())
    assert torch.allclose(weights(plain), weights(watched), rtol=1e-12, atol=1e-14)
    assert watched.micro == plain.micro
    assert not watched.observers
    start = run_start(plain)
    assert watched.evaluation["distance/total"] == pytest.approx(float((weights(watched) - start).norm()), rel=1e-12)
    layers = [v for k, v in watched.evaluation.items() if k.startswith("distance/") and k != "distance/total"]
    assert math.hypot(*layers) == pytest.approx(watched.evaluation["distance/total"])


def run_start(task):
    """The weights that the task began with."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        network = task.make_network(2, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def _measured(devices):
    """The noise scale, distances, cost and curvature of a short run on so many ranks."""
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    optimizer = partial(torch.optim.SGD, lr=0.1)
    task = ImageClassification(partial(SmallCNN, channels=(4,)), optimizer=optimizer, clip_norm=1.0)
    cost, linear_error = Cost(), LinearApproximationError()
    sharpness = Sharpness(dimensions=2, iterations=3, examples=2)
    probe = CriticalBatchProbe([2], examples=64)
    found = (GradientNoiseScale(every=1, parts=4), WeightDistance(), cost, linear_error, sharpness, probe)
    fit(task, Tiny(batch_size=8), 4, callbacks=(*found, ConvergenceDetector()), **strategy)
    final = {k: v for k, v in task.evaluation.items() if k.startswith(("noise_scale", "distance", "probe"))}
    probed = {f"probe loss {size}": sum(losses) for size, losses in probe.found[0]["losses"]}
    return final | linear_error.found | sharpness.found | probed | {"flops": cost.facts()["cost"]["flops"]}


def test_two_ranks_measure_what_one_does():
    alone, both = _measured(1), on_ranks(2, _measured, 2)
    assert both[0] == both[1]
    assert len(alone) > 12
    assert both[0] == pytest.approx(alone, rel=1e-8)


def test_instruments_survive_a_checkpoint(tmp_path):
    """Stopped in the middle and resumed, the last evaluation is that of the run that went through."""

    def run(steps, name, resume=None):
        instruments = (GradientNoiseScale(every=1), WeightDistance(), CriticalBatchProbe([1], examples=24))
        checkpoint = RollingCheckpoint(minutes=0)
        checkpoint.directory = tmp_path / name
        task = ImageClassification(partial(SmallCNN, channels=(4,)), optimizer=partial(torch.optim.SGD, lr=0.1))
        fit(
            task,
            Tiny(batch_size=3),
            steps,
            callbacks=(*instruments, ConvergenceDetector(), checkpoint),
            ckpt_path=resume,
        )
        values = {k: v for k, v in task.evaluation.items() if k.startswith(("noise_scale", "distance"))}
        (probed,) = instruments[2].found
        return values | {"step": probed["step"]} | {str(size): sum(losses) for size, losses in probed["losses"]}

    through = run(9, "through")
    run(5, "part")
    assert run(9, "part", str(tmp_path / "part" / "checkpoints" / "step=5.ckpt")) == pytest.approx(through, rel=1e-12)
