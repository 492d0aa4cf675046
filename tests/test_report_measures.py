"""What runs measure beside the loss: the growth of the distance, and exact intervals of shares."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from tasks.report.analysis.intervals import proportion, resampled_interval
from tasks.report.analysis.measures import growth
from tests.helpers.made_up import STEPS


def test_growth_tells_a_power_from_a_logarithm():
    t = np.array(STEPS[1:])
    assert growth(t, 3 * t**0.4).high < -10
    assert growth(t, 2 * (1.5 + np.log(t))).low > 10
    assert growth(t, t, warmup=1000) is None  # too few decades


def test_the_gain_is_that_of_two_fits_by_scipy():
    random, t = np.random.default_rng(1), np.unique(np.geomspace(2, 4000, 70).round())
    d = 3 * t**0.4 * np.exp(0.2 * random.standard_normal(len(t)))

    def squares(shape, start):
        fitted = optimize.minimize_scalar(lambda p: np.var(np.log(d) - shape(p)), bounds=start, method="bounded")
        return fitted.fun

    power = squares(lambda p: p * np.log(t), (0.01, 2))
    logarithm = squares(lambda s: np.log(math.exp(s) - math.log(t[0]) + np.log(t)), (-5, 6))
    assert growth(t, d).gain == pytest.approx(len(t) * math.log(power / logarithm), abs=0.1)


def test_growth_that_the_first_steps_decide_is_not_identifiable():
    """Straight ahead for twenty steps, then as a power: from the second step on the logarithm fits better."""
    t = np.unique(np.geomspace(1, 3000, 120).round())
    assert growth(t, np.where(t <= 20, t / 20, (t / 20) ** 0.2)) is None
    late = t > 20
    assert growth(t[late], (t[late] / 20) ** 0.2).high < -10


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
