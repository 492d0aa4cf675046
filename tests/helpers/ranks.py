"""Real processes over gloo: run a function on every rank, as Lightning's own launcher or torchrun would place it."""

import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tests.helpers import processes


def _rank(rank: int, ranks: int, port: int, function: Callable, args: tuple, folder: Path) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    part = folder / f"{rank}.part"
    part.write_bytes(pickle.dumps(function(*args)))
    part.rename(folder / str(rank))
    end = time.monotonic() + 30
    while not all((folder / str(other)).exists() for other in range(ranks)) and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(0)  # at an ordinary exit gloo's threads abort the process now and then, after all is said


def on_ranks(ranks: int, function: Callable, *args: Any) -> list[Any]:
    """What `function(*args)` returns on each of `ranks` new processes, which Lightning's strategies will join.

    A rank that fails ends the others, and its traceback is raised here.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        given = (ranks, port, function, args, Path(folder))
        mp.start_processes(_rank, given, nprocs=ranks, start_method=processes.warm.get_start_method())
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(ranks)]
