"""What runs measure beside the loss: the growth of the distance, and exact intervals of shares."""

import math

import numpy as np
import pytest
from scipy import stats

from tasks.report.analysis.intervals import proportion, resampled_interval
from tasks.report.analysis.measures import NotIdentifiable, growth
from tests.helpers.made_up import STEPS


def test_growth_recovers_the_parameters_of_each_form():
    t = np.array(STEPS[1:])
    powers = growth(t, 3 * t**0.4)
    assert powers.parameters["power"].value == pytest.approx(0.4, abs=0.01)
    assert powers.heights["power"].value == pytest.approx(3, rel=0.05)
    kept = t[t > 1]
    assert growth(kept, np.log(kept) ** 2.0).parameters["power of log"].value == pytest.approx(2.0, abs=0.02)
    logarithm = growth(t, 2 * (1.5 + np.log(t)))
    assert logarithm.parameters["log"].value == pytest.approx(1.5, abs=0.05)
    assert logarithm.heights["log"].value == pytest.approx(2, rel=0.05)
    assert "decades" in growth(t, t, warmup=1000).reason


def test_growth_that_the_first_steps_decide_is_not_identifiable():
    """Straight ahead for twenty steps, then as a power: from the second step on the logarithm fits better."""
    t = np.unique(np.geomspace(1, 3000, 120).round())
    found = growth(t, np.where(t <= 20, t / 20, (t / 20) ** 0.2))
    assert isinstance(found, NotIdentifiable)
    assert found.reason.startswith("AIC(power) - AIC(log) is +")
    assert found.reason.endswith("from step 21 on")


def test_the_interval_of_a_fitted_power_holds_the_true_one():
    random, t = np.random.default_rng(0), np.unique(np.geomspace(2, 4000, 70).round())
    found = [growth(t, 3 * t**0.4 * np.exp(0.2 * random.standard_normal(len(t)))) for _ in range(100)]
    inside = sum(g.parameters["power"].low <= 0.4 <= g.parameters["power"].high for g in found)
    assert 85 <= inside <= 99


def test_the_clopper_pearson_interval_holds_exactly_what_the_binomial_allows():
    found = proportion(6, 6)
    assert found.high == 1.0
    assert stats.binom.sf(5, 6, found.low) == pytest.approx(0.025)
    wide = proportion(3, 6, level=0.99)
    assert stats.binom.sf(2, 6, wide.low) == pytest.approx(0.005)
    assert stats.binom.cdf(3, 6, wide.high) == pytest.approx(0.005)


def test_a_resampled_interval_holds_the_middle_95_percent_and_may_be_open():
    found = resampled_interval(3.0, np.arange(1000.0))
    assert (found.low, found.value, found.high) == (24.0, 3.0, 974.0)
    assert resampled_interval(3.0, [1.0, 2.0, math.inf]).high == math.inf
    assert math.isnan(resampled_interval(3.0, []).value)
