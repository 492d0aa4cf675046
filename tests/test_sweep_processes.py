"""Sweeps of real runs in real processes: bad ends, two sweeps at once, kills, Ctrl-C, and the speed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tasks.sweep.command import main
from tasks.sweep.ledger import ATTEMPTS
from tests.hostile import write_sweep

ROOT = Path(__file__).parent.parent


def records(runs):
    """Every finished run's record, by its directory's name."""
    return {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/*/record.json")}


def test_bad_ends_do_not_take_the_sweep_down_and_ended_cells_stay_ended(tmp_path, capfd):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    fates = ["fine", "raise", "kill"]
    path = write_sweep(tmp_path, data__fate=fates, data__journal=[str(journal)], seed_everything=[7])
    command = [str(path), "--runs", str(runs), "--workers", "2"]
    assert main(command) == 1
    out = capfd.readouterr().out
    assert re.search(r"^ *tiny +3/3 +0 +0 +1 +0 +2 +0 *$", out, re.MULTILINE)
    assert "RuntimeError: the disc is on fire" in out
    assert f"signal 9: out of memory?), {ATTEMPTS} times" in out
    [record] = records(runs).values()
    assert (record["status"], record["final"]["step"], record["seed"]) == ("budget", 3, 7)
    assert len(journal.read_text().splitlines()) == 2 + ATTEMPTS  # a killed one is tried again
    assert "the disc is on fire" in "".join(log.read_text() for log in runs.glob("*/*/log.txt"))
    assert main([*command, "--status"]) == main(command) == 1
    assert len(journal.read_text().splitlines()) == 2 + ATTEMPTS  # nothing ran again


def test_a_parameter_that_the_config_does_not_have_is_refused_before_the_first_run(tmp_path, capfd):
    path = write_sweep(tmp_path, seed_everything=[0, 1], data__betch_size=[4])
    assert main([str(path), "--runs", str(tmp_path / "runs"), "--workers", "1"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "betch_size" in errors[0]
    assert not records(tmp_path / "runs")


# slow: minutes of real processes --------------------------------------------------------------------------


def start(path, runs, *options):
    command = [sys.executable, "-m", "tasks", "sweep", str(path), "--runs", str(runs), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def begun(journal):
    return Counter(line.split()[0] for line in journal.read_text().splitlines()) if journal.exists() else Counter()


@pytest.mark.slow
def test_two_sweeps_share_the_cells_and_a_killed_one_s_cells_are_run_by_the_other(tmp_path):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    seeds = list(range(12))
    path = write_sweep(tmp_path, data__fate=["slow"], data__journal=[str(journal)], seed_everything=seeds)
    first, second = (start(path, runs, "--workers", "2") for _ in range(2))
    wait_for(lambda: len(begun(journal)) >= 5)
    first.kill()
    first.communicate(timeout=60)
    lost = time.time()
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert len(records(runs)) == 12
    twice = [seed for seed, count in begun(journal).items() if count > 1]
    assert len(twice) <= 2  # only what the killed one was at
    assert max(begun(journal).values()) <= 2
    for seed in twice:
        times = [float(line.split()[1]) for line in journal.read_text().splitlines() if line.split()[0] == seed]
        assert times[-1] > lost
    assert "12/12" in out


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(tmp_path, number, code):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    path = write_sweep(tmp_path, data__fate=["slow"], data__journal=[str(journal)], seed_everything=list(range(6)))
    sweep = start(path, runs, "--workers", "2")
    wait_for(lambda: sum(record["ended"] is not None for record in records(runs).values()) >= 2)
    sweep.send_signal(number)
    out, _ = sweep.communicate(timeout=40)
    assert sweep.returncode == code
    assert "the same command goes on" in out
    ended = sum(record["ended"] is not None for record in records(runs).values())
    assert 2 <= ended < 6
    status = start(path, runs, "--status").communicate(timeout=40)[0]
    assert f"{ended}/6" in status
    sweep = start(path, runs, "--workers", "2")
    out, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, out
    assert len(records(runs)) == 6
    assert sum(begun(journal).values()) <= 6 + 2


@pytest.mark.slow
def test_failed_cells_run_again_when_asked(tmp_path):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    path = write_sweep(tmp_path, data__fate=["raise"], data__journal=[str(journal)], seed_everything=[0])
    for expected, options in ((1, []), (1, []), (2, ["--retry-failed"])):
        sweep = start(path, runs, "--workers", "1", *options)
        sweep.communicate(timeout=60)
        assert sweep.returncode == 1
        assert sum(begun(journal).values()) == expected


@pytest.mark.slow
def test_warm_workers_are_at_least_5_times_as_fast_as_a_process_a_run(tmp_path):
    """40 runs of 10 steps on Fashion-MNIST, evaluated 6 times, both ways on all cores."""
    config = "configs/image_classification/fashion_mnist.yaml"
    fixed = ["--trainer.max_steps=10", "--evaluation.ratio=2", "--trainer.accelerator=cpu"]
    path = write_sweep(tmp_path, data__batch_size=[16, 32, 64, 128], seed_everything=list(range(10)))
    text = path.read_text().replace(str(tmp_path / "config.yaml"), config)
    path.write_text(text.replace("- ${args}", "\n".join(["- ${args}", *(f"- {flag}" for flag in fixed)])))
    began = time.monotonic()
    sweep = start(path, tmp_path / "warm")
    out, _ = sweep.communicate(timeout=280)
    warm = time.monotonic() - began
    assert sweep.returncode == 0, out
    assert len(records(tmp_path / "warm")) == 40
    dry = start(path, tmp_path / "warm", "--dry-run").communicate()[0].splitlines()
    count, began = 8, time.monotonic()  # of the 40: each costs the same
    waiting = [[*line.split(), "--trainer.default_root_dir", str(tmp_path / "cold")] for line in dry[::5]]
    running: list[subprocess.Popen] = []
    with contextlib.ExitStack() as stack:
        while waiting or any(process.poll() is None for process in running):
            if waiting and sum(p.poll() is None for p in running) < (os.cpu_count() or 1):
                command = [sys.executable, *waiting.pop()[1:]]
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)
                running.append(stack.enter_context(process))
            time.sleep(0.02)
    cold = (time.monotonic() - began) * 40 / count
    assert all(process.returncode == 0 for process in running)
    print(f"40 runs: {warm:.1f} s warm, {cold:.1f} s one process a run, ratio {cold / warm:.1f}")
    assert cold / warm >= 5
