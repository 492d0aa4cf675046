"""A staged study on W&B's agents that share nothing: real `wandb` commands against a loopback server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.sweep.files import Cell, read_sweep
from tasks.sweep.fleet import grids, project_of, sweep_of, typed
from tasks.sweep.ledger import State
from tasks.sweep.plan import read_plan, source
from tests.helpers import quadratic_model
from tests.helpers.known_answer import CONFIG
from tests.helpers.wandb_server import Server

ROOT = Path(__file__).parent.parent
RATE = "model.optimizer.init_args.lr"


def write_study(folder: Path, sizes: list[int]) -> Path:
    """A small tuned study of the quadratic model."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    command = ["${interpreter}", "-m", "tasks", "fit", "--config", str(folder / "config.yaml"), "${args}"]
    values = {"run.study": ["staged"], "data.batch_size": sizes, RATE: [0.15, 0.3, 0.6, 1.2], "seed_everything": [0]}
    values |= {"convergence.targets": [f"[{{metric: val/loss, direction: min, value: {quadratic_model.GOAL}}}]"]}
    budget = int(4 * quadratic_model.tuned(sizes[0])[0])
    values |= {"convergence.budget_steps": [budget], "convergence.budget_examples": [budget]}
    parameters = {name: {"values": given} for name, given in values.items()}
    sweep = {"program": "tasks/__main__.py", "method": "grid", "command": command, "parameters": parameters}
    plan = {"learning_rate": RATE, "tune": {"seeds": [91]}, "confirm": {"seeds": [1, 2]}}
    (folder / "staged.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    (folder / "staged.plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "staged.yaml"


def as_the_agent_calls(config: dict, values: dict) -> tuple[str, ...]:
    """What follows `python -m tasks`, as W&B's agent writes it."""
    given = [f"--{name}={value}" for name, value in values.items()]
    command = [arg for item in config["command"] for arg in (given if item == "${args}" else [item])]
    return tuple(command[command.index("fit") :])


def test_a_stage_s_cells_are_grids_that_the_agent_calls_as_sweep_does(tmp_path):
    sweep = read_sweep(write_study(tmp_path, [2, 8]))
    assert read_plan(sweep).tune
    wanted = source(sweep).cells(lambda cell: State("left", {}, None))
    flags = ("--convergence.budget_steps=40", "--run.plan={}")
    more = [
        sweep.cell({**sweep.choices()[0], RATE: rate, "seed_everything": seed}, "tune", flags)
        for rate in (0.1, 1e-05, 0.25)
        for seed in (91, 92)
    ]
    groups = list(grids([*wanted, *more], [sweep]))
    assert [len(group) for group in groups] == [1, 6]
    config = sweep_of(groups[1], sweep)
    assert config["parameters"][RATE] == {"values": [0.1, 1e-05, 0.25]}
    assert config["parameters"]["seed_everything"] == {"values": [91, 92]}
    assert config["name"] == "staged tune batch 2"
    for cell in more:
        values = {name: p["values"][0] for name, p in config["parameters"].items()}
        values |= {RATE: dict(cell.values)[RATE], "seed_everything": dict(cell.values)["seed_everything"]}
        assert as_the_agent_calls(config, values) == (*cell.args, "--trainer.logger=RunWandbLogger")


def test_cells_that_make_no_grid_are_handed_out_one_by_one(tmp_path):
    sweep = read_sweep(write_study(tmp_path, [2]))
    setting = sweep.choices()[0]
    corner = [(0.1, 91), (0.1, 92), (0.2, 91)]
    cells: list[Cell] = [sweep.cell({**setting, RATE: r, "seed_everything": s}, "tune") for r, s in corner]
    assert [len(group) for group in grids(cells, [sweep])] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "value"), [("16", 16), ("0.02", 0.02), ("1e-05", 1e-05), ("1e-5", "1e-5"), ("a", "a")]
)
def test_values_are_numbers_where_the_agent_writes_them_in_just_this_way(text, value):
    assert typed(text) == value
    assert str(typed(text)) == text


def test_a_place_is_an_entity_and_a_project():
    assert project_of("me/study") == ("me", "study")
    for wrong in ("study", "me/", "a/b/c"):
        with pytest.raises(ValueError, match="give ENTITY/PROJECT"):
            project_of(wrong)


def records(root: Path) -> dict[tuple, dict]:
    """The finished runs below a folder, by what they are."""
    found = [json.loads(path.read_text()) for path in root.rglob("record.json")]
    return {(r["plan"]["stage"], r["batch"]["size"], r["rate"]["base"], r["seed"]): r for r in found if r["ended"]}


def steps(run: dict) -> float | None:
    return run["targets"][0]["hit"] and run["targets"][0]["hit"]["steps"]


def family(pid: int) -> list[int]:
    """A process and all that descend from it, the eldest first; W&B's agent gives its runs groups of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def at_work(folder: Path, machine: int) -> bool:
    """Whether a machine is in the middle of a run's training."""
    found = [json.loads(path.read_text()) for path in (folder / f"machine{machine}").rglob("record.json")]
    return any(record["status"] == "running" for record in found)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_agents_run_a_staged_study_and_one_killed_loses_nothing(tmp_path):
    study = write_study(tmp_path, [2, 8])
    server = Server(silence=8.0)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    kept |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url, "BATCH_LIMIT_POLL": "1"}
    kept["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def start(name: str, *options: str) -> subprocess.Popen:
        place = tmp_path / name
        place.mkdir()
        command = [sys.executable, "-m", "tasks", "sweep", str(study), *options]
        with (tmp_path / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                command, cwd=place, env=kept | {"WANDB_DIR": str(place)}, stdout=log, stderr=log, start_new_session=True
            )

    lead = start("lead", "--wandb", "me/study")
    machines = [start(f"machine{i}", "--agent", "me/study", "--idle", "1") for i in range(2)]
    try:
        while len(records(tmp_path / "lead")) < 4 or not (busy := [i for i in range(2) if at_work(tmp_path, i)]):
            assert lead.poll() is None, (tmp_path / "lead.log").read_text()
            time.sleep(0.02)
        for pid in family(machines[busy[0]].pid):
            os.kill(pid, signal.SIGKILL)
        print(f"machine {busy[0]} was killed in a run")
        assert lead.wait(timeout=900) == 0, (tmp_path / "lead.log").read_text()
    finally:
        for process in (lead, *machines):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=60)
        server.close()
    brought = records(tmp_path / "lead" / "runs")
    made = [records(tmp_path / f"machine{i}" / "runs") for i in range(2)]
    assert not made[0].keys() & made[1].keys()  # none twice
    assert brought.keys() == made[0].keys() | made[1].keys()  # none lost
    starts = [run["starts"] for run in server.runs.values() if run.get("sweep")]
    assert sum(starts) == len(brought) + 1  # the killed one again
    print(
        f"{len(brought)} cells in {len(server.sweeps)} sweeps, {sum(starts)} starts, {[len(m) for m in made]} a machine"
    )
    alone = subprocess.run(
        [sys.executable, "-m", "tasks", "sweep", str(study), "--runs", str(tmp_path / "alone"), "--workers", "1"],
        **{"cwd": ROOT, "env": kept, "capture_output": True, "text": True, "check": True},
    )
    assert alone.returncode == 0
    same = records(tmp_path / "alone")
    assert {key: steps(run) for key, run in same.items()} == {key: steps(run) for key, run in brought.items()}
