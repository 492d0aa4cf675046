"""Signals at every moment of a run: the same command then ends with the bits of the undisturbed run."""

import itertools
import json
import signal
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import yaml

from tests.helpers import processes
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
    status = processes.run(["fit", "--config", str(path)], log, {"KILL_AT": kill_at} if kill_at else {}, ranks)
    return status, log.read_text()


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
AIMED += [("closing test", signal.SIGTERM, "budget", 2)]


@pytest.mark.parametrize(
    ("phase", "number", "end", "ranks"),
    [cell if cell in AIMED else pytest.param(*cell, marks=pytest.mark.slow) for cell in MATRIX],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_a_run_cut_at_any_moment_ends_as_if_nothing_had_happened(tmp_path, phase, number, end, ranks):
    cut_and_finish(tmp_path, phase, number, end, ranks)
