"""A warm process that runs cell after cell: importing the libraries costs more than a small run."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.starter import STARTER
from tasks.streams import keep_standard_streams
from tasks.sweep.files import Cell
from tasks.sweep.ledger import FINAL, Ledger
from tasks.sweep.share import Shared

if TYPE_CHECKING:  # the rest of this process is up before these are imported
    from jsonargparse import Namespace

    from tasks.cli import Cli

LEAST = 2**20  # bytes of a disk that is not full
BEAT = 2.0  # seconds between two signs of life


@dataclass(frozen=True)
class Place:
    """Where a worker runs: its share of the cores, and its GPU, if any."""

    threads: int = 1
    gpu: str | None = None


def work(pipe: connection.Connection, place: Place, runs: Path) -> None:
    """Answer ("check", args) and ("run", cell) until the pipe closes; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends workers by SIGTERM
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from tasks import cli

    keep_standard_streams()  # `os.dup2` below changes what is behind them
    torch.set_num_threads(place.threads)
    gc.collect()
    gc.freeze()
    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending, contextlib.suppress(OSError):
            pipe.send(message)

    threading.Thread(target=_beat, args=(send,), daemon=True).start()
    send("ready")
    ledger = Ledger(runs)
    while True:
        try:
            order, what = pipe.recv()
        except (EOFError, OSError):
            return
        if order == "check":
            send("checked", checked(cli, what))
        else:
            try:
                status, sound = run_cell(cli, ledger, what)
            except (OSError, ValueError) as error:  # of the ledger, not of a run
                reason = f"{runs}: {error.strerror}" if isinstance(error, OSError) else str(error)
                send("stopped", f"{reason}: the same command goes on from here")
                return
            send(*("stopped", full(runs)) if status == "interrupted" and full(runs) else ("ended", status))
            if not sound:  # memory or a GPU may be left in disorder: a fresh process takes over
                return


def _beat(send: Callable[..., None]) -> None:
    while True:
        send("beat", time.process_time())
        time.sleep(BEAT)


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def checked(cli: ModuleType, args: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Return what is wrong with a run's arguments, and what is to be said of them."""
    try:
        return None, cli.place(args).notes
    except cli.UserError as error:
        return str(error), []


def run_cell(cli: ModuleType, ledger: Ledger, cell: Cell) -> tuple[str, bool]:
    """Run a cell unless another process has it; return its end and whether this process is still sound."""
    with ledger.lock(cell) as mine:
        if not mine:
            return "elsewhere", True
        if ledger.read(cell).get("status") == "done" and ledger.state(cell).status in FINAL:
            return "done", True
        log = ledger.path(cell, ".log")
        entry = ledger.begin(cell, log=str(log))
        began = time.monotonic()
        with output_to(log):
            shared = Shared(ledger.folder.parent)
            args, tell = [*cell.args, *local_flags(ledger)], lambda **facts: ledger.write(cell, **entry | facts)
            end = fit(cli, args, tell, shared)
        if end["status"] == "failed" and full(ledger.folder):
            end["status"] = "interrupted"  # it is not the cell's fault
        directory = Path(end.get("directory", ""))
        if "directory" in end and directory.exists():
            with (directory / "log.txt").open("ab") as whole:
                whole.write(log.read_bytes())
            log.unlink()
            log = directory / "log.txt"
        facts = {"log": str(log), "seconds": time.monotonic() - began, "ended": time.time()}
        ledger.write(cell, **entry | end | facts)
        return end["status"], end["status"] == "done" or end.get("user_error", False)


def full(folder: Path) -> str | None:
    """Return the sentence that says that nothing more can be written here, None where it can."""
    place = os.statvfs(folder)
    if place.f_bavail * place.f_frsize >= LEAST:
        return None
    return f"the disk of {folder} is full: make room, the same command goes on from here"


def local_flags(ledger: Ledger) -> list[str]:
    """Return what differs from the same cell under an agent: nothing that changes the run or its name."""
    return [f"--trainer.default_root_dir={ledger.folder.parent}", "--progress.show=false", "--trainer.logger=false"]


class TakenOverError(Exception):
    """Raised to end a fit before it begins: an equal run is there already."""


class SeveralProcessesError(Exception):
    """Raised to end a fit before it begins: it needs processes of its own, which a warm worker cannot give it."""


def fit(cli: ModuleType, args: list[str], tell: Callable[..., None], shared: Shared) -> dict[str, Any]:
    """Run a fit, unless an equal run is there already; return its status (done, interrupted or failed) and the reason.

    `tell` hears at once where it is.
    """
    end: dict[str, Any] = {}
    settings: dict[str, Any] = {}

    def placed(run: "Cli") -> None:
        taken = shared.take(run.settings, run.directory)
        end["directory"] = str(taken or run.directory)
        settings.update(run.settings)
        tell(**end)
        if taken:
            raise TakenOverError
        if devices(run.config.fit.trainer) > 1:
            raise SeveralProcessesError

    try:
        cli.run(args, placed)
    except TakenOverError:
        return end | {"status": "done", "taken": True}
    except cli.FinishedError as note:
        print(note)
    except cli.UserError as error:
        print(f"error: {error}")
        return end | {"status": "failed", "reason": str(error), "user_error": True}
    except SeveralProcessesError:
        end |= fit_in_subprocess(args)
        if end["status"] != "done":
            return end
    except SystemExit:  # SIGTERM, after the record was written
        return end | {"status": "interrupted"}
    except cli.FailedError as error:
        traceback.print_exc()
        return end | {"status": "failed", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        return end | {"status": "failed", "reason": f"{type(error).__name__}: {error}".split("\n")[0]}
    shared.note(settings, Path(end["directory"]))
    return end | {"status": "done"}


def devices(trainer: "Namespace") -> int:
    """Return how many processes the trainer would start on this machine."""
    wanted = trainer.devices
    if str(wanted) in ("auto", "-1"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return 1 if trainer.accelerator == "cpu" else len(visible.split(","))
    return int(wanted) if str(wanted).isdigit() else len(wanted)


def fit_in_subprocess(args: list[str]) -> dict[str, Any]:
    """Run a fit as a command of its own; return how it ended."""
    environment = os.environ | {STARTER: str(os.getpid())}
    process = subprocess.Popen([sys.executable, "-m", "tasks", *args], env=environment)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM, 130):
        return {"status": "interrupted"}
    return {"status": "done"} if code == 0 else {"status": "failed", "reason": f"exit status {code}"}


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Append all that this process writes, libraries included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for old, new in zip(saved, (1, 2), strict=True):
            os.dup2(old, new)
            os.close(old)
