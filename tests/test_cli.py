"""The real command line, in process: a run from config to record, its end, and one sentence for each mistake."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.run_record import peak_memory, reset_peak_memory
from tasks.__main__ import main
from tasks.process import disable_malloc_trim
from tests.helpers.command_line import FASHION, SCENES, SPEECHES, fit, only


@pytest.mark.parametrize(
    ("config", "metric"), [(FASHION, "accuracy"), (SCENES, "miou"), (SPEECHES, "perplexity")], ids=Path
)
def test_a_run_leaves_a_whole_record(tmp_path, config, metric):
    far = f"[{{metric: val/{metric}, direction: max, value: 1e9}}]"
    flags = ["--trainer.max_steps", "5", "--data.batch_size", "4", "--seed_everything", "3", "--evaluation.first", "1"]
    assert fit(tmp_path, config, *flags, "--convergence.targets", far) == 0
    record = json.loads(only(tmp_path, "record.json").read_text())
    assert record["version"] == 2
    assert (record["status"], record["stopped_by"], record["seed"]) == ("budget", "end", 3)
    assert record["batch"]["size"] == 4
    assert record["targets"][0]["status"] == "budget"
    assert record["final"]["step"] == 5
    assert record["final"]["examples"] == 20
    assert {"test/loss", f"test/{metric}"} == set(record["test"])
    assert record["cost"]["peak_memory_bytes"] > 10**8
    rows = list(csv.DictReader(only(tmp_path, "curve.csv").read_text().splitlines()))
    assert [int(r["step"]) for r in rows] == [0, 1, 2, 3, 4, 5]
    assert {"trainset/loss", "val/loss", f"trainset/{metric}", f"val/{metric}", "lr", "epoch"} <= set(rows[0])
    assert rows[0]["train/loss"] == ""
    assert float(rows[-1][f"val/{metric}"]) == record["final"][f"val/{metric}"]


def test_peak_memory_is_this_runs_alone():
    disable_malloc_trim()
    reset_peak_memory()
    before = peak_memory(torch.device("cpu"))
    pieces = [torch.ones(2**20) for _ in range(64)]
    assert peak_memory(torch.device("cpu")) > before + 200 * 2**20
    del pieces
    reset_peak_memory()
    assert peak_memory(torch.device("cpu")) < before + 50 * 2**20


def test_peak_memory_is_that_of_the_whole_run_though_resumed(tmp_path):
    flags = ["--trainer.max_steps", "1", "--run.name", "cut"]
    assert fit(tmp_path, FASHION, *flags) == 0
    record = json.loads(only(tmp_path, "record.json").read_text())
    cut = record | {"ended": None, "resumes": 1, "cost": {"peak_memory_bytes": 10**14}}
    only(tmp_path, "record.json").write_text(json.dumps(cut))
    assert fit(tmp_path, FASHION, *flags) == 0
    record = json.loads(only(tmp_path, "record.json").read_text())
    assert (record["cost"]["peak_memory_bytes"], record["resumes"]) == (10**14, 2)


def test_a_run_refits_from_its_own_config(tmp_path):
    flags = ["--trainer.max_steps", "4", "--data.batch_size", "7", "--model.lr_scaling", "linear"]
    assert fit(tmp_path / "a", FASHION, *flags) == 0
    config = only(tmp_path / "a", "config.yaml")
    assert main(["fit", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / "b")]) == 0
    one, other = (only(tmp_path / root, "curve.csv").read_text().splitlines() for root in "ab")
    seconds = one[0].split(",").index("seconds")
    plain = [[v for i, v in enumerate(line.split(",")) if i != seconds] for line in one]
    assert plain == [[v for i, v in enumerate(line.split(",")) if i != seconds] for line in other]
    rate = json.loads(only(tmp_path / "b", "record.json").read_text())["rate"]
    assert rate["effective"] == pytest.approx(0.01 * 7 / 16)


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "2") == 0
    record = only(tmp_path, "record.json").read_text()
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "2") == 0
    assert "holds this run, finished: budget at step 2" in capsys.readouterr().err
    assert only(tmp_path, "record.json").read_text() == record


def test_a_run_that_was_past_its_target_too_late_says_so(tmp_path, capsys):
    target = "[{metric: val/loss, direction: min, value: 2.2}]"
    flags = ["--evaluation.first", "1", "--convergence.budget_examples", "1", "--convergence.targets", target]
    assert fit(tmp_path / "late", FASHION, *flags, "--convergence.budget_steps", "11") == 0
    assert "past its target in val/loss, but the budget was spent" in capsys.readouterr().err
    assert fit(tmp_path / "in time", FASHION, *flags, "--convergence.budget_steps", "100") == 0
    assert "past its target" not in capsys.readouterr().err


def test_validate_test_and_predict_read_the_run_s_checkpoint(tmp_path, capsys):
    assert fit(tmp_path, SCENES, "--trainer.max_steps", "2") == 0
    config = ["--config", str(only(tmp_path, "config.yaml"))]
    record = json.loads(only(tmp_path, "record.json").read_text())
    for verb, metric, value in (
        ("validate", "val/loss", record["final"]["val/loss"]),
        ("test", "test/loss", record["test"]["test/loss"]),
    ):
        capsys.readouterr()
        assert main([verb, *config]) == 0
        printed = capsys.readouterr().out
        assert metric in printed
        assert f"{value:.6g}" in printed
    assert main(["predict", *config]) == 0
    import numpy as np

    predictions = np.load(only(tmp_path, "predictions-0.npz"))
    assert predictions["prediction"].shape == (10, 32, 32)
    assert predictions["index"].tolist() == list(range(10))


def test_a_diverged_run_is_a_result(tmp_path):
    assert fit(tmp_path, FASHION, "--model.optimizer.lr", "1e30", "--trainer.max_steps", "50") == 0
    record = json.loads(only(tmp_path, "record.json").read_text())
    assert (record["status"], record["targets"][0]["status"], record["test"]) == ("diverged", "diverged", None)
    assert record["final"]["val/loss"] in ("nan", "inf")


def test_a_broken_yaml_and_a_truncated_data_file_are_named(tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert main(["fit", "--config", str(broken)]) == 2
    assert f"{broken} is not YAML" in capsys.readouterr().err
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    assert fit(tmp_path, FASHION, "--data.root", str(tmp_path)) == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["record.json", "config.yaml"])
def test_a_damaged_run_directory_is_named(tmp_path, capsys, name):
    flags = ["--trainer.max_steps", "1", "--run.name", "mine"]
    assert fit(tmp_path, FASHION, *flags) == 0
    only(tmp_path, name).write_text('{"a": [')
    capsys.readouterr()
    assert fit(tmp_path, FASHION, *flags) == 2
    assert "holds a damaged record.json or config.yaml" in (said := capsys.readouterr().err)
    assert "delete that directory, or give another --run.name" in said


def test_another_run_s_directory_is_refused(tmp_path, capsys):
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "1", "--run.name", "mine") == 0
    capsys.readouterr()
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "2", "--run.name", "mine") == 2
    assert "differs in trainer.max_steps (1 there, 2 here): give another --run.name" in capsys.readouterr().err


def test_flags_win_over_files_wherever_they_stand(tmp_path):
    flags = ["--data.batch_size", "3", "--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "1"]
    assert main(["fit", *flags, "--config", FASHION, "--progress.show", "false"]) == 0
    assert yaml.safe_load(only(tmp_path, "config.yaml").read_text())["data"]["init_args"]["batch_size"] == 3


def test_help_and_unknown_verbs(capsys):
    assert main([]) == 0
    assert "sweep" in capsys.readouterr().out
    assert main(["train"]) == 2
    assert "choose among fit, validate" in capsys.readouterr().err
