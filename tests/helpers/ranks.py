"""Real processes over gloo: run a function on every rank, as Lightning's own launcher or torchrun would place it."""

import os
import pickle
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank: int, port: int, function: Callable, args: tuple, folder: Path) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    (folder / str(rank)).write_bytes(pickle.dumps(function(*args)))
    if dist.is_initialized():  # Lightning does so at exit, which a spawned process skips: gloo's threads may abort it
        dist.destroy_process_group()


def on_ranks(ranks: int, function: Callable, *args: Any) -> list[Any]:
    """What `function(*args)` returns on each of `ranks` new processes, which Lightning's strategies will join.

    A rank that fails ends the others, and its traceback is raised here.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (port, function, args, Path(folder)), nprocs=ranks)
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(ranks)]
