"""A run's directory: locks, lost and damaged files, flipped bits, full disks, closed pipes; real processes."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from callbacks.rolling_checkpoint import FINAL, checkpoints, damage, newest_whole
from tasks.__main__ import main
from tasks.errors import UserError
from tasks.run_directory import LOCK, claimed
from tests.helpers import processes
from tests.helpers.hostile import CONFIG
from tests.helpers.small_disk import in_a_small_disk

CUT = {"class_path": "tests.helpers.hostile.KillAt"}


@pytest.fixture
def config(tmp_path):
    """The file of a tiny run of 12 steps that keeps a checkpoint of each of the last two."""
    content = CONFIG | {"checkpoint": {"minutes": 0}, "run": {"study": "tiny", "name": "run"}}
    content["trainer"] = {"max_steps": 12, "accelerator": "cpu", "default_root_dir": str(tmp_path), "callbacks": [CUT]}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(content))
    return path


def command(config: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tasks", "fit", "--config", str(config), *flags]


def cut(config: Path) -> Path:
    """Kill the run in its closing test; its directory, with checkpoints of steps 11 and 12."""
    environment = {"KILL_AT": f"9 0 {config.parent / 'marker'} closing test"}
    code = processes.run(["fit", "--config", str(config)], config.with_name("log"), environment)
    assert code == -signal.SIGKILL  # of the whole group
    return config.parent / "tiny" / "run"


def final(run: Path) -> dict:
    return torch.load(run / "checkpoints" / FINAL, weights_only=True)["state_dict"]


def test_a_record_deleted_beside_whole_checkpoints_is_written_anew_in_words(config, capsys):
    run = cut(config)
    before = final(run)
    (run / "record.json").unlink()
    assert main(["fit", "--config", str(config)]) == 0
    assert "holds no record.json: it is written anew from step=12.ckpt" in capsys.readouterr().err
    torch.testing.assert_close(final(run), before, rtol=0, atol=0)
    assert json.loads((run / "record.json").read_text())["ended"]


def test_a_flipped_bit_anywhere_is_passed_over_or_changes_nothing(config, capsys, tmp_path):
    run = cut(config)
    newest, older = checkpoints(run)
    identity = torch.load(newest, weights_only=True)["callbacks"]["RollingCheckpoint"]["identity"]
    whole, content, draw = torch.load(newest, weights_only=True), newest.read_bytes(), random.Random(0)
    found = 0
    for _ in range(150):
        bit = draw.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(flipped)
        chosen, said = newest_whole(run, identity)
        if chosen == older:
            found += 1
            assert f"{newest} is no whole checkpoint" in said[0]
        else:  # in what no reader looks at, as the filling between the parts
            held = torch.load(newest, weights_only=True)
            for part in ("state_dict", "optimizer_states", "loops"):
                torch.testing.assert_close(held[part], whole[part], rtol=0, atol=0)
            assert held["callbacks"] == whole["callbacks"]
    assert found > 75
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    newest.write_bytes(flipped)
    assert "checksum" in damage(newest)
    capsys.readouterr()
    assert main(["fit", "--config", str(config)]) == 0
    said = capsys.readouterr().err
    assert f"{newest} is no whole checkpoint (the checksum of its part" in said
    assert f"resuming from {older}" in said
    torch.testing.assert_close(final(run), whole["state_dict"], rtol=0, atol=0)
    (run / "checkpoints" / FINAL).write_bytes(flipped)
    assert main(["test", "--config", str(config)]) == 2
    assert f"{FINAL} is no whole checkpoint" in capsys.readouterr().err


def test_stray_files_and_folders_beside_checkpoints_are_left_alone(config):
    folder = cut(config) / "checkpoints"
    (folder / "step=abc.ckpt").write_text("a note")
    (folder / "step=99.ckpt").mkdir()
    assert main(["fit", "--config", str(config)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [FINAL, "step=99.ckpt", "step=abc.ckpt"]


def test_a_directory_is_trained_by_one_process_at_a_time(config, capsys, tmp_path):
    long = ["--trainer.max_steps", "1000000", "--convergence.stop", "false", "--checkpoint.minutes", "60"]
    first = processes.begin(["fit", "--config", str(config), *long], tmp_path / "log")
    run = tmp_path / "tiny" / "run"
    processes.wait_until((run / "record.json").exists)
    assert main(["fit", "--config", str(config), *long]) == 2
    said = capsys.readouterr().err
    assert f"{run} is being trained by {(run / LOCK).read_text()}: wait" in said
    assert first.is_alive()
    processes.kill(first)
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "step=3.ckpt.77.part").write_text("torn")
    with claimed(run):  # the system has freed the lock
        assert not list(run.rglob("*.part"))
        with pytest.raises(UserError, match=f"being trained by process {os.getpid()}"), claimed(run):
            pass
    with claimed(run):
        pass


def test_a_run_that_never_began_leaves_no_directory(tmp_path, config):
    assert main(["fit", "--config", str(config), "--data.batch_size", "0"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_a_checkpoint_is_data_and_runs_no_code(config, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    assert main(["fit", "--config", str(config)]) == 0
    torch.save({"state_dict": Evil()}, tmp_path / "given.ckpt")
    assert main(["test", "--config", str(config), "--ckpt_path", str(tmp_path / "given.ckpt")]) == 2
    assert not (tmp_path / "evil").exists()


STREAMS = {  # what is behind the standard streams: the shell's words for it
    "a closed pipe": "({fit}; echo $? > {status}) 2>&1 | head -1",
    "a closed stderr": "{fit} 2>&-; echo $? > {status}",
    "both closed": "{fit} >&- 2>&-; echo $? > {status}",
    "a full device": "{fit} > /dev/full 2>&1; echo $? > {status}",
}


@pytest.mark.parametrize(
    "case",
    [name if "pipe" in name or "both" in name else pytest.param(name, marks=pytest.mark.slow) for name in STREAMS],
)
def test_no_standard_stream_ends_a_run(config, tmp_path, case):
    fit = " ".join(command(config, "--progress.every", "0.001"))
    script = STREAMS[case].format(fit=fit, status=tmp_path / "status")
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert (tmp_path / "status").read_text() == "0\n", done.stderr
    assert json.loads((tmp_path / "tiny" / "run" / "record.json").read_text())["status"] == "budget"
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stdout + done.stderr


def test_a_full_disk_ends_in_a_sentence_and_the_same_command_goes_on(config, tmp_path):
    disk = tmp_path / "disk"
    fit = " ".join(command(config, "--trainer.default_root_dir", str(disk), "--progress.show", "false"))
    steps = [f"head -c 270k /dev/zero > {disk}/hog", fit, "echo first $?", f"rm {disk}/hog"]
    steps += [f"mount -o remount,size=9m {disk}", fit, "echo then $?"]
    done = in_a_small_disk(disk, "300k", "; ".join(steps))
    assert "first 1" in done.stdout, done.stderr
    assert "then 0" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the same command goes on" in errors[0]


def test_too_little_memory_ends_in_a_sentence(config):
    fit = " ".join(command(config, "--data.n", "60000000", "--progress.show", "false"))
    done = subprocess.run(["bash", "-c", f"ulimit -v 9000000; {fit}"], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "error: out of memory: give a smaller model.micro_batch_size, or more memory" in done.stderr
    assert "Traceback" not in done.stderr
