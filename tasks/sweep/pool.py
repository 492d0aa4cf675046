"""The worker processes: started, fed, watched, replaced, ended."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from tasks.sweep.files import Cell
from tasks.sweep.worker import Place, work

Job = Cell | tuple[str, ...]  # to run, or to check
Event = tuple[Any, str, Any]  # a worker's job, what became of it, and more
STALL = 900.0
STARTS = 3  # times in a row that processes may die before they are ready
GRACE = 30.0  # seconds that a worker has to save its run before it is killed


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Let processes that are started here have these variables, where they are not set already."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(i) for i, line in enumerate(x for x in listing.splitlines() if x.startswith("GPU "))]


def places(workers: int | None) -> list[Place]:
    """Return one place per GPU, or per core where there is none, or as many as are asked for, sharing all GPUs.

    The cores are shared too, as threads, unless OMP_NUM_THREADS says how many each place has.
    """
    cores, devices = len(os.sched_getaffinity(0)), gpus()
    count = workers or len(devices) or cores
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() and int(given) else max(1, cores // count)
    shares = [",".join(devices[i::count] or devices[i % len(devices) :][:1]) for i in range(count)] if devices else []
    return [Place(threads, shares[i] if shares else None) for i in range(count)]


@dataclass
class Worker:
    """A worker process and what it does: None (idle), a check, or a cell."""

    process: SpawnProcess
    pipe: connection.Connection
    place: Place
    ready: bool = False
    job: Job | None = None
    since: float = 0.0
    cpu: float = 0.0  # seconds of processor time when it was last seen to grow
    alive: float = 0.0  # when that was

    def give(self, order: str, what: Job) -> None:
        """Send a job; a process that died meanwhile is found by the end of its pipe."""
        self.job, self.since, self.alive = what, time.monotonic(), time.monotonic()
        with contextlib.suppress(OSError):
            self.pipe.send((order, what))


class Pool:
    """Worker processes, one a place, that each run `work`.

    A cell hangs where its process has used next to no processor time for `stall` seconds, or where it has run for
    `limit` seconds; it is killed then.
    """

    def __init__(
        self,
        places: list[Place],
        runs: Path,
        stall: float = STALL,
        limit: float | None = None,
        work: Callable[[connection.Connection, Place, Path], None] = work,
    ) -> None:
        self.runs, self.stall, self.limit, self.work = runs, stall, limit, work
        self.still_born = 0  # processes that died before they were ready, since one was
        self.context = multiprocessing.get_context("spawn")
        self.workers = [self._start(place) for place in places]

    def _start(self, place: Place) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=self.work, args=(theirs, place, self.runs))
        with environment(OMP_NUM_THREADS=str(place.threads)):
            process.start()
        theirs.close()
        return Worker(process, ours, place)

    def idle(self) -> list[Worker]:
        """Return the workers that wait for a job."""
        return [w for w in self.workers if w.ready and w.job is None]

    def running(self) -> list[Cell]:
        """Return the cells that these workers run."""
        return [w.job for w in self.workers if isinstance(w.job, Cell)]

    def wait(self, seconds: float) -> list[Event]:
        """Return what happened within `seconds`: (job, "checked" | "ended" | "died" | "hung", detail)."""
        events: list[Event] = []
        said = connection.wait([w.pipe for w in self.workers], seconds)
        for worker in [w for w in self.workers if w.pipe in said]:
            try:
                kind, *detail = worker.pipe.recv()
            except (EOFError, OSError):
                events += self._bury(worker)
                continue
            if kind == "ready":
                worker.ready, self.still_born = True, 0
            elif kind == "beat":
                self._note(worker, *detail)
            else:
                events.append((worker.job, kind, detail[0]))
                worker.job = None
        return events + [event for w in list(self.workers) if self._hangs(w) for event in self._kill(w)]

    def _note(self, worker: Worker, cpu: float) -> None:
        """Note that a worker computes, if it used the processor: one that waits for ever only sends its beat."""
        now = time.monotonic()
        if cpu - worker.cpu > 0.02 * (now - worker.alive):
            worker.cpu, worker.alive = cpu, now

    def _hangs(self, worker: Worker) -> bool:
        now = time.monotonic()
        late = self.limit is not None and now - worker.since > self.limit
        return worker.job is not None and (late or now - worker.alive > self.stall)

    def _kill(self, worker: Worker) -> list[Event]:
        worker.process.kill()
        minutes = (time.monotonic() - worker.since) / 60
        return self._bury(worker, f"it hung and was killed after {minutes:.1f} minutes")

    def _bury(self, worker: Worker, hung: str | None = None) -> list[Event]:
        """Replace a dead worker; return what became of its job."""
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        code = worker.process.exitcode or 0
        how = f"signal {-code}: out of memory?" if code < 0 else f"status {code}"
        self.still_born += not worker.ready
        if self.still_born >= STARTS:
            raise RuntimeError(f"{STARTS} worker processes could not start (the last: {how})")
        self.workers.append(self._start(worker.place))
        kind, reason = ("hung", hung) if hung else ("died", f"its process died ({how})")
        return [(worker.job, kind, reason)] if worker.job is not None else []

    def close(self) -> None:
        """End the workers: the idle at once, the busy after they have saved their run."""
        for worker in self.workers:
            worker.pipe.close()
            if worker.job is not None or not worker.ready:
                worker.process.terminate()
        end = time.monotonic() + GRACE
        for worker in self.workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
