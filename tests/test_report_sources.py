"""Sources that are not run directories: MLPerf's reference points and W&B exports."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from callbacks.run_record import mirrored, outcome
from tasks.report.analysis.critical import critical
from tasks.report.analysis.curves import workloads
from tasks.report.analysis.targets import parse, retarget
from tasks.report.sources.read import GROWING, read_source, read_sources
from tasks.report.sources.runs import Run, read_runs
from tests.helpers.fake_runs import make_run

MLPERF = Path(__file__).parents[2] / "shared" / "data" / "mlperf_rcp"
needs_mlperf = pytest.mark.skipif(not MLPERF.exists(), reason="the reference files lie beside the project")


def reference(size: int, values: list[float]) -> dict:
    return {"Benchmark": "bert", "Creator": "A", "BS": size, "Hyperparams": {}, "Epochs to converge": values}


def mlperf_curve(name: str):
    runs, left_out = read_sources([MLPERF / f"rcps_{name}.json"])
    assert not left_out
    (workload,) = workloads(runs)
    (curve,) = workload.curves
    return curve


def test_mlperf_points_become_runs_with_the_resolution_of_their_unit(tmp_path):
    content = {
        "a": reference(8, [64_000, 72_000, 80_000]),
        "b": reference(0, [1]),
        "c": reference(8, [20, 30]),
    }
    (tmp_path / "r.json").write_text(json.dumps(content))
    runs, left_out = read_source(tmp_path / "r.json")
    ends = [(56_000, 64_000), (64_000, 72_000), (72_000, 80_000)]
    known, nominal = runs[:3], runs[3:]
    assert [r.hits[0].at("examples") for r in known] == pytest.approx([math.sqrt(low * high) for low, high in ends])
    assert [r.hits[0].resolution for r in known] == pytest.approx([high / low for low, high in ends])
    assert runs[0].hits[0].at("steps") == pytest.approx(math.sqrt(7000 * 8000))
    assert [path.split(": ")[-1] for path, _ in left_out] == ["b"]
    assert all(r.hits[0].nominal and "counted as 1,000,000" in r.record.data.name for r in nominal)
    absolute = read_source(tmp_path / "r.json", {content["c"]["Benchmark"]: 500})[0][3:]
    assert not any(r.hits[0].nominal for r in absolute)
    assert absolute[0].hits[0].at("examples") == pytest.approx(nominal[0].hits[0].at("examples") / 2_000)


def test_runs_whose_batch_grows_are_left_out_by_name(tmp_path):
    stages = [{"first_step": 0, "batch_size": 16}, {"first_step": 50, "batch_size": 64}]
    for seed, growth in ((0, None), (1, None), (2, stages)):
        make_run(tmp_path / f"s{seed}", 100, 16, seed, data__growth=growth)
    runs, left_out = read_sources([tmp_path])
    (curve,) = workloads(runs)[0].curves
    assert [o.seed for o in curve.points[0].observations] == [0, 1]
    assert left_out == [(str(tmp_path / "s2"), GROWING)]


@needs_mlperf
def test_a_folder_of_files_is_read_as_they_are():
    files = [MLPERF / f"rcps_{name}.json" for name in ("bert", "resnet", "unet3d")]
    together, apart = read_sources([MLPERF])[0], read_sources(files)[0]
    assert [run.source for run in together] == [run.source for run in apart]


@needs_mlperf
@pytest.mark.parametrize(("name", "known"), [("resnet", 45_800), ("bert", 12_700), ("unet3d", 232)])
def test_the_hyperbola_agrees_with_an_independent_fit(name, known):
    found = critical(mlperf_curve(name)).hyperbola
    assert found.low < known < found.high
    if name != "unet3d":
        assert found.value == pytest.approx(known, rel=0.03)


@needs_mlperf
def test_a_critical_batch_size_beyond_the_largest_batch_is_not_identified():
    found = critical(mlperf_curve("unet3d"))
    assert not found.identified
    assert found.b2.high == math.inf
    assert found.hyperbola.value > 84  # the largest batch


@needs_mlperf
def test_mixed_recipes_scatter_between_sizes_more_than_their_seeds_explain():
    mixed, one = critical(mlperf_curve("resnet")), critical(mlperf_curve("unet3d"))
    assert mixed.tau > 5 * math.sqrt(mixed.data.within)
    assert one.tau < 2 * math.sqrt(one.data.within)


@pytest.fixture
def run(tmp_path) -> Run:
    make_run(tmp_path / "runs" / "a", 100, 64, seed=1)
    return read_runs(tmp_path / "runs")[0][0]


def test_a_wandb_table_of_the_suites_runs_has_the_steps_to_each_target(run, tmp_path):
    missed = replace(run.record.targets[0], metric="val/loss", direction="min", status="budget", hit=None)
    records = [run.record, replace(run.record, seed=2, targets=(missed,), status="budget")]
    rows = [{"Name": "n", "State": "finished"} | mirrored(r) | outcome(r) | {"examples": 9_000} for r in records]
    with open(tmp_path / "export.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([rows[0], {name: rows[1].get(name) for name in rows[0]}, {"Name": "foreign"}])
    found, left_out = read_source(tmp_path / "export.csv")
    assert [r.hits[0].label for r in found] == [run.hits[0].label] * 2
    assert [r.hits[0].at("steps") for r in found] == [run.hits[0].at("steps"), math.inf]
    first, same = found[0].record, run.record
    assert (first.study, first.network, first.optimizer.name) == (same.study, same.network, same.optimizer.name)
    assert (first.rate.base, first.rate.effective) == (same.rate.base, same.rate.effective)
    assert [reason for _, reason in left_out] == ["batch_size and seed must be whole numbers"]


@pytest.mark.parametrize("text", ["{", "{}x", '{"a": 1}', "3"])
def test_a_file_that_is_no_source_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    runs, left_out = read_source(tmp_path / "x.json")
    assert not runs
    assert left_out[0][0] == str(tmp_path / "x.json")


def test_the_report_is_logged_as_an_artifact_without_account_or_network(run, tmp_path):
    root = Path(__file__).parents[1]
    out = tmp_path / "report"
    home = {"HOME": str(tmp_path), "WANDB_MODE": "offline", "PATH": os.environ["PATH"]}
    command = ["-m", "tasks", "report", str(tmp_path / "runs"), "--out", str(out), "--wandb"]
    done = subprocess.run([sys.executable, *command], cwd=root, env=home, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("W&B is offline")
    assert done.stdout.strip().endswith(str(out / "report.html"))
    (log,) = out.glob("wandb/offline-run-*/*.wandb")
    inspect = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", str(log)]
    read = subprocess.run(inspect, env=home, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in read.stdout.splitlines() if line.startswith("{")]
    names = [row["artifact"].get("name") for row in rows if row["type"] == "artifact"]
    assert "batch-size-report" in names
    assert any("figures/golmant-1" in json.dumps(row) for row in rows if row["type"] == "history")


def test_anybody_s_wandb_runs_are_placed_by_a_target_without_a_column_of_examples(tmp_path):
    history = [{"_step": k, "trainer/global_step": 10 * k, "val/acc": 0.1 * k} for k in range(1, 30)]
    content = [{"state": "finished", "config": {"batch_size": 32, "seed": 0}, "history": history}]
    (tmp_path / "w.json").write_text(json.dumps(content))
    runs, left_out = read_sources([tmp_path / "w.json"])
    assert not left_out
    (hit,) = retarget(runs, [parse("val/acc >= 0.8")])[0].hits
    assert hit.at("steps") == pytest.approx(80)
    assert hit.at("examples") == pytest.approx(80 * 32)


def test_runs_that_mirror_their_record_to_wandb_are_placed_by_a_target_from_their_history(run, tmp_path):
    curve = run.curve
    history = [
        {"_step": step, "val/accuracy": value, "examples": 64 * step}
        for step, value in zip(curve["step"], curve["val/accuracy"], strict=True)
    ]
    history.append({"_step": curve["step"][-1] + 1})
    config = mirrored(run.record) | {"plan": "h", "stage": "tune"}
    content = [{"name": "r", "state": "finished", "config": config, "summary": {}, "history": history}, "junk"]
    (tmp_path / "export.json").write_text(json.dumps(content))
    (found,), left_out = read_source(tmp_path / "export.json")
    assert len(left_out) == 1
    assert (found.record.network, found.record.stage) == (run.record.network, "tune")
    assert math.isnan(found.curve["val/accuracy"][-1])
    (again,) = retarget([found], [parse("val/accuracy>=0.8")])
    assert again.hits[0].at("steps") == pytest.approx(run.hits[0].at("steps"))
    assert again.batch_size == 64


def test_w_and_b_counts_its_own_rows_and_the_optimizer_s_steps_apart(run, tmp_path):
    history = [{"_step": row, "trainer/global_step": 10 * row, "val/accuracy": 0.1 * row} for row in range(1, 9)]
    content = [{"state": "finished", "config": mirrored(run.record), "history": history}]
    (tmp_path / "export.json").write_text(json.dumps(content))
    (found,), _ = read_source(tmp_path / "export.json")
    assert found.curve["step"][-1] == 80


@pytest.mark.parametrize(
    "broken", [{"config": []}, {"config": "x"}, {"config": {}, "history": [3]}, {"config": {"batch_size": "9" * 400}}]
)
def test_a_broken_w_and_b_run_is_named_and_the_others_are_read(run, tmp_path, broken):
    sound = {"state": "finished", "config": mirrored(run.record), "history": []}
    (tmp_path / "export.json").write_text(json.dumps([sound, broken]))
    runs, left_out = read_source(tmp_path / "export.json")
    assert (len(runs), len(left_out)) == (1, 1)


@pytest.mark.parametrize("broken", [{"Hyperparams": [1]}, {"BS": 10**400}, {"Epochs to converge": [10**400]}])
def test_a_broken_reference_point_is_named_and_the_others_are_read(tmp_path, broken):
    content = {"a": reference(8, [20, 30]), "b": reference(8, [20, 30]) | broken}
    (tmp_path / "r.json").write_text(json.dumps(content))
    runs, left_out = read_source(tmp_path / "r.json")
    assert len(runs) == 2
    assert [path.split(": ")[-1] for path, _ in left_out] == ["b"]
