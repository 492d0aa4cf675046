"""Real processes over gloo: run a function on every rank, as Lightning's own launcher or torchrun would place it."""

import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.multiprocessing as mp


def _rank(rank: int, ranks: int, port: int, function: Callable, args: tuple, results: SimpleQueue) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    results.put((rank, pickle.dumps(function(*args))))  # by value: the process ends before they are read


def on_ranks(ranks: int, function: Callable, *args: Any) -> list[Any]:
    """What `function(*args)` returns on each of `ranks` new processes, which Lightning's `ddp` strategy will join."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    processes = mp.spawn(_rank, (ranks, port, function, args, results), nprocs=ranks, join=False)
    got = dict(results.get() for _ in range(ranks))
    while not processes.join():
        pass
    return [pickle.loads(got[rank]) for rank in range(ranks)]
