"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere."""

import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tasks.sweep.files import Cell
from tasks.sweep.ledger import State

COLUMNS = {"reached": "reached", "budget": "censored", "outrun": "outrun", "diverged": "diverged", "failed": "failed"}
PLAIN_EVERY = 10.0  # seconds between two plain lines when no cell ends
States = Mapping[Cell, State]


def clock(seconds: float | None) -> str:
    """Return seconds as 1:02:03 or 2:03, ? where unknown."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def costs(states: States) -> Callable[[Cell], float | None]:
    """Return a function of what a cell should take, in seconds: as its sweep's nearest batch size and rate did."""
    ended: dict[str, dict[int, dict[float, list[float]]]] = {}  # once for all cells: each may be asked for
    for cell, state in states.items():
        if state.record and state.seconds:
            rates = ended.setdefault(cell.sweep, {}).setdefault(max(cell.batch_size, 1), {})
            rates.setdefault(cell.learning_rate, []).append(state.seconds)

    def cost(cell: Cell) -> float | None:
        if not (known := ended.get(cell.sweep)):
            return None
        rates = known[min(known, key=lambda size: abs(math.log(size / max(cell.batch_size, 1))))]
        return statistics.mean(rates[min(rates, key=lambda rate: abs(math.log(rate / cell.learning_rate)))])

    return cost


def time_left(states: States, workers: int) -> float | None:
    """Return the seconds until the last cell ends, if `workers` stay busy."""
    cost = costs(states)
    every = [cost(cell) for cell, state in states.items() if state.status in ("left", "running")]
    known = [seconds for seconds in every if seconds is not None]
    if every and not known:
        return None
    mean = sum(known) / len(known) if known else 0.0
    total = sum(mean if seconds is None else seconds for seconds in every)
    return total / max(1, min(workers, len(every)))


def best(states: States) -> str:
    """Return the fewest steps to the first target so far, per batch size."""
    steps: dict[int, float] = {}
    for state in states.values():
        if state.status == "reached" and state.record is not None:
            size = state.record.batch.size
            steps[size] = min(steps.get(size, float("inf")), state.record.targets[0].at("steps"))
    return ", ".join(f"{size}: {steps[size]:,.0f}" for size in sorted(steps))


def forecast(seconds: float | None, more: bool) -> str:
    """Return the time left in words; with `more` cells to follow it is a lower bound."""
    return f"at least {clock(seconds)}" if more and seconds is not None else clock(seconds)


def table(states: States, left: float | None, more: bool = False) -> Table:
    """Return a table with a row per sweep and one for all; `more` cells may follow."""
    sweeps = dict.fromkeys(cell.sweep for cell in states)
    records = {name: best({c: s for c, s in states.items() if c.sweep == name}) for name in sweeps}
    lines = [f"fewest steps, {name}: {record}" for name, record in records.items() if record]
    wait = "not known before a run has ended" if left is None else forecast(left, more)
    caption = "\n".join([*lines, f"time left: {wait}"])
    grid = Table(box=SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    grid.add_column("sweep", overflow="fold")
    for name in ("done", "running", *COLUMNS.values(), "left"):
        grid.add_column(name, justify="right", no_wrap=True, min_width=max(len(name), 2 * len(str(len(states))) + 1))
    for name in [*sweeps, *(["all"] if len(sweeps) > 1 else [])]:
        part = {c: s for c, s in states.items() if name in (c.sweep, "all")}
        count = Counter(s.status for s in part.values())
        done = sum(count[c] for c in COLUMNS)
        cells = [f"{done}/{len(part)}", str(count["running"]), *(str(count[c]) for c in COLUMNS)]
        grid.add_row(name, *cells, str(count["left"]))
    return grid


class Display:
    """Shows the states of a sweep's cells while it runs; `more` says whether other cells may follow."""

    def __init__(self, workers: int, more: Callable[[], bool] = lambda: False, out: TextIO | None = None) -> None:
        self.workers, self.more, self.out = workers, more, out or sys.stdout
        self.console = Console(file=self.out, width=None if self.out.isatty() else 120)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.next = 0.0

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def ended(self, cell: Cell, state: State, states: States) -> None:
        """Print how a cell ended, where there is no table."""
        final = state.record.final if state.record else {}
        word = COLUMNS.get(state.status, state.status)
        where = f" at step {final['step']:,.0f}" if final else f": {state.entry.get('reason', '')}"
        if not self.live or state.status == "failed":
            self.say(f"{self._counts(states)} | {cell.sweep} {cell}: {word}{where}, {state.seconds:.1f} s")
            self.next = time.monotonic() + PLAIN_EVERY

    def _counts(self, states: States) -> str:
        count = Counter(s.status for s in states.values())
        done = sum(count[c] for c in COLUMNS)
        bad = "".join(f", {count[c]} {word}" for c, word in COLUMNS.items() if c != "reached" and count[c])
        left = forecast(time_left(states, self.workers), self.more())
        return f"{done}/{len(states)} done{bad}, {count['running']} running, {left} left"

    def _table(self, states: States) -> Table:
        return table(states, time_left(states, self.workers), self.more())

    def update(self, states: States) -> None:
        """Refresh the table; elsewhere print a line now and then."""
        if self.live:
            self.live.update(self._table(states), refresh=True)
        elif time.monotonic() >= self.next:
            self.next = time.monotonic() + PLAIN_EVERY
            self.say(self._counts(states))

    def summary(self, states: States) -> None:
        """Print the table once, at the end or for --status, with the failed cells' reasons."""
        self.console.print(self._table(states))
        for cell, state in states.items():
            if state.status == "failed":
                self.say(f"failed: {cell.sweep} {cell}: {state.entry.get('reason')} ({state.entry.get('log')})")
