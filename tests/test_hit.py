"""The hit against curves worked out by hand, a slow second implementation, and noise like that of real runs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callbacks.hit import FOLLOW, crossing, crossing_at, diverged, hits, plateau

NAN, INF = math.nan, math.inf
STEPS = [0, 10, 20, 40, 80, 160]


def found(values, steps=None, goal=3.0):
    return hits(steps or STEPS[: len(values)], values, "max", goal)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 4, 4.5, 5], math.exp((math.log(10) + 2 * math.log(20)) / 3)),  # linear in log step
        ([0, 1, 4, 5], None),  # two evaluations beyond it are too few
        ([0, 1, 3, 4, 5], 20),  # to be at the goal is to meet it
        ([0, 1, 2, 2.9, 2.9], None),
        ([0, 5, 1, 1, 1], None),  # one lucky evaluation is no hit
        # nan counts as the worst value: 1 and nan are pooled to 0.5 at the middle of 10 and 20
        ([0, 1, NAN, 4, 5, 6], math.exp((math.log(10) + math.log(20)) / 2 / 3.5 + math.log(40) * 2.5 / 3.5)),
        ([NAN, NAN, INF], None),
        ([], None),
        ([3, 3, 3], 1),  # true before the first step: step 0 counts as 1
    ],
)
def test_hits_by_hand(values, expected):
    hit = found(values)
    assert (hit and hit.isotonic) == (expected and pytest.approx(expected))
    mirrored = hits(STEPS[: len(values)], [-v for v in values], "min", -3.0)
    assert (mirrored and mirrored.isotonic) == (expected and pytest.approx(expected))


def test_the_first_raw_crossing_and_the_local_line_stand_beside_the_hit():
    hit = found([0, 1, 2, 4, 5, 6])
    assert hit.first == pytest.approx(math.sqrt(20 * 40))
    steps = [0, 20, 25, 30, 36, 43, 52]
    straight = [math.log(s) if s else 0.0 for s in steps]
    assert found(straight, steps, math.log(31)).line == pytest.approx(31)
    assert found([0, 1, 2, 4, 5, 6], [0, 1, 10, 100, 1000, 10**4]).line is None  # one evaluation within a factor 1.5


def test_what_comes_after_the_hit_was_followed_up_changes_nothing():
    values = [0, 1, 4, 4, 5, 1, 1, 1]
    assert found(values, [*STEPS, 320, 640]) == (at_once := found(values[:5]))
    assert at_once is not None


def naive_crossing(logs, losses, goal):
    """Pool adjacent violators one pair at a time, then join the middles of the pools."""
    pools = [[[x], [y]] for x, y in zip(logs, losses, strict=True)]
    while any(np.mean(a[1]) <= np.mean(b[1]) for a, b in itertools.pairwise(pools)):
        i = next(i for i in range(len(pools) - 1) if np.mean(pools[i][1]) <= np.mean(pools[i + 1][1]))
        pools[i : i + 2] = [[pools[i][0] + pools[i + 1][0], pools[i][1] + pools[i + 1][1]]]
    middles = [(np.mean(x), np.mean(y)) for x, y in pools]
    for i, (x, y) in enumerate(middles):
        if y <= goal:
            if i == 0:
                return logs[0]
            x0, y0 = middles[i - 1]
            return x0 + (y0 - goal) / (y0 - y) * (x - x0)
    return None


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=12), st.integers(-40, 40))
def test_the_crossing_agrees_with_a_naive_regression(values, goal):
    logs, losses = np.log(1.0 + np.arange(len(values))), np.array(values, dtype=float)
    expected = naive_crossing(logs, losses, goal + 0.5)
    assert crossing(logs, losses, goal + 0.5) == (None if expected is None else pytest.approx(expected, abs=1e-9))


@settings(max_examples=40)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(-5, 5))
def test_no_curve_breaks_it_and_a_hit_is_followed_up(values, goal):
    steps = [int(10 * 1.2**i) for i in range(len(values))]
    hit = hits(steps, values, "max", goal)
    assert hit is None or 1.5 <= hit.isotonic * FOLLOW <= steps[-1] + 1e-6


@pytest.mark.parametrize(("noise", "bias", "scatter"), [(0.05, 0.01, 0.05), (0.2, 0.02, 0.12), (0.35, 0.03, 0.18)])
def test_noise_like_that_of_real_runs_does_not_move_it(noise, bias, scatter):
    """A metric that rises by 1 a log-step, evaluated 1.1 apart; noise in log-steps, as measured: 0.2 to 0.35."""
    random, errors, early = np.random.default_rng(0), [], []
    steps = 10 * 1.1 ** np.arange(60)
    for _ in range(400):
        truth = math.log(1000) + random.uniform(0, math.log(1.1))
        hit = hits(steps, np.log(steps) - truth + noise * random.standard_normal(len(steps)), "max", 0.0)
        errors.append(math.log(hit.isotonic) - truth)
        early.append(math.log(hit.first) - truth)
    assert abs(np.mean(errors)) < bias + 3 * np.std(errors) / 20
    assert np.std(errors) < scatter
    assert np.mean(early) < np.mean(errors)


def test_a_crossing_is_told_in_every_unit_between_evaluations():
    columns = {"step": [0, 10, 20], "examples": [0, 40, 120], "seconds": [0.0, 1.0, 3.0]}
    at = crossing_at(columns, 15.0)
    assert (at.steps, at.examples, at.seconds) == (15, 80, 2.0)
    assert math.isnan(at.epochs)
    assert crossing_at(columns, None) is None


def test_unknown_directions_are_refused():
    with pytest.raises(ValueError, match="direction"):
        hits([1], [1], "up", 1)


@pytest.mark.parametrize(
    ("losses", "window", "improvement", "expected"),
    [
        ([4, 2, 1, 0.5, 0.25], 100, 0.1, None),  # halving is never a plateau
        ([4, 2, 2, 1], 100, 0.1, 2),
        ([4, 2, 1.9, 1.8, 0.9], 100, 0.1, 2),
        ([4, 2, 1.9, 1.7, 0.8], 200, 0.1, None),  # over the longer window it improves by more than 10 %
        ([4, 2, NAN, 2], 200, 0.1, 3),
        ([NAN, NAN, 3, 1], 100, 0.1, None),
        ([4, NAN, NAN], 100, 0.1, None),  # nothing is known of the last 100
        ([0, 0, 0], 100, 0.1, 1),
    ],
)
def test_plateau_by_hand(losses, window, improvement, expected):
    examples = [100 * i for i in range(len(losses))]
    assert plateau(examples, losses, "min", window, improvement) == expected


@pytest.mark.parametrize(
    ("steps", "losses", "expected"),
    [
        ([0, 1, 2], [2, 1, NAN], 2),
        ([0, 1, 2], [2, INF, 1], 1),
        ([0, 10, 20, 30], [2, 7, 7, 7], 3),  # from 10 to 30: three evaluations, 20 steps
        ([0, 1, 2, 3], [2, 7, 7, 7], None),  # too few steps
        ([0, 10, 40], [2, 7, 7], None),  # too few evaluations
        ([0, 10, 20, 30, 40, 50], [2, 7, 7, 5, 7, 7], None),  # interrupted
        ([0, 10, 20, 30], [2, 6, 6, 6], None),  # exactly three times is not above
        ([], [], None),
    ],
)
def test_diverged_by_hand(steps, losses, expected):
    assert diverged(steps, losses, initial_loss=2) == expected
