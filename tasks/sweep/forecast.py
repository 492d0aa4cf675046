"""What a sweep would cost: this machine's speed, measured with a few real steps, times what the runs may take."""

import contextlib
import io
import itertools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from callbacks.record import Record, read_record
from tasks import cli
from tasks.errors import FinishedError, UserError
from tasks.report.sources.runs import read_curve
from tasks.sweep.plan import SEED, Plain, Staged

TRIALS = 5  # rates that a search tries at a size, as seen in the reproduction: 4 to 6
HOUR = 3600.0
PROBED = 5  # steps, each between two evaluations; the first warms up
WIDER = 16  # the speed is measured at a batch and at this many times it


def fitted(args: Sequence[str]) -> Record:
    """Run a fit, or find it finished; return its record. Raises UserError and FailedError as `fit` does."""
    directory = cli.place(["fit", *args]).directory
    with contextlib.suppress(FinishedError):
        cli.run(["fit", *args])
    record = read_record(directory / "record.json")
    if not isinstance(record, Record):
        raise UserError(f"{directory} holds no record ({record.reason}): delete that directory")
    return record


@dataclass(frozen=True)
class Speed:
    """Seconds of a step at a batch size, a + b B, and the examples of the training set."""

    a: float
    b: float
    examples: int

    def step(self, batch_size: float) -> float:
        """Return the seconds of a step."""
        return self.a + self.b * batch_size


def measured_speed(args: Sequence[str], batch_size: int) -> Speed:
    """Return this machine's speed from a few real steps at two batch sizes, which also check data and network."""
    seconds, examples = {}, 0
    with tempfile.TemporaryDirectory() as root:
        for size in (batch_size, WIDER * batch_size):
            if examples and size > examples:
                break
            flags = [f"--data.batch_size={size}", f"--trainer.max_steps={PROBED}", f"--trainer.default_root_dir={root}"]
            flags += ["--trainer.logger=false", "--progress.show=false", "--run.study=speed", f"--run.name=b{size}"]
            flags += ["--evaluation.first=1", "--evaluation.ratio=1.01", "--evaluation.wide_ratio=1.01"]
            with contextlib.redirect_stderr(io.StringIO()):
                record = fitted([*args, *flags])
            clock = read_curve(Path(root) / "speed" / f"b{size}" / "curve.csv")["seconds"]
            seconds[size] = min(b - a for a, b in itertools.pairwise(clock))
            examples = record.data.train_examples or size
    small, large = min(seconds), max(seconds)
    b = max(0.0, (seconds[large] - seconds[small]) / max(large - small, 1))
    return Speed(max(0.0, seconds[small] - b * small), b, examples)


@dataclass(frozen=True)
class Part:
    """The runs of one arm: their options, and how many at each batch size."""

    args: tuple[str, ...]
    runs: dict[int, int]


def parts(cells: Plain | Staged) -> list[Part]:
    """Return the arms of a sweep, with the runs that it has or, where it has stages, about as many as it will have."""
    sweep, plan = cells.sweep, cells.plan
    if isinstance(cells, Plain) or plan is None:
        arms: dict[str, Part] = {}
        for cell in cells.cells(lambda _: None):  # type: ignore[arg-type, return-value]  # a plain sweep asks nothing
            arm = str([value for value in cell.values if not value[0].endswith((".lr", "batch_size", SEED))])
            runs = arms.setdefault(arm, Part(cell.args, {})).runs
            runs[cell.batch_size] = runs.get(cell.batch_size, 0) + 1
        return list(arms.values())
    confirmed = plan.confirm.get("batch_sizes")
    found = []
    for settings in cells.arms.values():
        first = next(iter(settings.values())) | {SEED: 0}
        if plan.learning_rate:
            first |= {plan.learning_rate: cells.rates[len(cells.rates) // 4]}
        tried = TRIALS * len(plan.tune.get("seeds", [])) + len(plan.pilot.get("seeds", []))
        counted = sum(map(len, plan.batches))
        runs = {size: tried + (counted if confirmed is None or size in confirmed else 0) for size in settings}
        found.append(Part(sweep.cell(first).args, runs))
    return found


def most_steps(settings: dict[str, Any], batch_size: int, examples: int) -> float:
    """Return the steps after which a run ends whatever it reached."""
    rules, epochs = settings["convergence"], settings["data"]["init_args"].get("epochs")
    ends = []
    if rules["budget_steps"] is not None and rules["stop"]:
        ends.append(max(rules["budget_steps"], rules["budget_examples"] / batch_size))
    if epochs is not None:
        ends.append(epochs * examples / batch_size)
    if settings["trainer"]["max_steps"] > 0:
        ends.append(settings["trainer"]["max_steps"])
    return min(ends, default=math.inf)


def told(cells: Plain | Staged, at_once: int) -> str:
    """Return in words what a sweep's runs would cost here. Raises UserError and FailedError as `fit` does."""
    seconds, count = 0.0, 0
    for part in parts(cells):
        known = {size: runs for size, runs in part.runs.items() if size} or {0: sum(part.runs.values())}
        settings = cli.place(part.args).settings
        sizes = {size or settings["data"]["init_args"]["batch_size"]: runs for size, runs in known.items()}
        speed = measured_speed(part.args[1:], min(sizes))
        for size, runs in sizes.items():
            seconds += runs * most_steps(settings, size, speed.examples) * speed.step(size)
            count += runs
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    hours = "no end: a run has no budget" if math.isinf(seconds) else f"{seconds / HOUR:.3g} hours of one {device}"
    each = "" if math.isinf(seconds) else f", {seconds / HOUR / at_once:.3g} hours on {at_once} at once"
    about = "" if isinstance(cells, Plain) else "about "
    return f"{cells.sweep.name}: {about}{count:,} runs, at most {hours}{each} (training alone, speed measured here)"
