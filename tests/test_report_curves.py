"""Which runs belong on which curve, and which setting a tuned curve takes at each size."""

import math
from dataclasses import replace

import pytest

from tasks.report.analysis.curves import choose, ingredients, workloads
from tasks.report.sources.runs import Hit
from tests.helpers.made_up import hit, hyperbola, run, study


def curves_of(runs):
    (workload,) = workloads(runs)
    return {c.name: c for c in workload.curves}


def staged(rate, steps, seeds, stage, **changes):
    plan = {"hash": "h", "stage": stage}
    rates = {"rate__base": rate, "rate__effective": rate, "plan": plan}
    return [run([hit(steps, 64)], 64, seed, **(rates | changes)) for seed in seeds]


def test_rules_are_curves_of_their_own_and_tuned_rates_are_one():
    rules_ = ("none", "linear", "sqrt")
    fixed = [study(hyperbola(500), sizes=[16, 64], tuned=False, rate__scaling_rule=r) for r in rules_]
    tuned = study(hyperbola(500), sizes=[16, 64], study="b")
    assert set(curves_of([r for runs in fixed for r in runs])) == {
        "SGD, same rate",
        "SGD, linear scaling",
        "SGD, sqrt scaling",
    }
    assert set(curves_of(tuned)) == {"SGD, tuned at each size"}


def test_the_rate_is_chosen_on_tuning_seeds_and_estimated_on_fresh_ones():
    runs = [
        *staged(0.1, 100, [1, 2], "tune"),
        *staged(0.2, 80, [1, 2], "tune"),
        *staged(0.4, 90, [1, 2], "tune"),
        *staged(0.2, 120, [11, 12, 13], "confirm"),
        *staged(0.8, 10, [90], "pilot"),
    ]
    (point,) = curves_of(runs)["SGD, tuned at each size"].points
    assert [o.value("steps") for o in point.counted] == pytest.approx([120] * 3)
    assert len(point.trials) == 6
    assert not point.untuned


def test_of_two_confirmed_settings_the_tuning_runs_decide():
    runs = []
    for momentum, tuning, fresh in ((0.9, 80, 100), (0.95, 90, 60)):
        same = {"optimizer": {"name": "SGD", "settings": {"momentum": momentum}}}
        runs += staged(0.1, tuning, [1, 2], "tune", **same) + staged(0.1, fresh, [11, 12], "confirm", **same)
    (point,) = curves_of(runs)["SGD, tuned at each size"].points
    assert [o.value("steps") for o in point.counted] == pytest.approx([100, 100])
    assert len(point.every) == 8


def test_the_plan_says_whether_the_search_ended_inside_its_grid():
    plan = {"hash": "h", "stage": "confirm", "tuned": False}
    runs = [run([hit(100, size)], size, 11, rate__effective=float(size), plan=plan) for size in (16, 64)]
    assert all(p.untuned for p in curves_of(runs)["SGD, tuned at each size"].points)


def missed(end, rate, seed):
    target = Hit("val/accuracy", "max", 0.9, "budget")
    changes = {"status": "budget", "rate__effective": rate, "final": {"step": 9, "val/accuracy": end}}
    return run([target], 64, seed, **changes)


def test_where_nothing_arrives_the_rate_that_ends_nearest_is_chosen():
    runs = [missed(end, rate, seed) for rate, end in ((0.1, 0.5), (0.2, 0.8), (0.4, 0.7)) for seed in (1, 2)]
    (point,) = curves_of(runs)["SGD, tuned at each size"].points
    assert choose(point.every)[0] == 0.2
    assert math.isinf(point.interval("steps").value)


def test_smoothing_and_decay_of_norms_make_curves_of_their_own():
    runs = [
        r
        for smoothing in (0.0, 0.1)
        for r in study(hyperbola(500), sizes=[16], regularization={"label_smoothing": smoothing}, tuned=False)
    ]
    assert len(curves_of(runs)) == 2


def test_ingredients_are_named_from_what_the_record_says():
    plain = run([], 16, 0).record
    assert ingredients(plain) == frozenset()
    full = run(
        *([], 16, 0),
        optimizer={"name": "LARS"},
        rate__warmup="8 epochs from zero",
        rate__warmup_steps=40,
        rate__schedule="Polynomial(power=2)",
        regularization={"label_smoothing": 0.1, "decay_norm_bias": False},
    ).record
    assert ingredients(full) == {
        *("LARS", "warm-up", "decaying rate", "label smoothing", "no decay of norms and biases"),
    }
    assert ingredients(replace(full, recipe=("a", "b"))) == {"a", "b"}


def test_a_rate_that_was_outrun_is_beaten_and_is_no_miss():
    runs = staged(0.1, 100, [1], "tune") + staged(0.1, 100, [11, 12], "confirm")
    plan = {"hash": "h", "stage": "tune"}
    outrun = Hit("val/accuracy", "max", 0.8, "outrun")
    runs.append(run([outrun], 64, 1, status="outrun", rate__base=0.2, rate__effective=0.2, plan=plan))
    (point,) = curves_of(runs)["SGD, tuned at each size"].points
    assert [o.value("steps") for o in point.counted] == [100, 100]
    assert (point.n, len(point.trials)) == (2, 2)
