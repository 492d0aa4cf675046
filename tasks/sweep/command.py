"""`python -m tasks sweep FILE...`: a W&B sweep file's runs on this machine, without a server."""

import argparse
import sys
from pathlib import Path

from tasks.sweep.files import Cell, read_sweep
from tasks.sweep.ledger import FINAL, Ledger, State
from tasks.sweep.pool import Pool, places
from tasks.sweep.table import Display, cost


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks sweep", description=__doc__)
    words.add_argument("files", nargs="+", type=Path, metavar="FILE", help="W&B sweep files")
    words.add_argument("--workers", type=int, metavar="N", help="default: one per GPU, else one per core")
    words.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    words.add_argument("--status", action="store_true", help="show how far the sweep is, and run nothing")
    words.add_argument("--retry-failed", action="store_true", help="run the cells that failed before again")
    words.add_argument("--dry-run", action="store_true", help="print every cell's command, and run nothing")
    return words


class Runner:
    """Runs the cells of a sweep in a pool of workers until none is left."""

    def __init__(self, cells: list[Cell], ledger: Ledger, pool: Pool, display: Display) -> None:
        self.cells, self.ledger, self.pool, self.display = cells, ledger, pool, display
        self.states = {cell: ledger.state(cell) for cell in cells}

    def check(self) -> list[str]:
        """Parse cells that show every value of the sweeps once; give what is wrong with them."""
        waiting, complaints, asked = covering([c for c in self.cells if self.states[c].status not in FINAL]), [], 0
        asked = len(waiting)
        while asked:
            for worker in self.pool.idle()[: len(waiting)]:
                worker.give("check", waiting.pop().args)
            for _, kind, complaint in self.pool.wait(1.0):
                asked -= 1
                complaints += [complaint] if complaint and (kind == "checked") else []
        return list(dict.fromkeys(complaints))

    def run(self) -> None:
        """Run what is left; cells that other processes run are waited for."""
        while any(state.status in ("left", "running") for state in self.states.values()):
            self._feed()
            for cell, kind, detail in self.pool.wait(1.0):
                self._note(cell, kind, detail)
            mine = self.pool.running()
            for cell, state in self.states.items():
                if state.status not in FINAL and cell not in mine:
                    self._look(cell)
            self.display.update(self.states)

    def _feed(self) -> None:
        left = [c for c, s in self.states.items() if s.status == "left" and c not in self.pool.running()]
        for worker in self.pool.idle():
            if left:
                cell = max(left, key=self._urgency)
                left.remove(cell)
                worker.give("run", cell)
                self.states[cell] = State("running", {}, {})

    def _urgency(self, cell: Cell) -> tuple[float, int]:
        """The longest first, so that all workers end together; of a sweep that is unknown the largest batch."""
        seconds = cost(cell, self.states)
        return (float("inf") if seconds is None else seconds, cell.batch_size)

    def _look(self, cell: Cell) -> None:
        before, self.states[cell] = self.states[cell], self.ledger.state(cell)
        if self.states[cell].status in FINAL and before.status not in FINAL:
            self.display.ended(cell, self.states[cell], self.states)

    def _note(self, cell: Cell, kind: str, detail: str) -> None:
        if kind == "died":
            with self.ledger.lock(cell) as mine:
                entry = self.ledger.read(cell)
                if mine and entry.get("status") == "running":
                    self.ledger.write(cell, **entry | {"status": "failed", "reason": detail})
        self._look(cell)


def covering(cells: list[Cell]) -> list[Cell]:
    """Few cells that show, sweep by sweep, every value of every parameter."""
    seen, chosen = set(), []
    for cell in cells:
        shown = {(cell.sweep, name, repr(value)) for name, value in cell.values}
        if not shown <= seen:
            seen |= shown
            chosen.append(cell)
    return chosen


def sweep(options: argparse.Namespace) -> int:
    """Run the files' cells; 0 if every one has ended and none failed. Raises ValueError."""
    cells = list(dict.fromkeys(cell for file in options.files for cell in read_sweep(file).cells()))
    ledger = Ledger(options.runs)
    rooms = places(options.workers)
    if options.dry_run:
        for cell in cells:
            print("python -m tasks", *cell.args)
        return 0
    states = {cell: ledger.state(cell) for cell in cells}
    if options.status:
        Display(len(rooms)).summary(states)
        return 0
    if options.retry_failed:
        for cell, state in states.items():
            if state.status == "failed":
                ledger.write(cell, **state.entry | {"status": "left", "attempts": 0})
    left = sum(state.status not in FINAL for state in states.values())
    runner, display = None, Display(len(rooms))
    if left:
        pool = Pool(rooms[:left], options.runs)
        try:
            runner = Runner(cells, ledger, pool, display)
            if complaints := runner.check():
                raise ValueError("; ".join(complaints))
            with display:
                runner.run()
        finally:
            pool.close()
    states = {cell: ledger.state(cell) for cell in cells}
    display.summary(states)
    return int(any(state.status == "failed" for state in states.values()))


def main(argv: list[str] | None = None) -> int:
    """Run the sweep; 2 for a user's mistake, 1 if a cell failed, 130 after Ctrl-C."""
    options = parser().parse_args(argv)
    try:
        return sweep(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
