"""W&B as a mirror: offline runs read back, a broken server, and the real sweep and agent commands."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import yaml

from tasks.wandb_logger import STARTS, RunWandbLogger
from tests.helpers.hostile import write_sweep
from tests.helpers.wandb_server import Server

ROOT = Path(__file__).parent.parent
ONE_AGENT = "import wandb.wandb_agent as a; a.Agent.POLL_INTERVAL = .2; from wandb.cli.cli import cli; cli()"


@pytest.fixture
def environment(tmp_path):
    """Of a machine with no account: nothing of this one's W&B or home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_DIR": str(tmp_path)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `python` of the sweep's command is this one
    return kept | home | {"OMP_NUM_THREADS": "1", "PATH": path}


def fit(tmp_path, environment, *options):
    """One tiny fit with the W&B overlay in a process of its own; what it said."""
    write_sweep(tmp_path, seed_everything=[0])
    command = [sys.executable, "-m", "tasks", "fit", "--config", str(tmp_path / "config.yaml")]
    command += ["--config", "configs/logger/wandb.yaml", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    command += [f"--trainer.logger.save_dir={tmp_path}", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def read_back(tmp_path):
    """Each offline run as W&B's own reader shows it: its summary and the rows of its history."""
    runs = []
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
        text = subprocess.run([*reader, "--summary", path], capture_output=True, text=True, check=True).stdout
        lines = subprocess.run([*reader, path], capture_output=True, text=True, check=True).stdout.splitlines()
        runs.append((json.loads(text), [line for line in map(json.loads, lines) if line["type"] == "history"]))
    return runs


def test_without_a_key_the_run_is_offline_and_says_so_once_and_can_be_read_back(tmp_path, environment):
    said = fit(tmp_path, environment, "--model.lr_scaling=linear", "--model.base_batch_size=1")
    assert [line for line in said.splitlines() if "W&B" in line or "wandb:" in line] == [
        "W&B is offline: there is no API key (`wandb login`, or WANDB_API_KEY); "
        f"`wandb sync {tmp_path}/wandb/offline-run-*` uploads later"
    ]
    [record_file] = tmp_path.glob("runs/*/*/record.json")
    record = json.loads(record_file.read_text())
    [(summary, rows)] = read_back(tmp_path)
    assert summary["name"].endswith(f" {record_file.parent.name}")
    assert summary["run_id"] == (record_file.parent / "wandb_id.txt").read_text()
    config = summary["config"]
    assert (config["batch_size"], config["learning_rate"], config["lr_scaling"]) == (4, pytest.approx(0.4), "linear")
    assert summary["summary"]["status"] == config["status"] == record["status"]
    assert len(rows) == len((record_file.parent / "curve.csv").read_text().splitlines()) - 1 + 1  # and the test's
    for name in ("val/loss", "trainset/accuracy", "examples"):
        assert summary["summary"][name] == pytest.approx(record["final"][name])


def offline(tmp_path, monkeypatch):
    """Let W&B work without a server, and what a run sets for it end with the test; the run's directory."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    directory = tmp_path / "study" / "run"
    directory.mkdir(parents=True)
    return directory


def test_a_resumed_run_keeps_its_id_and_name_and_an_agent_s_id_is_left_alone(tmp_path, monkeypatch):
    directory = offline(tmp_path, monkeypatch)
    settings = []
    for _ in range(2):
        logger = RunWandbLogger(save_dir=str(tmp_path))
        logger.name_run(directory)
        settings.append({name: logger._wandb_init[name] for name in ("id", "name", "group", "resume")})
    assert settings[0] == settings[1]
    assert (settings[0]["name"], settings[0]["group"]) == ("run", "study")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    logger = RunWandbLogger(save_dir=str(tmp_path))
    logger.name_run(directory)
    assert not logger._wandb_init.get("id")
    assert "project" not in logger._wandb_init
    assert logger._requeue == (STARTS > 3)
    logger.name_run(directory)
    assert not logger._requeue  # a cell that never ends well is not given out for ever


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "the crash lost the tail"])
def test_a_resumed_run_s_rows_are_in_w_and_b_once_each(tmp_path, monkeypatch, lost):
    directory = offline(tmp_path, monkeypatch)
    for count in (6, 4, 8):  # the second process goes on from a checkpoint before the last rows, and dies again
        logger = RunWandbLogger(save_dir=str(tmp_path))
        logger.name_run(directory)
        for step in range(count):
            logger.log_metrics({"val/loss": step / 2}, step=10 * step)
        wandb.finish()
        wandb.teardown()  # ends W&B's own process, which else may still be writing
        first = min(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        if lost and count == 6:
            first.write_bytes(first.read_bytes()[: first.stat().st_size * 7 // 10])
            [(_, rows)] = read_back(tmp_path)
            assert 0 < len(rows) < 6
    rows = [row["history"]["item"] for _, rows in read_back(tmp_path) for row in rows]
    told = [(row["_step"], row["trainer/global_step"], row["val/loss"]) for row in rows]
    assert told == [(i, 10 * i, i / 2) for i in range(8)]


@pytest.mark.slow
def test_online_too_a_resumed_run_s_rows_are_there_once_each(tmp_path, monkeypatch):
    server = Server()
    for name, value in {"HOME": tmp_path, "NETRC": tmp_path / "netrc", "WANDB_API_KEY": "a" * 40}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_MODE", "online")
    directory = tmp_path / "study" / "run"
    directory.mkdir(parents=True)
    try:
        for count in (6, 4, 8):
            logger = RunWandbLogger(save_dir=str(tmp_path))
            logger.name_run(directory)
            for step in range(count):
                logger.log_metrics({"val/loss": step / 2}, step=10 * step)
            wandb.finish()
            [run] = server.runs.values()
            if count == 6:
                del run["rows"][3:]  # as if the crash had come before they were sent
    finally:
        wandb.teardown()
        server.close()
    assert [(row["_step"], row["val/loss"]) for row in run["rows"]] == [(i, i / 2) for i in range(8)]


def test_an_unknown_mode_is_refused_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(ValueError, match="give online, offline or disabled"):
        RunWandbLogger(save_dir=str(tmp_path))


@pytest.mark.slow
def test_a_server_that_refuses_does_not_stop_the_run(tmp_path, environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    online = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": url}
    said = fit(tmp_path, environment | online)
    assert "W&B is offline: its server cannot be used" in said
    print(f"a refusing server costs {time.monotonic() - began:.0f} s")
    [(_, rows)] = read_back(tmp_path)
    [curve] = tmp_path.glob("runs/*/*/curve.csv")
    assert len(rows) == len(curve.read_text().splitlines()) - 1 + 1  # and the test's


@pytest.mark.slow
def test_a_server_that_breaks_after_the_login_does_not_stop_the_run(tmp_path, environment, monkeypatch):
    server = Server()
    server.broken.add("UpsertBucket")
    online = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url, "WANDB_INIT_TIMEOUT": "5"}
    began = time.monotonic()
    try:
        said = fit(tmp_path, environment | online)
    finally:
        server.close()
    print(f"a broken server costs {time.monotonic() - began:.0f} s")
    assert "W&B is online" in said
    assert "W&B goes offline, its server cannot be used" in said
    assert len(read_back(tmp_path)) == 1


@pytest.mark.slow
def test_a_server_that_dies_in_mid_run_costs_seconds_and_the_data_are_kept(tmp_path, environment):
    write_sweep(tmp_path, seed_everything=[0])
    command = [sys.executable, "-m", "tasks", "fit", "--config", str(tmp_path / "config.yaml")]
    command += ["--config", "configs/logger/wandb.yaml", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    command += [f"--trainer.logger.save_dir={tmp_path}", "--data.fate=slow"]
    server = Server()
    environment |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while not server.runs:
        assert process.poll() is None
        time.sleep(0.1)
    server.close()
    began = time.monotonic()
    said = process.communicate(timeout=120)[1]
    print(f"the run ended {time.monotonic() - began:.0f} s after the server, 2 of them its own")
    assert process.returncode == 0, said
    assert time.monotonic() - began < 40
    [kept] = tmp_path.glob("wandb/run-*/")
    assert f"W&B's server stopped answering: the rest is kept, `wandb sync {kept}` uploads it" in said
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", next(kept.glob("*.wandb"))]
    lines = subprocess.run(reader, capture_output=True, text=True, check=True).stdout.splitlines()
    [curve] = tmp_path.glob("runs/*/*/curve.csv")
    rows = [line for line in lines if json.loads(line)["type"] == "history"]
    assert len(rows) == len(curve.read_text().splitlines()) - 1 + 1  # and the test's


@pytest.mark.slow
def test_the_real_agents_run_a_whole_grid_and_a_killed_cell_comes_back(tmp_path, environment):
    path = write_sweep(tmp_path, data__batch_size=[4, 8], seed_everything=[0, 1])
    content = yaml.safe_load(path.read_text())
    marker, runs = tmp_path / "killed", tmp_path / "runs"
    kill = [{"class_path": "tests.helpers.hostile.KillOnce", "init_args": {"marker": str(marker), "seed": 1}}]
    config = yaml.safe_load((tmp_path / "config.yaml").read_text()) | {"checkpoint": {"minutes": 0}}
    config["trainer"] |= {"callbacks": kill, "default_root_dir": str(runs), "max_steps": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    overlay = ["--config", "configs/logger/wandb.yaml", f"--trainer.logger.save_dir={tmp_path}"]
    content["command"] = [*content["command"][:-1], *overlay, "${args}"]
    path.write_text(yaml.safe_dump(content))
    server = Server()
    environment |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url}
    try:
        wandb = [sys.executable, "-m", "wandb"]
        made = subprocess.run(
            [*wandb, "sweep", "--entity", "me", "--project", "study", path],
            **{"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "check": True},
        )
        assert "wandb agent me/study/sweep1" in made.stderr
        agents = []
        for i in range(2):
            with (tmp_path / f"agent{i}.log").open("w") as log:
                command = [sys.executable, "-c", ONE_AGENT, "agent", "me/study/sweep1"]
                agents.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        for agent in agents:
            assert agent.wait(timeout=240) == 0
    finally:
        server.close()
    said = "".join((tmp_path / f"agent{i}.log").read_text() for i in range(2))
    print(said)
    assert {run["state"] for run in server.runs.values()} == {"finished"}, said
    assert sorted(run["starts"] for run in server.runs.values()) == [1, 1, 1, 2]
    assert len({agent for run in server.runs.values() for agent in run["agents"]}) == 2
    records = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/*/record.json")}
    assert {record["status"] for record in records.values()} == {"budget"}
    found = {(record["batch"]["size"], record["seed"]) for record in records.values()}
    assert found == {(4, 0), (4, 1), (8, 0), (8, 1)}
    [again] = [run for run in server.runs.values() if run["starts"] == 2]
    assert again["args"]["seed_everything"]["value"] == 1
    directories = {name: run["name"].split()[-1] for name, run in server.runs.items()}  # after the arm and the rate
    own = again["name"].split()[-1]
    assert records[own]["resumes"] == 1  # from its own directory, in the same W&B run
    assert set(directories.values()) == set(records)
    curve = (runs / "tiny" / own / "curve.csv").read_text().splitlines()[1:]
    steps = [int(line.split(",")[0]) for line in curve]
    assert [row["trainer/global_step"] for row in again["rows"]] == [*steps, 4]  # once each, then the test's
