"""Curvature and sharpness, on a quadratic whose Hessian is known, and against a dense Hessian."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.linear_approximation_error import LinearApproximationError
from callbacks.loss_surface import LossSurface, top_eigenvalue
from callbacks.sharpness import Sharpness, sharpness
from tasks.image_classification import ImageClassification
from tasks.language_modeling import LanguageModeling
from tasks.networks.language import LSTM, Transformer
from tests.helpers.linear import DIMENSION, LinearData, LinearRegression, linear, still
from tests.helpers.tiny import Tiny, fit, weights


@pytest.fixture(scope="module")
def quadratic():
    """The linear regression, its surface, inputs [n, D] and Hessian X^T X / n of its fixed training subset."""
    task, data = LinearRegression(linear, still), LinearData(batch_size=50)
    instruments = (LinearApproximationError(), Sharpness(dimensions=3, iterations=50), ConvergenceDetector())
    fit(task, data, 2, callbacks=instruments)
    x = data.splits["trainset"].inputs
    return task, LossSurface(task, data.whole("trainset")), x, x.T @ x / len(x), instruments


def test_curvature_of_a_quadratic(quadratic):
    _, surface, x, hessian, (_, instrument, _) = quadratic
    values = torch.linalg.eigvalsh(hessian)
    assert top_eigenvalue(surface, 500, tolerance=1e-12) == pytest.approx(float(values[-1]), rel=1e-6)
    vector = torch.arange(DIMENSION, dtype=torch.float64)
    assert torch.allclose(surface.hessian_times(vector), hessian @ vector, rtol=1e-12)
    found, rows = instrument.found, np.linspace(0, len(x) - 1, 32).astype(int)
    assert found["sharpness/example_eigenvalue"] == pytest.approx(float(x[rows].square().sum(1).max()), rel=1e-3)
    ratio = found["sharpness/example_eigenvalue"] / found["sharpness/top_eigenvalue"]
    assert found["sharpness/predicted_batch"] == pytest.approx(ratio + 1)


def test_linear_approximation_error_of_a_quadratic_step():
    """At w - rate g the true change is -rate <G, g> + rate^2 g H g / 2, the promised one -rate <g, g>."""
    task, data = LinearRegression(linear, partial(torch.optim.SGD, lr=0.1)), LinearData(batch_size=50)
    instrument = LinearApproximationError()
    fit(task, data, 3, callbacks=(instrument, ConvergenceDetector()))
    w, subset, train = weights(task), data.splits["trainset"], data.splits["train"]
    at = data.order.batch(3)
    slope = lambda x, y: x.T @ (x @ w - y) / len(x)  # noqa: E731
    g, whole = slope(train.inputs[at], train.targets[at]), slope(subset.inputs, subset.targets)
    hessian = subset.inputs.T @ subset.inputs / len(subset)
    expected = abs(-0.1 * whole @ g + 0.005 * g @ hessian @ g + 0.1 * g @ g)
    assert instrument.facts()["final"]["linear_error/absolute"] == pytest.approx(float(expected), rel=1e-9)


def test_sharpness_of_a_quadratic_is_that_of_the_best_corner(quadratic):
    task, surface, _, hessian, _ = quadratic
    before = weights(task).clone()
    found = sharpness(surface, 1e-2, 3, 50)
    directions = torch.randn(DIMENSION, 3, generator=torch.Generator().manual_seed(0)).double()
    bound = 1e-2 * ((torch.linalg.pinv(directions) @ before).abs() + 1)
    start, slope = surface.gradient()
    moves = [directions @ (bound * torch.tensor(c)) for c in itertools.product((-1.0, 1.0), repeat=3)]
    rise = max(float(slope @ m + 0.5 * m @ hessian @ m) for m in moves)
    assert found == pytest.approx(100 * rise / (1 + start), rel=1e-6)
    assert torch.equal(weights(task), before)


NETWORKS = {
    "convolution": (
        ImageClassification,
        "images",
        lambda c, k: nn.Sequential(nn.Conv2d(c, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, k)),
    ),
    "lstm": (LanguageModeling, "text", partial(LSTM, embedding=3, hidden=3)),
    "transformer": (LanguageModeling, "text", partial(Transformer, width=4, layers=1, heads=2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_hessian_products_are_those_of_finite_differences(name):
    kind, data, network = NETWORKS[name]
    task = kind(network, optimizer=still)
    module = Tiny(data, batch_size=5)
    fit(task, module, 1)
    surface = LossSurface(task, module.whole("trainset"))
    vector = torch.randn(surface.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-5 * vector / vector.norm()
    difference = (surface.gradient(step)[1] - surface.gradient(-step)[1]) / (2 * step.norm()) * vector.norm()
    assert torch.allclose(surface.hessian_times(vector), difference, atol=1e-7, rtol=1e-4)


def test_sharpness_refuses_more_dimensions_than_weights():
    with pytest.raises(ValueError, match="give at most 6"):
        fit(LinearRegression(linear, still), LinearData(), 1, callbacks=(Sharpness(), ConvergenceDetector()))
