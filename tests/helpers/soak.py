"""A sweep of many tiny cells in two processes, while workers, whole sweeps and the disk's space are taken away.

    unshare -rm sh -c 'mount -t tmpfs -o size=300m tmpfs DIR && python -m tests.helpers.soak DIR 300'

DIR is filled to its end now and then, so it is a file system of its own.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from multiprocessing.context import ForkProcess
from pathlib import Path

import yaml

import tasks.cli  # noqa: F401  # before the processes are forked
from tasks.report.build import Wanted, make_report
from tasks.streams import keep_standard_streams
from tasks.sweep import pool
from tasks.sweep.command import main as sweep
from tests.helpers.hostile import CONFIG

forked = multiprocessing.get_context("fork")
pool.multiprocessing.get_context = lambda _: forked  # workers, too: importing the libraries takes most of a tiny sweep
CLOCKS = ("started", "ended", "resumes", "cost", "versions", "seconds")


def write(folder: Path, cells: int) -> Path:
    """The sweep file: three batch sizes, the rest seeds."""
    config = {part: dict(content) for part, content in CONFIG.items()} | {"checkpoint": {"minutes": 0}}
    config["trainer"]["max_steps"] = 30
    config["convergence"] = {"targets": [{"metric": "val/loss", "direction": "min", "value": 0.9}]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["${interpreter}", "-m", "tasks", "fit", "--config", str(folder / "config.yaml"), "${args}"]
    values = {"data.batch_size": {"values": [2, 4, 8]}, "seed_everything": {"values": list(range(cells // 3))}}
    content = {"program": "tasks/__main__.py", "method": "grid", "command": command, "parameters": values}
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def begin(command: list[str], log: Path) -> None:
    """Be a sweep's process."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    keep_standard_streams()
    sys.exit(sweep(command))


class Chaos:
    """Two sweeps on one folder of runs, whose cells take `cell` seconds, and what is done to them; `done` counts it."""

    def __init__(self, path: Path, folder: Path, seed: int, cell: float) -> None:
        self.command = [str(path), "--runs", str(folder / "runs"), "--workers", "1", "--retry-failed"]
        self.folder, self.draw, self.done = folder, random.Random(seed), Counter()
        self.unit = max(1.0, cell)  # seconds, so that a busy machine's sweeps come on too
        self.log = folder.parent / "soak.log"
        self.sweeps = [self._start(), self._start()]

    def _start(self) -> ForkProcess:
        process = forked.Process(target=begin, args=(self.command, self.log))
        process.start()
        return process

    def worker(self) -> None:
        """Kill a worker."""
        parent = self.draw.choice(self.sweeps).pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.draw.choice(children)), signal.SIGKILL)

    def sweep(self) -> None:
        """Kill a whole sweep."""
        self.draw.choice(self.sweeps).kill()

    def disk(self) -> None:
        """Take all of the disk's space for a while."""
        hog = self.folder / "hog"
        with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 2**16)
        time.sleep(self.draw.uniform(0.5, 2) * self.unit)
        hog.unlink()

    def run(self, limit: float) -> None:
        """Go on until a sweep ends by itself with every cell ended."""
        end = time.monotonic() + limit
        while all(process.exitcode != 0 for process in self.sweeps):
            assert time.monotonic() < end, f"not done after {limit:.0f} s"
            time.sleep(self.draw.uniform(1, 4) * self.unit)
            what = self.draw.choice(["worker", "worker", "sweep", "disk"])
            with contextlib.suppress(OSError, IndexError):
                getattr(self, what)()
                self.done[what] += 1
            for i, process in enumerate(self.sweeps):
                if process.exitcode not in (None, 0):
                    self.done[f"sweeps that ended with {process.exitcode}"] += 1
                    self.sweeps[i] = self._start()
        for process in self.sweeps:  # the other one sees that nothing is left, where it was not killed just now
            process.join(300)


def plain(value: object) -> object:
    """A record, or a part of one, without what a clock says."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in CLOCKS}
    return [plain(v) for v in value] if isinstance(value, list) else value


def outcomes(runs: Path) -> dict[str, object]:
    """Every run's record and curve, by its name."""
    found = {}
    for record in runs.glob("*/*/record.json"):
        content = json.loads(record.read_text())
        assert content["ended"], record
        rows = [line.split(",") for line in (record.parent / "curve.csv").read_text().splitlines()]
        at = rows[0].index("seconds")
        found[record.parent.name] = (plain(content), [row[:at] + row[at + 1 :] for row in rows])
    return found


def report(runs: Path, out: Path) -> object:
    """What the report says of the runs, without what a clock says."""
    make_report(Wanted([runs], out))
    return plain(json.loads((out / "summary.json").read_text()))


def main(folder: Path, cells: int, seed: int = 0) -> None:
    """Run the sweep calmly and in chaos. AssertionError where a cell is missing, doubled or different."""
    path = write(folder, cells)
    began = time.monotonic()
    assert sweep([str(path), "--runs", str(folder / "calm"), "--workers", "2"]) == 0
    calm = time.monotonic() - began
    print(f"the calm sweep took {calm:.0f} s", flush=True)
    (folder / "chaos").mkdir()
    began, chaos = time.monotonic(), Chaos(path, folder / "chaos", seed, 2 * calm / cells)
    try:
        chaos.run(600 + 10 * calm)
    finally:
        for process in chaos.sweeps:
            process.kill()
    took = time.monotonic() - began
    quiet, stormy = outcomes(folder / "calm"), outcomes(folder / "chaos/runs")
    assert len(quiet) == cells
    assert stormy == quiet
    entries = [json.loads(p.read_text()) for p in (folder / "chaos/runs/.sweep").glob("*.json")]
    assert len(entries) == cells  # an entry may say `running` where its process was killed after the run's end
    assert not [entry for entry in entries if entry["status"] == "failed"]
    assert len({entry["directory"] for entry in entries}) == cells
    assert not list(folder.rglob("*.part"))
    reports = [report(folder / name, folder / f"report-{name[:5]}") for name in ("calm", "chaos/runs")]
    assert reports[0] == reports[1]
    resumed = sum(json.loads(p.read_text())["resumes"] > 0 for p in folder.glob("chaos/runs/*/*/record.json"))
    print(f"{cells} cells in {took:.0f} s, each ended once as in the calm sweep, and the report is the same;")
    print(f"{resumed} runs went on from a checkpoint; {dict(chaos.done)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
