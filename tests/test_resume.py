"""A run that was cut off goes on as if nothing had happened: bit for bit."""

import copy
import json
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from callbacks.convergence_detector import ConvergenceDetector, Target
from callbacks.rolling_checkpoint import FINAL, RollingCheckpoint, checkpoints
from tasks.__main__ import main
from tests.helpers import processes
from tests.helpers.networks import NETWORKS
from tests.helpers.outcome import assert_same
from tests.helpers.tiny import TASKS, Tiny, fit, weights

STEPS = 14
LONG = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(name, directory, ckpt_path=None, steps=STEPS, epoch_end="wrap"):
    kind, network = NETWORKS[name]
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    task = TASKS[kind](network=network, optimizer=optimizer, micro_batch_size=3, lr_scaling="sqrt", base_batch_size=4)
    detector = ConvergenceDetector([Target("val/loss", "min", 0.0)])
    rolling = RollingCheckpoint(minutes=0, keep=100)
    rolling.directory = directory
    data = Tiny(kind, batch_size=5, epoch_end=epoch_end)
    fit(task, data, steps, callbacks=(detector, rolling), ckpt_path=ckpt_path, precision="32-true")
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in detector.rows]
    return weights(task), copy.deepcopy(task.optimizers(use_pl_optimizer=False).state_dict()), rows


@pytest.mark.parametrize("epoch_end", ["wrap", "keep"])
@pytest.mark.parametrize("name", ["simple cnn, dropout", "lstm, dropout"])
def test_every_checkpoint_leads_to_the_same_end(tmp_path, name, epoch_end):
    expected, optimizer, rows = start(name, tmp_path / "whole", epoch_end=epoch_end)
    found = checkpoints(tmp_path / "whole")
    assert [int(c.stem[5:]) for c in found] == list(range(STEPS, 0, -1))
    for checkpoint in found[1:]:
        got, state, curve = start(name, tmp_path / checkpoint.stem, str(checkpoint), epoch_end=epoch_end)
        assert torch.equal(got, expected), checkpoint
        assert curve == rows, checkpoint
        torch.testing.assert_close(state, optimizer, rtol=0, atol=0)


def test_a_fixed_number_is_kept_and_none_is_partial(tmp_path):
    task = TASKS["images"](network=NETWORKS["lenet"][1], optimizer=partial(torch.optim.SGD, lr=0.1))
    rolling = RollingCheckpoint(minutes=0, keep=2)
    rolling.directory = tmp_path
    fit(task, Tiny(side=16, batch_size=5), 6, callbacks=(ConvergenceDetector(), rolling))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [FINAL, "step=5.ckpt", "step=6.ckpt"]


def test_checkpoints_are_written_by_time_not_by_step(tmp_path):
    task = TASKS["images"](network=NETWORKS["lenet"][1], optimizer=partial(torch.optim.SGD, lr=0.1))
    rolling = RollingCheckpoint(minutes=10, keep=2)
    rolling.directory = tmp_path
    fit(task, Tiny(side=16, batch_size=5), 6, callbacks=(ConvergenceDetector(), rolling))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [FINAL]


def cli(root: Path, *flags: str) -> list[str]:
    settings = ["--trainer.default_root_dir", str(root), "--progress.show", "false", "--trainer.accelerator", "cpu"]
    settings += ["--data.variant.examples", "300", "--checkpoint.minutes", "0", "--run.name", "run"]
    settings += ["--evaluation.first", "1", *flags]
    return ["fit", "--config", "configs/image_classification/fashion_mnist.yaml", *settings]


def test_a_torn_or_foreign_checkpoint_is_passed_over(tmp_path, capsys, monkeypatch):
    steps = ["--trainer.max_steps", "9"]
    assert main(cli(tmp_path / "whole", *steps)) == 0
    assert main(cli(tmp_path / "foreign", *steps, "--seed_everything", "5")) == 0
    monkeypatch.setattr(ConvergenceDetector, "on_validation_end", interrupt_at(7))
    assert main(cli(tmp_path / "cut", *steps)) == 1
    monkeypatch.undo()
    newest, older = checkpoints(tmp_path / "cut" / "fashion_mnist" / "run")
    torn = newest.with_name("step=8.ckpt")
    torn.write_bytes(newest.read_bytes()[:-500])
    (tmp_path / "foreign" / "fashion_mnist" / "run" / "checkpoints" / FINAL).rename(newest)
    capsys.readouterr()
    assert main(cli(tmp_path / "cut", *steps)) == 0
    said = capsys.readouterr().err
    assert f"{torn} is no whole checkpoint" in said
    assert f"{newest} belongs to a run of another config" in said
    assert f"resuming from {older}" in said
    assert_same(tmp_path / "cut", tmp_path / "whole")


def interrupt_at(step: int):
    original = ConvergenceDetector.on_validation_end

    def hook(self, trainer, task):
        original(self, trainer, task)
        if trainer.global_step >= step:
            raise RuntimeError("the plug was pulled")

    return hook


def written(root: Path) -> list[int]:
    """When the run's record was last written, nothing before the first time."""
    return [record.stat().st_mtime_ns for record in root.glob("*/run/record.json")]


def kill_at_random_moments(root: Path, kills: int, ranks: int, flags: list[str]) -> int:
    """Start the command again and again, killing it at random moments; its last, undisturbed exit status."""
    draw, log = random.Random(kills), root.with_suffix(".log")
    for _ in range(kills):
        process = processes.begin(cli(root, *flags), log, ranks=ranks)
        begun = written(root)
        while process.is_alive() and written(root) == begun:  # until training has begun, then a little more
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.7))
        processes.kill(process)
    return processes.run(cli(root, *flags), log, ranks=ranks)


@pytest.mark.parametrize(
    ("kills", "ranks"),
    [(3, 1), pytest.param(30, 1, marks=LONG), pytest.param(10, 2, marks=LONG)],
)
def test_killed_and_started_again_it_ends_the_same(tmp_path, kills, ranks):
    steps = str(200 * kills)  # long enough that no kill comes after the end
    flags = ["--trainer.max_steps", steps, "--evaluation.ratio", "1.5", "--convergence.stop", "false"]
    flags += ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp"] if ranks > 1 else []
    assert processes.run(cli(tmp_path / "whole", *flags), tmp_path / "whole.log", ranks=ranks) == 0
    assert kill_at_random_moments(tmp_path / "cut", kills, ranks, flags) == 0
    assert_same(tmp_path / "cut", tmp_path / "whole")
    resumed = json.loads(next(iter((tmp_path / "cut").glob("*/run/record.json"))).read_text())["resumes"]
    assert resumed == kills


@pytest.mark.parametrize(("signal_", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_its_exit_status(tmp_path, signal_, status):
    flags = ["--trainer.max_steps", "100000", "--convergence.stop", "false", "--checkpoint.minutes", "60"]
    process = processes.begin(cli(tmp_path, *flags), tmp_path / "log")
    processes.wait_until(lambda: written(tmp_path))
    time.sleep(1)
    processes.send(process, signal_)
    process.join(60)
    assert process.exitcode == status
    (directory,) = tmp_path.glob("*/run")
    record = json.loads((directory / "record.json").read_text())
    assert (record["status"], record["stopped_by"]) == ("running", "interrupt")
    at = int(checkpoints(directory)[0].stem[5:])
    assert at >= record["final"]["step"]
    process = processes.begin(cli(tmp_path, *flags), tmp_path / "log")
    processes.wait_until(lambda: f"resuming from {checkpoints(directory)[0]}" in (tmp_path / "log").read_text())
    assert f"step={at}.ckpt" in (tmp_path / "log").read_text()
    processes.kill(process)
