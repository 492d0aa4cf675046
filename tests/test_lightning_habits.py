"""What people are used to from Lightning works here, or is refused in words (tests/helpers/hostile.py)."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.__main__ import main
from tasks.report.analysis.curves import arm
from tests.helpers.made_up import run

FLAGS = ["--config", "docs/examples/waves.yaml", "--data.variant.examples", "64", "--trainer.max_steps", "2"]


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
