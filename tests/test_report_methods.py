"""Medians, shifts and differences with their intervals, and targets chosen again, each against another way."""

import math

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from scipy import stats

from callbacks.record import UNITS
from tasks.report.analysis.intervals import (
    NOTHING,
    Interval,
    mean_interval,
    median_interval,
    rank_of,
    shift_interval,
    welch_interval,
)
from tasks.report.analysis.targets import parse, quartile, retarget
from tasks.report.claims.rules import largest_of
from tasks.report.sources.runs import Run, read_runs
from tests.helpers import made_up
from tests.helpers.fake_runs import make_run, make_study

INF = math.inf


@pytest.mark.parametrize(
    ("values", "median"), [([4, 1, 16], 4), ([4, 1, 16, INF], 8), ([4, INF], INF), ([1, INF, INF], INF)]
)
def test_medians_count_what_never_arrived(values, median):
    assert median_interval(values).value == pytest.approx(median)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_the_median_where_runs_never_arrived_is_kaplan_and_meiers(lost):
    random = np.random.default_rng(lost)
    values = np.exp(random.normal(size=9))
    values[:lost] = INF
    seen = np.isfinite(values)
    survival = KaplanMeierFitter().fit(np.where(seen, values, 100.0), event_observed=seen)
    assert median_interval(values).value == pytest.approx(survival.median_survival_time_)


def tails(kind: str, random, n: int) -> np.ndarray:
    """Values whose median is 1: log-normal, heavier than that, skewed, or with some that never arrive."""
    if kind == "cauchy":
        return np.exp(0.1 * random.standard_cauchy(n).clip(-300, 300))
    if kind == "skewed":
        return np.exp(random.exponential(size=n)) / 2
    x = np.exp(0.1 * random.standard_normal(n))
    below = random.random(n) < 0.15  # as many far below as lost above, so that the median stays
    return np.where(random.random(n) < 0.15, INF, np.where(below, x / 2, x)) if kind == "lost" else x


@pytest.mark.parametrize("kind", ["normal", "cauchy", "skewed", "lost"])
def test_intervals_of_the_median_cover_it(kind):
    random = np.random.default_rng(0)
    for n in (3, 5, 6, 8, 10, 11):
        found = [median_interval(tails(kind, random, n)) for _ in range(500)]
        assert np.mean([not (i.low > 1 or i.high < 1) for i in found]) > (0.93 if n > 5 else 0.91), n


def test_order_statistics_reach_to_infinity_where_runs_are_missing():
    found = median_interval((1, 2, 3, 4, 5, INF))
    assert found.low == pytest.approx(2 ** rank_of(6)[1])  # between 1 and 2
    assert found.high == INF


def test_interpolated_order_statistics_hold_the_median_in_95_percent():
    # Hettmansperger and Sheather's example of 8 values: ranks 1 and 2 hold it in 99.22 and 92.97 %
    k, weight = rank_of(8)
    share = (0.9921875 - 0.95) / (0.9921875 - 0.9296875)
    assert (k, weight) == (1, pytest.approx(7 * share / (1 + 6 * share)))
    values = np.exp(np.arange(8.0))
    assert median_interval(values).low == pytest.approx(np.exp(weight))


def test_shifts_by_rank_are_those_that_scipys_test_does_not_reject():
    random = np.random.default_rng(2)
    a, b = random.normal(0.4, 1, size=12), random.normal(0, 1, size=9)
    found = shift_interval(a, b)
    assert found.value == pytest.approx(np.median(np.subtract.outer(a, b)))

    def p(shift):
        return stats.mannwhitneyu(a - shift, b, method="asymptotic", use_continuity=False).pvalue

    assert p(found.low - 1e-9) < 0.05 <= p(found.low + 1e-9)
    assert p(found.high + 1e-9) < 0.05 <= p(found.high - 1e-9)


@pytest.mark.parametrize("lost", [(1, 0), (0, 2), (2, 1)])
def test_shifts_by_rank_with_lost_values_are_those_that_scipys_test_does_not_reject(lost):
    """A lost value is as large for scipy as any can be, and tied with every other lost one whatever the shift."""
    random = np.random.default_rng(5)
    a, b = random.normal(0.4, 1, size=12), random.normal(0, 1, size=10)
    a[: lost[0]], b[: lost[1]] = INF, INF
    found = shift_interval(a, b)

    def p(shift):
        x, y = np.minimum(a - shift, 1e6), np.minimum(b, 1e6)
        return stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue

    assert p(found.low - 1e-9) < 0.05 <= p(found.low + 1e-9)
    assert p(found.high + 1e-9) < 0.05 <= p(found.high - 1e-9)


def test_shifts_by_rank_where_values_are_lost():
    a = np.array([1.0, 2, 3, INF, 4, 5, 6, 7])
    assert shift_interval(a + 10, a).low > 0
    assert shift_interval(a + 0.1, a).low < 0
    lost = np.full(8, INF)
    assert shift_interval(lost, np.arange(8.0)).low == INF
    assert math.isnan(shift_interval(lost, lost).value)
    assert shift_interval([1.0, 2, 3], [7.0, 8, 9]).high == INF  # no rank test of 3 against 3 rejects at 5 %


def test_differences_are_scipys():
    a, b, c = [3.0, 5.0, 4.5], [2.0, 4.5, 3.0], [1.0, 2.5, 2.0, 9.0]
    paired = stats.ttest_rel(a, b).confidence_interval()
    found = mean_interval(np.subtract(a, b))
    assert (found.low, found.high) == pytest.approx((paired.low, paired.high))
    welch = stats.ttest_ind(a, c, equal_var=False).confidence_interval()
    found = welch_interval(a, c)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    make_study(folder / "a", lambda b: 100 * (1 + 300 / b), [16, 64, 256], range(4), scatter=0.02)
    make_run(folder / "late", 10_000, 64, seed=9, budget=500)
    make_run(folder / "lost", INF, 64, seed=10)
    return read_runs(folder)[0]


def test_the_own_target_retarget_gives_the_same_hits(runs):
    for run in retarget(runs, [parse("val/accuracy>=0.8")]):
        before = next(r for r in runs if r.source == run.source).hits[0]
        assert run.hits[0].status == before.status
        if before.status == "reached":
            for rule in ("hit", "line", "first"):
                for unit in UNITS:
                    assert run.hits[0].at(unit, rule) == pytest.approx(before.at(unit, rule), nan_ok=True)


def test_a_harder_target_is_censored_where_the_run_stopped(runs):
    found = retarget(runs, [parse("val/accuracy>=0.95"), parse("trainset/loss<=0.4")])
    (hard, easy) = zip(*(run.hits for run in found), strict=True)
    assert {h.status for h in hard} == {"budget", "diverged"}
    assert sum(h.status == "reached" for h in easy) == 12


def test_relative_targets_are_worked_out_per_workload(runs):
    def value(text):
        return {h.value for run in retarget(runs, [parse(text)]) for h in run.hits}

    (baseline,) = value("val/accuracy:baseline=0.9")
    small = [max(r.curve["val/accuracy"]) for r in runs if r.batch_size == 16]
    assert baseline == pytest.approx(0.9 * np.median(small))


def test_golmants_target_comes_from_other_seeds_than_its_steps(runs):
    found = retarget(runs, [parse("trainset/loss:golmant")])
    scored = {r.record.seed for r in found if r.batch_size == 256 and r.hits}
    assert scored == {2, 3}
    source = [r for r in runs if r.batch_size == 256 and r.record.seed in (0, 1)]
    values = [quartile(r, parse("trainset/loss:golmant")) for r in source]
    (goal,) = {h.value for r in found for h in r.hits}
    assert goal == pytest.approx(np.median(values))


def test_the_quartile_weighs_evaluations_by_their_steps():
    run = Run("x", {}, [], curve={"step": [0, 1, 10, 100], "trainset/loss": [9, 3, 2, 1.0]})
    assert quartile(run, parse("trainset/loss:golmant")) == 1.0  # 90 of 100 iterations lie before step 100


@pytest.mark.parametrize("text", ["x", "a>b", "a:golmant=1", "a:baseline", "a:baseline=2", "a>=x"])
def test_targets_that_are_not_understood_are_refused_with_the_forms_there_are(text):
    with pytest.raises(ValueError, match="golmant"):
        parse(text)


def test_a_metric_that_no_run_has_is_refused_with_those_there_are(runs):
    with pytest.raises(ValueError, match="val/accuracy"):
        retarget(runs, [parse("val/miou>=0.5")])


def test_what_is_not_known_may_be_the_largest():
    known = Interval(0.1, 0.0, 0.2)
    for order in ([known, NOTHING], [NOTHING, known]):
        assert largest_of(order) == Interval(0.1, 0.0, INF)
    assert math.isnan(largest_of([NOTHING]).value)


def test_rank_intervals_are_wider_at_a_higher_level():
    a, b = np.arange(12.0), np.arange(12.0) ** 1.1
    usual, both = shift_interval(a, b), shift_interval(a, b, 0.975)
    assert both.low < usual.low < usual.high < both.high


def test_golmant_s_target_of_runs_that_did_not_measure_it_is_not_known():
    made = made_up.run([], 16, 0, {"step": [0, 10, 20], "trainset/loss": [2.3, math.nan, math.nan]})
    assert math.isnan(quartile(made, parse("trainset/loss:golmant")))
