"""The command line in processes of its own that begin with the libraries loaded: to import them takes most of a run."""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

from tasks.streams import keep_standard_streams

warm = multiprocessing.get_context("forkserver")
warm.set_forkserver_preload(["tasks.cli", "tests.helpers.hostile"])


def begin(arguments: list[str], log: Path, environment: dict[str, str] | None = None, ranks: int = 1) -> BaseProcess:
    """Start `python -m tasks` in a process group of its own, on ranks placed as torchrun does.

    What it prints goes to `log`. Its exit code is the status of the first rank that failed, the number of the signal
    where one ended it.
    """
    process = warm.Process(target=_group, args=(arguments, environment or {}, str(log), ranks))
    process.start()
    return process


def send(process: BaseProcess, number: int) -> None:
    """Send a signal to all of what `begin` started."""
    wait_until(lambda: os.getpgid(process.pid) == process.pid)
    os.killpg(process.pid, number)


def kill(process: BaseProcess) -> None:
    """Kill all of what `begin` started, and wait until none of it is left."""
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself, with its whole group
        send(process, signal.SIGKILL)
    process.join()
    wait_until(lambda: not _is_there(process.pid))


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run(arguments: list[str], log: Path, environment: dict[str, str] | None = None, ranks: int = 1) -> int:
    """Run `python -m tasks` to its end; return its exit code. AssertionError where it takes 10 minutes."""
    process = begin(arguments, log, environment, ranks)
    process.join(600)
    if process.exitcode is None:
        kill(process)
        raise AssertionError(f"it hangs: {log.read_text()}")
    wait_until(lambda: not _is_there(process.pid))  # a killed rank may outlast the process that waits for it
    return process.exitcode


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something. AssertionError where it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the environment by which torchrun tells a process its place among those of one machine."""
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "RANK": str(rank)}
    found |= {"LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(ranks)}
    return found | {"TORCHELASTIC_RUN_ID": "tests"}


def _group(arguments: list[str], environment: dict[str, str], log: str, ranks: int) -> None:
    os.setpgid(0, 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            _rank(arguments, environment | (place(rank, ranks, port) if ranks > 1 else {}), log)
        children.append(child)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the ranks; this process only waits
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in children]
    os._exit(next((abs(code) for code in codes if code), 0))


def _rank(arguments: list[str], environment: dict[str, str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    keep_standard_streams()
    os.environ.update(environment | {"OMP_NUM_THREADS": "1"})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tasks.__main__ import main

    try:
        status = main(arguments)
    except KeyboardInterrupt:  # as the module does when it is run
        status = 130
    if dist.is_initialized():
        dist.destroy_process_group()
    os._exit(status)
