"""From the options of `fit` to the question of a study, and what its answer will cost."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from callbacks.convergence_detector import Target
from callbacks.cost import price, read_prices
from callbacks.hit import FOLLOW
from tasks.errors import UserError
from tasks.limit.design import CONFIRMING, Question, first_design
from tasks.limit.pilot import Resolved, pilot, resolve
from tasks.sweep.forecast import HOUR, TRIALS, Speed, measured_speed
from tasks.sweep.plan import BUDGET
from tasks.sweep.preflight import LEAST_SIZES, doubts

# What a study sets itself, in YAML: its runs end by the target or the study's budgets, at rates tuned for each size.
OF_THE_STUDY = {
    "model.lr_scaling": "none",
    "data.epochs": "null",
    "trainer.max_steps": "-1",
    "convergence.stop": "true",
    "run.name": "null",
}


@dataclass(frozen=True)
class Asked:
    """What the command line asks, resolved; `replaced` are its options in whose place the study has its own."""

    args: tuple[str, ...]
    config: Resolved
    target: Target | None
    most: int | None
    replaced: tuple[str, ...] = ()

    @property
    def runs(self) -> Path:
        """Return the folder of all runs."""
        return self.config.runs

    @property
    def study(self) -> str:
        """Return the study's name: runs of the config's own study are no part of it."""
        return f"{self.config.settings['run']['study']}_limit"

    @property
    def folder(self) -> Path:
        """Return where the sweep file, its plan and the report are written."""
        return self.runs / self.study / "limit"


def asked(args: list[str], target: Target | None, most: int | None, threads: int) -> Asked:
    """Return what is asked. Raises UserError where `fit` would not take these options, or a study cannot have them."""
    torch.set_num_threads(threads)
    config = resolve(args)
    if config.data.get("growth"):
        raise UserError("data.growth: in a study every run keeps its batch size: leave it out")
    given = {name: config.given(name) for name in OF_THE_STUDY} | {"run.name": config.own_name}
    replaced = [name for name, text in OF_THE_STUDY.items() if given[name] not in (None, yaml.safe_load(text))]
    args = [*args, *(f"--{name}={OF_THE_STUDY[name]}" for name in replaced)]
    goal = target or next((t for t in config.targets if t.value is not None), None)
    return Asked(tuple(args), config, goal, most, tuple(replaced))


def question(what: Asked) -> tuple[Question, list[str]]:
    """Return the question after the speed was measured and the pilot run, and what is to be said of them."""
    if what.replaced:
        print(f"left out, since a study sets them itself: {', '.join(what.replaced)}", file=sys.stderr)
    print("a few steps, to check data and network and to measure the speed", file=sys.stderr)
    speed = measured_speed(what.args, what.config.batch_size)
    own = f"the config's own batch {what.config.batch_size} and rate {what.config.rate:g}"
    print(f"pilot: one run at {own}, {1000 * speed.step(what.config.batch_size):.3g} ms a step", file=sys.stderr)
    target, steps, said = pilot(what.args, what.config, what.target, what.study)
    found = ask(what, target, steps, speed)
    pilots = f"pilot: {target.metric} {target.value:g} after {steps:,.0f} steps of {found.batch_size}"
    return found, [line for line in (said, pilots) if line] + preflight(found)


def ask(what: Asked, target: Target, steps: float, speed: Speed) -> Question:
    """Return the question."""
    ghost = what.config.model.get("ghost_batch_size")
    unit = ghost if isinstance(ghost, int) else 1
    settings = (what.study, command(what.args), target, what.config.batch_size, what.config.rate)
    return Question(*settings, steps, speed.examples, unit, what.most or 10**12)


def command(args: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options without the folder of runs, which is the place's and not the study's."""
    return tuple(arg for arg in args if not arg.startswith("--trainer.default_root_dir="))


def ladder(found: Question) -> list[int]:
    """Return all the batch sizes that a study may come to, each twice the one before."""
    smallest = first_design(found).sizes[0]
    return [smallest * 2**k for k in range(int(math.log2(max(found.ceiling / smallest, 1))) + 1)]


def preflight(found: Question) -> list[str]:
    """Return what would keep the answer from being identified."""
    sizes = ladder(found)
    while len(sizes) < LEAST_SIZES and 2 * sizes[-1] <= min(found.most, found.examples):
        sizes.append(2 * sizes[-1])  # too few: say what the others lack
    return [f"beforehand: {doubt}" for doubt in doubts(sizes, found.examples)]


def forecast(what: Asked, prices: Path | None, workers: int) -> str:
    """Return the plan in words: sizes, rates, seeds, runs, time and money at this machine's speed."""
    speed = measured_speed(what.args, what.config.batch_size)
    steps = what.config.budget / BUDGET
    found = ask(what, what.target or Target("val/loss", "min", 0.0), steps, speed)
    first, sizes = first_design(found), ladder(found)
    most = sum(map(len, CONFIRMING))
    least = len(CONFIRMING[0])
    few, many = costs(found, speed, sizes[::2], least), costs(found, speed, sizes, most)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    start = found.rate * math.sqrt(first.sizes[0] / found.batch_size)
    lines = [
        f"sizes   first {', '.join(map(str, first.sizes))}; then up to {found.ceiling} and between, where it pays",
        f"rates   from about {start:.4g} at batch {first.sizes[0]}, doubled and halved until worse on both sides",
        f"seeds   1 to tune, {least} to {most} that count",
        f"runs    {len(sizes[::2]) * (TRIALS + least)} to {len(sizes) * (TRIALS + most)}",
        f"speed   {1000 * speed.step(found.batch_size):.3g} ms a step of {found.batch_size}, measured; "
        f"{steps:,.0f} steps a run, a quarter of the budget, assumed",
        f"time    {few / HOUR:.2g} to {many / HOUR:.2g} device-hours of training alone, on {workers} at once",
    ]
    if prices is not None:
        lines.append(money(device, prices, few, many))
    return "\n".join([*lines, *preflight(found)])


def costs(found: Question, speed: Speed, sizes: list[int], seeds: int) -> float:
    """Return the seconds of all runs; beyond the config's own batch steps are taken to fall no more.

    So it is an upper bound there, up to the linear regime below it.
    """
    total = 0.0
    for size in sizes:
        steps = found.steps * max(found.batch_size / size, 1.0)
        total += (TRIALS + seeds) * FOLLOW * steps * speed.step(size)
    return total


def money(device: str, prices: Path, few: float, many: float) -> str:
    """Return the line with what that costs. Raises UserError where the table has no such device."""
    day, currency, table = read_prices(prices)
    each = price(device, table)
    if each is None:
        raise UserError(f"{prices} has no price for the device {device}: add one under device_hour")
    return (
        f"money   {few / HOUR * each:.2g} to {many / HOUR * each:.2g} {currency} at {each:g} an hour (prices of {day})"
    )
