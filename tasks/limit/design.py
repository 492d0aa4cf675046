"""Which batch sizes, rates and seeds a study has, and what the next round adds; all pure but for the files."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from callbacks.convergence_detector import Target
from tasks.limit.known import Known
from tasks.sweep.plan import BUDGET, ENDING, rounded_up
from tasks.sweep.preflight import LARGEST_FITTED, LEAST_SIZES, LEAST_STEPS
from tasks.yaml_file import read_yaml

RATE = "model.optimizer.init_args.lr"
TUNING, CONFIRMING = [91], [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12]]
PRECISIONS = (0.35, 0.2, 0.12, 0.08)  # of log steps at each size, round by round
FIRST_SIZES = 3  # of the first round, each 4 times the one before
SMALLEST = 8  # a first guess: at batch 8 hardly any training is beyond its linear regime
FLAT = 5.0  # the range is long enough once the largest batch needs this many times the fewest examples
LINEAR = 0.85  # slope of log steps between the two smallest sizes that counts as linear
HEAD = "# Written by `python -m tasks limit`: run it as any other sweep, with its plan beside it.\n"


@dataclass(frozen=True)
class Question:
    """What is asked, and what the pilot said.

    Args:
        study: the folder of the runs.
        command: the options of `fit` that every run has.
        target: what counts as arriving.
        batch_size: the config's own.
        rate: the learning rate at that size.
        steps: what a run needs at that size and rate.
        examples: of the training set.
        unit: every batch size is a multiple of this (the ghost batch).
        most: the largest batch size to try.
    """

    study: str
    command: tuple[str, ...]
    target: Target
    batch_size: int
    rate: float
    steps: float
    examples: int
    unit: int = 1
    most: int = 10**12

    @property
    def ceiling(self) -> int:
        """Return the largest batch size of the study: a power of 2 times the unit."""
        most = min(self.most, self.examples // LARGEST_FITTED)
        return self.unit * 2 ** max(0, int(math.log2(max(most / self.unit, 1))))


@dataclass(frozen=True)
class Design:
    """The sizes in the order of the walk, and how closely the steps at each are to be known (+- of their log)."""

    sizes: tuple[int, ...]
    precision: float = PRECISIONS[0]


def first_design(question: Question) -> Design:
    """Return the coarse first round."""
    least = min(SMALLEST, question.batch_size)
    smallest = question.unit * 2 ** max(0, int(math.log2(least / question.unit)))
    sizes = [smallest * 4**k for k in range(FIRST_SIZES)]
    kept = tuple(size for size in sizes if size <= question.ceiling)
    return Design(kept or (min(smallest, question.ceiling),))


def next_design(design: Design, known: Known, question: Question, precision: float) -> Design | None:
    """Return the next round, None where the answer is as precise as asked or nothing more can be added."""
    more = longer(design, known, question) or shorter(design, known, question)
    if more is None and not met(known, precision):
        more = denser(design, known) or denser(design, known, least=1.9) or closer(design)
    return more


def met(known: Known, precision: float) -> bool:
    """Return whether the ends of the answer's interval lie within the factor asked for."""
    enough = len(known.fitted) >= LEAST_SIZES and known.low > min(known.fitted)
    return enough and math.isfinite(known.high) and known.high <= precision * known.low


def longer(design: Design, known: Known, question: Question) -> Design | None:
    """Return the design with a larger batch size, None where steps have stopped falling or the data end."""
    top = max(design.sizes)
    new = min(4 * top, question.ceiling)
    steps = known.steps.get(top, math.inf)
    if new <= top or math.isinf(steps) or steps * top / new < LEAST_STEPS:
        return None
    fewest = min(size * s for size, s in known.steps.items())
    return None if steps * top >= FLAT * fewest else replace(design, sizes=(*design.sizes, new))


def shorter(design: Design, known: Known, question: Question) -> Design | None:
    """Return the design with a smaller batch size, None where the smallest lie in the linear regime."""
    sizes = sorted(size for size, steps in known.steps.items() if math.isfinite(steps))
    smallest = min(design.sizes)
    if len(sizes) < 2 or sizes[0] != smallest or smallest < 2 * question.unit:
        return None
    slope = math.log(known.steps[sizes[0]] / known.steps[sizes[1]]) / math.log(sizes[1] / sizes[0])
    return None if slope > LINEAR else replace(design, sizes=(*design.sizes, smallest // 2))


def denser(design: Design, known: Known, least: float = 3.0) -> Design | None:
    """Return the design with one or two sizes more, inside the gaps nearest to the answer."""
    sizes = sorted(design.sizes)
    middle = math.log(min(max(known.value, sizes[0]), sizes[-1])) if known.value == known.value else math.log(sizes[-1])
    gaps = [(low, high) for low, high in itertools.pairwise(sizes) if high >= least * low]
    near = sorted(gaps, key=lambda gap: abs(math.log(gap[0] * gap[1]) / 2 - middle))[:2]
    unit = math.gcd(*sizes)
    new = [max(1, round(math.sqrt(low * high) / unit)) * unit for low, high in near]
    fresh = tuple(size for size in new if size not in sizes)
    return replace(design, sizes=design.sizes + fresh) if fresh else None


def closer(design: Design) -> Design | None:
    """Return the design whose sizes get more seeds wherever they scatter."""
    finer = [precision for precision in PRECISIONS if precision < design.precision]
    return replace(design, precision=finer[0]) if finer else None


# the files ---------------------------------------------------------------------------------------------


def contents(question: Question, design: Design) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sweep and its plan."""
    target = {"metric": question.target.metric, "direction": question.target.direction, "value": question.target.value}
    start = question.rate * math.sqrt(design.sizes[0] / question.batch_size)
    needed = {"steps": question.steps, "examples": question.steps * question.batch_size}
    budgets = {f"convergence.budget_{unit}": {"value": rounded_up(BUDGET * need)} for unit, need in needed.items()}
    sweep = {
        "program": "tasks/__main__.py",
        "method": "grid",
        "command": ["${interpreter}", "-m", "tasks", "fit", *question.command, "${args}"],
        "parameters": {
            "run.study": {"value": question.study},
            "data.batch_size": {"values": list(design.sizes)},
            RATE: {"values": [float(f"{start * 2.0**k:.4g}") for k in range(-1, 6)]},
            "seed_everything": {"value": 1},
            "convergence.targets": {"value": json.dumps([target])},
            **budgets,
        },
    }
    confirm = {"seeds": CONFIRMING, "precision": design.precision}
    return sweep, {"learning_rate": RATE, "tune": {"seeds": TUNING}, "confirm": confirm, "grows": True}


def write(folder: Path, question: Question, design: Design) -> Path:
    """Write the sweep and its plan, where they are not there already; return the sweep's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{question.study}.yaml"
    for file, content in zip((path, path.with_name(path.stem + ENDING)), contents(question, design), strict=True):
        text = HEAD + yaml.safe_dump(content, sort_keys=False, width=110)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    return path


def resumed(folder: Path, question: Question) -> Design:
    """Return the design that the files hold, the first one where they are not of this question."""
    path = folder / f"{question.study}.yaml"
    try:
        sweep, plan = read_yaml(path), read_yaml(path.with_name(path.stem + ENDING))
        sizes: Sequence[int] = sweep["parameters"]["data.batch_size"]["values"]
        found = Design(tuple(sizes), plan["confirm"]["precision"])
        same = contents(question, found) == (sweep, plan) and max(sizes) <= max(question.ceiling, sizes[0])
    except (ValueError, KeyError, TypeError, IndexError):
        return first_design(question)
    return found if same else first_design(question)
