"""What is known of every cell: a small file and a lock each, shared by all processes on a folder of runs."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.record import Record, read_record
from tasks.sweep.files import Cell

ATTEMPTS = 3  # times that a cell's process may vanish before the cell counts as failed
FINAL = ("reached", "budget", "outrun", "diverged", "failed")


@dataclass(frozen=True)
class State:
    """Where a cell stands: `left`, `running`, or one of FINAL, with its record where it has ended."""

    status: str
    entry: dict[str, Any]
    record: Record | None

    @property
    def seconds(self) -> float:
        """Return what the cell cost in seconds, evaluation and all; 0 where it was taken over from another study."""
        return 0.0 if self.entry.get("taken") else self.entry.get("seconds", 0.0)


class Ledger:
    """The cells' entries in `<runs>/.sweep/`.

    The lock of a running cell is an flock held by the process that runs it: the system frees it however
    that process ends, so a cell is never run twice and never stays locked.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = runs / ".sweep"

    def path(self, cell: Cell, ending: str) -> Path:
        """Return one of the cell's files: its entry (.json), its lock or its log."""
        return self.folder / f"{cell.key}{ending}"

    def read(self, cell: Cell) -> dict[str, Any]:
        """Return the cell's entry, empty where it was never begun."""
        path = self.path(cell, ".json")
        try:
            entry = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ValueError(f"--runs: {str(path)[:200]}: {error.strerror}: give another folder") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read ({error}): delete it, and its cell is looked up again") from error
        if problem := malformed(entry):
            raise ValueError(f"{path} is no entry of a sweep ({problem}): delete it, and its cell is looked up again")
        return entry

    def write(self, cell: Cell, **entry: Any) -> None:
        """Replace the cell's entry."""
        part = self.path(cell, f".{os.getpid()}.part")
        try:
            part.write_text(json.dumps(entry, indent=1))
            os.replace(part, self.path(cell, ".json"))
        finally:  # a full disk is not to be filled with parts
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, cell: Cell) -> Iterator[bool]:
        """Hold the cell, or yield False where another process holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path(cell, ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                raise ValueError(
                    f"{self.folder} has no file locks ({error.strerror}): give --runs elsewhere"
                ) from error
            yield True

    def state(self, cell: Cell) -> State:
        """Return where the cell stands now."""
        entry = self.read(cell)
        status = entry.get("status", "left")
        if status == "running":
            with self.lock(cell) as free:
                if free:  # its process is gone; the entry may have been finished meanwhile
                    entry = self.read(cell)
                    status = entry["status"]
                    if status == "running":
                        status = "failed" if entry["attempts"] >= ATTEMPTS else "left"
                        entry["reason"] = f"{entry.get('reason', 'its process vanished')}, {entry['attempts']} times"
        if status in ("running", "failed"):
            return State(status, entry, None)
        record = read_record(Path(entry["directory"]) / "record.json") if "directory" in entry else None
        record = record if isinstance(record, Record) else None
        if record and (status == "done" or record.ended):  # a signal may come between the run's end and the entry's
            return State(record.status, entry, record)
        return State("left", entry, None)

    def note_vanished(self, cell: Cell, reason: str) -> None:
        """Say why a cell's process vanished; the cell is tried again until its attempts are spent."""
        with self.lock(cell) as mine:
            entry = self.read(cell)
            if mine and entry.get("status") == "running":
                self.write(cell, **entry | {"reason": reason})

    def mark_dead(self, cell: Cell, status: str, **facts: Any) -> None:
        """Say how a cell ended whose process could not."""
        with self.lock(cell) as mine:
            entry = self.read(cell)
            if mine and entry.get("status") == "running":
                seconds = time.time() - entry["started"]
                self.write(cell, **entry | facts | {"status": status, "seconds": seconds})

    def begin(self, cell: Cell, **facts: Any) -> dict[str, Any]:
        """Write that this process runs the cell, whose lock it holds; return the entry."""
        before = self.read(cell)
        vanished = before.get("attempts", 0) if before.get("status") == "running" else 0
        entry = {"status": "running", "args": cell.args, "attempts": vanished + 1, "pid": os.getpid()}
        entry |= {"host": socket.gethostname(), "started": time.time(), **facts}
        self.write(cell, **entry)
        return entry


def malformed(entry: object) -> str | None:
    """Return what is wrong with an entry as it was read, None where it is whole."""
    if not isinstance(entry, dict) or entry.get("status") not in ("running", "done", "interrupted", "failed", "left"):
        return "no status"
    numbers = dict.fromkeys(("attempts", "started", "seconds"), int | float)
    kinds = numbers | dict.fromkeys(("directory", "reason", "log"), str)
    wrong = [name for name, kind in kinds.items() if name in entry and not isinstance(entry[name], kind)]
    if wrong:
        return f"{wrong[0]} is {entry[wrong[0]]!r}"[:100]
    try:
        Path(entry.get("directory", ".")).stat()
    except OSError:  # it may be gone
        pass
    except ValueError as error:  # text that names no file on any system
        return f"directory: {error}"
    return "no attempts" if entry["status"] == "running" and not {"attempts", "started"} <= set(entry) else None
