"""Every claim of Golmant et al. on made-up studies: supported, contradicted, inconclusive, not tested."""

import math
from pathlib import Path

import numpy as np
import pytest

from tasks.report.analysis.points import PRIMARY
from tasks.report.verdicts.claims import CLAIMS
from tasks.report.verdicts.decide import verdict_of
from tasks.report.verdicts.studies import rows_of, trusted
from tests.made_up import EXAMPLES, SIZES, hyperbola, placed, power, study

S, C, I, N = "supported", "contradicted", "inconclusive", "not tested"  # noqa: E741
BOTH = ("trainset/loss", "val/accuracy")


def verdict(claim: str, *studies):
    evidence = next(c.evidence for c in CLAIMS if c.id == claim)
    usable = trusted(placed(*studies))
    return verdict_of(lambda view: evidence(usable, view), PRIMARY, rows_of)


def check(claim: str, expected: str, *studies):
    found = verdict(claim, *studies)
    assert found.verdict == expected, (found.reason, found.parts)
    return found


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, study(hyperbola(500))),
        (C, study(power(0.5))),
        (I, study(hyperbola(2048))),  # the slope at the top is 0.2 itself
        (I, study(power(0.5), sizes=SIZES[:7])),  # contradicted, were the range not too short for the claim
        (N, study(hyperbola(500), tuned=False)),
        (N, study(hyperbola(500), seeds=1)),
        (N, study(hyperbola(500), seeds=4)),
        (N, study(hyperbola(500), study="smoke-cnn")),
        (N, study(hyperbola(500, least=10))),  # too short: 10 steps at the largest batch
    ],
)
def test_golmant_1(expected, runs):
    check("golmant-1", expected, runs)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, study(hyperbola(500), metrics=BOTH)),
        (C, study((hyperbola(500), power(0.5)), metrics=BOTH)),
        (I, study((hyperbola(500), hyperbola(1490)), metrics=BOTH)),
        (N, study(hyperbola(500))),
    ],
)
def test_golmant_2(expected, runs):
    check("golmant-2", expected, runs)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, study(hyperbola(500))),
        (C, study(hyperbola(EXAMPLES))),
        (I, study(hyperbola(30_000), scatter=0.1)),
        (N, []),
    ],
)
def test_golmant_3(expected, runs):
    check("golmant-3", expected, runs)


def other_tasks(critical: float, elements: float = 1.0):
    facts = {"data__elements_per_example": elements}
    return [
        study(hyperbola(critical), task=task, data__name=task, **facts) for task in ("Segmentation", "LanguageModeling")
    ]


@pytest.mark.parametrize(
    ("expected", "others"),
    [
        (S, other_tasks(200)),
        (C, other_tasks(2000)),
        (C, other_tasks(200, elements=4096)),
        (I, other_tasks(984)),  # B2 = 1016 against 2032
        (N, other_tasks(200)[:1]),
    ],
)
def test_golmant_4(expected, others):
    check("golmant-4", expected, study(hyperbola(2000)), *others)


def rules(slope: float, m0s=(16, 64), top=math.inf):
    sizes, runs = SIZES[:9], []
    for m0 in m0s:
        same = {"sizes": sizes, "seeds": 6, "tuned": False, "rate__base_batch_size": m0, "rate__base": m0 / 1000}
        runs.append(study(hyperbola(64, 3000), **same))
        for rule in ("linear", "sqrt"):

            def steps(b):
                return top if b >= sizes[-2] else power(slope, 15_000)(b)

            runs.append(study(steps, rate__scaling_rule=rule, **same))
    return runs


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, rules(0.8)),
        (S, rules(0.8, top=4000)),  # arrives at the top, later than with the same rate
        (C, rules(1.0)),  # ideal in the middle
        (C, rules(0.8, top=300)),  # ten times better at the top
        (I, rules(0.96)),  # within the scatter of 0.9 of the ideal in the middle for the larger m0
        (N, rules(0.8, m0s=(16,))),
    ],
)
def test_golmant_5(expected, runs):
    check("golmant-5", expected, *runs)


def run_on(reached: float, large: tuple[float, float] = (94.5, 85.0), **changes):
    """Runs to the budget; the share `reached` of the largest batch's runs gets to the lowest loss."""

    def each(size, seed):
        noise = 0.1 * np.sin(7 * seed + size)
        low = 0.1 if size < SIZES[-2] or seed < 6 * reached else 0.2
        train, test = large if size >= SIZES[-2] else (99.0, 90.0)
        return {
            "curve": {"step": [0, 1, 2], "trainset/loss": [2.0, low, low]},
            "final": {"step": 9, "examples": 1e12, "trainset/accuracy": (train + noise) / 100},
            "test": {"test/accuracy": (test + noise + 0.05 * np.cos(5 * seed)) / 100},
        }

    return study(hyperbola(500), seeds=6, each=each, **({"stopped_by": "budget"} | changes))


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, run_on(0.0)),
        (C, run_on(1.0)),
        (I, run_on(0.5)),
        (I, run_on(0.0, large=(94.5, 90.0))),  # no test deficit, so no share of it
        (N, run_on(0.0, stopped_by="targets")),
    ],
)
def test_golmant_6(expected, runs):
    check("golmant-6", expected, runs)


def matched(gap: float, val: float, train: float, scatter: float = 0.02):
    """Validation accuracy at equal training loss lies lower by `gap` points at the largest batch."""

    def each(size, seed):
        noise = 0.001 * np.sin(11 * seed + size)
        top = 0.9 - (gap / 100 if size >= SIZES[-2] else 0) + noise
        return {"curve": {"step": [0, 5, 9], "trainset/loss": [2.0, 1.0, 0.2], "val/accuracy": [0, 0.5, top]}}

    return study((hyperbola(train), hyperbola(val)), metrics=BOTH, each=each, scatter=scatter)


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, matched(2.0, val=200, train=1000)),
        (C, matched(2.0, val=1000, train=1000)),
        (C, matched(0.0, val=200, train=1000)),
        (I, matched(0.5, val=200, train=1000)),
        (N, study(hyperbola(500))),
    ],
)
def test_golmant_7(expected, runs):
    check("golmant-7", expected, runs)


def failing(error_at: float, fails_at: int, **changes):
    """Linear scaling whose approximation error passes 1 at one size and which fails from another on."""

    def each(size, seed):
        error = size / error_at * math.exp(0.1 * math.sin(seed))
        return {"final": {"step": 9, "linear_error/absolute": error}}

    same = {"tuned": False, "rate__scaling_rule": "linear", "rate__base_batch_size": 16}
    return study(lambda b: math.inf if b >= fails_at else power(0.9)(b), each=each, **(same | changes))


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, failing(700, fails_at=1024)),
        (C, failing(60, fails_at=1024)),
        (I, failing(300, fails_at=1024)),
        (N, failing(700, fails_at=10**6)),  # never fails
    ],
)
def test_golmant_8(expected, runs):
    check("golmant-8", expected, runs)


@pytest.mark.parametrize(
    ("expected", "other"),
    [
        (S, study(hyperbola(2000), network="VGG")),
        (C, study(hyperbola(210), network="VGG")),
        (I, study(hyperbola(432), network="VGG")),  # B2 = 464 against 232
        (N, []),
    ],
)
def test_golmant_9(expected, other):
    check("golmant-9", expected, study(hyperbola(200)), other)


@pytest.mark.parametrize(
    ("expected", "critical", "noise"), [(S, 200, 0.4), (C, 1000, 0.4), (I, 656, 0.4), (N, 200, 0.1)]
)
def test_golmant_10(expected, critical, noise):
    noisy = study(hyperbola(critical), data__label_noise=noise, data__hash="noisy")
    check("golmant-10", expected, study(hyperbola(1000)), noisy)


@pytest.mark.parametrize(
    ("expected", "critical", "fraction"), [(S, 500, 0.25), (C, 100, 0.25), (I, 323, 0.25), (N, 500, 0.5)]
)
def test_golmant_11(expected, critical, fraction):
    part = study(hyperbola(critical), data__fraction=fraction, data__hash="part", seeds=8)
    check("golmant-11", expected, study(hyperbola(500), seeds=8), part)


def horizons(speedup: float, gain: float, lengths=(1000, 2000, 4000), **changes):
    def test(points, seed):
        return {"test": {"test/accuracy": (88 + points + 0.1 * math.sin(3 * seed)) / 100}}

    def decaying(length, steps, sizes, points):
        return study(
            *(steps, sizes),
            each=lambda size, seed: test(points, seed),
            rate__schedule="cosine",
            budget={"max_steps": length},
            **changes,
        )

    runs = [decaying(1000, hyperbola(500), SIZES[:-1], 0)]
    for k, length in enumerate(lengths):
        last = len(lengths) - 1
        speed = speedup if last and k == last else 1.0
        points = gain * k / max(last, 1)
        runs.append(decaying(length, lambda b, v=speed: hyperbola(500)(b) / v, SIZES[-1:], points))
    return runs


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, horizons(1.0, 0.1)),
        (C, horizons(2.0, 0.1)),
        (C, horizons(1.0, 2.0)),
        (I, horizons(1.25, 0.1)),
        (N, horizons(1.0, 0.1, lengths=(1000,))),
    ],
)
def test_golmant_12(expected, runs):
    check("golmant-12", expected, *runs)


def test_golmant_12_counts_the_confirmed_runs_also_of_a_study_on_a_part_of_the_data():
    part = {"data__fraction": 0.2, "rate__schedule": "cosine"}
    runs = horizons(1.0, 0.1, data__fraction=0.2, plan={"hash": "h", "stage": "confirm"})
    lucky = {"plan": {"hash": "h", "stage": "tune"}, "rate__base": 9.0, "rate__effective": 9.0}
    fast = study(lambda b: hyperbola(500)(b) / 3, SIZES[-1:], seeds=2, budget={"max_steps": 4000}, **part, **lucky)
    check("golmant-12", S, *runs, fast)


def heuristics(last: float, names=("LARS", "LAMB", "Adam", "AdamW", "RMSprop")):
    best = dict.fromkeys(names, 500) | {names[-1]: last}
    return [study(hyperbola(c), optimizer={"name": name}) for name, c in ({"SGD": 500} | best).items()]


@pytest.mark.parametrize(
    ("expected", "runs"),
    [
        (S, heuristics(500)),
        (C, heuristics(3000)),
        (I, heuristics(1032)),  # B2 = 1064 against 532
        (N, heuristics(500, names=("LARS", "LAMB"))),
    ],
)
def test_golmant_13(expected, runs):
    check("golmant-13", expected, *runs)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_sweeps_that_test_a_claim_exist(claim):
    folder = Path(__file__).parents[1] / "configs" / "sweeps" / "embedded"
    assert all((folder / f"{name}.yaml").exists() for name in claim.sweeps.split())


def test_the_claims_are_the_papers_24():
    assert [c.id for c in CLAIMS] == [f"golmant-{i}" for i in range(1, 14)] + [f"you-{i}" for i in range(1, 12)]
