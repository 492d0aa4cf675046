"""Sweep files: what W&B would refuse, and the runs that a good one stands for."""

import copy
import math
import re
import subprocess
import sys

import pytest

from tasks.sweep import parameters
from tasks.sweep.command import covering
from tasks.sweep.command import main as run_sweep
from tasks.sweep.files import check, read_sweep
from tasks.sweep.plan import digest, read_plan
from tests.helpers.hostile import write_sweep

GOOD = {
    "program": "tasks/__main__.py",
    "method": "grid",
    "command": ["${interpreter}", "-m", "tasks", "fit", "${args}"],
    "parameters": {"data.batch_size": {"values": [1, 2]}},
}


def changed(path, value):
    """GOOD with the field at a dotted path (| for dots) replaced, or removed where value is None."""
    content = copy.deepcopy(GOOD)
    *parents, last = path.split("|")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("method", None, "method:"),
        ("method", "gird", "method:"),
        ("method", "bayes", "method: only W&B's server"),
        ("method", "random", "method: only W&B's server draws"),
        ("parameters", None, "parameters:"),
        ("parameters", {}, "parameters:"),
        ("parameters", [1], "parameters:"),
        ("paramters", {}, "paramters:"),
        ("program", None, "program:"),
        ("name", 3, "name:"),
        ("run_cap", 0, "run_cap:"),
        ("run_cap", "many", "run_cap:"),
        ("metric", {"goal": "minimize"}, "metric:"),
        ("metric", {"name": "val/loss", "goal": "min"}, "metric:"),
        ("early_terminate", {"type": "hyperband"}, "early_terminate:"),
        ("command", None, "command:"),
        ("command", "python -m tasks fit", "command:"),
        ("command", ["python", "-m", "tasks", "fit"], "command:"),
        ("command", ["python", "train.py", "${args}"], "command:"),
        ("command", ["python", "-m", "tasks", "fit", "${args}", "${args_no_boolean_flags}"], "command:"),
        ("command", ["python", "-m", "tasks", "fit", "${arg}", "${args}"], "command:"),
        ("parameters|a b", {"value": 1}, "parameters.a b:"),
        ("parameters|a", 3, "parameters.a:"),
        ("parameters|a", {"values": []}, "parameters.a.values:"),
        ("parameters|a", {"values": 3}, "parameters.a.values:"),
        ("parameters|a", {"vaules": [3]}, "parameters.a.vaules:"),
        ("parameters|a", {}, "parameters.a: give either"),
        ("parameters|a", {"value": 1, "values": [1]}, "parameters.a: give either"),
        ("parameters|a", {"value": 1, "min": 0}, "parameters.a.min:"),
        ("parameters|a", {"values": [1, 2], "distribution": "gaussian"}, "parameters.a.distribution:"),
        ("parameters|a", {"values": [1, 2], "distribution": "constant"}, "parameters.a.distribution:"),
        ("parameters|a", {"values": [1, 2], "distribution": ["constant"]}, "parameters.a.distribution:"),
        ("parameters|a", {"min": 0.0, "max": 1.0}, "parameters.a.max: only W&B's server draws"),
        ("parameters|a", {"values": [1, 2], "probabilities": [0.5, 0.5]}, "parameters.a.probabilities: only W&B's"),
        ("parameters|a", {"values": [1, None]}, "parameters.a: null"),
        ("parameters|a", {"value": math.inf}, "parameters.a: is inf"),
        ("parameters|a", {"parameters": {"b": {"values": []}}}, "parameters.a.parameters.b.values:"),
        ("parameters|a", {"parameters": {"b": {"value": 1}}, "value": 2}, "parameters.a:"),
    ],
)
def test_a_bad_file_is_refused_with_the_field_s_name(path, value, field):
    with pytest.raises(ValueError, match=r".") as error:
        check(changed(path, value))
    assert str(error.value).startswith(field)


def test_grid_cells_and_their_arguments(tmp_path):
    rules = ["none", "linear"]
    path = write_sweep(tmp_path, data__batch_size=[4, 8], model__lr_scaling=rules, seed_everything=[0, 1, 2])
    sweep = read_sweep(path)
    cells = [sweep.cell(values) for values in sweep.choices()]
    assert len(set(cells)) == len({cell.key for cell in cells}) == 2 * 2 * 3
    config = str(tmp_path / "config.yaml")
    flags = ("--data.batch_size=8", "--model.lr_scaling=linear", "--seed_everything=2")
    assert cells[-1].args == ("fit", "--config", config, *flags)
    assert cells[-1].batch_size == 8
    shown = {item for cell in covering(cells) for item in cell.values}
    assert shown == {item for cell in cells for item in cell.values} - {("seed_everything", 1)}  # between two others
    assert len(covering(cells)) < len(cells)


def test_a_changed_config_is_another_cell(tmp_path):
    path = write_sweep(tmp_path, seed_everything=[0])
    before = read_sweep(path).cell({"seed_everything": 0}).key
    (tmp_path / "config.yaml").write_text("run: {study: other}\n")
    assert read_sweep(path).cell({"seed_everything": 0}).key != before


def test_arguments_are_those_of_wandb_s_agent(tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    values = {"data.batch_size": 64, "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}}
    sweep = read_sweep(write_sweep(tmp_path, seed_everything=[0]))
    theirs = create_sweep_command(list(sweep.content["command"]))
    flags = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})["args"]
    whole = [part for item in theirs for part in (flags if item == "${args}" else [item])]
    assert list(sweep.cell(values).args) == whole[whole.index("fit") :]


def test_nested_parameters_become_one_argument():
    inner = {"lr": {"values": [0.1, 0.2]}, "momentum": {"value": 0.9}}
    grid = parameters.grid({"a": {"value": 1}, "optimizer": {"parameters": inner}})
    assert grid == [{"a": 1, "optimizer": {"lr": lr, "momentum": 0.9}} for lr in (0.1, 0.2)]


@pytest.mark.parametrize("text", ["a: [", "- 1", "method: grid"])
def test_what_is_no_sweep_file_ends_with_status_2_and_one_line(text, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert run_sweep([str(path)]) == 2
    assert run_sweep([str(tmp_path / "nowhere.yaml")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)


def test_a_plan_is_no_sweep_file_and_serves_the_sweeps_of_its_folder_that_have_none_of_their_own(tmp_path, capsys):
    path, other = (write_sweep(tmp_path, name=name, seed_everything=[0]) for name in ("one", "two"))
    (tmp_path / "plan.yaml").write_text("smoke: true\n")
    (tmp_path / "two.plan.yaml").write_text("margins: {}\n")
    assert (read_plan(read_sweep(path)).smoke, read_plan(read_sweep(other)).smoke) == (True, False)
    assert run_sweep([str(tmp_path / "plan.yaml"), str(tmp_path / "two.plan.yaml")]) == 2
    assert capsys.readouterr().err == "error: FILE: give the sweep file; the plan.yaml beside it is read with it\n"


def test_a_missing_config_is_refused(tmp_path):
    path = write_sweep(tmp_path, seed_everything=[0])
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ValueError, match="there is no file"):
        read_sweep(path)


def test_dry_run_prints_each_command_and_runs_nothing(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    assert run_sweep([str(path), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[-1] for line in lines] == ["--seed_everything=0", "--seed_everything=1"]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_of_cells_that_cannot_be_parsed_is_a_mistake(tmp_path, capsys):
    path = write_sweep(tmp_path, model__init_args__nothing=[1, 2])
    assert run_sweep([str(path), "--dry-run"]) == 2
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "nothing" in told.err.splitlines()[-1]


def test_options_after_two_dashes_reach_every_cell_and_the_plan_s_hash(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    assert run_sweep([str(path), "--dry-run", "--", "--data.n", "30", "--trainer.max_steps=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("--data.n 30 --trainer.max_steps=2") for line in lines)
    assert digest(read_sweep(path), {}) != digest(read_sweep(path, ("--data.n", "30")), {})


@pytest.mark.parametrize(
    ("flags", "words"), [(["--seed_everything=3"], "itself varies it"), (["x"], "options of `fit`")]
)
def test_options_after_two_dashes_are_checked(tmp_path, capsys, flags, words):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    assert run_sweep([str(path), "--dry-run", "--", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_into_a_closed_pipe_is_no_error(tmp_path):
    path = write_sweep(tmp_path, seed_everything=list(range(3000)))
    command = f"{sys.executable} -m tasks sweep {path} --dry-run | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert re.fullmatch(r"tiny: .* hours of one cpu.*\n", done.stderr)  # its cost, and nothing else
    assert len(done.stdout.splitlines()) == 1
