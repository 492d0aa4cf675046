"""The same run however its processes are started: by Lightning, by torchrun on two nodes, under SLURM, sharded."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import processes

pytestmark = pytest.mark.slow
FASHION = "configs/image_classification/fashion_mnist.yaml"
DDP, FSDP = "configs/strategy/ddp.yaml", "configs/strategy/fsdp.yaml"


def options(root: Path, *flags: str) -> list[str]:
    small = ["--data.variant.examples", "300", "--data.batch_size", "7", "--model.micro_batch_size", "3"]
    place = ["--trainer.default_root_dir", str(root), "--run.name", "run", "--trainer.accelerator", "cpu"]
    return ["fit", "--config", FASHION, *small, *place, "--trainer.max_steps", "12", *flags]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(commands: list[list[str]], environments: list[dict] | None = None) -> None:
    environments = environments or [{}] * len(commands)
    processes = [
        subprocess.Popen(c, env={**os.environ, "OMP_NUM_THREADS": "1", **e})
        for c, e in zip(commands, environments, strict=True)
    ]
    assert [p.wait(200) for p in processes] == [0] * len(processes)


def curve(root: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((root / "fashion_mnist" / "run" / "curve.csv").read_text().splitlines())
    return [{k: float(v or 0) for k, v in row.items() if k != "seconds"} for row in rows]


def by_lightning(root: Path) -> None:
    run([[sys.executable, "-m", "tasks", *options(root, "--config", DDP, "--trainer.devices", "2")]])


def sharded(root: Path) -> None:
    run([[sys.executable, "-m", "tasks", *options(root, "--config", FSDP)]])


def by_torchrun_on_two_nodes(root: Path) -> None:
    port = str(free_port())
    rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    flags = options(root, "--config", DDP, "--trainer.devices", "1", "--trainer.num_nodes", "2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", *rendezvous]
    run([[*torchrun, "--node-rank", str(node), "-m", "tasks", *flags] for node in range(2)])


def under_slurm(root: Path) -> None:
    shared = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7"}
    shared |= {"SLURM_JOB_NAME": "study", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    flags = options(root, "--config", DDP, "--trainer.devices", "2")
    ranks = [shared | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    run([[sys.executable, "-m", "tasks", *flags]] * 2, ranks)


@pytest.mark.parametrize("launch", [by_lightning, sharded, by_torchrun_on_two_nodes, under_slurm])
def test_the_curve_is_that_of_one_process(tmp_path, launch):
    run([[sys.executable, "-m", "tasks", *options(tmp_path / "one")]])
    launch(tmp_path / "two")
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-5)  # float32
    record = json.loads((tmp_path / "two" / "fashion_mnist" / "run" / "record.json").read_text())
    assert (record["world_size"], record["status"]) == (2, "budget")


def test_ctrl_c_ends_a_process_that_waits_for_the_others(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(100)
        place = processes.place(1, 2, silent.getsockname()[1]) | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tasks", *options(tmp_path, "--config", DDP, "--trainer.devices", "2")]
        heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        process = subprocess.Popen(command, env={**os.environ, **place}, preexec_fn=heard)
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == -signal.SIGINT
        finally:
            process.kill()
