"""What people are used to from Lightning works here, or is refused in words (tests/helpers/hostile.py)."""

import csv
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import SimpleNamespace

import pytest
import torch

from callbacks.begin_from import BeginFrom
from callbacks.record import read_record
from tasks.__main__ import main
from tasks.optim.lamb import LAMB
from tasks.report.analysis.curves import arm
from tests.helpers.made_up import run

WAVES = "docs/examples/waves.yaml"
FLAGS = ["--config", WAVES, "--data.variant.examples", "64", "--trainer.max_steps", "2"]


def fit(root: Path, *flags: str) -> list[str]:
    """The names of the files that a fit leaves."""
    assert main(["fit", *FLAGS, "--trainer.default_root_dir", str(root), "--progress.show", "false", *flags]) == 0
    return [path.name for path in root.rglob("*") if path.is_file()]


def test_a_model_checkpoint_is_kept_beside_the_run_s_own(tmp_path):
    place = f"--trainer.callbacks.dirpath={tmp_path / 'mine'}"
    fit(tmp_path, "--trainer.callbacks+=ModelCheckpoint", place, "--trainer.callbacks.monitor=val/loss")
    assert len(list((tmp_path / "mine").glob("*.ckpt"))) == 1
    assert len(list(tmp_path.glob("*/*/checkpoints/final.ckpt"))) == 1


def test_a_csv_logger_with_a_rate_monitor_gets_every_evaluation(tmp_path):
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    assert "metrics.csv" in fit(tmp_path, *logger, "--trainer.callbacks+=LearningRateMonitor")


def only(root: Path, name: str) -> Path:
    (path,) = root.rglob(name)
    return path


def curve(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(only(root, "curve.csv").read_text().splitlines()))


def test_a_run_begins_from_a_checkpoint_s_weights_and_momentum_and_is_another_run(tmp_path, capsys):
    fit(tmp_path / "a", "--evaluation.first=1", "--evaluation.ratio=1.01")
    checkpoint = only(tmp_path / "a", "final.ckpt")
    begin = ["--ckpt_path", str(checkpoint), "--evaluation.first=1", "--evaluation.ratio=1.01"]
    fit(tmp_path / "b", *begin)
    first, later = curve(tmp_path / "a"), curve(tmp_path / "b")
    assert later[0]["step"] == "0"
    assert later[0]["val/loss"] == first[-1]["val/loss"]  # where the other run ended
    record, other = (read_record(only(tmp_path / name, "record.json")) for name in "ba")
    assert record.settings["run"]["begun_from"] == sha256(checkpoint.read_bytes()).hexdigest()[:16]
    assert "begun_from" not in other.settings["run"]
    assert arm(record) != arm(other)
    assert main(["fit", *FLAGS, *begin, f"--trainer.default_root_dir={tmp_path / 'b'}", "--progress.show=false"]) == 0
    assert "holds this run, finished" in capsys.readouterr().err
    assert main(["test", "--config", WAVES, "--config", str(only(tmp_path / "b", "config.yaml"))]) == 0
    assert f"{record.test['test/loss']:.6g}" in capsys.readouterr().out  # of its own end, not of its beginning


def test_a_modelcheckpoint_s_file_serves_too_and_the_momentum_in_it_counts(tmp_path):
    keep = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={tmp_path / 'mine'}"]
    fit(tmp_path / "a", *keep, "--trainer.callbacks.monitor=val/loss")
    (checkpoint,) = (tmp_path / "mine").glob("*.ckpt")
    held = torch.load(checkpoint, weights_only=True)
    held["optimizer_states"][0]["state"] = {}
    torch.save(held, tmp_path / "bare.ckpt")
    fit(tmp_path / "with", "--ckpt_path", str(checkpoint))
    fit(tmp_path / "without", "--ckpt_path", str(tmp_path / "bare.ckpt"))
    ends = [read_record(only(tmp_path / name, "record.json")).final["val/loss"] for name in ("with", "without")]
    assert ends[0] != ends[1]


def test_the_step_by_which_lamb_corrects_its_averages_comes_with_them():
    def made(layer_adaptation=False):
        weight = torch.nn.Parameter(torch.zeros(3))
        return weight, LAMB([weight], lr=0.1, weight_decay=0.0, layer_adaptation=layer_adaptation)

    def steps(weight, optimizer, n):
        for _ in range(n):
            weight.grad = torch.full_like(weight, 2.0)
            optimizer.step()

    weight, optimizer = made()
    steps(weight, optimizer, 50)
    network = torch.nn.ParameterList([weight.detach()])
    held = {"state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}
    fresh, other = made()
    held["optimizer_states"] = [optimizer.state_dict()]
    task = SimpleNamespace(sharded=False, network=torch.nn.ParameterList([fresh]), optimizer=other)
    with NamedTemporaryFile(suffix=".ckpt") as file:
        torch.save(held, file.name)
        BeginFrom(Path(file.name)).on_fit_start(None, task)
    before = fresh.detach().clone()
    steps(fresh, other, 3)
    assert torch.allclose(before - fresh, torch.full((3,), 0.3))  # of a constant gradient every step is lr long


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.optimizer=torch.optim.AdamW"], "of another optimizer"),
        (["--model.decay_norm_bias=false"], "groups of parameters, this run"),
        (["--model.network.width=8"], "of another network"),
        (["--run.name=a"], "is of this very run: leave it out"),
        (["--run.begun_from=0123"], "this run began from 0123: give that one"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_words(tmp_path, capfd, flags, words):
    fit(tmp_path, "--run.name=a")
    begin = [*FLAGS, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path", str(only(tmp_path, "final.ckpt"))]
    assert main(["fit", *begin, "--run.name=b", *flags]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line


def test_a_tensorboard_logger_writes_its_events_or_names_what_to_install(tmp_path, capfd):
    logger = ["--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path / 'tb'}"]
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        fit(tmp_path, *logger, "--trainer.callbacks+=LearningRateMonitor")
        assert only(tmp_path / "tb", "events.out.tfevents.*").stat().st_size > 100
    else:
        assert main(["fit", *FLAGS, f"--trainer.default_root_dir={tmp_path}", *logger]) == 2
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
        assert "pip install tensorboardX" in line


def test_a_profiler_s_table_is_printed(tmp_path, capsys):
    fit(tmp_path, "--trainer.profiler=simple", "--trainer.devices=auto")
    assert "Profiler Report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("callback", "same"),
    [("mine.Noise", False), ("callbacks.cost.Cost", True), ("pytorch_lightning.callbacks.X", True)],
)
def test_runs_with_a_foreign_callback_are_another_arm(callback, same):
    record = run([], 16, 1).record
    settings = {"trainer": {"callbacks": [{"class_path": callback, "init_args": {"size": 1}}]}}
    assert (arm(record) == arm(replace(record, settings=settings))) == same
