"""A worker that obeys instead of training: fast to start, for tests of the pool and the ledger."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tasks.sweep.files import Cell
from tasks.sweep.ledger import Ledger


def obey(pipe: Any, place: Any, runs: Path) -> None:
    """Do what the cell's first value says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(("ready",))
    while True:
        try:
            _, cell = pipe.recv()
        except EOFError:
            return
        order = cell.values[0][1]
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "leave":
            os._exit(3)
        while order == "sleep":
            pipe.send(("beat", time.process_time()))
            time.sleep(0.05)
        if order == "compute":
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                pipe.send(("beat", time.process_time()))
                sum(range(100000))
        pipe.send(("ended", f"{order} on {place.gpu}, threads {os.environ['OMP_NUM_THREADS']}"))


def hold(runs: Path, cell: Cell, pipe: Any) -> None:
    """Claim a cell as a worker does and keep it until killed."""
    ledger = Ledger(runs)
    with ledger.lock(cell) as mine:
        if mine:
            ledger.begin(cell)
        pipe.send(mine)
        time.sleep(60)
