"""The walk to the learning rates against made-up worlds whose best rates are known."""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from callbacks.record import Crossing, Record, TargetResult
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import State
from tasks.sweep.plan import half_width, read_plan, rounded_up, source, yaml_safe
from tasks.sweep.tuning import MOST, RACE, Score, search
from tests.helpers import seen_noise
from tests.helpers.hostile import write_sweep
from tests.helpers.made_up import run

LR = "model.optimizer.init_args.lr"


def valley(rate, best, floor=100.0, limit=8.0):
    """Steps in a smooth valley in log rate; from `limit` times the best rate on, divergence."""
    return math.inf if rate >= limit * best else floor * (rate / best + best / rate) / 2


def edge(rate, best, floor=100.0):
    """Steps that fall in proportion to the rate until it is a tenth above the best, where training diverges."""
    return math.inf if rate > 1.1 * best else floor * best / rate


@dataclass
class World:
    """Scores of one batch size's runs, with what was asked for."""

    best: float
    limit: float = 8.0
    shape: Callable[..., float] | None = None
    asked: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, rate, bound):
        self.asked.append((rate, bound))
        steps = self.shape(rate, self.best) if self.shape else valley(rate, self.best, limit=self.limit)
        return Score(steps, 0.0) if steps <= bound else Score(math.inf, 0.1 if math.isfinite(steps) else math.inf)


@pytest.mark.parametrize("best", [0.1, 0.113, 0.07, 1.3, 0.004])
@pytest.mark.parametrize("limit", [2.0, 8.0])
def test_the_search_finds_the_best_rate_between_worse_ones(best, limit):
    found = search([0.1], World(best, limit))
    assert abs(math.log2(found.rate / best)) < 0.3
    assert found.bracketed
    assert valley(found.rate, best) < 1.03 * 100


@pytest.mark.parametrize("best", [0.1, 0.113, 0.07, 0.08, 1.3, 0.004])
def test_at_the_edge_of_divergence_the_gap_is_halved_twice(best):
    world = World(best, shape=edge)
    found = search([0.1], world)
    assert 1.1 * best / 2**0.25 <= found.rate <= 1.1 * best
    assert found.bracketed
    assert found.rate in [rate for rate, _ in world.asked]  # no parabola
    before, last = world.asked[-2:]
    lost = min(rate for rate, _ in world.asked if rate > 1.1 * best)
    assert lost / found.rate == pytest.approx(2**0.25)
    assert abs(math.log2(last[0] / before[0])) == pytest.approx(0.25)
    assert last[1] <= before[1] <= RACE * 2 * found.steps  # raced as the others are


@pytest.mark.parametrize("best", [0.1, 0.113, 0.07, 0.08, 1.3, 0.004])
def test_a_rate_that_one_seed_kept_by_luck_is_lost_by_further_seeds(best):
    lucky = World(best, shape=lambda rate, best: edge(rate, 1.3 * best))
    further = World(best, shape=edge)
    found = search([0.1], lucky, again=further)
    assert 1.1 * best / 2**0.5 <= found.rate <= 1.1 * best
    assert found.rate == further.asked[-1][0]  # the last one that was tried again held
    assert all(rate > 1.1 * best for rate, _ in further.asked[:-1])
    assert all(bound == RACE * edge(rate, 1.3 * best) for rate, bound in further.asked)
    assert search([0.1], World(best, shape=edge), again=lambda rate, bound: None) is None  # its runs are awaited


@pytest.mark.parametrize("best", [0.1, 0.113, 0.07, 1.3, 0.004])
def test_a_lost_rate_above_a_flat_bottom_is_not_approached(best):
    world = World(best, limit=2.0)
    search([0.1], world, again=lambda *_: pytest.fail("no lost rate is near"))
    assert all(math.log2(rate / 0.1) == pytest.approx(round(math.log2(rate / 0.1))) for rate, _ in world.asked)


def test_a_run_is_outrun_past_twice_the_fewest_steps_of_earlier_waves_only():
    world = World(0.4)
    search([0.1], world, bound=4000)
    fewest, seen = math.inf, []
    for rate, bound in world.asked:
        assert bound == (4000 if math.isinf(fewest) else RACE * fewest) or rate in (0.05, 0.2)
        seen.append(valley(rate, 0.4))
        fewest = min(seen)
    assert world.asked[1][1] == world.asked[2][1] == RACE * valley(0.1, 0.4)  # one wave, one bound


def test_while_nothing_arrives_the_coarse_rates_follow_outwards():
    world = World(0.8, limit=1.5)
    found = search([0.1], world, bound=105.0, coarse=[0.0125, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
    assert [rate for rate, _ in world.asked][:5] == [0.1, 0.05, 0.2, 0.0125, 0.4]
    assert found.rate == pytest.approx(0.8, rel=0.4)


def test_an_optimum_that_is_never_bracketed_is_said():
    found = search([1.0], lambda rate, bound: Score(100 / rate, 0.0))
    assert not found.bracketed
    assert found.trials == MOST


def test_of_misses_the_nearest_to_the_target_is_best_and_a_hit_is_better_than_any():
    found = search([1.0], lambda rate, bound: Score(math.inf, abs(math.log(rate / 2.5))))
    assert found.rate == pytest.approx(2.5, rel=0.2)
    assert math.isinf(found.steps)
    assert Score(1e9, 0.0) < Score(math.inf, 0.0) < Score(math.inf, 0.1)


def test_a_world_in_which_all_diverges_ends():
    found = search([1.0], lambda rate, bound: Score(math.inf, math.inf), coarse=[0.5, 1.0, 2.0])
    assert not found.bracketed


@pytest.mark.parametrize(
    "hexadecimal", ["994765002e393306", "1234567890123456", "ee00000000000000", "12a4567890123e56"]
)
def test_a_plan_s_hash_is_read_back_as_it_was_written(hexadecimal):
    parser = ArgumentParser()
    parser.add_argument("--plan", type=dict[str, Any])
    plan = {"hash": yaml_safe(hexadecimal), "stage": "tune"}
    assert parser.parse_args([f"--plan={json.dumps(plan)}"]).plan == plan


def test_budgets_are_rounded_up_to_two_digits():
    assert [rounded_up(n) for n in (7, 99.5, 101, 1234, 500000.1)] == [7, 100, 110, 1300, 510000]


# the whole plan, driven by a world of records -------------------------------------------------------------

SIZES = [16, 32, 64, 256, 4096]
PLAN = {"learning_rate": LR, "tune": {"seeds": [11]}, "confirm": {"seeds": [1, 2, 3, 4, 5]}}


def sweep_of(folder, plan=PLAN, sizes=SIZES, **parameters):
    rates = {LR.replace(".", "__"): [0.025, 0.05, 0.1]} if "learning_rate" in plan else {}
    path = write_sweep(folder, data__batch_size=sizes, **rates, **parameters, seed_everything=[0, 1])
    path.with_name("tiny.plan.yaml").write_text(yaml.safe_dump(plan))
    return read_sweep(path)


@pytest.fixture
def sweep(tmp_path):
    return sweep_of(tmp_path)


def true_steps(size):
    return 60 * (1 + 90 / size)


def true_rate(size):
    return 0.04 * min(1.0, size / 256) ** 0.8


def flags(cell):
    """A cell's convergence flags and its plan."""
    found = {}
    for arg in cell.args:
        for name in ("outrun_steps", "budget_steps", "budget_examples"):
            if arg.startswith(f"--convergence.{name}="):
                found[name] = int(arg.split("=")[1])
        if arg.startswith("--run.plan="):
            found["plan"] = json.loads(arg.removeprefix("--run.plan="))
    return found


def ending(cell, shape=valley, scatter=lambda size: 0.0, draw=0):
    """The state of a cell in a world with a known best rate and number of steps at each batch size."""
    values, asked = dict(cell.values), flags(cell)
    size, seed = values.get("data.batch_size"), values["seed_everything"]
    rate = values.get(LR, true_rate(size))
    noise = np.random.default_rng([draw, seed, size, round(1e6 * rate)]).normal(0.0, scatter(size))
    steps = shape(rate, true_rate(size), true_steps(size)) * math.exp(noise)
    end, status = asked.get("budget_steps", 10**4), "budget"
    if asked.get("outrun_steps", math.inf) < steps:
        end, status = asked["outrun_steps"], "outrun"
    status = "diverged" if math.isinf(steps) else "reached" if steps <= end else status
    target = {"metric": "val/accuracy", "direction": "max", "value": 0.8, "status": status}
    target |= {"hit": {"steps": steps, "examples": steps * size}} if status == "reached" else {}
    gap = 0.1 * min(math.log(steps / end), 1.0) if status in ("budget", "outrun") else 0.0
    return State(status, {}, record_of(size, seed, status, target, 0.8 - gap))


def record_of(size, seed, status, target, end):
    made = run([], size, seed).record
    fields = {**vars(made), "status": status, "final": {"val/accuracy": end}, "targets": (result(target),)}
    return Record(**fields)


def result(target):
    hit = Crossing(**target["hit"]) if "hit" in target else None
    return TargetResult(**target | {"hit": hit})


def drive(source_, ended, order=None, workers=3, end=ending):
    """Run what is wanted, some cells at a time in any order, until nothing new is."""
    left = State("left", {}, None)
    while new := [c for c in source_.cells(lambda c: ended.get(c, left)) if c not in ended]:
        if order:
            order.shuffle(new)
        for cell in new[:workers]:
            ended[cell] = end(cell)
    return ended


def stage(ended, name):
    return [cell for cell in ended if flags(cell)["plan"]["stage"] == name]


def test_a_plan_walks_the_sizes_and_confirms_each(sweep):
    ended = drive(cells := source(sweep), {})
    assert cells.complete
    assert {flags(cell)["plan"]["hash"] for cell in ended} == {read_plan(sweep).hash}
    final = stage(ended, "confirm")
    assert len(final) == len(SIZES) * 5
    assert len(stage(ended, "tune")) <= 25  # 3 to 5 at a size: a x4 and a x16 step begin with 3 and 5
    for cell in final:
        values = dict(cell.values)
        assert flags(cell)["plan"]["tuned"]
        assert abs(math.log2(values[LR] / true_rate(values["data.batch_size"]))) < 0.3
    assert {dict(c.values)["seed_everything"] for c in stage(ended, "tune")} == {11}
    assert {dict(c.values)["seed_everything"] for c in final} == {1, 2, 3, 4, 5}


def test_a_size_added_at_the_end_changes_no_run_of_the_others(tmp_path):
    def runs(sizes):
        ended = drive(source(sweep_of(tmp_path, sizes=sizes)), {})
        return {tuple(arg for arg in cell.args if not arg.startswith("--run.plan=")) for cell in ended}

    before = runs([16, 64, 256])
    after = runs([16, 64, 256, 128, 8])
    assert before < after
    sizes = {size for args in after - before for size in (8, 128) if f"--data.batch_size={size}" in args}
    assert sizes == {8, 128}
    assert len(after - before) <= 2 * (5 + 5)  # few rates at a size whose neighbour is known


def test_each_size_has_a_budget_of_its_own_tuned_steps_and_a_crossing_is_followed_up_within_it(sweep):
    for cell in drive(source(sweep), {}):
        size, asked = dict(cell.values)["data.batch_size"], flags(cell)
        if asked["plan"]["stage"] == "confirm":
            assert 1.0 <= asked["budget_steps"] / (6 * true_steps(size)) < 1.2
            assert asked["budget_examples"] == asked["budget_steps"] * size
        elif "outrun_steps" in asked:
            assert asked["budget_steps"] >= 1.5 * asked["outrun_steps"] * 0.95
            assert size == SIZES[0] or asked["outrun_steps"] <= 4.6 * true_steps(SIZES[0])
    first = [flags(c) for c in stage(drive(source(sweep), {}), "tune") if "outrun_steps" not in flags(c)]
    assert len(first) == 1  # only the very first run knows no bound


@settings(max_examples=25, deadline=None)
@given(
    order=st.randoms(use_true_random=False),
    workers=st.integers(1, 8),
    draw=st.integers(0, 5),
    shape=st.sampled_from([valley, edge]),
)
def test_the_cells_and_choices_do_not_depend_on_workers_or_order(tmp_path_factory, order, workers, draw, shape):
    sweep = sweep_of(tmp_path_factory.mktemp("sweep"), sizes=[4, 16, 64])
    noisy = functools.partial(ending, shape=shape, scatter=lambda size: 0.2, draw=draw)
    whole = drive(source(sweep), {}, workers=1000, end=noisy)
    assert set(drive(source(sweep), {}, order, workers, noisy)) == set(whole)
    known = list(whole.items())
    order.shuffle(known)
    assert set(source(sweep).cells(lambda cell: dict(known)[cell])) == set(whole)


def test_rules_without_tuning_get_their_budgets_from_a_pilot(tmp_path):
    plan = {"pilot": {"seeds": [90], "batch_sizes": [16, 4096]}, "confirm": {"seeds": [1, 2]}, "cap": {"steps": 1500}}
    ended = drive(source(sweep_of(tmp_path, plan)), {})
    assert len(stage(ended, "pilot")) == 2
    assert len(stage(ended, "confirm")) == 2 * len(SIZES)
    for cell in stage(ended, "confirm"):
        asked = flags(cell)
        assert asked["budget_steps"] == min(1500, rounded_up(4 * true_steps(16)))
        assert asked["budget_examples"] == rounded_up(4 * true_steps(4096) * 4096)


def test_a_pilot_that_reaches_nothing_is_said(tmp_path):
    plan = {"pilot": {"seeds": [90]}, "confirm": {"seeds": [1, 2]}}
    never = functools.partial(ending, shape=lambda *_: 1e9)
    with pytest.raises(ValueError, match="no pilot run reached"):
        drive(source(sweep_of(tmp_path, plan)), {}, end=never)


def test_more_seeds_follow_only_where_the_interval_is_too_wide(tmp_path):
    plan = PLAN | {"confirm": {"seeds": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "precision": 0.2}}
    noisy = functools.partial(ending, scatter=lambda size: 0.5 if size == 16 else 0.001, draw=3)
    ended = drive(source(sweep_of(tmp_path, plan)), {}, end=noisy)
    for size in SIZES:
        scores = [ended[c].record.targets[0].at("steps") for c in stage(ended, "confirm") if c.batch_size == size]
        assert len(scores) == (9 if size == 16 else 3)
    assert half_width([Score(10.0, 0.0), Score(20.0, 0.0)]) == pytest.approx(12.706 * math.log(2) / 2, rel=1e-4)
    assert math.isinf(half_width([Score(10.0, 0.0), Score(math.inf, 0.0)]))


def test_only_some_sizes_of_the_walk_may_be_confirmed(tmp_path):
    plan = PLAN | {"confirm": {"seeds": [1], "batch_sizes": [16, 256]}}
    ended = drive(source(sweep_of(tmp_path, plan)), {})
    assert {c.batch_size for c in stage(ended, "confirm")} == {16, 256}
    assert {c.batch_size for c in stage(ended, "tune")} == set(SIZES)


def test_arms_are_walked_each_for_itself(tmp_path):
    sweep = sweep_of(tmp_path, sizes=[16, 64], model__init_args__label_smoothing=[0.0, 0.1])
    ended = drive(source(sweep), {})
    arms = {dict(c.values)["model.init_args.label_smoothing"] for c in stage(ended, "confirm")}
    assert arms == {0.0, 0.1}
    assert len(stage(ended, "confirm")) == 2 * 2 * 5


def test_the_record_hears_of_margins_and_smoke(tmp_path):
    plan = PLAN | {"margins": {"golmant-7": {"ratio": 0.8}}, "smoke": True}
    [cell] = source(sweep_of(tmp_path, plan)).cells(lambda cell: State("left", {}, None))
    assert flags(cell)["plan"]["margins"] == {"golmant-7": {"ratio": 0.8}}
    assert flags(cell)["plan"]["smoke"] is True


# is the walk fair to all sizes? ---------------------------------------------------------------------------


def flat(rate, best, floor):
    """Flat within a factor of 4 of the best, then in proportion to the rate."""
    off = abs(math.log2(rate / best))
    return floor * math.exp(0.03 * min(off, 2.0) ** 2 + 0.69 * max(0.0, off - 2.0))


def cliff(rate, best, floor):
    """Divergence from 2.8 x the best on."""
    return valley(rate, best, floor, limit=2.8)


def measured_scatter(size):
    """Return the standard deviation of log steps over seeds at one rate, as seen in the kept runs."""
    return seen_noise.at(size, seen_noise.SCATTER)


@pytest.mark.parametrize("studies", [20, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [valley, flat, cliff])
def test_what_the_choice_costs_is_the_same_at_every_size(tmp_path, shape, studies):
    """The true log steps at the chosen rates over those at the best: a bias of every size, below 0.03."""
    sizes = [4 * 2**i for i in range(10)]
    plan = PLAN | {"confirm": {"seeds": [1]}}
    sweep = sweep_of(tmp_path, plan, sizes, **{"data__journal": ["null"]})
    lost, tried = np.zeros((studies, len(sizes))), []
    for draw in range(studies):
        ended = drive(
            source(sweep),
            {},
            workers=100,
            end=functools.partial(ending, shape=shape, scatter=measured_scatter, draw=draw),
        )
        tried.append(len(stage(ended, "tune")))
        for cell in stage(ended, "confirm"):
            rate, size = dict(cell.values)[LR], cell.batch_size
            lost[draw, sizes.index(size)] = math.log(shape(rate, true_rate(size), 1.0))
    bias, error = lost.mean(0), lost.std(0, ddof=1) / math.sqrt(studies)
    print(f"{shape.__name__}: bias {np.round(bias, 3)} +- {error.max():.3f}, {np.mean(tried):.1f} tuning runs")
    assert np.mean(tried) < 40
    assert (bias - 2 * error < 0.03).all()
    if studies > 100:
        assert bias.max() < 0.03


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rat": LR}, "learning_rat: a plan has the fields"),
        ({"learning_rate": "model.lr"}, "learning_rate:"),
        ({"learning_rate": None}, "learning_rate:"),
        ({"confirm": {"seeds": [11, 13]}}, "confirm.seeds:"),
        ({"confirm": {}}, "confirm.seeds:"),
        ({"confirm": {"seeds": [[1, 2], [2, 3]], "precision": 0.1}}, "confirm.seeds:"),
        ({"confirm": {"seeds": [[1, 2], 3], "precision": 0.1}}, "confirm.seeds:"),
        ({"confirm": {"seeds": [[1, 2], [3]]}}, "confirm.precision:"),
        ({"confirm": {"seeds": [1, 2], "precision": 0.1}}, "confirm.precision:"),
        ({"confirm": {"seeds": [1], "batch_sizes": [17]}}, "confirm.batch_sizes: are among the sweep's, "),
        ({"tune": {"seeds": [11], "halving": True}}, "tune:"),
        ({"pilot": {"seeds": [90]}}, "pilot:"),
        ({"tune": {"seeds": 11}}, "tune.seeds: is a list"),
        ({"margins": {"golmant-7": 0.8}}, "margins:"),
        ({"margins": [0.8]}, "margins:"),
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
    path.with_name("tiny.plan.yaml").write_text(yaml.safe_dump({"margins": {"golmant-1": {"delta": 0.1}}}))
    cells = source(read_sweep(path)).cells(lambda cell: State("left", {}, None))
    assert len(cells) == 4
    expected = {"hash": read_plan(read_sweep(path)).hash, "stage": "confirm", "margins": {"golmant-1": {"delta": 0.1}}}
    assert [flags(cell)["plan"] for cell in cells] == [expected] * 4


def test_the_hash_follows_margins_and_targets(sweep):
    before = read_plan(sweep).hash
    path = sweep.path.with_name("tiny.plan.yaml")
    path.write_text("# a comment\n" + path.read_text())
    assert read_plan(sweep).hash == before
    path.write_text(path.read_text() + "margins: {golmant-1: {delta: 0.2}}\n")
    assert read_plan(sweep).hash != before
    with_margins = read_plan(sweep).hash
    config = sweep.path.with_name("config.yaml")
    config.write_text(config.read_text() + "convergence: {budget_steps: 3, budget_examples: 3}\n")
    assert read_plan(sweep).hash != with_margins


def test_a_plan_that_grows_keeps_its_hash_and_so_its_runs(sweep):
    path = sweep.path.with_name("tiny.plan.yaml")
    plan = yaml.safe_load(path.read_text()) | {"confirm": {"seeds": [[21, 22], [23]], "precision": 0.2}}
    hashes = []
    for grows, precision, sizes in [(True, 0.2, [4]), (True, 0.1, [4, 8]), (False, 0.2, [4]), (False, 0.1, [4, 8])]:
        plan |= {"grows": grows, "confirm": plan["confirm"] | {"precision": precision}}
        path.write_text(yaml.safe_dump(plan))
        content = yaml.safe_load(sweep.path.read_text())
        content["parameters"]["data.batch_size"] = {"values": sizes}
        sweep.path.write_text(yaml.safe_dump(content))
        hashes.append(read_plan(read_sweep(sweep.path)).hash)
    assert hashes[0] == hashes[1]
    assert len({*hashes}) == 3
