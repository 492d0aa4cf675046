"""Signals at every moment of a run: the same command then ends with the bits of the undisturbed run."""

import itertools
import json
import multiprocessing
import os
import signal
import socket
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch.distributed as dist
import yaml

from tasks.streams import keep_standard_streams
from tests.helpers.hostile import CONFIG
from tests.helpers.outcome import assert_same

PHASES = ["instantiation", "setup", "first step", "evaluation", "checkpoint write", "last step", "last evaluation"]
PHASES += ["final checkpoint", "closing test", "record's end", "after the record's end"]
TARGET = {"metric": "val/loss", "direction": "min"}
ENDS = {  # what ends the run: the settings
    "max_steps": ({"max_steps": 12}, {}, {}),
    "epochs": ({"max_steps": -1}, {"epochs": 2}, {}),
    "budget": (
        {"max_steps": -1},
        {},
        {"budget_steps": 10, "budget_examples": 40, "targets": [TARGET | {"value": 0.0}]},
    ),
    "target": ({"max_steps": 40}, {}, {"targets": [TARGET | {"value": 1.08}]}),
}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tasks.cli", "tests.helpers.hostile"])  # importing them takes most of a tiny run


def fit(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Run the real command line in this process, which has a group of its own with the other rank's."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    keep_standard_streams()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tasks.__main__ import main

    try:
        status = main(["fit", *arguments])
    except KeyboardInterrupt:  # as the module does when it is run
        status = 130
    if dist.is_initialized():
        dist.destroy_process_group()
    os._exit(status)


def group(arguments: list[str], environment: dict[str, str], log: str, ranks: int) -> None:
    """Start the ranks and wait for them; the status of the first that failed."""
    os.setpgid(0, 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = {}
    for rank in range(ranks):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "RANK": str(rank)}
        place |= {"LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(ranks)}
        place |= {"TORCHELASTIC_RUN_ID": "kills"}
        child = os.fork()
        if not child:
            fit(arguments, environment | (place if ranks > 1 else {}), log)
        children[child] = rank
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the ranks; this process only waits
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in children]
    os._exit(next((abs(code) for code in codes if code), 0))


def run(root: Path, end: str, ranks: int, kill_at: str = "") -> tuple[int, str]:
    """Fit until the end or until killed; the exit status, the number of the signal where one ended it, and the log."""
    root.mkdir(exist_ok=True)
    trainer, data, convergence = ENDS[end]
    config = {part: dict(content) for part, content in CONFIG.items()}
    config["trainer"] |= trainer | {
        "callbacks": [{"class_path": "tests.helpers.hostile.KillAt"}],
        "default_root_dir": str(root),
    }
    config["trainer"] |= {"devices": ranks, "strategy": "ddp"} if ranks > 1 else {}
    config["data"]["init_args"] = {**config["data"]["init_args"], **data}
    config |= {"convergence": convergence, "evaluation": {"ratio": 1.5}, "checkpoint": {"minutes": 0}}
    config["run"]["name"] = "run"
    path, log = root / "config.yaml", root / "log.txt"
    path.write_text(yaml.safe_dump(config))
    environment = {"OMP_NUM_THREADS": "1", "KILL_AT": kill_at} if kill_at else {"OMP_NUM_THREADS": "1"}
    process = processes.Process(target=group, args=(["--config", str(path)], environment, str(log), ranks))
    process.start()
    process.join(600)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it hangs: {log.read_text()}")
    return process.exitcode, log.read_text()


@cache
def undisturbed(end: str, ranks: int) -> tuple[Path, int]:
    """The run that nothing happens to, and its last step."""
    root = Path(mkdtemp()) / "whole"
    status, log = run(root, end, ranks)
    assert status == 0, log
    [record] = root.glob("*/run/record.json")
    content = json.loads(record.read_text())
    assert content["status"] == ("reached" if end == "target" else "budget")
    return root, content["final"]["step"]


def cut_and_finish(folder: Path, phase: str, number: int, end: str, ranks: int) -> None:
    """Send the signal in that phase, then run the same command again. AssertionError where the bits differ."""
    whole, last = undisturbed(end, ranks)
    marker, root = folder / "marker", folder / "cut"
    status, log = run(root, end, ranks, f"{int(number)} {last} {marker} {phase}")
    assert marker.exists(), log
    assert status in {0, int(number), 128 + number, -int(number)}, (status, log)
    status, log = run(root, end, ranks)
    assert status == 0, log
    assert "Traceback" not in log
    assert_same(root, whole)
    assert not list(root.rglob("*.part")), "parts are left"


MATRIX = list(itertools.product(PHASES, SIGNALS, ENDS, (1, 2)))
AIMED = [("last step", signal.SIGTERM, "max_steps", 1), ("closing test", signal.SIGKILL, "epochs", 1)]


@pytest.mark.parametrize(
    ("phase", "number", "end", "ranks"),
    [cell if cell in AIMED else pytest.param(*cell, marks=pytest.mark.slow) for cell in MATRIX],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_a_run_cut_at_any_moment_ends_as_if_nothing_had_happened(tmp_path, phase, number, end, ranks):
    cut_and_finish(tmp_path, phase, number, end, ranks)
