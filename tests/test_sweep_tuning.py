"""Tuning stages against a made-up world whose best learning rate is known."""

import itertools
import json
import math
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import State
from tasks.sweep.plan import Staged, read_plan, rounded_up, source, word
from tasks.sweep.tuning import Score, Search, equal_trials
from tests.hostile import write_sweep

LR = "model.optimizer.init_args.lr"


def steps(rate, best, floor=100.0, limit=8.0):
    """A smooth valley in log rate; from `limit` times the best rate on, divergence."""
    return math.inf if rate >= limit * best else floor * (1 + math.log2(rate / best) ** 2)


class World:
    """Scores of runs, as many as are asked for; `asked` counts the pairs."""

    def __init__(self, best, **shape):
        self.best, self.shape, self.asked = best, shape, set()

    def __call__(self, rate, seed):
        self.asked.add((rate, seed))
        return Score(steps(rate, self.best, **self.shape) * (1 + 0.001 * seed), 0.0)


@pytest.mark.parametrize("best", [0.1, 0.113, 0.07, 1.3, 0.004])
def test_the_search_comes_within_half_a_refined_step_of_the_best(best):
    search = Search([0.05, 0.1, 0.2], [1, 2, 3], World(best))
    assert search.run()
    assert abs(math.log2(search.best() / best)) <= 0.25 + 1e-9
    assert not search.at_edge(search.best())


def test_an_optimum_that_no_extension_reaches_stays_marked():
    search = Search([0.05, 0.1, 0.2], [1], World(100.0), extensions=2)
    assert search.run()
    assert search.at_edge(search.best())


def test_a_miss_is_worse_than_any_hit_and_misses_compare_by_their_distance():
    search = Search([1.0, 2.0, 4.0], [1], lambda rate, seed: Score(math.inf, abs(math.log(rate / 2.0))))
    assert search.run()
    assert search.best() == 2.0
    assert Score(1e9, 0.0) < Score(math.inf, 0.0) < Score(math.inf, 0.1)


def test_refinement_stops_where_the_steps_change_by_less_than_the_tolerance():
    flat, sharp = World(0.1, floor=100.0), World(0.14)
    for world, spacing in ((flat, 2**0.5), (sharp, 2**0.25)):
        search = Search([0.05, 0.1, 0.2], [1], world)
        search.run()
        rates = sorted(search.tried)
        assert min(b / a for a, b in itertools.pairwise(rates)) == pytest.approx(spacing)


def test_every_arm_gets_the_same_number_of_trials():
    searches = [Search([0.05, 0.1, 0.2], [1, 2], World(best)) for best in (0.1, 0.8, 0.01)]
    for search in searches:
        assert search.run()
    assert len({len(search.tried) for search in searches}) > 1
    equal_trials(searches)
    assert len({len(search.tried) for search in searches}) == 1


def test_halving_spends_less_and_finds_the_same():
    rates = [0.0125 * 2**i for i in range(8)]
    whole, halved = World(0.1), World(0.1)
    full, short = Search(rates, range(1, 5), whole), Search(rates, range(1, 5), halved, halving=True)
    assert full.run()
    assert short.run()
    assert full.best() == short.best()
    assert len(halved.asked) <= 0.6 * len(whole.asked)


@pytest.mark.parametrize(
    "hexadecimal", ["994765002e393306", "1234567890123456", "ee00000000000000", "12a4567890123e56"]
)
def test_a_plan_s_hash_is_read_back_as_it_was_written(hexadecimal):
    parser = ArgumentParser()
    parser.add_argument("--plan", type=dict[str, Any])
    plan = {"hash": word(hexadecimal), "stage": "tune"}
    assert parser.parse_args([f"--plan={json.dumps(plan)}"]).plan == plan


def test_budgets_are_rounded_up_to_two_digits():
    assert [rounded_up(n) for n in (7, 99.5, 101, 1234, 500000.1)] == [7, 100, 110, 1300, 510000]


# the whole plan, driven by a world of records -------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    rates = {LR.replace(".", "__"): [0.05, 0.1, 0.2]}
    path = write_sweep(tmp_path, data__batch_size=[16, 256, 4096], **rates, seed_everything=[0, 1])
    plan = {
        "learning_rate": LR,
        "pilot": {"seeds": [90], "batch_sizes": [16, 4096]},
        "tune": {"seeds": [11, 12]},
        "confirm": {"seeds": [1, 2, 3, 4, 5]},
    }
    path.with_name("tiny.plan.yaml").write_text(yaml.safe_dump(plan))
    return read_sweep(path)


def true_steps(size):
    return 50 * (1 + 200 / size)


def true_rate(size):
    return 0.1 * min(1.0, size / 200)


def outcome(cell):
    """The state of a cell in a world with a known best rate and number of steps at each batch size."""
    values = dict(cell.values)
    size = values["data.batch_size"]
    taken = steps(values[LR], true_rate(size), floor=true_steps(size))
    hit = math.isfinite(taken)
    target = {"metric": "val/accuracy", "direction": "max", "value": 0.8, "status": "reached" if hit else "budget"}
    target["bracket"] = {"steps": [taken / 1.05, taken * 1.05]} if hit else None
    record = {"status": target["status"], "targets": [target], "final": {"val/accuracy": 0.5}}
    return State(record["status"], {}, record)


def drive(source_, ended):
    """Run what is wanted, a batch of cells at a time, until nothing new is."""
    while True:
        new = [c for c in source_.cells(lambda c: ended.get(c, State("left", {}, None))) if c not in ended]
        if not new:
            return
        for cell in new[:7]:
            ended[cell] = outcome(cell)


def stages(cells):
    """The plan that each cell's record will carry."""
    flags = [next(a for a in cell.args if a.startswith("--run.plan=")) for cell in cells]
    return [json.loads(flag.removeprefix("--run.plan=")) for flag in flags]


def test_a_plan_pilots_tunes_and_confirms_each_batch_size(sweep):
    ended = {}
    drive(source(sweep), ended)
    names = stages(ended)
    assert {name["hash"] for name in names} == {read_plan(sweep).hash}
    final = {c: s for c, s in zip(ended, names, strict=True) if s["stage"] == "confirm"}
    assert len(final) == 3 * 5
    assert all(s["tuned"] for s in final.values())
    assert len({s["trials"] for s in final.values()}) == 1
    for cell in final:
        values = dict(cell.values)
        assert abs(math.log2(values[LR] / true_rate(values["data.batch_size"]))) < 0.26
    seeds = {s["stage"]: set() for s in names}
    for cell, name in zip(ended, names, strict=True):
        seeds[name["stage"]].add(dict(cell.values)["seed_everything"])
    assert seeds == {"pilot": {90}, "tune": {11, 12}, "confirm": {1, 2, 3, 4, 5}}


def test_the_pilot_sets_the_budget_of_all_later_runs(sweep):
    ended = {}
    drive(source(sweep), ended)
    found = {}
    for size in (16, 4096):
        found[size] = min(steps(rate, true_rate(size), floor=true_steps(size)) for rate in (0.05, 0.1, 0.2))
    most = {"steps": max(found.values()), "examples": max(size * s for size, s in found.items())}
    expected = [f"--convergence.budget_{unit}={rounded_up(4 * need)}" for unit, need in most.items()]
    for cell in ended:
        flags = [a for a in cell.args if a.startswith("--convergence.budget")]
        assert flags == ([] if "pilot" in cell.sweep else expected)


def test_the_same_answer_in_another_order_and_from_the_start(sweep):
    one, two = {}, {}
    drive(source(sweep), one)
    drive(source(sweep), two | dict(reversed(one.items())))
    assert set(Staged(sweep, read_plan(sweep)).cells(lambda c: one.get(c, State("left", {}, None)))) == set(one)


def test_a_pilot_that_reaches_nothing_is_said(sweep):
    miss = {"metric": "val/accuracy", "direction": "max", "value": 0.8, "status": "budget", "bracket": None}
    lost = State("budget", {}, {"status": "budget", "targets": [miss], "final": {}})
    with pytest.raises(ValueError, match="no pilot run reached"):
        source(sweep).cells(lambda cell: lost)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rat": LR}, "learning_rat: a plan has the fields"),
        ({"learning_rate": "model.lr"}, "learning_rate:"),
        ({"learning_rate": None}, "learning_rate:"),
        ({"confirm": {"seeds": [12, 13]}}, "confirm.seeds:"),
        ({"confirm": {}}, "confirm.seeds:"),
        ({"tune": {"seeds": [11], "tolerence": 1}}, "tune:"),
        ({"pilot": {"batch_sizes": [16]}}, "pilot.seeds:"),
        ({"pilot": {"seeds": [90], "batch_sizes": [17]}}, "pilot.batch_sizes: are among the sweep's, "),
        ({"tune": {"seeds": 11}}, "tune.seeds: is a list"),
    ],
)
def test_a_bad_plan_is_refused_with_the_field_s_name(sweep, change, field):
    path = sweep.path.with_name("tiny.plan.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"plan\.yaml: " + field):
        source(sweep)


def test_a_grid_coarser_than_a_factor_2_is_refused(tmp_path):
    path = write_sweep(tmp_path, **{LR.replace(".", "__"): [0.01, 0.04, 0.16]}, seed_everything=[0])
    plan = {"learning_rate": LR, "tune": {"seeds": [1]}, "confirm": {"seeds": [2]}}
    path.with_name("tiny.plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(ValueError, match="factors of 2"):
        source(read_sweep(path))


def test_a_plan_without_tuning_puts_its_hash_into_every_cell(tmp_path):
    path = write_sweep(tmp_path, data__batch_size=[4, 8], seed_everything=[0, 1])
    path.with_name("tiny.plan.yaml").write_text(yaml.safe_dump({"margins": {"delta": 0.1}}))
    cells = source(read_sweep(path)).cells(lambda cell: State("left", {}, None))
    assert len(cells) == 4
    assert stages(cells) == [{"hash": read_plan(read_sweep(path)).hash, "stage": "confirm"}] * 4


def test_the_hash_follows_margins_and_targets(sweep):
    before = read_plan(sweep).hash
    path = sweep.path.with_name("tiny.plan.yaml")
    path.write_text("# a comment\n" + path.read_text())
    assert read_plan(sweep).hash == before
    path.write_text(path.read_text() + "margins: {delta: 0.2}\n")
    assert read_plan(sweep).hash != before
    with_margins = read_plan(sweep).hash
    config = sweep.path.with_name("config.yaml")
    config.write_text(config.read_text() + "convergence: {budget_steps: 3, budget_examples: 3}\n")
    assert read_plan(sweep).hash != with_margins
