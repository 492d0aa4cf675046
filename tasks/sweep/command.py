"""`python -m tasks sweep FILE...`: a W&B sweep file's runs on this machine, without a server."""

import argparse
import contextlib
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tasks.sweep.files import Cell, read_sweep
from tasks.sweep.fleet import POLL, Fleet, follow
from tasks.sweep.ledger import FINAL, Ledger, State
from tasks.sweep.plan import Plain, Staged, is_plan, source
from tasks.sweep.pool import Pool, places
from tasks.sweep.preflight import afterwards, beforehand
from tasks.sweep.table import Display, costs
from tasks.sweep.worker import checked

SAME = 3  # cells that fail for the same mistake before any other ends: all will


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks sweep", description=__doc__)
    words.epilog = "After -- come options of `fit` for every cell: sweep FILE -- --data.root DIR --trainer.devices 4"
    words.add_argument("files", nargs="+", type=Path, metavar="FILE", help="W&B sweep files")
    words.add_argument("--workers", type=int, metavar="N", help="default: one per GPU, else one per core")
    words.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    words.add_argument("--timeout", type=float, metavar="MINUTES", help="of one run, then it counts as failed")
    words.add_argument("--status", action="store_true", help="show how far the sweep is, and run nothing")
    words.add_argument("--retry-failed", action="store_true", help="run the cells that failed before again")
    words.add_argument("--wandb", metavar="ENTITY/PROJECT", help="let W&B's agents run the cells, stage after stage")
    words.add_argument("--agent", metavar="ENTITY/PROJECT", help="on the other machines: run what --wandb hands out")
    words.add_argument("--idle", type=float, default=30, metavar="MINUTES", help="--agent ends after so long (30)")
    words.add_argument("--dry-run", action="store_true", help="print the commands of the cells so far and the cost")
    return words


class Runner:
    """Runs the cells of sweeps in a pool of workers until none is left; `doubts`: says what speaks against them."""

    def __init__(self, sources: list[Plain | Staged], ledger: Ledger, doubts: bool = True) -> None:
        self.sources, self.ledger, self.doubts = sources, ledger, doubts
        self.states: dict[Cell, State] = {}
        self.said: set[str] = set()
        self.ended = 0
        self.extend()

    def extend(self) -> None:
        """Add the cells that follow from those that have ended."""
        turns = enumerate(self.sources)
        self.turn = {cell: turn for turn, source in turns for cell in source.cells(self.look)}
        self.states = {cell: self.look(cell) for cell in self.turn}

    def look(self, cell: Cell) -> State:
        """Return the cell's state as last seen."""
        return self.states.get(cell) or self.states.setdefault(cell, self.ledger.state(cell))

    def left(self) -> list[Cell]:
        """Return the cells that have not come to an end."""
        return [cell for cell, state in self.states.items() if state.status not in FINAL]

    def grows(self) -> bool:
        """Return whether more cells may follow from how these end."""
        return not all(cells.complete for cells in self.sources)

    def print_pending_stages(self) -> None:
        """Print which sweeps have later stages, which depend on how the cells so far end."""
        for cells in self.sources:
            if not cells.complete:
                print(f"{cells.sweep.name}: more cells follow from how these end, as its plan says", file=sys.stderr)

    def print_cost(self, at_once: int) -> None:
        """Tell what the sweeps would cost at this machine's speed, with so many runs at once."""
        from tasks.errors import FailedError, UserError
        from tasks.sweep.forecast import told  # imports torch

        for cells in self.sources:
            try:
                print(told(cells, at_once), file=sys.stderr)
            except (UserError, FailedError) as error:
                print(f"{cells.sweep.name}: its cost cannot be measured here: {error}", file=sys.stderr)

    def parse(self) -> None:
        """Parse cells that show every value once, in this process. Raises ValueError with what is wrong with them."""
        from tasks import cli  # imports torch

        refuse([complaint for cell in covering(list(self.states)) if (complaint := checked(cli, cell.args)[0])])

    def retry_failed(self) -> None:
        """Let the failed cells count as never begun."""
        for cell, state in self.states.items():
            if state.status == "failed":
                self.ledger.write(cell, **state.entry | {"status": "left", "attempts": 0})
                self.states[cell] = self.ledger.state(cell)

    def run(self, pool: Pool, display: Display, until: float = math.inf) -> None:
        """Run what is left, or until a moment of the monotonic clock; cells that other processes run are waited for.

        Raises ValueError for what cannot be parsed.
        """
        self.check(pool)
        while self.left() and time.monotonic() < until:
            self._feed(pool)
            for cell, kind, detail in pool.wait(1.0):
                if kind == "died":
                    self.ledger.note_vanished(cell, detail)
                elif kind == "stopped":
                    raise RuntimeError(detail)
                elif kind == "hung":
                    self.ledger.mark_dead(cell, "failed", reason=detail)
                self._refresh(cell, display)
            mine = pool.running()
            for cell in self.left():
                if cell not in mine:
                    self._refresh(cell, display)
            self._stop_at_a_shared_mistake()
            self._go_on(display)

    def run_elsewhere(self, fleet: Fleet, display: Display) -> None:
        """Let other machines run what is left. Raises ValueError for what cannot be parsed."""
        for cells in self.sources:
            self._doubt(cells, beforehand(cells))
        while left := self.left():
            fleet.hand_out(left)
            time.sleep(POLL)
            fleet.take_back(left)
            for cell in left:
                self._refresh(cell, display)
            self._go_on(display)

    def _go_on(self, display: Display) -> None:
        """Take up what follows from the cells that have ended, and show it."""
        ended = sum(state.status in FINAL for state in self.states.values())
        if ended != self.ended:
            self.ended = ended
            self.extend()
            for cells in self.sources:
                self._doubt(cells, afterwards(cells, self.states))
        display.update(self.states)

    def check(self, pool: Pool) -> None:
        """Parse cells that show every value once. Raises ValueError with all that is wrong with them."""
        waiting = covering(self.left())
        asked = len(waiting)
        complaints: list[str] = []
        notes: list[str] = []
        while asked:
            for worker in pool.idle()[: len(waiting)]:
                worker.give("check", waiting.pop().args)
            for _, kind, detail in pool.wait(1.0):
                asked -= 1
                complaint, said = detail if kind == "checked" else (None, [])
                complaints += [complaint] if complaint else []
                notes += said
        refuse(complaints)
        self._say(notes)
        for cells in self.sources:
            self._doubt(cells, beforehand(cells))

    def _stop_at_a_shared_mistake(self) -> None:
        """Raise ValueError where the first cells all fail for one mistake, of the data say, that no parser sees."""
        ended = [state for state in self.states.values() if state.status in FINAL]
        mistakes = {state.entry.get("reason") for state in ended if state.entry.get("user_error")}
        every = all(state.entry.get("user_error") for state in ended)
        if len(mistakes) == 1 and every and len(ended) >= min(SAME, len(self.states)):
            self.retry_failed()  # once it is put right, the same command runs them
            raise ValueError(mistakes.pop())

    def _say(self, lines: list[str]) -> None:
        """Print lines, each once."""
        for line in lines:
            if line not in self.said:
                self.said.add(line)
                print(line, file=sys.stderr)

    def _doubt(self, cells: Plain | Staged, doubts: list[str]) -> None:
        """Tell of what speaks against a sweep."""
        if self.doubts:
            self._say([f"{cells.sweep.name}: no critical batch size will be identified: {doubt}" for doubt in doubts])

    def _feed(self, pool: Pool) -> None:
        idle, mine = pool.idle(), pool.running()
        waiting = [c for c, s in self.states.items() if s.status == "left" and c not in mine] if idle else []
        cost = costs(self.states)

        def urgency(cell: Cell) -> tuple[int, bool, float, int]:
            """Return the files' order, of a file tuning first, since others follow from it, then the longest."""
            seconds, tunes = cost(cell), cell.sweep.endswith(" tune")
            return (-self.turn[cell], tunes, float("inf") if seconds is None else seconds, cell.batch_size)

        for worker in idle[: len(waiting)]:
            cell = max(waiting, key=urgency)
            waiting.remove(cell)
            worker.give("run", cell)
            self.states[cell] = State("running", {}, None)

    def _refresh(self, cell: Cell, display: Display) -> None:
        before, self.states[cell] = self.states[cell], self.ledger.state(cell)
        if self.states[cell].status in FINAL and before.status not in FINAL:
            display.ended(cell, self.states[cell], self.states)


def refuse(complaints: list[str]) -> None:
    """Raise ValueError with all that is wrong with a sweep's cells, each once, if anything is."""
    if complaints:
        raise ValueError("; ".join(dict.fromkeys(complaints)))


def covering(cells: list[Cell]) -> list[Cell]:
    """Return few cells that show, sweep by sweep, every value of every parameter; of numbers the least and largest."""
    numbers: dict[tuple[str, str, type], list[float]] = {}
    for cell in cells:
        for name, value in cell.values:
            if type(value) in (int, float):
                numbers.setdefault((cell.sweep, name, type(value)), []).append(value)
    ends = {place: (min(values), max(values)) for place, values in numbers.items()}
    seen: set[tuple[str, str, str]] = set()
    chosen: list[Cell] = []
    for cell in cells:
        shown = {
            (cell.sweep, name, repr(value))
            for name, value in cell.values
            if value in ends.get((cell.sweep, name, type(value)), (value,))
        }
        if not shown <= seen:
            seen |= shown
            chosen.append(cell)
    return chosen


def sweep(options: argparse.Namespace) -> int:
    """Run the files' cells; return 0 if none failed, 1 otherwise. Raises ValueError for a user's mistake."""
    if options.workers is not None and options.workers < 1:
        raise ValueError("--workers: give at least 1")
    if options.timeout is not None and options.timeout <= 0:
        raise ValueError("--timeout: give more than 0 minutes")
    files = [path for path in options.files if not is_plan(path)]
    if not files:
        raise ValueError("FILE: give the sweep file; the plan.yaml beside it is read with it")
    if options.agent:
        return follow(options.agent, [read_sweep(path).name for path in files], 60 * options.idle)
    flags = tuple(options.flags)
    runner = Runner([source(read_sweep(path, flags)) for path in files], Ledger(options.runs))
    rooms = places(options.workers)
    display = Display(len(rooms), runner.grows)
    if options.dry_run:
        for cell in runner.states:
            print("python -m tasks", shlex.join(cell.args))
        sys.stdout.flush()
        runner.print_pending_stages()
        runner.parse()
        runner.print_cost(len(rooms) * int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1")))
        return 0
    if options.retry_failed:
        runner.retry_failed()
    if options.wandb and not options.status:
        with display:
            runner.run_elsewhere(Fleet(options.wandb, runner.ledger, [c.sweep for c in runner.sources]), display)
    elif runner.left() and not options.status:
        grows = any(isinstance(cells, Staged) for cells in runner.sources)
        limit = 60 * options.timeout if options.timeout else None
        with runner.ledger.lock(runner.left()[0]):
            pass  # refused here where cells cannot be locked, not by each worker
        pool = Pool(rooms if grows else rooms[: len(runner.left())], options.runs, limit=limit)
        busy: list[Cell] = []
        try:
            with display:
                runner.run(pool, display)
        finally:
            busy = pool.running()
            pool.close()
            for cell in busy:
                runner.ledger.mark_dead(cell, "interrupted")
    display.summary(runner.states)
    runner.print_pending_stages()
    return int(any(state.status == "failed" for state in runner.states.values()))


def main(argv: list[str] | None = None) -> int:
    """Run the sweep; return 2 for a user's mistake, 1 if a cell failed, 130 or 143 after a signal."""
    given = list(sys.argv[2:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    options = parser().parse_args(given[:cut])
    options.flags = given[cut + 1 :]
    with stop_on_sigterm():
        try:
            return sweep(options)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ValueError, OSError) as error:
            place = f"{str(error.filename)[:200]}: {error.strerror}" if isinstance(error, OSError) else error
            mend = ": the same command goes on once that is mended" if isinstance(error, OSError) else ""
            print(f"error: {place}{mend}", file=sys.stderr)
            return 2
        except RuntimeError as error:  # no worker starts, or none can write
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped: the same command goes on from here", file=sys.stderr)
            return 130
        except SystemExit as ended:
            print("stopped: the same command goes on from here", file=sys.stderr)
            return ended.code if isinstance(ended.code, int) else 1


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end what is done here as Ctrl-C does: through `finally`, which lets the workers save their runs."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
