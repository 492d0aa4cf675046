"""Shapes, fits and critical batch sizes against closed forms, slow second ways, and known truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tasks.report.analysis import fits
from tasks.report.analysis.critical import FitData, critical, fit_data
from tasks.report.analysis.curves import workloads
from tasks.report.render.tables import on_front, points_table
from tasks.report.sources.runs import read_runs
from tests.helpers import made_up
from tests.helpers.fake_runs import make_run, make_study

SIZES = 16.0 * 2.0 ** np.arange(10)
CRITICAL = 300


def one_shape(family, **arrays):
    return family(tuple(SIZES), **{name: np.array([value]) for name, value in arrays.items()})


SHAPES = [
    one_shape(fits.Hyperbolas, critical=CRITICAL, power=1.0),
    one_shape(fits.Hyperbolas, critical=500.0, power=2.3),
    one_shape(fits.Hyperbolas, critical=90.0, power=0.5),
]


@pytest.mark.parametrize("family", SHAPES)
def test_closed_forms_of_a_shape_agree_with_its_curve(family):
    def log_steps(size):
        return family.log_steps(np.array([size]))[0, 0]

    def growth(size):  # of the examples needed
        return math.log(size / 16) + log_steps(size) - log_steps(16.0)

    for factor in (1.2, 1.25, 2.0):
        assert growth(family.size_at(factor, 16.0)[0]) == pytest.approx(math.log(factor))
    for size in (20.0, 100.0, 3000.0):
        slope = -(log_steps(size * 1.001) - log_steps(size / 1.001)) / (2 * math.log(1.001))
        assert family.slope(size)[0] == pytest.approx(slope, abs=1e-5)
    size = family.size_whose_doubling_saves(0.2)[0]
    assert math.exp(log_steps(2 * size) - log_steps(size)) == pytest.approx(0.8)


def test_the_hyperbola_has_mccandlishs_identities():
    steps = np.exp(SHAPES[0].at_sizes[0])  # S_min = 1
    examples = SIZES * steps  # E_min = B_crit
    assert np.allclose((steps - 1) * (examples / CRITICAL - 1), 1)


def test_squares_are_those_of_a_fitted_height():
    family = fits.hyperbola(tuple(SIZES))
    y = np.random.default_rng(0).normal(size=len(SIZES))
    found = fits.fit(family, y).squares
    for j in range(0, len(found), 100):
        direct = optimize.minimize_scalar(lambda h, c=family.at_sizes[j]: ((y - c - h) ** 2).sum())
        assert found[j] == pytest.approx(direct.fun)


@pytest.mark.parametrize("family", SHAPES[:2])
def test_noise_free_curves_are_recovered(family):
    fitted = fits.fit(fits.softened(tuple(SIZES)), family.at_sizes[0])
    assert fitted.family.critical[fitted.best] == pytest.approx(family.critical[0], rel=0.06)
    interval = fitted.interval(fitted.family.size_at(2.0, 16.0))
    assert interval.low <= family.size_at(2.0, 16.0)[0] * 1.02
    assert interval.high >= family.size_at(2.0, 16.0)[0] * 0.98
    assert interval.high / interval.low < 1.1
    assert np.allclose(np.log(fitted.curve(SIZES)), family.at_sizes[0], atol=0.012)


def test_the_hyperbolas_interval_is_close_to_that_of_ordinary_regression():
    random = np.random.default_rng(3)
    y = SHAPES[0].at_sizes[0] + 0.05 * random.normal(size=len(SIZES))
    fitted = fits.fit(fits.hyperbola(tuple(SIZES)), y)

    def model(b, height, log_critical):
        return height + np.log1p(np.exp(log_critical) / b)

    best, covariance = optimize.curve_fit(model, SIZES, y, p0=(0, 5))
    interval = fitted.interval(np.log(fitted.family.critical))
    half = stats.t.ppf(0.975, len(SIZES) - 2) * math.sqrt(covariance[1, 1])
    assert interval.value == pytest.approx(best[1], abs=0.02)
    assert interval.low == pytest.approx(best[1] - half, abs=0.05)
    assert interval.high == pytest.approx(best[1] + half, abs=0.05)


def test_the_profile_of_b2_is_that_of_a_constrained_minimization():
    """Every B2 is tried by itself: the best curve through it is found by scipy, without a grid of shapes."""
    random = np.random.default_rng(4)
    y = SHAPES[0].at_sizes[0] + 0.05 * random.normal(size=len(SIZES))
    fitted = fits.fit(fits.softened(tuple(SIZES)), y)
    found = fitted.interval(fitted.family.size_at(2.0, SIZES[0]))

    def shape(log_critical, power):
        return one_shape(fits.Hyperbolas, critical=math.exp(log_critical), power=power)

    def squares(b2, power):
        """The least squares of the curves of this power that pass E = 2 min E at b2."""
        at = optimize.brentq(lambda c: shape(c, power).size_at(2.0, SIZES[0])[0] - b2, -5, 15)
        residuals = y - shape(at, power).at_sizes[0]
        return ((residuals - residuals.mean()) ** 2).sum()

    def profile(log_b2):
        bounds = (math.log(0.15), math.log(5))
        found = optimize.minimize_scalar(
            lambda p: squares(math.exp(log_b2), math.exp(p)), bounds=bounds, method="bounded"
        )
        return found.fun

    middle = optimize.minimize_scalar(profile, bounds=(math.log(200), math.log(600)), method="bounded")
    dof = len(SIZES) - 3
    limit = middle.fun * (1 + stats.t.ppf(0.975, dof) ** 2 / dof)
    ends = [math.log(found.value / 2), middle.x, math.log(found.value * 2)]
    low, high = (math.exp(optimize.brentq(lambda b: profile(b) - limit, *pair)) for pair in (ends[:2], ends[1:]))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.03)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8))
def test_the_convex_fit_is_convex_and_the_best_such(noise):
    x = np.log(2.0) * np.arange(len(noise))
    fitted = x + fits.convex_steps(np.exp(x), np.array(noise) - x)  # log E
    rises = np.diff(fitted)
    assert (rises > -1e-9).all()
    assert (np.diff(rises) > -1e-9).all()
    # Optimal over a convex cone: the residual is orthogonal to the fit and makes no ray of the cone better.
    residual = np.array(noise) - fitted
    assert residual.sum() == pytest.approx(0, abs=1e-8)
    assert residual @ fitted == pytest.approx(0, abs=1e-7)
    assert all(residual @ np.maximum(x - knot, 0) < 1e-8 for knot in x)


def test_b2_between_sizes_and_beyond_them():
    assert fits.size_at(np.array([1.0, 2, 4, 8]), -np.log([1, 2, 2, 2]), 2.0) == pytest.approx(4)
    assert fits.size_at(np.array([1.0, 2, 4]), -np.log([1, 2, 4]), 2.0) == math.inf
    data = FitData(SIZES, SHAPES[0].at_sizes[0], 0.0, 10)
    assert fits.size_at(data.sizes, fits.convex_steps(data.sizes, data.log_steps), 2.0) == pytest.approx(
        CRITICAL + 2 * 16, rel=0.03
    )


def only_curve(folder):
    runs, left_out = read_runs(folder)
    assert not left_out
    (workload,) = workloads(runs)
    (curve,) = workload.curves
    return curve


def tuned_study(folder, steps, sizes, n=5, **changes):
    """Three rates at each size, of which the middle one is the best."""
    for rate, penalty in ((0.05, 1.3), (0.1, 1.0), (0.2, 1.2)):
        scale = {"rate__base": rate, "rate__effective": rate, **changes}
        make_study(folder / str(rate), lambda b, p=penalty: p * steps(b), sizes, range(n), **scale)
    return only_curve(folder)


def test_a_tuned_study_identifies_its_critical_batch_size(tmp_path):
    sizes = [4 * 2**k for k in range(10)]
    curve = tuned_study(tmp_path, lambda b: 150 * (1 + 128 / b), sizes, scatter=0.03)
    found = critical(curve)
    assert curve.tuned
    assert found.identified, found.why_not
    assert found.b2.value == pytest.approx(128 + 2 * 4, rel=0.15)
    assert found.b2.low < 136 < found.b2.high
    assert found.hyperbola.low < 128 < found.hyperbola.high
    assert found.chosen in ("hyperbola", "softened hyperbola")
    saves = {d.size: d.saves for d in found.doublings}
    assert saves[128].low < 100 * (1 - (1 + 0.5) / 2) < saves[128].high
    assert found.ends[1.2].value < found.ends[1.25].value < found.b2.value < found.useful_end.value


def test_what_keeps_a_critical_batch_size_from_being_identified_is_said(tmp_path):
    fixed = critical(only_curve(make_study(tmp_path / "f", lambda b: 9000 / b + 50, [16, 64, 256], range(3))))
    assert not fixed.identified
    assert "not tuned" in fixed.why_not[0]
    assert "3 batch sizes" in fixed.why_not[1]
    perfect = critical(tuned_study(tmp_path / "p", lambda b: 3e5 / b, [4, 8, 16, 32, 64, 128, 256]))
    assert not perfect.identified
    assert any("beyond the largest" in reason for reason in perfect.why_not)
    short = critical(tuned_study(tmp_path / "s", lambda b: 2 + 800 / b, [4, 8, 16, 32, 64, 128, 256, 512]))
    assert any("too short" in reason for reason in short.why_not)


def test_an_edge_of_the_grid_is_untuned(tmp_path):
    for rate, speed in ((0.05, 1.3), (0.1, 1.0)):
        changes = {"rate__base": rate, "rate__effective": rate}
        make_study(tmp_path / str(rate), lambda b, s=speed: s * 5000 / b, [16, 64], range(2), **changes)
    assert all(p.untuned for p in only_curve(tmp_path).points)


def test_points_that_cannot_be_fitted_are_left_out_with_the_reason(tmp_path):
    make_study(tmp_path / "a", lambda b: 100 + 5000 / b, [16, 64, 256, 5000], range(4), scatter=0.0)
    for seed in (10, 11):
        make_run(tmp_path / f"late{seed}", 10_000, 256, seed=seed, budget=200)
    data = fit_data(only_curve(tmp_path))
    assert list(data.sizes) == [16, 64]
    assert data.left_out == {256: "only 4 of 6 runs arrived", 5000: "more than 1/4 of the 10,000 examples"}


def test_views_change_what_they_say(tmp_path):
    curve = only_curve(make_study(tmp_path, lambda b: 100 + 5000 / b, [16, 64, 256, 1024], range(4)))
    by_rule = [fit_data(curve, rule).log_steps for rule in ("hit", "line", "first")]
    assert np.abs(by_rule[1] - by_rule[0]).max() > 0
    assert by_rule[2] == pytest.approx(by_rule[0])  # for curves that never turn back


def test_equal_steps_are_quantized_by_one_unit(tmp_path):
    def unit(steps, size):  # of a source that counts in units of 2 %
        return replace(made_up.hit(steps, size), resolution=1.01**2)

    same = [unit(100.0, 64) for _ in range(3)]
    runs = [made_up.run([h], 64, seed) for seed, h in enumerate(same)]
    (point,) = workloads(runs)[0].curves[0].points
    found = point.interval("steps")
    assert (found.low, found.high) == pytest.approx((100 / 1.01, 101))  # not nothing at all
    equal = [made_up.run([unit(9.0, size)], size, seed) for size in (16, 64) for seed in range(5)]
    data = fit_data(workloads(equal)[0].curves[0])
    uniform = (2 * math.log(1.01)) ** 2 / 12
    assert data.within == pytest.approx(2 * 5 * uniform / 8 / 5)


def test_pareto_and_money_follow_the_recorded_price():
    def steps(size):
        return 200 * (1 + 500 / size)

    sizes = [16, 64, 256, 1024]
    runs = made_up.study(steps, sizes, 3, scatter=0.0, tuned=False, cost={"device_hour": 3.6}, world_size=2)
    (workload,) = workloads(runs)
    rows = points_table(workload).rows
    at = points_table(workload).columns.index("money")
    assert [row[at].value for row in rows] == pytest.approx([steps(s) * 3.6 * 2 / 3600 for s in sizes])
    free = points_table(workloads(made_up.study(steps, sizes, 3, tuned=False))[0])
    assert all(math.isnan(row[free.columns.index("money")].value) for row in free.rows)

    def front(**cost):  # 1,024 takes the steps that 256 does
        flat = made_up.study(steps, sizes[:3], 3, scatter=0.0, tuned=False, cost={"device_hour": 9})
        last = made_up.study(lambda b: steps(256), [1024], 3, scatter=0.0, tuned=False, cost=cost)
        (curve,) = workloads([*flat, *last])[0].curves
        return [on_front(p, curve.points) for p in curve.points]

    assert front(device_hour=9) == [True, True, True, False]
    assert front(device_hour=8) == [True] * 4
