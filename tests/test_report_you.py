"""Every claim of You et al. on made-up studies: supported, contradicted, inconclusive, not tested."""

import math

import numpy as np
import pytest
from scipy import stats

from tasks.report.analysis.measures import growth
from tasks.report.verdicts.you_recipe import best_of
from tests.made_up import EXAMPLES, SIZES, hyperbola, power, study
from tests.test_report_golmant import C, I, N, S, check

FULL = ["warm-up", "lars", "smoothing"]


def rung(recipe: list[str], accuracy: float, noise: float = 0.2, n: int = 5):
    """Runs at the full batch with these ingredients."""

    def each(size, seed):
        value = accuracy + noise * math.sin(5 * seed + len(recipe))
        return {"recipe": recipe, "test": {"test/accuracy": value / 100}}

    return study(hyperbola(500), sizes=[EXAMPLES], seeds=n, each=each, study="recipe")


def ladder(full: float, **options):
    rungs = {("untuned baseline",): 60, (): 70, ("warm-up",): 75, tuple(FULL): full}
    return [study(hyperbola(500)), *(rung(list(k), v, **options) for k, v in rungs.items())]


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, ladder(85)),
        (C, ladder(72)),
        (I, ladder(75)),
        (N, ladder(85, n=3)),
        (N, ladder(85)[1:]),  # no critical batch size to compare with
    ],
)
def test_you_1(expected, runs):
    check("you-1", expected, *runs)


def factorial(alone: list[float], lost: list[float], total: float, noise: float = 0.1):
    """Gains of each ingredient alone, losses when it is left out of the full recipe."""
    rungs = [rung([], 70, noise), rung(FULL, 70 + total, noise)]
    for name, gain, loss in zip(FULL, alone, lost, strict=True):
        rungs += [
            rung([name], 70 + gain, noise),
            rung([k for k in FULL if k != name], 70 + total - loss, noise),
        ]
    return rungs


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, factorial([2, 5, 9], [2, 5, 9], 16)),
        (C, factorial([14, 15, 16], [2, 5, 9], 16)),  # alone, each seems to bring nearly all
        (I, factorial([2, 5, 9], [2, 5, 9], 16, noise=6)),
        (N, factorial([2, 5, 9], [2, 5, 9], 16)[:-1]),
    ],
)
def test_you_2(expected, runs):
    check("you-2", expected, *runs)


STEPS = [0, *dict.fromkeys(round(1.1**k) for k in range(1, 96))]


def walks(form, last: int = 10**9, share: float = 1.0):
    """Distances that grow by `form(t)` in a share of the runs, and by a power of t in the others."""

    def each(size, seed):
        steps = [t for t in STEPS if t <= last]
        mine = form if seed < 5 * share else (lambda t: t**0.4)
        random = np.random.default_rng([size, seed])
        path = [0.0] + [mine(t) * math.exp(0.02 * random.standard_normal()) for t in steps[1:]]
        return {"curve": {"step": steps, "distance/total": path}}

    return study(hyperbola(500), sizes=SIZES[::3], each=each, tuned=False)


def log_growth(t):
    return 1 + 0.8 * math.log(t)


def power_growth(t):
    return t**0.4


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, walks(log_growth)),
        (C, walks(power_growth)),
        (I, walks(log_growth, share=0.6)),
        (N, walks(log_growth, last=300)),
    ],
)
def test_you_6_and_its_mirror_you_3(expected, runs):
    check("you-6", expected, runs)
    check("you-3", {S: C, C: S, I: C, N: N}[expected], runs)


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
    assert "not identifiable" in growth(t, t, warmup=1000)


def test_growth_that_the_first_steps_decide_is_not_identifiable():
    """Straight ahead for twenty steps, then as a power: from the second step on the logarithm fits better."""
    t = np.unique(np.geomspace(1, 3000, 120).round())
    found = growth(t, np.where(t <= 20, t / 20, (t / 20) ** 0.2))
    assert isinstance(found, str)
    assert found.startswith("not identifiable: AIC(power) - AIC(log) is +")
    assert found.endswith("from step 21 on")


def test_the_interval_of_a_fitted_power_holds_the_true_one():
    random, t = np.random.default_rng(0), np.unique(np.geomspace(2, 4000, 70).round())
    found = [growth(t, 3 * t**0.4 * np.exp(0.2 * random.standard_normal(len(t)))) for _ in range(100)]
    inside = sum(g.parameters["power"].low <= 0.4 <= g.parameters["power"].high for g in found)
    assert 85 <= inside <= 99


@pytest.mark.parametrize("claim", ["you-4", "you-5"])
def test_you_4_and_5_have_no_empirical_content(claim):
    check(claim, N, study(hyperbola(500)))


def curves(small, large, noise=0.001, **more):
    """Validation accuracy by step, one function for the smaller sizes and one for the two largest."""

    def each(size, seed):
        f = large if size >= SIZES[-2] else small
        steps = [0, 10, 100, 1000]
        shift = noise * math.sin(9 * seed + size)
        return {
            "curve": {"step": steps, "val/accuracy": [f(t) + shift for t in steps]},
            **({"stopped_by": "end"} | more),
        }

    return study(hyperbola(500), each=each)


def rising(top):
    return lambda t: top * t / (t + 50)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, curves(rising(0.90), rising(0.90))),
        (C, curves(rising(0.90), rising(0.95))),
        (I, curves(rising(0.90), rising(0.90), noise=0.02)),
        (N, curves(rising(0.90), rising(0.90), stopped_by="targets")),  # where it stopped says nothing of its best
        (N, study(hyperbola(500))),
    ],
)
def test_you_7(expected, runs):
    check("you-7", expected, runs)


def distances(gap_there: float, gap_end: float, far: float = 4.0, noise: float = 0.0005):
    """The large batch ends at distance 4; the small one passes it on the way to `far`."""

    def each(size, seed):
        shift = noise * math.sin(7 * seed + size)
        if size >= SIZES[-2]:
            return {"curve": {"distance/total": [0, 2, 4.0], "val/accuracy": [0.1, 0.5, 0.8 + shift]}}
        path = {
            "distance/total": [0, 4.0, 2 * far],
            "val/accuracy": [0.1, 0.8 + gap_there + shift, 0.8 + gap_end + shift],
        }
        return {"curve": path}

    return study(hyperbola(500), each=each)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, distances(0.01, 0.08)),
        (C, distances(0.08, 0.08)),
        (I, distances(0.06, 0.08, noise=0.01)),
        (N, study(hyperbola(500))),
    ],
)
def test_you_8(expected, runs):
    check("you-8", expected, runs)


def deficit(train: float, test: float, noise: float = 0.1, stopped_by: str = "budget"):
    def each(size, seed):
        lost = (train, test) if size >= SIZES[-2] else (0.0, 0.0)
        shift = noise * np.array([math.sin(7 * seed + size), math.cos(5 * seed + size)])
        return {
            "final": {"step": 9, "trainset/accuracy": (99 - lost[0] + shift[0]) / 100},
            "test": {"test/accuracy": (90 - lost[1] + shift[1]) / 100},
        }

    return study(hyperbola(500), each=each, stopped_by=stopped_by)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, deficit(4.5, 5)),
        (C, deficit(0.5, 5)),
        (I, deficit(2.5, 5)),
        (N, deficit(4.5, 5, stopped_by="targets")),
        (I, deficit(0.5, 0.6)),  # a deficit too small to be shared out
        (N, study(hyperbola(500))),
    ],
)
def test_you_9(expected, runs):
    check("you-9", expected, runs)


def optimizers(accuracies: dict[str, float], noise: float = 0.2):
    def trials(name, best):
        def each(size, seed):
            lost = [0.0, 1.0, 3.0, 8.0][seed % 4] + noise * math.sin(3 * seed + len(name))
            value = (best - lost) / 100
            return {"test": {"test/accuracy": value}, "final": {"step": 9, "val/accuracy": value}}

        return study(hyperbola(500), sizes=[EXAMPLES], seeds=24, each=each, optimizer={"name": name})

    return [trials(name, best) for name, best in accuracies.items()]


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, optimizers({"SGD": 92, "LARS": 95, "LAMB": 97})),
        (C, optimizers({"SGD": 95, "LARS": 92, "LAMB": 97})),
        (I, optimizers({"SGD": 92, "LARS": 95, "LAMB": 95.5})),
        (N, optimizers({"SGD": 92, "LARS": 95})),
    ],
)
def test_you_10(expected, runs):
    check("you-10", expected, *runs)


def test_expected_best_of_k_is_the_mean_over_all_choices():
    import itertools

    random = np.random.default_rng(0)
    validation, test = random.normal(size=7), random.normal(size=7)
    for k in (1, 3, 7):
        direct = [test[max(c, key=lambda i: validation[i])] for c in itertools.combinations(range(7), k)]
        assert best_of(validation, test, k) == pytest.approx(np.mean(direct))


def layerwise(linear_fails: int, warm_fails: int, control: bool = True):
    """Share of failing runs by arm, out of 6, at the two largest sizes."""

    def arm(fails, **changes):
        def each(size, seed):
            return {}

        arrived = study(power(0.8), sizes=SIZES[-3:], seeds=6 - fails, tuned=False, **changes)
        lost = study(lambda b: math.inf, sizes=SIZES[-3:], seeds=6, tuned=False, **changes)
        return arrived + [r for r in lost if r.record.seed >= 6 - fails]

    arms = [arm(linear_fails, rate__scaling_rule="linear", rate__base_batch_size=16)]
    arms.append(arm(warm_fails, optimizer={"name": "LARS"}, rate__warmup="100 steps"))
    return arms + ([arm(6, optimizer={"name": "LARS"}, rate__warmup="none")] if control else [])


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, layerwise(6, 0)),
        (C, layerwise(0, 0)),
        (I, layerwise(3, 3)),
        (N, layerwise(6, 0, control=False)),
    ],
)
def test_you_11(expected, runs):
    check("you-11", expected, *runs)


def test_the_clopper_pearson_interval_holds_exactly_what_the_binomial_allows():
    from tasks.report.analysis.intervals import proportion

    found = proportion(6, 6)
    assert found.high == 1.0
    assert stats.binom.sf(5, 6, found.low) == pytest.approx(0.025)
    assert found.chance_below(0.5) == pytest.approx(0.5**6)
