"""`python -m tasks limit`: the rounds against made-up curves, the files, the pilot's target; an answer."""

import itertools
import math
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.convergence_detector import Target
from callbacks.record import read_record
from tasks.errors import UserError
from tasks.limit import command
from tasks.limit.command import main, read_target, seconds
from tasks.limit.design import Design, Question, first_design, met, next_design, resumed, write
from tasks.limit.known import Known
from tasks.limit.pilot import proposed
from tasks.limit.plan import OF_THE_STUDY, asked, preflight
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import State
from tasks.sweep.plan import read_plan, source
from tasks.sweep.preflight import afterwards, doubts
from tests.helpers.fake_runs import make_run
from tests.helpers.hostile import write_sweep

CONFIG = "configs/image_classification/fashion_mnist.yaml"
ACCURACY = Target("val/accuracy", "max", 0.8)


def question(**changes) -> Question:
    fields = {"study": "s", "command": ("--config", CONFIG), "target": ACCURACY, "batch_size": 64, "rate": 0.01}
    return Question(**fields | {"steps": 100.0, "examples": 10_000} | changes)


def known(design: Design, critical: float, spread: float) -> Known:
    """What perfect runs of a hyperbola say; the interval is `spread` to both sides."""
    steps = {size: 50 * (1 + critical / size) for size in design.sizes}
    inside = min(design.sizes) < critical < max(design.sizes)
    ends = (critical / spread, critical * spread) if inside else (0.0, math.inf)
    return Known("", steps, fitted=tuple(sorted(design.sizes)), value=critical, low=ends[0], high=ends[1])


def rounds(asked: Question, critical: float, spread: float, precision: float = 2.0) -> list[Design]:
    """All designs until nothing is to be added."""
    designs = [first_design(asked)]
    while following := next_design(designs[-1], known(designs[-1], critical, spread), asked, precision):
        designs.append(following)
        assert len(designs) < 40
    return designs


def test_the_range_grows_until_steps_have_stopped_falling_and_no_further():
    final = rounds(question(examples=10**6), critical=100, spread=1.2)[-1]
    assert 5 * 101 <= max(final.sizes) + 100 < 4 * 5 * 101  # E(top) is 5 times the fewest, and was not at a quarter
    assert max(final.sizes) <= 2048


def test_the_range_ends_at_a_quarter_of_the_data_or_at_the_largest_batch_allowed():
    assert max(rounds(question(), critical=10**6, spread=1.2)[-1].sizes) == 2048
    assert max(rounds(question(most=500), critical=10**6, spread=1.2)[-1].sizes) == 256


def test_a_smallest_size_beyond_the_linear_regime_gets_smaller_ones():
    final = rounds(question(), critical=4, spread=1.2)[-1]
    assert min(final.sizes) <= 1


def test_five_sizes_are_there_at_the_least_and_more_where_the_answer_is():
    final = rounds(question(examples=10**6), critical=100, spread=1.2)[-1]
    assert len(final.sizes) >= 5
    wide = rounds(question(examples=10**6), critical=100, spread=2.0)[-1]
    assert {64, 256} <= set(wide.sizes)
    assert wide.precision < final.precision


def test_sizes_are_multiples_of_the_ghost_batch():
    for unit in (3, 16, 32):
        assert all(size % unit == 0 for size in rounds(question(unit=unit), critical=100, spread=3)[-1].sizes)


def test_every_round_keeps_the_sizes_before_it_in_their_order():
    designs = rounds(question(examples=10**6), critical=100, spread=2.0)
    for before, after in itertools.pairwise(designs):
        assert after.sizes[: len(before.sizes)] == before.sizes
        assert after != before


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(60, 110, True), (50, 110, False), (8, 12, False), (60, 1e9, False)]
)
def test_an_answer_is_precise_where_its_ends_are_near_and_inside(low, high, answer):
    found = Known("", fitted=(8.0, 16.0, 32.0, 64.0, 256.0), value=80, low=low, high=math.inf if high > 1e8 else high)
    assert met(found, 2.0) == answer


def test_the_files_are_an_ordinary_sweep_with_its_plan_and_are_read_back(tmp_path):
    design = Design((8, 32, 128, 64), 0.2)
    path = write(tmp_path, question(), design)
    sweep = read_sweep(path)
    plan = read_plan(sweep)
    assert plan.tune
    assert plan.confirm["precision"] == 0.2
    cells = source(sweep).cells(lambda cell: State("left", {}, None))
    assert {cell.batch_size for cell in cells} == {8}
    assert resumed(tmp_path, question()) == design
    assert resumed(tmp_path, question(target=Target("val/loss", "min", 0.5))) == first_design(question())
    assert resumed(tmp_path / "nothing", question()) == first_design(question())


def test_the_target_that_is_proposed_is_reached_by_the_run_that_proposes_it():
    steps = [0, *(round(10 * 1.1**k) for k in range(50))]
    target, at, said = proposed({"step": steps, "val/loss": [0.3 + 2 / (1 + step / 20) for step in steps]})
    assert target.metric == "val/loss"
    assert 0.3 < target.value < 0.6
    assert 20 < at < steps[-1] / 1.5
    assert "95%" in said


def test_a_run_that_does_not_learn_proposes_nothing():
    with pytest.raises(UserError, match="does not learn"):
        proposed({"step": [0, 10, 20], "val/loss": [1.0, 1.0, 1.1]})


def test_targets_and_budgets_are_read_as_people_write_them():
    assert read_target("val/accuracy >= 0.75") == Target("val/accuracy", "max", 0.75)
    assert read_target("val/loss<=5e-1") == Target("val/loss", "min", 0.5)
    assert [seconds(text) for text in ("90s", "30m", "2h", None)] == [90, 1800, 7200, math.inf]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target", "accuracy"], "write it as"),
        (["--budget", "30"], "--budget is '30'"),
        (["--precision", "1"], "more than 1"),
        (["--max-batch", "0"], "at least 1"),
        (["--config", "nothing.yaml"], "nothing.yaml"),
        (["--data.growth", "{epochs: [1], factor: 2}"], "every run keeps its batch size"),
    ],
)
def test_a_mistake_is_one_sentence(flags, words, capsys, tmp_path):
    config = [] if "--config" in flags else ["--config", CONFIG]
    assert main([*config, "--runs", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_what_a_study_sets_itself_is_left_out_and_nothing_else():
    own = ["--data.epochs=3", "--trainer.max_steps=9", "--convergence.stop=false", "--run.name=x"]
    found = asked(["--config", CONFIG, *own, "--model.lr_scaling=sqrt"], None, None, 1)
    assert found.replaced == tuple(OF_THE_STUDY)
    assert asked(list(found.args), None, None, 1).replaced == ()
    plain = ["--config", CONFIG, "--model.label_smoothing=0.1"]
    assert asked(plain, None, None, 1).args == tuple(plain)


@pytest.mark.parametrize("target", ["val/loss<=1e9", "val/loss>=1e-9"])
def test_a_target_that_is_met_before_training_is_refused_by_the_pilot(tmp_path, capsys, target):
    config = ["--config", "docs/examples/waves.yaml", "--data.variant.examples=64", "--runs", str(tmp_path)]
    assert main([*config, "--target", target]) == 2
    assert "is met before the first step" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("*/limit"))


def test_the_status_of_another_target_is_not_given_for_the_one_that_is_asked(tmp_path, capsys):
    write(tmp_path / "fashion_mnist_limit" / "limit", question(study="fashion_mnist_limit"), first_design(question()))
    status = ["--config", CONFIG, "--runs", str(tmp_path), "--status", "--target"]
    assert main([*status, "val/accuracy>=0.8"]) == 0
    assert "nothing is known yet" in capsys.readouterr().out
    assert main([*status, "val/loss<=0.5"]) == 2
    assert "asks for --target 'val/accuracy>=0.8': give that one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stopped", "status"),
    [(KeyboardInterrupt(), 130), (SystemExit(1), 130), (SystemExit(143), 143), (SIGTERMException(), 143)],
)
def test_signals_have_the_usual_exit_status_in_the_pilot_and_after_it(monkeypatch, capsys, stopped, status):
    def stop(*_):
        raise stopped

    monkeypatch.setattr(command, "limit", stop)
    assert main([]) == status
    assert "the same command goes on" in capsys.readouterr().err


def test_an_error_before_the_first_round_is_the_one_that_is_told(tmp_path):
    (tmp_path / "limit").touch()  # no folder can be made there
    study = command.Study(tmp_path, tmp_path / "limit", command.parser().parse_args([]))
    with pytest.raises(FileExistsError):
        study.answer(question(), math.inf)


@pytest.mark.parametrize(
    ("sizes", "facts", "words"),
    [
        ([8, 16, 32, 64, 128], {}, None),
        ([8, 16, 32], {}, "5 are needed"),
        ([8, 16, 32, 64, 128], {"examples": 200}, "3 remain, 5 are needed"),
        ([8, 16, 32, 64, 128], {"tuned": False}, "saturation batch"),
        ([8, 16, 32, 64, 128], {"seeds": 2}, "2 seeds"),
        ([8, 16, 32, 64, 128], {"steps": {128: 12.0}}, "harder target"),
        ([8, 16, 32, 64, 128], {"steps": {8: math.inf}}, "no run arrived at batch 8"),
        ([8, 16, 32, 64, 128], {"steps": {8: 800.0, 128: 60.0}}, "larger sizes"),
        ([8, 16, 32, 64, 128], {"steps": {8: 800.0, 128: 120.0}}, None),
    ],
)
def test_what_would_keep_a_study_from_answering_is_said(sizes, facts, words):
    found = doubts(sizes, **facts)
    assert (found == []) if words is None else (len(found) == 1 and words in found[0])


def test_runs_that_were_past_their_target_too_late_are_told_of_once_a_size(tmp_path):
    sweep = source(read_sweep(write_sweep(tmp_path, data__batch_size=[4, 8, 16], seed_everything=[1, 2, 3, 4, 5])))
    budgets = {4: 10**6, 8: 120, 16: 90}  # 100 steps to the goal: past it without the follow-up, and not past it
    states = {}
    for cell in sweep.cells(lambda _: State("left", {}, None)):
        size, seed = cell.batch_size, len(states)
        record = read_record(make_run(tmp_path / f"{seed}", 100, size, seed, budgets[size]) / "record.json")
        states[cell] = State(record.status, {}, record)
    (said,) = (doubt for doubt in afterwards(sweep, states) if "past their target" in doubt)
    assert said.startswith("batch 8: ")


@pytest.mark.slow
def test_one_command_answers_and_goes_on_for_nothing(tmp_path, capsys):
    command = ["--config", CONFIG, "--runs", str(tmp_path), "--target", "val/accuracy>=0.6", "--max-batch", "256"]
    assert main([*command, "--budget", "20m"]) == 0
    answer = capsys.readouterr().out
    page = Path(answer.strip().splitlines()[-1])
    assert page.exists()
    ledger = {path: path.stat().st_mtime for path in (tmp_path / ".sweep").glob("*.json")}
    assert main([*command, "--budget", "20m"]) == 0
    assert capsys.readouterr().out == answer
    assert {path: path.stat().st_mtime for path in (tmp_path / ".sweep").glob("*.json")} == ledger


def test_a_doomed_study_is_told_beforehand_what_it_lacks():
    assert preflight(question()) == []
    (told,) = preflight(question(examples=100))
    assert "a quarter of the 100 training examples" in told
    assert "5 are needed" in told
