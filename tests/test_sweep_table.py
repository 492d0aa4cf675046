"""What a sweep says of the time it will take."""

import random

from tasks.sweep.files import Cell
from tasks.sweep.ledger import State
from tasks.sweep.table import costs, time_left
from tests.made_up import run


def cell(sweep, size, seed):
    return Cell(sweep, (sweep, str(size), str(seed)), (("data.batch_size", size), ("seed_everything", seed)))


def test_a_cell_costs_what_the_ended_one_of_its_sweep_with_the_nearest_batch_size_did():
    draw = random.Random(0)
    states = {}
    for seed in range(60):
        ended = draw.random() < 0.3
        entry, record = ({"seconds": 1 + draw.random()}, run([], 8, 1).record) if ended else ({}, None)
        states[cell(draw.choice("ab"), 2 ** draw.randrange(8), seed)] = State(
            "reached" if ended else "left", entry, record
        )
    cost = costs(states)
    for one in states:
        same = [(c, s.seconds) for c, s in states.items() if c.sweep == one.sweep and s.record]
        assert cost(one) == min(same, key=lambda x: abs(x[0].batch_size / one.batch_size - 1))[1]
    left = [cost(c) for c, s in states.items() if s.status == "left"]
    assert abs(time_left(states, 2) - sum(left) / 2) < 1e-9


def test_of_a_sweep_without_an_ended_cell_nothing_is_known():
    states = {cell("a", 8, 0): State("left", {}, None), cell("a", 8, 1): State("running", {}, None)}
    assert costs(states)(cell("a", 8, 0)) is None
    assert time_left(states, 1) is None
    assert time_left({}, 1) == 0
