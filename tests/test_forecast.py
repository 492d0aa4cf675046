"""What a sweep would cost: runs, steps and hours against a count by hand."""

import math
from pathlib import Path

import pytest
import yaml

from tasks.sweep import forecast
from tasks.sweep.command import main
from tasks.sweep.files import read_sweep
from tasks.sweep.forecast import Speed, most_steps, parts
from tasks.sweep.plan import source
from tests.helpers.hostile import write_sweep

EMBEDDED = Path("configs/sweeps/golmant_fig1_classification/embedded.yaml")


def test_runs_of_a_plain_grid_are_its_cells_by_arm_and_size(tmp_path):
    path = write_sweep(tmp_path, data__batch_size=[4, 8], seed_everything=[0, 1, 2], model__warmup=["null", "2 steps"])
    assert [part.runs for part in parts(source(read_sweep(path)))] == [{4: 3, 8: 3}] * 2


def test_runs_of_a_tuned_study_are_trials_and_seeds(tmp_path):
    (part,) = parts(source(read_sweep(EMBEDDED)))
    assert part.runs == dict.fromkeys((4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), 5 + 8)


@pytest.mark.parametrize(
    ("budget", "epochs", "most", "steps"),
    [
        ((600, 60_000), None, -1, 937.5),  # both must be spent
        ((2000, 60_000), None, -1, 2000),
        ((None, None), 10, -1, 1562.5),
        ((600, 60_000), None, 100, 100),
        ((None, None), None, -1, math.inf),
    ],
)
def test_a_run_ends_where_its_first_limit_is(budget, epochs, most, steps):
    rules = {"budget_steps": budget[0], "budget_examples": budget[1], "stop": True}
    settings = {"convergence": rules, "data": {"init_args": {"epochs": epochs}}, "trainer": {"max_steps": most}}
    assert most_steps(settings, 64, 10_000) == steps


def test_a_dry_run_tells_the_hours_of_a_study_and_for_each_task_of_an_array(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(forecast, "measured_speed", lambda args, size: Speed(0.001, 0.0001, 10_000))
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    assert main([str(EMBEDDED), "--runs", str(tmp_path), "--dry-run", "--workers", "1"]) == 0
    sweep = yaml.safe_load(EMBEDDED.read_text())["parameters"]
    assert (sweep["convergence.budget_steps"]["value"], sweep["convergence.budget_examples"]["value"]) == (600, 60_000)
    sizes = sweep["data.batch_size"]["values"]
    hours = sum(13 * max(600, 60_000 / size) * (0.001 + 0.0001 * size) for size in sizes) / 3600
    said = capsys.readouterr().err
    assert f"about 130 runs, at most {hours:.3g} hours of one cpu, {hours / 4:.3g} hours on 4 at once" in said


def test_the_speed_is_measured_with_real_steps_and_a_missing_data_set_is_said(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    assert main([str(path), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    assert "tiny: 2 runs, at most" in capsys.readouterr().err
    paper = "configs/sweeps/golmant_fig1_classification/paper.yaml"
    assert main([paper, "--runs", str(tmp_path / "runs"), "--dry-run", "--", "--data.root=/nowhere"]) == 0
    assert "its cost cannot be measured here: " in capsys.readouterr().err
