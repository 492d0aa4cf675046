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
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from callbacks.record import Record, read_record
from tasks.sweep.command import main
from tasks.sweep.ledger import ATTEMPTS
from tests.helpers.hostile import write_sweep
from tests.helpers.processes import wait_until

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("warm_workers")


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
    assert re.search(r"^ *tiny +3/3 +0 +0 +1 +0 +0 +2 +0 *$", out, re.MULTILINE)
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


def study_of(folder, study, **parameters):
    """A sweep whose runs belong to `study`, with a plan that an amendment may change."""
    path = write_sweep(folder, name=study, run__study=[study], **parameters)
    path.with_name(f"{study}.plan.yaml").write_text("margins: {golmant-1: {delta: 0.1}}\n")
    return path


def test_a_run_is_made_once_for_all_studies_and_stays_when_the_plan_is_amended(tmp_path, capfd):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    given = {"data__fate": ["fine"], "data__journal": [str(journal)]}
    first = study_of(tmp_path, "first", **given, seed_everything=[7, 8])
    options = ["--runs", str(runs), "--workers", "1"]
    assert main([str(first), *options]) == 0
    second = study_of(tmp_path, "second", **given, seed_everything=[8, 9])
    assert main([str(second), *options]) == 0
    assert len(journal.read_text().splitlines()) == 3  # seed 8 of the second study is the first's
    found = {(r.study, r.seed): r for r in map(read_record, runs.glob("*/*/record.json"))}
    assert set(found) == {("first", 7), ("first", 8), ("second", 8), ("second", 9)}
    copy, original = found["second", 8], found["first", 8]
    assert copy.copied_from == f"first/{original.run}"
    assert copy.plan.hash == found["second", 9].plan.hash != original.plan.hash
    labels = ("study", "run", "plan", "copied_from", "settings")
    assert all(getattr(copy, f.name) == getattr(original, f.name) for f in fields(Record) if f.name not in labels)
    folder = runs / "second" / copy.run
    assert (folder / "curve.csv").read_bytes() == (runs / "first" / original.run / "curve.csv").read_bytes()
    assert not (folder / "checkpoints").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["study"] == "second"

    first.with_name("first.plan.yaml").write_text("margins: {golmant-1: {delta: 0.2}}\n")
    first = write_sweep(tmp_path, name="first", run__study=["first"], **given, seed_everything=[7, 8, 9])
    assert main([str(first), *options]) == 0
    assert "3/3" in capfd.readouterr().out
    assert len(journal.read_text().splitlines()) == 3  # and seed 9 is the second's
    amended = {r.seed: r for r in map(read_record, runs.glob("first/*/record.json"))}
    assert len(amended) == len(list(runs.glob("first/*"))) == 3
    assert {r.plan.hash for r in amended.values()} == {amended[9].plan.hash} != {original.plan.hash}
    assert [amended[seed].plan.amended for seed in (7, 8, 9)] == [True, True, False]
    assert main([str(first), *options]) == 0
    assert [read_record(p) for p in runs.glob("first/*/record.json")] == list(amended.values())


ORPHAN = """
import os, subprocess, sys
from tasks.starter import STARTER
child = "import time, tasks.starter as s; s.end_with_starter(0.0); print('began', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], env=os.environ | {STARTER: str(os.getpid())})
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""


def test_what_a_process_started_as_a_part_of_itself_ends_with_it():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "began\n"
    process.stdin.write("\n")
    process.stdin.flush()
    began = time.monotonic()
    assert process.stdout.read() == ""  # no process has it open any more
    assert process.wait() == -signal.SIGKILL
    assert time.monotonic() - began < 10
    process.stdin.close()
    process.stdout.close()


# slow: minutes of real processes --------------------------------------------------------------------------


def start(path, runs, *options):
    command = [sys.executable, "-m", "tasks", "sweep", str(path), "--runs", str(runs), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def begun(journal):
    return Counter(line.split()[0] for line in journal.read_text().splitlines()) if journal.exists() else Counter()


@pytest.mark.slow
def test_two_sweeps_share_the_cells_and_a_killed_one_s_cells_are_run_by_the_other(tmp_path):
    journal, runs = tmp_path / "journal", tmp_path / "runs"
    seeds = list(range(12))
    path = write_sweep(tmp_path, data__fate=["slow"], data__journal=[str(journal)], seed_everything=seeds)
    first, second = (start(path, runs, "--workers", "2") for _ in range(2))
    wait_until(lambda: len(begun(journal)) >= 5)
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
    wait_until(lambda: sum(record["ended"] is not None for record in records(runs).values()) >= 2)
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


def commands(*words):
    """The numbers of the processes whose command line holds these words."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found |= {int(path.parent.name)} if all(word in line for word in words) else set()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_the_ranks_of_a_killed_worker_s_cell_end_with_it_and_the_cell_is_run_again(tmp_path):
    runs = tmp_path / "runs"
    path = write_sweep(tmp_path, seed_everything=[0])
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config |= {"checkpoint": {"minutes": 0}, "convergence": {"stop": False}}
    config["trainer"] |= {"devices": 2, "strategy": "ddp", "max_steps": 1500}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    sweep = start(path, runs, "--workers", "1")
    wait_until(lambda: list(runs.glob("*/*/checkpoints/step=*.ckpt")), 600)
    ranks = commands("-m tasks", " fit ", str(tmp_path))
    assert len(ranks) == 2
    parents = {int(Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[1]) for pid in ranks}
    [worker] = parents - ranks
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not ranks & commands("-m tasks", " fit ", str(tmp_path)))
    out, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, out
    [record] = records(runs).values()
    assert (record["status"], record["world_size"], record["resumes"]) == ("budget", 2, 1)
    assert record["final"]["step"] == 1500


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
    each = dry[:40:5]  # the last line says the cost
    waiting = [[*line.split(), "--trainer.default_root_dir", str(tmp_path / "cold")] for line in each]
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


def test_a_mistake_that_all_cells_share_is_said_once_before_the_first(tmp_path, capfd):
    path = write_sweep(tmp_path, seed_everything=[0, 1, 2])
    command = [str(path), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main([*command, "--", "--data.batch_size=999"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert "data.batch_size is 999" in line
    assert not records(tmp_path / "runs")


def test_what_would_keep_a_sweep_from_answering_is_said_before_and_after_its_first_run(tmp_path, capfd):
    path = write_sweep(tmp_path, data__batch_size=[1, 2, 4, 8], seed_everything=[0])
    assert main([str(path), "--runs", str(tmp_path / "runs"), "--workers", "1"]) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "no critical batch size" in line]
    assert len(said) == 4
    for line, words in zip(
        said, ("4 batch sizes", "not tuned", "1 seed at a size", "a quarter of the 23"), strict=True
    ):
        assert words in line
