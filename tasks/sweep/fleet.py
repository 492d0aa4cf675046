"""A study on machines that share nothing: W&B sweeps hand out each stage's cells, its runs bring back their records.

The leading side plans as `sweep` does on one machine. What it would run next it registers as W&B sweeps, one for each
grid of rates and seeds; what has ended it reads from the runs' summaries. The other machines run W&B's own agent.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbacks.record import write_atomically
from tasks.sweep.files import Cell, Sweep
from tasks.sweep.ledger import ATTEMPTS, Ledger
from tasks.sweep.plan import SEED

if TYPE_CHECKING:
    from wandb.apis.public import Run

POLL = float(os.environ.get("BATCH_LIMIT_POLL", "20"))  # seconds between two looks at W&B's server
KEPT = "run_directory"  # the key of a run's summary that holds its small files, and their names
FILES = ("record.json", "curve.csv", "config.yaml")
AT_WORK = ("running", "pending", "preempting", "preempted")  # a run that was preempted is given out again by W&B
ENDED = ("FINISHED", "CANCELED")


def kept_files(directory: Path) -> dict[str, str]:
    """Return what a run's summary holds, so that its record can be read back where its directory cannot."""
    return {KEPT: json.dumps({name: (directory / name).read_text() for name in FILES if (directory / name).exists()})}


def project_of(text: str) -> tuple[str, str]:
    """Return entity and project. Raises ValueError."""
    entity, _, project = text.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(f"{text}: give ENTITY/PROJECT, as W&B's pages show them")
    return entity, project


# the leading side --------------------------------------------------------------------------------------


class Fleet:
    """Hands cells to W&B's agents and takes back how they ended.

    A cell's entry in the ledger names the W&B sweep that it was given to, so that the same command goes on.
    """

    def __init__(self, place: str, ledger: Ledger, sweeps: Sequence[Sweep]) -> None:
        import wandb

        self.wandb, (self.entity, self.project) = wandb, project_of(place)
        self.ledger, self.sweeps = ledger, sweeps
        ledger.folder.mkdir(parents=True, exist_ok=True)

    def hand_out(self, cells: Sequence[Cell]) -> None:
        """Register sweeps for the cells that no W&B sweep holds yet."""
        free = [cell for cell in cells if "wandb" not in self.ledger.read(cell)]
        for cell in free:
            place(cell, self.ledger)  # what cannot be parsed is said here, and not on every machine
        for group in grids(free, self.sweeps):
            config = sweep_of(group, sweep_for(group[0], self.sweeps))
            name = self.wandb.sweep(config, entity=self.entity, project=self.project)
            for cell in group:
                entry = self.ledger.read(cell)
                self.ledger.write(cell, **entry | {"status": "left", "wandb": name})

    def take_back(self, cells: Sequence[Cell]) -> None:
        """Write the records of the runs that have ended; what a sweep has lost may be handed out again."""
        given: dict[str, list[Cell]] = {}
        for cell in cells:
            if name := self.ledger.read(cell).get("wandb"):
                given.setdefault(name, []).append(cell)
        for name, part in given.items():
            state, runs = self._look(name)
            brought = {tuple(files["where"]): files for files in map(brought_by, runs) if files}
            for cell in part:
                directory = place(cell, self.ledger)
                entry = self.ledger.read(cell)
                if files := brought.get((directory.parent.name, directory.name)):
                    directory.mkdir(parents=True, exist_ok=True)
                    for file in FILES:
                        if file in files:
                            write_atomically(directory / file, files[file])
                    facts = {"status": "done", "directory": str(directory), "seconds": files["seconds"]}
                    self.ledger.write(cell, **entry | facts)
                elif state in ENDED and not any(run.state in AT_WORK for run in runs):
                    self.ledger.write(cell, **self._lost(entry))

    def _look(self, name: str) -> tuple[str, list[Any]]:
        """Return a sweep's state and its runs, read in this order: a run that ends in between is not taken for lost."""
        api: Any = self.wandb.Api()
        state = api.sweep(f"{self.entity}/{self.project}/{name}").state
        runs = api.runs(f"{self.entity}/{self.project}", filters={"sweep": name}, lazy=False)
        return state, list(runs)

    @staticmethod
    def _lost(entry: dict[str, Any]) -> dict[str, Any]:
        attempts = entry.get("attempts", 0) + 1
        facts = {k: v for k, v in entry.items() if k != "wandb"} | {"attempts": attempts}
        if attempts < ATTEMPTS:
            return facts | {"status": "left"}
        return facts | {"status": "failed", "reason": f"its W&B runs ended without a record, {attempts} times"}


def place(cell: Cell, ledger: Ledger) -> Path:
    """Return where a cell's run belongs here: its study and name are the same on every machine.

    Raises ValueError for what `fit` would not take.
    """
    from tasks.cli import place as placed
    from tasks.errors import UserError

    try:
        return placed([*cell.args, f"--trainer.default_root_dir={ledger.folder.parent}"]).directory
    except UserError as error:
        raise ValueError(str(error)) from error


def brought_by(run: "Run") -> dict[str, Any] | None:
    """Return the files that a finished W&B run brings, where they belong, and its seconds; None where it has none."""
    summary: Any = run.summary  # W&B's class has no types
    if run.state != "finished" or KEPT not in summary:
        return None
    files = json.loads(summary[KEPT])
    record = json.loads(files["record.json"])
    return files | {"where": (record["study"], record["run"]), "seconds": float(summary.get("_runtime") or 0.0)}


def chosen(cell: Cell, sweep: Sweep) -> tuple[dict[str, str], int]:
    """Return the values of a cell's parameters as its arguments have them, and where they begin."""
    start = sweep.command.index("${args}")
    names = {*sweep.content["parameters"], SEED}
    values: dict[str, str] = {}
    for arg in cell.args[start:]:
        name, _, value = arg.removeprefix("--").partition("=")
        if name not in names or name in values:
            break
        values[name] = value
    return values, start


def sweep_for(cell: Cell, sweeps: Sequence[Sweep]) -> Sweep:
    """Return the sweep that a cell is of."""
    return next(sweep for sweep in sweeps if is_of(cell.sweep, sweep.name))


def is_of(name: str, study: str) -> bool:
    """Return whether a name, as `STUDY stage`, begins with a study's."""
    return f"{name} ".startswith(f"{study} ")


def grids(cells: Sequence[Cell], sweeps: Sequence[Sweep]) -> Iterator[list[Cell]]:
    """Yield the cells in groups that differ in rate and seed alone, and have every combination of these."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        values, start = chosen(cell, sweep_for(cell, sweeps))
        same = tuple((k, v) for k, v in values.items() if not varies(k))
        groups.setdefault((cell.sweep, same, cell.args[start + len(values) :]), []).append(cell)
    for group in groups.values():
        every = [chosen(cell, sweep_for(cell, sweeps))[0] for cell in group]
        combinations = math.prod(len({values[name] for values in every}) for name in every[0])
        yield from [group] if len(group) == combinations else [[cell] for cell in group]


def varies(name: str) -> bool:
    """Return whether a parameter may differ within a grid."""
    return name == SEED or name.endswith(".lr")


def sweep_of(group: Sequence[Cell], sweep: Sweep) -> dict[str, Any]:
    """Return the W&B sweep of a grid of cells."""
    values, start = chosen(group[0], sweep)
    every = [chosen(cell, sweep)[0] for cell in group]
    axes = {name: list(dict.fromkeys(v[name] for v in every)) for name in values}
    command = sweep.content["command"]
    cut = command.index("${args}")
    after = len(sweep.command) - start - 1  # of the file's command
    tail = [*command[cut + 1 :], *group[0].args[start + len(values) + after :]]
    return {
        "name": f"{group[0].sweep} batch {group[0].batch_size}",
        "program": sweep.content["program"],
        "method": "grid",
        "command": [*command[:cut], "${args}", *tail, "--trainer.logger=RunWandbLogger"],
        "parameters": {name: {"values": [typed(text) for text in texts]} for name, texts in axes.items()},
    }


def typed(text: str) -> int | float | str:
    """Return a value as the number that W&B's agent writes in just this way, else as text."""
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            continue
    return text


# the other machines ------------------------------------------------------------------------------------


def follow(where: str, names: Sequence[str], idle: float) -> int:
    """Run W&B's agent on one sweep of these studies after the other, until there was none for `idle` seconds."""
    import wandb

    entity, project = project_of(where)
    last = time.monotonic()
    while time.monotonic() - last < idle:
        for sweep in wandb.Api().project(project, entity=entity).sweeps():
            if sweep.state == "RUNNING" and any(is_of(str(sweep.config.get("name")), name) for name in names):
                agent(f"{entity}/{project}/{sweep.id}")
                last = time.monotonic()
        time.sleep(POLL)
    return 0


def agent(sweep: str) -> None:
    """Run W&B's agent until its sweep has no more; a signal to this process lets it save its run."""
    process = subprocess.Popen([sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep])
    try:
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
