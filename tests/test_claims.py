"""Claims through the report's own curves: made-up studies with the noise of real runs, of which the truth is known."""

import math

import numpy as np
import pytest

from tasks.report.build import CLAIMS
from tasks.report.claims import rules
from tasks.report.claims.studies import verdict_on
from tests.helpers import power as noise
from tests.helpers.made_up import placed, study

S, C, I, N = rules.SUPPORTED, rules.CONTRADICTED, rules.INCONCLUSIVE, rules.NOT_TESTED  # noqa: E741
LEAST = 60.0  # steps at the largest batch
PLAN = {"hash": "h", "margins": noise.MARGINS}


def arm(critical=noise.CRITICAL, sizes=(16, 512), seeds=12, draw=0, steps=None, scatter=0.12, **changes):
    """Make the runs of one tuned arm on the measured curve."""
    curve = steps or (lambda b: LEAST * math.exp(noise.log_steps(b, critical)))
    cell = {b: noise.CHOICE * np.random.default_rng([draw, b]).standard_normal() for b in sizes}
    curves = curve if isinstance(curve, tuple) else (curve,) * len(changes.get("metrics", "1"))
    return study(
        tuple(lambda b, f=f: f(b) * math.exp(cell[b]) for f in curves),
        **{"sizes": list(sizes), "seeds": seeds, "scatter": scatter, "draw": draw, "plan": PLAN} | changes,
    )


def verdict(claim: str, *studies):
    return verdict_on(next(c for c in CLAIMS if c.id == claim), placed(*studies))


def check(claim: str, expected: str, *studies):
    found = verdict(claim, *studies)
    assert found.verdict == expected, (found.reason, found.evidence and found.evidence.parts)
    assert found.evidence is None or found.evidence.runs  # which the page lists
    return found


def law(slope):
    return lambda b: 20_000 * b**-slope


WHOLE = {"sizes": noise.SIZES, "seeds": 8, "metrics": ("trainset/loss", "val/accuracy")}


@pytest.mark.parametrize("claim", ["golmant-1", "golmant-2", "golmant-3"])
def test_a_measured_curve_has_three_regimes(claim):
    check(claim, S, arm(**WHOLE, data__train_examples=10_000))


@pytest.mark.parametrize("claim", ["golmant-1", "golmant-2"])
def test_a_power_law_has_not(claim):
    check(claim, C, arm(**WHOLE, steps=law(0.5)))


def test_a_short_range_cannot_contradict_the_regimes():
    found = check("golmant-1", I, arm(**WHOLE | {"sizes": noise.SIZES[:6]}, steps=law(0.5)))
    assert "range" in found.reason


def test_linear_scaling_to_the_whole_data_contradicts_a_moderate_end():
    check("golmant-3", C, arm(**WHOLE, steps=lambda b: 200_000 / b, data__train_examples=10_000))


@pytest.mark.parametrize(("expected", "critical"), [(S, 15.0), (C, 200.0)])
def test_golmant_4(expected, critical):
    tasks = [arm(critical, (4, 128), draw=k, task=t) for k, t in enumerate(("Segmentation", "LanguageModeling"))]
    check("golmant-4", expected, arm(sizes=(4, 128), draw=9), *tasks)


def rules_of_rates(base: int, gain: float, top: float, draw: int):
    """Three rules from one base batch: `gain` is what a rule saves in the middle, `top` at the largest size."""
    made = []
    for k, rule in enumerate(("none", "linear", "sqrt")):
        saved = (
            {base: 1.0, 4 * base: gain, 16 * base: top}
            if rule != "none"
            else dict.fromkeys((base, 4 * base, 16 * base), 1.0)
        )
        fixed = {
            "tuned": False,
            "rate__scaling_rule": rule,
            "rate__base_batch_size": base,
            "seeds": 8,
            "draw": draw + k,
        }
        made.append(arm(sizes=tuple(saved), steps=lambda b, s=saved: 500 / s[b], scatter=0.1, **fixed))
    return made


@pytest.mark.parametrize(("expected", "gain", "top"), [(S, 2.0, 0.5), (C, 2.0, 2.0), (C, 0.8, 0.5)])
def test_golmant_5(expected, gain, top):
    check("golmant-5", expected, *(m for base in (16, 64) for m in rules_of_rates(base, gain, top, base)))


def equal(loss: float, test: float, train: float = 100.0):
    """The largest batch ends at this loss, test and training accuracy; the smallest at 0.01, 80 % and 100 %."""

    def each(size, seed):
        z = np.random.default_rng([size, seed]).standard_normal(3)
        large = size == 1000
        return {
            "curve": {"step": [0, 500], "trainset/loss": [2.0, (loss if large else 0.01) * math.exp(0.2 * z[0])]},
            "final": {"step": 500, "trainset/accuracy": ((train if large else 100.0) + 0.1 * z[2]) / 100},
            "test": {"test/accuracy": ((test if large else 80.0) + 0.5 * z[1]) / 100},
            "stopped_by": "end",
        }

    return arm(sizes=(32, 1000), seeds=10, each=each)


@pytest.mark.parametrize(("expected", "loss"), [(S, 0.1), (C, 0.001)])
def test_golmant_6(expected, loss):
    found = check("golmant-6", expected, equal(loss, 80.0))
    assert "line" not in str(found.rows)  # no steps are counted, so the hit's rule does not matter


@pytest.mark.parametrize(("expected", "test"), [(S, 82.0), (S, 80.5), (C, 77.0)])
def test_you_7(expected, test):
    check("you-7", expected, equal(0.01, test))


@pytest.mark.parametrize(
    ("expected", "test", "train"),
    [(C, 77.0, 100.0), (S, 77.0, 97.0), (rules.PREMISE_ABSENT, 80.0, 97.0), (I, 79.0, 97.0)],
)
def test_you_9(expected, test, train):
    check("you-9", expected, equal(0.01, test, train))


def other(critical: float, draw: int, **changes):
    return arm(critical, seeds=20, draw=draw, **changes)


@pytest.mark.parametrize(("expected", "factor"), [(S, 4.0), (I, 1.3)])
def test_golmant_9(expected, factor):
    check("golmant-9", expected, other(93, 1), other(93, 2, network="LeNet"), other(93 * factor, 3, network="Wide"))


@pytest.mark.parametrize(("expected", "factor"), [(S, 1 / 3), (C, 2.0)])
def test_golmant_10(expected, factor):
    noisy = {"data__label_noise": 0.4, "data__hash": "n"}
    check("golmant-10", expected, other(93, 1), other(93 * factor, 2, **noisy))


@pytest.mark.parametrize(("expected", "factor"), [(S, 1.0), (C, 5.0), (C, 0.2)])
def test_golmant_11(expected, factor):
    parts = [other(93 * factor, k, data__fraction=f, data__hash=str(f)) for k, f in ((2, 0.25), (3, 0.5))]
    check("golmant-11", expected, other(93, 1), *parts)


def test_an_arm_s_runs_at_other_sizes_are_not_counted():
    noisy = other(93 / 3, 2, sizes=(16, 64, 512), data__label_noise=0.4, data__hash="n")
    found = check("golmant-10", S, other(93, 1), noisy)
    assert len(found.evidence.runs) == 2 * 2 * 20
    assert {run.batch_size for run in found.evidence.runs} == {16, 512}


@pytest.mark.parametrize(("expected", "network", "size"), [(S, 5.0, 1.0), (C, 1.0, 6.0)])
def test_own_2(expected, network, size):
    arms = [
        other(93, 1),
        other(93 * network, 2, network="Wide"),
        other(93 / network, 3, data__label_noise=0.4, data__hash="n"),
        other(93 * size, 4, data__fraction=0.25, data__hash="q"),
    ]
    check("own-2", expected, *arms)


@pytest.mark.parametrize(("expected", "lamb"), [(S, 1.0), (C, 5.0)])
def test_golmant_13(expected, lamb):
    names = ("LARS", "LAMB", "Adam", "RMSprop", "Adagrad")
    others = [other(93 * (lamb if n == "LAMB" else 1), k, optimizer={"name": n}) for k, n in enumerate(names, 2)]
    check("golmant-13", expected, other(93, 1), *others)


def test_margins_that_no_plan_fixed_or_other_ones_are_called_post_hoc():
    assert verdict("golmant-1", arm(**WHOLE)).reason == "by a frozen plan"
    assert "post hoc" in verdict("golmant-1", arm(**WHOLE, plan={"hash": "h"})).reason
    other_margins = {"hash": "h", "margins": {"golmant-1": {"linear": 0.5, "flat": 0.4}}}
    assert "post hoc" in verdict("golmant-1", arm(**WHOLE, plan=other_margins)).reason


def test_a_smoke_study_decides_nothing():
    check("golmant-1", N, arm(**WHOLE, plan=PLAN | {"smoke": True}))


def paired(change: float, gap: float):
    """Validation needs `change` times the steps more at the top, and at a matched loss loses `gap` points there."""

    def train(b):
        return LEAST * math.exp(noise.log_steps(b))

    def validation(b):
        return 1.3 * train(b) * change ** (math.log(b / 4) / math.log(512))

    def each(size, seed):
        accuracy = (
            0.8 - (gap / 100 if size == 2048 else 0) + 0.003 * np.random.default_rng([size, seed]).standard_normal()
        )
        return {"curve": {"step": [0, 20], "trainset/loss": [2.0, 0.4], "val/accuracy": [0.1, accuracy]}}

    return arm(**WHOLE | {"seeds": 8}, steps=(train, validation), each=each)


@pytest.mark.parametrize(("expected", "change", "gap"), [(S, 1.8, 3.0), (C, 1.0, 3.0), (C, 1.8, 0.0)])
def test_golmant_7(expected, change, gap):
    check("golmant-7", expected, paired(change, gap))


@pytest.mark.parametrize(("expected", "saved"), [(S, 0.95), (C, 2.0)])
def test_golmant_12(expected, saved):
    facts = {"sizes": (2000,), "scatter": 0.1, "rate__schedule": "Cosine"}
    horizons = [(120, 1.0), (240, saved), (480, saved)]
    made = [
        arm(steps=lambda b, k=k: 40 / k, draw=n, rate__horizon_steps=n, rate__effective=0.1 + n / 1e4, **facts)
        for n, k in horizons
    ]
    assert len(check("golmant-12", expected, *made).evidence.runs) == 3 * 12  # of all horizons


def failing(passes: float, fails: float):
    """Linear scaling from two base batches: the error passes 1 at one size, most runs are lost from another on."""

    def each(size, seed):
        z = np.random.default_rng([size, seed]).standard_normal()
        return {"final": {"step": 9, "linear_error/absolute": size / passes * math.exp(0.2 * z)}}

    made = []
    for base in (16, 64):
        facts = {"sizes": (16, 32, 64, 128, 256, 512), "tuned": False, "rate__scaling_rule": "linear", "seeds": 8}
        steps = {"steps": lambda b: 100.0 if b < fails else math.inf, "each": each}
        made.append(arm(**facts, **steps, rate__base_batch_size=base))
    return made


@pytest.mark.parametrize(("expected", "passes"), [(S, 180.0), (C, 30.0)])
def test_golmant_8(expected, passes):
    check("golmant-8", expected, *failing(passes, 256))


def diffusing(power: bool, runs=8):
    def each(size, seed):
        random = np.random.default_rng([size, seed])
        steps = np.unique(np.geomspace(1, 10_000, 90).round())
        grown = steps**0.4 if power else 1 + 0.8 * np.log(steps)
        path = grown * np.exp(0.003 * random.standard_normal(len(steps)))
        return {"curve": {"step": steps.tolist(), "distance/total": path.tolist()}, "stopped_by": "end"}

    return arm(sizes=(4, 16, 64), seeds=runs, each=each, tuned=False)


@pytest.mark.parametrize(("claim", "power"), [("you-3", True), ("you-6", False), ("own-6", True)])
def test_diffusion_is_one_question_from_two_sides(claim, power):
    check(claim, S, diffusing(power))
    check(claim, C, diffusing(not power))


def at_full_batch(name: str, accuracy: float, seeds=30, sd=3.0, **changes):
    def each(size, seed):
        z = np.random.default_rng([seed, len(name), len(str(changes))]).standard_normal()
        return {"test": {"test/accuracy": (accuracy + sd * z) / 100}, "stopped_by": "end"}

    facts = {"optimizer": {"name": name}, "data__train_examples": 2000, **changes}
    return arm(sizes=(2000,), steps=lambda b: 100.0, seeds=seeds, each=each, **facts)


@pytest.mark.parametrize(("expected", "lars", "lamb"), [(S, 75.0, 80.0), (C, 64.0, 80.0), (I, 71.0, 80.0)])
def test_you_10(expected, lars, lamb):
    check("you-10", expected, *(at_full_batch(n, a) for n, a in (("SGD", 70.0), ("LARS", lars), ("LAMB", lamb))))


@pytest.mark.parametrize(("expected", "gain"), [(S, 12.0), (C, 1.5)])
def test_you_1(expected, gain):
    recipe = {"rate__warmup": "8 epochs", "rate__warmup_steps": 8.0, "rate__schedule": "Polynomial"}
    made = [
        at_full_batch("SGD", 70.0),
        at_full_batch("SGD", 65.0, recipe=["untuned baseline"]),
        at_full_batch("SGD", 70.0 + gain, **recipe),
        at_full_batch("LARS", 66.0, **recipe),
        arm(sizes=(8, 16, 32, 64, 128, 256, 500), seeds=5, data__train_examples=2000),
    ]
    check("you-1", expected, *made)


@pytest.mark.parametrize(("expected", "linear", "warm"), [(S, False, True), (C, True, True), (C, False, False)])
def test_you_11(expected, linear, warm):
    def one(arrives, **changes):
        facts = {"sizes": (1024,), "seeds": 10, "tuned": False, "rate__base_batch_size": 16}
        return arm(steps=lambda b: 100.0 if arrives else math.inf, **facts, rate__scaling_rule="linear", **changes)

    lars = {"optimizer": {"name": "LARS"}}
    made = [one(linear), one(warm, **lars, rate__warmup="20 steps", rate__warmup_steps=20.0), one(False, **lars)]
    check("you-11", expected, *made)


@pytest.mark.parametrize(("expected", "filled"), [(S, 1500.0), (C, 8.0)])
def test_own_1(expected, filled):
    def each(size, seed):
        z = np.random.default_rng([size, seed]).standard_normal()
        return {"cost__examples_per_second": 1e4 * min(1.0, size / filled) * math.exp(0.03 * z)}

    check("own-1", expected, arm(**WHOLE, each=each))


CURVE = {"sizes": noise.SIZES[2:], "seeds": 5}


def kinds():
    """A curve that flattens, of three tasks or networks."""
    three = ({"task": "Segmentation"}, {"task": "LanguageModeling"}, {"network": "LeNet"})
    return [arm(**CURVE, draw=k, **facts) for k, facts in enumerate(three)]


@pytest.mark.parametrize(("expected", "steps"), [(S, None), (C, law(0.5))])
def test_own_4(expected, steps):
    check("own-4", expected, *kinds(), arm(**CURVE, steps=steps, draw=4))


def test_own_4_needs_four_kinds():
    check("own-4", N, *kinds())


@pytest.mark.parametrize(("expected", "steps"), [(S, None), (C, law(0.5))])
def test_own_5(expected, steps):
    fixed = {"tuned": False, "rate__scaling_rule": "none", "data__train_examples": 10_000}
    check("own-5", expected, arm(**CURVE | {"sizes": noise.SIZES}, steps=steps, **fixed))


CHEAP = 60


@pytest.mark.parametrize("truth", noise.TRUTHS, ids=lambda t: f"{t.claim}, {t.what}")
def test_the_rules_seldom_say_the_opposite_of_the_truth(truth):
    supported, contradicted = noise.outcomes(truth, CHEAP)
    wrong = {S: contradicted, C: supported, noise.AT: max(supported, contradicted)}[truth.right]
    assert wrong <= 0.12  # an honest 5 % goes above 7 of 60 once in 60 times, 2.5 % once in 5,000


@pytest.mark.slow
@pytest.mark.parametrize("truth", noise.TRUTHS, ids=lambda t: f"{t.claim}, {t.what}")
def test_the_rules_err_in_5_percent_at_most(truth):
    supported, contradicted = noise.outcomes(truth, 1000, seed=1)
    wrong = {S: contradicted, C: supported, noise.AT: max(supported, contradicted)}[truth.right]
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)
