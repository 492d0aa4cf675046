"""Rule 22: do the intervals hold the truth as often as they say, inside and outside the fitted model?

The ordinary tests draw few studies and bound gross failure; `pytest -m slow` draws the full number.
"""

import math

import numpy as np
import pytest

from tasks.report.analysis import fits
from tasks.report.analysis.critical import ARRIVAL, FitData, critical, fit_curve, fit_data, size_interval
from tasks.report.analysis.intervals import middle_log
from tasks.report.analysis.targets import parse, retarget
from tasks.report.claims.rules import difference
from tests.helpers import noisy_quadratic, seen_noise
from tests.helpers.fake_runs import evaluation_steps
from tests.helpers.made_up import hit, placed, run

GRIDS = {"10 sizes": 16.0 * 2.0 ** np.arange(10), "7 sizes": 16.0 * 2.0 ** np.arange(7)}
GOLMANT = parse("trainset/loss:golmant")
LARGEST, SIZES = 2048, [8 * 2**k for k in range(9)]  # of the studies with Golmant's target


class Pieces:
    """Three pieces, outside the model: log S falls with slope -1 to 50, with -1/2 to 800, then not at all."""

    def log_steps(self, sizes):
        x = np.log(sizes)
        return -np.minimum(x, math.log(50))[None] - 0.5 * np.clip(x - math.log(50), 0, math.log(16))[None]

    def size_at(self, factor, smallest):
        b = np.exp(np.linspace(math.log(smallest), math.log(1e5), 200_001))
        excess = np.log(b / smallest) + self.log_steps(b)[0] - self.log_steps(np.array([smallest]))[0, 0]
        return b[[np.searchsorted(excess, math.log(factor))]]


TRUTHS = {
    "p = 0.8": fits.Hyperbolas((1.0,), np.array([200.0]), np.array([0.8])),
    "p = 1": fits.Hyperbolas((1.0,), np.array([200.0]), np.array([1.0])),
    "p = 1.5": fits.Hyperbolas((1.0,), np.array([200.0]), np.array([1.5])),
    "pieces": Pieces(),
}


def drawn(truth, sizes, tau, random, seeds=5, diverging=0.0) -> FitData:
    """Draw one study, with the scatter over seeds of real runs, and give what the report fits of it.

    The probability to diverge rises with the batch size to `diverging` at the largest.
    """
    between = tau * random.standard_normal(len(sizes))
    scatter = np.array([[seen_noise.at(size, seen_noise.SCATTER)] for size in sizes])
    centres = (truth.log_steps(sizes)[0] + between)[:, None]
    runs = math.log(100) + centres + scatter * random.standard_normal((len(sizes), seeds))
    lost = random.random(runs.shape) < diverging * (np.arange(len(sizes)) / (len(sizes) - 1))[:, None] ** 2
    return fitted_values(sizes, np.where(lost, math.inf, runs))


def fitted_values(sizes, runs) -> FitData:
    """Return what the report fits of log steps [sizes, seeds], in a hundredth of the time that it takes."""
    kept = np.isfinite(runs).mean(axis=1) >= ARRIVAL
    squares, dof, middles, shares = 0.0, 0, [], []
    for row in runs[kept]:
        there = row[np.isfinite(row)]
        squares, dof = squares + float(((there - there.mean()) ** 2).sum()), dof + len(there) - 1
        middles.append(middle_log(np.exp(row)))
        shares.append((1.0 if len(there) == len(row) else math.pi / 2) / len(row))
    return FitData(sizes[kept], np.array(middles), squares / dof * float(np.mean(shares)), runs[kept].size)


def test_what_is_fitted_here_is_what_the_report_fits():
    sizes, random = GRIDS["7 sizes"], np.random.default_rng(3)
    runs = math.log(100) + 0.1 * random.standard_normal((len(sizes), 5))
    runs[2, 0] = runs[5, 1] = runs[5, 2] = math.inf
    made = [
        run([hit(math.exp(x), int(size))], int(size), seed, data__train_examples=10**6)
        for size, row in zip(sizes, runs, strict=True)
        for seed, x in enumerate(row)
    ]
    (workload,) = placed(made)
    report, here = fit_data(workload.curves[0]), fitted_values(sizes, runs)
    assert np.array_equal(report.sizes, here.sizes)
    assert np.allclose(report.log_steps, here.log_steps)
    assert (report.within, report.runs) == (pytest.approx(here.within), here.runs)


def interval(data: FitData, factor: float):
    fitted = fits.fit(fits.softened(tuple(data.sizes)), data.log_steps, data.within, data.runs)
    return size_interval(data, fitted, factor)


def coverage(truth, sizes, tau, studies, seed=0, factor=2.0, **options) -> float:
    random = np.random.default_rng(seed)
    true = float(truth.size_at(factor, sizes[0])[0])
    found = [interval(drawn(truth, sizes, tau, random, **options), factor) for _ in range(studies)]
    return float(np.mean([i.low <= true <= i.high for i in found]))


@pytest.mark.parametrize("truth", TRUTHS)
def test_b2_is_covered_in_a_short_draw(truth):
    # 40 studies: an honest 95 % interval falls below 85 % once in 300 times
    assert coverage(TRUTHS[truth], GRIDS["10 sizes"], 0.05, studies=40) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0, 0.05, 0.1])
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("grid", GRIDS)
def test_b2_is_covered_in_93_to_98_percent(grid, truth, tau):
    found = coverage(TRUTHS[truth], GRIDS[grid], tau, studies=1000)
    print(f"B2 coverage, {grid}, {truth}, tau {tau}: {100 * found:.1f} %")
    # Outside the model the interval may be wider than it need be, never narrower.
    assert 0.93 - 0.014 <= found <= (1 if truth == "pieces" else 0.98 + 0.014)


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
def test_b2_is_covered_where_divergence_rises_with_the_batch(truth):
    found = coverage(TRUTHS[truth], GRIDS["10 sizes"], 0.05, studies=1000, diverging=0.3)
    print(f"B2 coverage with divergence to 30 %, {truth}: {100 * found:.1f} %")
    assert found >= 0.93 - 0.014


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
def test_the_end_of_linear_scaling_is_covered(truth):
    found = coverage(TRUTHS[truth], GRIDS["10 sizes"], 0.05, studies=1000, factor=1.25)
    print(f"B_lin coverage, tau 0.05, {truth}: {100 * found:.1f} %")
    assert found >= 0.93 - 0.014


def aa(draws: int, seeds: int, lost: float) -> tuple[float, int]:
    """The same batch under two labels: how often the interval of log S1/S2 holds 0, and how many effects.

    As claims take it: by Welch, by ranks where a run is lost, not at all below the least share that arrives.
    """
    random = np.random.default_rng(seeds)
    inside = effects = known = 0
    while known < draws:
        logs = math.log(500) + seen_noise.at(16, seen_noise.SCATTER) * random.standard_normal((2, seeds))
        logs[random.random(logs.shape) < lost] = math.inf
        found = difference(*(dict(enumerate(row.tolist())) for row in logs))
        if math.isnan(found.low):
            continue
        known += 1
        inside += not (found.low > 0 or found.high < 0)
        effects += found.low > math.log(1.25)
    return inside / draws, effects


@pytest.mark.parametrize("seeds", [5, 6, 8, 10])
def test_the_same_batch_under_two_labels_shows_no_effect(seeds):
    # 1,000 draws: with 200 an exact 95 % interval misses 93 to 97 % in every fifth test
    inside, effects = aa(1000, seeds, lost=0)
    print(f"A/A, {seeds} seeds: the interval holds 0 in {100 * inside:.1f} % of 1,000")
    assert 0.93 <= inside <= 0.97
    assert effects == 0


@pytest.mark.parametrize("seeds", [5, 8])
def test_the_same_batch_under_two_labels_shows_no_effect_where_runs_are_lost(seeds):
    inside, effects = aa(500, seeds, lost=0.15)
    print(f"A/A, {seeds} seeds, 15 % lost: the interval holds 0 in {100 * inside:.1f} % of 500")
    # one lost in each cell is tied whatever the shift: such a pair alone is held in 100 %, all others in 92 to 96 %
    assert inside >= 0.93
    assert effects <= 5


def known_answers(studies: int) -> tuple[float, float]:
    """Return median B2 over the truth, and the share of studies whose interval holds it."""
    dense = 2.0 ** np.arange(3, 11.01, 0.25)
    truth = fits.size_at(dense, np.log([noisy_quadratic.tuned(b)[0] for b in dense]), 2.0)
    found, inside = [], 0
    for seed in range(studies):
        (workload,) = placed(noisy_quadratic.study(seed))
        seen = critical(workload.curves[0])
        found.append(seen.b2.value)
        inside += seen.b2.low <= truth <= seen.b2.high
    return float(np.median(found)) / truth, inside / studies


def test_a_noisy_quadratic_model_tuned_by_simulation_has_the_b2_that_analysis_gives():
    ratio, covered = known_answers(5)
    assert 0.85 < ratio < 1.15
    assert covered >= 0.6


@pytest.mark.slow
def test_the_known_answer_is_covered_in_93_of_100_studies():
    ratio, covered = known_answers(200)
    print(f"noisy quadratic model: median B2 {ratio:.3f} of the truth, covered in {100 * covered:.1f} % of 200")
    assert 0.9 < ratio < 1.1
    assert covered >= 0.93 - 0.02


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


def golmant_coverage(studies: int) -> float:
    """Return the share of studies whose B2 is held at Golmant's target, which is an outcome and is taken as given."""
    dense = np.geomspace(SIZES[0], LARGEST, 400)
    truth = fits.size_at(dense, np.log1p(true_critical() / dense), 2.0)
    inside = 0
    for draw in range(studies):
        (workload,) = placed(retarget(golmant_study(draw), [GOLMANT]))
        b2 = fit_curve(workload.curves[0]).b2
        inside += b2.low <= truth <= b2.high
    return inside / studies


def test_b2_of_golmants_target_is_covered_in_a_short_draw():
    assert golmant_coverage(10) >= 0.7


@pytest.mark.slow
def test_b2_of_golmants_target_is_covered():
    found = golmant_coverage(200)
    print(f"B2 at Golmant's target: {100 * found:.1f} %")
    assert found >= 0.93 - 0.02
