"""The real command line, in process: a run from config to record, its end, and one sentence for each mistake."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.run_record import peak_memory, reset_peak_memory
from tasks.__main__ import main
from tasks.cli import keep_freed_memory
from tests.fake_runs import make_run

FASHION = "configs/image_classification/fashion_mnist.yaml"
SCENES = "configs/segmentation/scenes.yaml"
SPEECHES = "configs/language_modeling/state_of_the_union.yaml"
SMALL = {
    FASHION: ["--data.variant.examples", "300"],
    SCENES: ["--data.train", "30", "--data.val", "10", "--data.test", "10", "--data.canvas", "32"],
    SPEECHES: ["--data.variant.examples", "200", "--data.min_freq", "200"],
}


def fit(root: Path, config: str, *flags: str) -> int:
    small = ["--trainer.default_root_dir", str(root), "--progress.show", "false", *SMALL[config]]
    return main(["fit", "--config", config, *small, "--trainer.accelerator", "cpu", *flags])


def only(root: Path, name: str) -> Path:
    (found,) = root.glob(f"*/*/{name}")
    return found


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
    keep_freed_memory()
    reset_peak_memory()
    before = peak_memory(torch.device("cpu"))
    pieces = [torch.ones(2**20) for _ in range(64)]
    assert peak_memory(torch.device("cpu")) > before + 200 * 2**20
    del pieces
    reset_peak_memory()
    assert peak_memory(torch.device("cpu")) < before + 50 * 2**20


def test_peak_memory_is_that_of_the_whole_run_though_resumed(tmp_path):
    (tmp_path / "fashion_mnist" / "cut").mkdir(parents=True)
    make_run(tmp_path / "made" / "cut", 10, 4, 1, cost={"peak_memory_bytes": 10**14}, resumes=1, ended=None)
    (tmp_path / "made" / "cut" / "record.json").rename(tmp_path / "fashion_mnist" / "cut" / "record.json")
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "1", "--run.name", "cut") == 0
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
    assert record["final"]["trainset/loss"] in ("nan", "inf")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data.batch_sizee", "3"], "data.batch_sizee"),
        (["--nonsense", "3"], "--nonsense"),
        (["--model.optimizer.lrr", "3"], "model.optimizer.lrr"),
        (["--data.batch_size", "abc"], "data.batch_size: Expected a <class 'int'>"),
        (["--data.batch_size", "0"], "data.batch_size is 0: give at least 1"),
        (["--data.batch_size", "-4"], "data.batch_size is -4: give at least 1"),
        (["--data.batch_size", "301"], "the training set has 300 examples"),
        (["--model.micro_batch_size", "0"], "model.micro_batch_size is 0: give at least 1"),
        (["--model.lr_scaling", "cubic"], "model.lr_scaling"),
        (["--model.lr_scaling", "linear", "--model.base_batch_size", "null"], "needs model.base_batch_size"),
        (["--model.schedule", "Cosine", "--trainer.max_steps", "-1"], "needs the run's length"),
        (["--model.warmup", "a while"], "is no duration"),
        (
            ["--convergence.targets", "[{metric: val/miou, direction: max, value: 1}]"],
            "choose among val/loss, val/accuracy, trainset/loss, trainset/accuracy",
        ),
        (["--convergence.targets", "[{metric: val/loss, value: 0.5}]"], "is not a target: give metric, direction"),
        (["--convergence.targets", "[{metric: val/loss, direction: min}]"], "give either value or plateau"),
        (["--convergence.targets", "[{metric: val/loss, direction: up, value: 1}]"], "is max or min, not up"),
        (["--convergence.targets", "[{metric: val/loss, direction: min, value: low}]"], "is not a target"),
        (["--trainer.max_steps", "0"], "trainer.max_steps is 0: give at least 1"),
        (["--convergence.budget_steps", "0", "--convergence.budget_examples", "-5"], "is at least 1"),
        (["--seed_everything", "-1"], "seed_everything: -1 is not in bounds"),
        (["--model.clip_norm", "-1"], "model.clip_norm is -1.0: give more than 0"),
        (["--model.label_smoothing", "2"], "model.label_smoothing is 2.0: give 0 to"),
        (["--data.root", "/nope"], "/nope"),
        (["--trainer.accelerator", "gpu"], "--trainer.accelerator=cpu"),
        (["--trainer.accumulate_grad_batches", "2"], "use model.micro_batch_size"),
        (["--trainer.gradient_clip_val", "1.0"], "use model.clip_norm"),
        (["--trainer.max_epochs", "3"], "use data.epochs"),
        (["--trainer.val_check_interval", "0.5"], "use evaluation.ratio"),
        (["--trainer.precision", "16-mixed"], "use bf16-mixed"),
        (["--config", "nofile.yaml"], "nofile.yaml"),
        (["--model.network", "CifarResNet", "--model.network.norm", "batch"], "set model.ghost_batch_size"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_a_mistake_ends_with_one_sentence(tmp_path, capsys, flags, said):
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "1", *flags) == 2
    printed = capsys.readouterr()
    lines = [line for line in (printed.out + printed.err).splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]


def test_a_broken_yaml_and_a_truncated_data_file_are_named(tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert main(["fit", "--config", str(broken)]) == 2
    assert "config" in capsys.readouterr().err
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
    assert f"holds a damaged {name}" in (said := capsys.readouterr().err)
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
