"""Sweep files: what W&B would refuse, and the runs that a good one stands for."""

import copy
import math
import random
import subprocess
import sys

import pytest
import yaml
from scipy import stats

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
        ("parameters|a", {}, "parameters.a.max:"),
        ("parameters|a", {"value": 1, "min": 0}, "parameters.a.min:"),
        ("parameters|a", {"distribution": "gaussian"}, "parameters.a.distribution:"),
        ("parameters|a", {"min": 0.0, "max": 1.0}, "parameters.a: a grid"),
        ("parameters|a", {"min": 0, "max": 1.0}, "parameters.a.max:"),
        ("parameters|a", {"min": 3, "max": 1}, "parameters.a.max:"),
        ("parameters|a", {"min": 3, "max": 3}, "parameters.a.max:"),
        ("parameters|a", {"parameters": {"b": {"values": []}}}, "parameters.a.parameters.b.values:"),
        ("parameters|a", {"parameters": {"b": {"value": 1}}, "value": 2}, "parameters.a:"),
    ],
)
def test_a_bad_file_is_refused_with_the_field_s_name(path, value, field):
    with pytest.raises(ValueError, match=r".") as error:
        check(changed(path, value))
    assert str(error.value).startswith(field)


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "parameters.a.min:"),
        ({"distribution": "log_uniform_values", "min": "1e-3", "max": 1}, "parameters.a.min:"),
        ({"distribution": "log_uniform", "min": -3, "max": 1}, "parameters.a.distribution:"),
        ({"distribution": "q_normal", "q": 0}, "parameters.a.q:"),
        ({"distribution": "normal", "sigma": -1.0}, "parameters.a.sigma:"),
        ({"distribution": "int_uniform", "min": 0, "max": 1.5}, "parameters.a.max:"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "parameters.a.probabilities:"),
    ],
)
def test_a_bad_distribution_is_refused_with_the_field_s_name(parameter, field):
    check(GOOD | {"method": "random", "run_cap": 1})
    with pytest.raises(ValueError, match=r".") as error:
        check(GOOD | {"method": "random", "run_cap": 1, "parameters": {"a": parameter}})
    assert str(error.value).startswith(field)


def test_random_without_a_number_of_runs_is_refused():
    with pytest.raises(ValueError, match=r"^run_cap:"):
        check(GOOD | {"method": "random"})


@pytest.mark.parametrize(
    ("parameter", "cdf"),
    [
        ({"min": 1.0, "max": 3.0}, stats.uniform(1, 2).cdf),
        ({"distribution": "log_uniform_values", "min": 0.01, "max": 10}, stats.loguniform(0.01, 10).cdf),
        ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 10}, stats.loguniform(0.01, 10).cdf),
        ({"distribution": "normal", "mu": 2.0, "sigma": 0.5}, stats.norm(2, 0.5).cdf),
        ({"distribution": "log_normal", "mu": 1.0}, stats.lognorm(1, scale=math.e).cdf),
        ({"distribution": "beta", "a": 2, "b": 3}, stats.beta(2, 3).cdf),
    ],
)
def test_draws_follow_the_distribution(parameter, cdf):
    source = random.Random(1)
    drawn = [parameters.draw({"a": parameter}, source)["a"] for _ in range(2000)]
    assert stats.kstest(drawn, cdf).pvalue > 0.01


def test_quantized_draws_and_probabilities():
    source = random.Random(0)
    even = {"distribution": "q_uniform", "min": 0, "max": 10, "q": 2}
    drawn = [parameters.draw({"a": even}, source)["a"] for _ in range(99)]
    assert set(drawn) == {0, 2, 4, 6, 8, 10}
    assert all(isinstance(value, int) for value in drawn)
    often = {"values": ["x", "y"], "probabilities": [0.9, 0.1]}
    drawn = [parameters.draw({"a": often}, source)["a"] for _ in range(2000)]
    assert drawn.count("x") / 2000 == pytest.approx(0.9, abs=0.03)


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
    assert shown == {item for cell in cells for item in cell.values}
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


def test_random_choices_follow_the_seed(tmp_path):
    path = write_sweep(tmp_path, seed_everything=[0])
    content = yaml.safe_load(path.read_text()) | {"method": "random", "run_cap": 5}
    content["parameters"]["model.optimizer.lr"] = {"distribution": "log_uniform_values", "min": 0.01, "max": 1.0}
    path.write_text(yaml.safe_dump(content))
    sweep = read_sweep(path)
    assert sweep.choices(1) == sweep.choices(1) != sweep.choices(2)
    assert len(sweep.choices()) == 5


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
    (tmp_path / "two.plan.yaml").write_text("random_seed: 3\n")
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
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
