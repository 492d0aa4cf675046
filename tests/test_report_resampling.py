"""Rule 14: what a target that is an outcome adds to a critical batch size."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.report.analysis import fits
from tasks.report.analysis.critical import critical, fit_curve
from tasks.report.analysis.curves import Observation
from tasks.report.analysis.intervals import log_median, resampled_interval
from tasks.report.analysis.points import log_steps, medians, target_spread, with_target
from tasks.report.analysis.targets import hit_of, parse, retarget
from tests.helpers.fake_runs import evaluation_steps
from tests.helpers.made_up import placed, run

INF = math.inf
GOLMANT = parse("trainset/loss:golmant")
LARGEST, SIZES = 2048, [8 * 2**k for k in range(9)]


def test_medians_of_many_are_those_of_one():
    random = np.random.default_rng(0)
    values = np.where(random.random((50, 6)) < 0.2, INF, np.exp(random.normal(size=(50, 6))))
    expected = [math.log(log_median(row)) for row in values]
    assert medians(np.log(values)) == pytest.approx(expected)
    holes = np.concatenate([np.log(values), np.full((50, 2), np.nan)], axis=1)
    assert medians(random.permuted(holes, axis=1)) == pytest.approx(expected)
    assert np.isnan(medians(np.full((1, 3), np.nan))).all()


def golmant_study(draw: int, seeds: int = 6, scatter: float = 0.2) -> list:
    """Runs of 400 steps at the largest batch and more at others; steps to a loss g: 50 / g (1 + 100 / (g B))."""
    random, runs, goals = np.random.default_rng(draw), [], np.geomspace(1e-2, 1e2, 400)
    for size in SIZES:
        steps = 50 / goals * (1 + 100 / (goals * size))
        last = round(3 * 400 * (1 + true_critical() / size)) if size < LARGEST else 400
        for seed in range(seeds):
            at = np.array(evaluation_steps(last, random.random()))
            factor = math.exp(scatter * random.standard_normal())
            loss = np.exp(np.interp(np.log(np.maximum(at, 0.5)), np.log(steps * factor)[::-1], np.log(goals)[::-1]))
            curve = {"step": at.tolist(), "examples": (at * size).tolist(), "trainset/loss": loss.tolist()}
            runs.append(run([], size, seed, curve, data__train_examples=10**6))
    return runs


def true_critical() -> float:
    """B_crit = 100 / g at the loss g after three quarters of 400 steps at the largest batch, by bisection."""
    low, high = 1e-3, 1e3
    for _ in range(200):
        g = math.sqrt(low * high)
        low, high = (g, high) if 50 / g * (1 + 100 / (g * LARGEST)) > 300 else (low, g)
    return 100 / low


def golmant_coverage(studies: int) -> tuple[float, ...]:
    """Return the shares of studies whose B2 is held: as reported, with the target as given."""
    dense, inside = np.geomspace(SIZES[0], LARGEST, 400), np.zeros(2)
    truth = fits.size_at(dense, np.log1p(true_critical() / dense), 2.0)
    for draw in range(studies):
        (workload,) = placed(retarget(golmant_study(draw), [GOLMANT]))
        (curve,) = workload.curves
        found = fit_curve(curve)
        alone = found.fit.interval(found.fit.family.size_at(2.0, float(SIZES[0])))
        inside += [i.low <= truth <= i.high for i in (found.b2, alone)]
    return tuple(inside / studies)


@pytest.fixture(scope="module")
def golmants():
    return retarget(golmant_study(0), [GOLMANT])


def test_steps_to_every_redrawn_target_are_those_of_the_hit_rule(golmants):
    for r in golmants[::5]:
        if not r.hits:
            continue
        found = log_steps(Observation(r, r.hits[0]))
        for goal, used, value in list(zip(r.hits[0].redraw.goals, r.hits[0].redraw.used, found, strict=True))[:40]:
            if r.batch_size == LARGEST and r.record.seed in used:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(math.log(Observation(r, hit_of(r, GOLMANT, goal)).value("steps")))


def test_the_targets_spread_widens_b2(golmants):
    (curve,) = placed(golmants)[0].curves
    down, up = target_spread(curve)
    found = critical(curve)
    assert 0.05 < down < 0.6
    assert 0.05 < up < 0.6
    alone = found.fit.interval(found.fit.family.size_at(2.0, 8.0))
    assert found.b2.low < alone.low
    assert found.b2.high > alone.high
    assert with_target(alone, (0.0, 0.0), LARGEST) == alone


def test_a_fixed_curve_may_mix_lengths_of_a_decay():
    runs = golmant_study(0)
    for i, r in enumerate(runs):
        rate = replace(r.record.rate, schedule="cosine", horizon_steps=100 + i % 2)
        runs[i] = replace(r, record=replace(r.record, rate=rate))
    (curve,) = placed(retarget(runs, [GOLMANT]))[0].curves
    assert critical(curve).b2.low > 0


def test_golmants_target_is_taken_again_from_as_many_seeds_as_it_came_from(golmants):
    redraw = next(r.hits[0].redraw for r in golmants if r.hits)
    assert redraw.batch_size == LARGEST
    assert set().union(*redraw.used) == set(range(6))
    assert max(map(len, redraw.used)) == 3
    assert np.std(np.log(redraw.goals)) == pytest.approx(0.2 * math.sqrt(math.pi / 2 / 3), rel=0.5)


@pytest.mark.slow
def test_b2_of_golmants_target_is_covered():
    found, alone = golmant_coverage(200)
    print(f"B2 at Golmant's target: {100 * found:.1f} %, as given {100 * alone:.1f} %")
    assert found >= 0.93 - 0.02
    assert alone < found


def test_percentiles_take_infinity():
    found = resampled_interval(3.0, np.array([1.0] * 50 + [2.0] * 40 + [INF] * 10))
    assert (found.value, found.low, found.high) == (3.0, 1.0, INF)
