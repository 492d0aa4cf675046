"""What a sweep says of the time it will take."""

import io
import math
import random

import pytest

from tasks.sweep.files import Cell
from tasks.sweep.ledger import State
from tasks.sweep.table import Display, costs, time_left
from tests.helpers.made_up import run


def cell(sweep, size, rate, seed):
    values = (("data.batch_size", size), ("model.optimizer.init_args.lr", rate), ("seed_everything", seed))
    return Cell(sweep, (sweep, str(size), str(rate), str(seed)), values)


def test_a_cell_costs_what_the_ended_ones_of_the_nearest_batch_size_and_rate_did():
    draw = random.Random(0)
    states = {}
    for seed in range(200):
        ended = draw.random() < 0.3
        entry, record = ({"seconds": 1 + draw.random()}, run([], 8, 1).record) if ended else ({}, None)
        if ended and draw.random() < 0.3:
            entry["taken"] = True  # from another study, at no cost
        one = cell(draw.choice("ab"), 2 ** draw.randrange(8), draw.choice([0.01, 0.02, 0.3]), seed)
        states[one] = State("reached" if ended else "left", entry, record)
    cost = costs(states)
    for one in states:
        same = [
            (c, s.seconds) for c, s in states.items() if c.sweep == one.sweep and s.record and not s.entry.get("taken")
        ]
        size = min((c.batch_size for c, _ in same), key=lambda size: abs(math.log(size / one.batch_size)))
        rates = {c.learning_rate for c, _ in same if c.batch_size == size}
        rate = min(rates, key=lambda rate: abs(math.log(rate / one.learning_rate)))
        alike = [seconds for c, seconds in same if (c.batch_size, c.learning_rate) == (size, rate)]
        assert cost(one) == pytest.approx(sum(alike) / len(alike))
    left = [cost(c) for c, s in states.items() if s.status == "left"]
    assert abs(time_left(states, 2) - sum(left) / 2) < 1e-9


def test_the_time_left_is_a_lower_bound_while_cells_may_follow():
    ended, left = cell("a", 8, 0.1, 0), cell("a", 8, 0.1, 1)
    states = {ended: State("reached", {"seconds": 61.0}, run([], 8, 1).record), left: State("left", {}, None)}
    for more, words in ((True, "at least 1:01 left"), (False, ", 1:01 left")):
        out = io.StringIO()
        Display(1, lambda more=more: more, out).update(states)
        assert words in out.getvalue()
        assert ("at least" in out.getvalue()) == more


def test_of_a_sweep_without_an_ended_cell_nothing_is_known():
    states = {cell("a", 8, 0.1, 0): State("left", {}, None), cell("a", 8, 0.1, 1): State("running", {}, None)}
    assert costs(states)(cell("a", 8, 0.1, 0)) is None
    assert time_left(states, 1) is None
    assert time_left({}, 1) == 0
