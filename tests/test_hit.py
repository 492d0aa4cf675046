"""The hit rule against sequences worked out by hand, and against a slow second implementation."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.hit import crossing, diverged, plateau

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "rule", "expected"),
    [
        ([0, 1, 2, 3, 4], "first", 3),
        ([0, 1, 2, 3, 4], "median", 3),
        ([0, 1, 2, 3], "median", None),  # the last evaluation is not yet centred
        ([3, 3, 3], "median", 1),  # the first cannot be
        ([0, 5, 0, 0, 0], "median", None),  # one lucky evaluation is no hit
        ([0, 5, 0, 0, 0], "first", 1),
        ([0, 5, 0, 5, 5, 0], "median", 2),
        ([0, 3, 0, 3, 3, 0, 3, 3, 3], "consecutive", 6),
        ([0, 3, 3, 0], "consecutive", None),
        ([0, NAN, 3, 3, 3], "median", 2),
        ([0, 3, NAN, 3, 0], "median", 2),  # NaN counts as the worst value, so (3, NaN, 3) has median 3
        ([NAN, INF, NAN, NAN], "first", None),
        ([], "median", None),
        ([3], "median", None),
        ([3], "first", 0),
        ([3, 3], "median", None),
    ],
)
def test_crossing_by_hand(values, rule, expected):
    assert crossing(values, "max", 3, rule) == expected
    assert crossing([-v for v in values], "min", -3, rule) == expected


finite_or_nan = st.one_of(st.floats(-5, 5), st.just(NAN))


@given(st.lists(finite_or_nan, max_size=12), st.floats(-5, 5), st.integers(1, 4))
def test_crossing_agrees_with_a_direct_reading_of_the_rule(values, goal, k):
    worst = [v if math.isfinite(v) else -INF for v in values]
    centred = [i for i in range(1, len(values) - 1) if statistics.median(worst[i - 1 : i + 2]) >= goal]
    raw = [i for i, v in enumerate(worst) if v >= goal]
    in_a_row = [i for i in raw if all(j in raw for j in range(i, i + k))]
    assert crossing(values, "max", goal) == (centred[0] if centred else None)
    assert crossing(values, "max", goal, "first") == (raw[0] if raw else None)
    assert crossing(values, "max", goal, "consecutive", k) == (in_a_row[0] if in_a_row else None)


def test_crossing_refuses_unknown_words():
    with pytest.raises(ValueError, match="hit rule"):
        crossing([1], "max", 1, "mean")
    with pytest.raises(ValueError, match="direction"):
        crossing([1], "up", 1)


@pytest.mark.parametrize(
    ("losses", "window", "improvement", "expected"),
    [
        ([4, 2, 1, 0.5, 0.25], 100, 0.1, None),  # halving is never a plateau
        ([4, 2, 2, 1], 100, 0.1, 2),
        ([4, 2, 1.9, 1.8, 0.9], 100, 0.1, 2),
        ([4, 2, 1.9, 1.7, 0.8], 200, 0.1, None),  # over the longer window it improves by more than 10 %
        ([4, 2, NAN, 2], 200, 0.1, 3),
        ([NAN, NAN, 3, 1], 100, 0.1, None),
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
