"""A sweep file's cells as made-up runs: each has its cell's settings, and an outcome of which the truth is known.

In this world every claim that can hold holds, or all but one. Its noise is that of real runs: the scatter over seeds of
each batch size, what is left between cells, how far two targets of one run go apart, and what each hit rule sees.
"""

import contextlib
import copy
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from callbacks.record import Crossing
from tasks import cli
from tasks.optim.scaling import Duration, lr_factor
from tasks.report.sources.runs import Hit, Run
from tasks.sweep.files import Cell, read_sweep
from tasks.sweep.ledger import State
from tasks.sweep.plan import source
from tests.helpers import seen_noise as seen
from tests.helpers.fake_runs import evaluation_steps
from tests.helpers.made_up import hit, run

EXAMPLES = {"FashionMNIST": 10_000, "ComposedScenes": 10_000, "StateOfTheUnion": 50_000}
EXAMPLES |= {"CIFAR10": 45_000, "MNIST": 58_000, "Cityscapes": 2975, "WikiText2": 60_000}
GAINS = {"LARS": 4.0, "warm-up": 2.0, "decay": 6.0, "smoothing": 1.0, "norm": 9.0}  # of a recipe, in points
LOW, HIGH = 64, 1000  # a small batch is at most the one, a large at least the other
BUDGETS = [f"convergence.{limit}" for limit in ("budget_steps", "budget_examples", "outrun_steps")]
NEVER = (0.99, 0.9999, 1e-6)  # targets that a sweep sets so that a run goes on
PLAIN = {  # options whose values may be put into settings that were parsed with others, and their places there
    "data.batch_size": ("data", "init_args", "batch_size"),
    "model.optimizer.init_args.lr": ("model", "init_args", "optimizer", "init_args", "lr"),
    "seed_everything": ("seed_everything",),
    "run.plan": ("run", "plan"),
    **{name: tuple(name.split(".")) for name in BUDGETS},
}
CELL, CELL_OF_TARGET = 0.03, 0.02  # log S between cells, beside what the choice of the rate leaves; and of one target
HARDER = 1.2  # times the scatter, with noisy labels or a part of the data: assumed
Config = dict
known: dict[tuple[str, ...], Config] = {}  # settings by the options that are not plain: parsing is most of the work


def parsed(args: tuple[str, ...]) -> Config:
    """The settings that the real command line makes of these arguments."""
    found: list[Config] = []

    def keep(given: cli.Cli) -> NoReturn:
        found.append(given.settings)
        raise cli.PlacedError

    with contextlib.suppress(cli.PlacedError):
        cli.run(args, keep)
    return found[0]


def settings(cell: Cell) -> Config:
    """What a cell's run is set to, by the real command line."""
    options = [(arg.removeprefix("--").partition("=")[0], arg) for arg in cell.args]
    others = tuple(arg for name, arg in options if name not in PLAIN)
    if others not in known:
        known[others] = parsed(cell.args)
    config = copy.deepcopy(known[others])
    for name, arg in options:
        if name in PLAIN:
            *parents, last = PLAIN[name]
            place = config
            for parent in parents:
                place = place[parent]
            place[last] = json.loads(arg.partition("=")[2])
    return config


class Facts:
    """The settings of one run, as its record will have them."""

    def __init__(self, cell: Cell) -> None:
        config = settings(cell)
        model, data = config["model"]["init_args"], config["data"]["init_args"]
        self.task, self.data = (config[part]["class_path"].split(".")[-1] for part in ("model", "data"))
        variant = data.get("variant") or {}
        self.size, self.seed = data["batch_size"], config["seed_everything"]
        self.study, self.plan, self.recipe = (config["run"][name] for name in ("study", "plan", "recipe"))
        self.noise, kept = variant.get("label_noise", 0.0), variant.get("examples")
        self.classes = variant.get("classes")
        self.fraction = kept / EXAMPLES[self.data] if kept else variant.get("fraction", 1.0)  # as the data module does
        self.kept = kept or data.get("train") or round(self.fraction * EXAMPLES[self.data])
        self.optimizer = model["optimizer"]["class_path"].split(".")[-1]
        self.options = {k: v for k, v in model["optimizer"]["init_args"].items() if v is not None}
        self.rate, self.rule, self.base = self.options["lr"], model["lr_scaling"], model["base_batch_size"]
        self.factor = 1.0 if self.rule == "none" else lr_factor(self.rule, self.size, self.base)
        self.network = json.dumps(model["network"])
        self.usual = model["network"].get("init_args", {}).get("channels") == [16, 32]  # SmallCNN as it is
        self.schedule = (model["schedule"] or {"class_path": "Constant"})["class_path"].split(".")[-1]
        self.smoothing, self.decay_norm = model["label_smoothing"], model["decay_norm_bias"]
        self.warmup = model["warmup"]
        self.warmup_steps = Duration.parse(self.warmup).steps(self.size, self.kept) if self.warmup else 0
        epochs, steps = data["epochs"], config["trainer"]["max_steps"]
        ends = [steps] if steps > 0 else []
        self.end = min(ends + ([int(epochs * self.kept // self.size)] if epochs else []), default=None)
        self.convergence, self.targets = config["convergence"], config["convergence"]["targets"]
        self.callbacks = {c["class_path"].split(".")[-1] for c in config["trainer"]["callbacks"] or []}

    def record(self) -> dict:
        """The settings, by the record's names, as changes for `made_up.run`."""
        elements = {"Segmentation": 1024.0, "LanguageModeling": 16.0}.get(self.task, 1.0)
        given = (self.data, self.kept, self.noise, self.classes)
        return {
            "study": self.study,
            "task": self.task,
            "network": self.network,
            "plan": self.plan,
            **({"recipe": self.recipe} if self.recipe else {}),
            "data": {
                "name": self.data,
                "hash": str(given),
                "train_examples": self.kept,
                "fraction": self.fraction,
                "label_noise": self.noise,
                "elements_per_example": elements,
                "classes": self.classes,
            },
            "optimizer": {
                "name": self.optimizer,
                "settings": {k: v for k, v in self.options.items() if k != "lr"},
            },
            "batch": {"size": self.size},
            "rate": {
                "base": self.rate,
                "effective": self.rate * self.factor,
                "scaling_rule": self.rule,
                "base_batch_size": self.base,
                "schedule": self.schedule,
                "horizon_steps": self.end,
                "warmup": str(self.warmup),
                "warmup_steps": self.warmup_steps,
            },
            "regularization": {"label_smoothing": self.smoothing, "decay_norm_bias": self.decay_norm},
        }


class World:
    """Gives each run its outcome for the sake of one claim; `best` is the rate at which a tuned run does best.

    `draw` is the number of the study: another one has other noise.
    """

    def __init__(self, claim: str, holds: bool, best: float, draw: int = 0) -> None:
        self.claim, self.lie, self.best, self.draw = claim, "" if holds else claim, best, draw

    def normal(self, f: Facts, *what: object) -> float:
        """Draw a standard normal number, the same for the same arm, batch size and `what`."""
        arm = (f.study, f.network, f.optimizer, f.rule, f.base, f.noise, f.fraction, f.classes, f.end, f.warmup, f.size)
        return float(np.random.default_rng([self.draw, zlib.crc32(repr((arm, what)).encode())]).standard_normal())

    def start(self, f: Facts) -> float:
        """Draw what a seed brings: at the full batch it is the initial weights alone, whatever the horizon and rate."""
        if f.size < f.kept:
            return self.normal(f, f.seed, f.rate)
        return float(np.random.default_rng([self.draw, f.seed, f.size]).standard_normal())

    def jitter(self, f: Facts, metric: str) -> float:
        """Draw what noise adds to log S of a target: most of it is the run's, some its target's, some its cell's."""
        apart = seen.at(f.size, seen.PAIRED) / math.sqrt(2)
        shared = math.sqrt(seen.at(f.size, seen.SCATTER) ** 2 - apart**2)
        run = shared * self.start(f) + apart * self.normal(f, f.seed, f.rate, metric)
        harder = HARDER if f.noise or f.fraction < 1 else 1.0
        return harder * run + CELL * self.normal(f) + CELL_OF_TARGET * self.normal(f, metric)

    def off(self, f: Facts) -> float:
        """By how many doublings the rate is not the best; 0 where rates are not tuned."""
        return 0.0 if math.isnan(self.best) else abs(math.log2(f.rate / self.best))

    def critical(self, f: Facts, metric: str) -> float:
        """B_crit of a tuned curve."""
        if f.task != "ImageClassification":
            return 100.0 if self.lie == "golmant-4" else 2.0
        found = 40_000.0 if self.lie == "golmant-3" else 40.0 if self.claim == "golmant-2" else 90.0
        if metric.startswith("trainset") and self.lie != "golmant-7":
            found *= 1.7
        if self.claim in ("golmant-9", "own-2") and self.lie != self.claim:
            found *= 1 if f.usual else 4
        if f.classes:
            found *= 1 / 4 if self.lie == "own-3" else 4
        found /= 3 if f.noise == 0.4 and self.lie not in ("golmant-10", "own-2") else 1
        found /= 6 if f.fraction == 0.25 and self.lie in ("golmant-11", "own-2") else 1
        if f.optimizer == "LAMB" and self.lie == "golmant-13":
            return 900.0
        return found

    def steps(self, f: Facts, metric: str) -> float:
        """Steps to a target, infinite where the run diverges."""
        scatter = math.exp(self.jitter(f, metric))
        if "golmant_fig2" in f.study:
            return scatter * self.by_rule(f)
        if "you_layerwise" in f.study:
            lost = (f.optimizer == "SGD" and f.size >= HIGH and not self.lie) or (f.optimizer, f.warmup) == (
                "LARS",
                None,
            )
            return math.inf if lost else scatter * 4000 * (1 + 100 / f.size)
        off = self.off(f)
        if off >= 3 and f.rate > self.best:
            return math.inf
        bent = {"golmant-1": "val", "golmant-2": "trainset", "own-4": "val", "own-5": "val"}.get(self.lie, "none")
        taken = 60 * (1 + self.critical(f, metric) / f.size)
        if metric.startswith(bent):
            taken = 4000 * f.size**-0.5
        if self.lie == "golmant-12" and f.schedule != "Constant" and f.end:
            taken *= (f.kept / f.size) / f.end * 70
        return scatter * taken * (1 + 0.3 * off**2)

    def by_rule(self, f: Facts) -> float:
        """Steps with a rate that follows a rule: sublinear, and lost at the top."""
        if f.rule == "none":
            return 3000 * (1 + 64 / f.size)
        if f.size >= 16 * f.base and self.lie != "golmant-5":
            return math.inf
        return 10_000 * (16 / f.size) ** (1.0 if self.lie == "golmant-5" else 0.8)

    def accuracies(self, f: Facts) -> tuple[float, float]:
        """Training and test accuracy in per cent at the end."""
        points = seen.EQUAL_UPDATES_POINTS if f.end else seen.TEST_POINTS
        if "you_optimizers" in f.study or "you_recipe" in f.study:
            points = seen.FULL_BATCH_POINTS.get(f.optimizer, seen.OTHER_FULL_BATCH_POINTS)
        off = self.off(f)
        large = f.size >= HIGH
        train, test = (94.5, 85.0) if large else (99.0, 90.0)
        if self.claim == "you-7" and not self.lie:
            test = 91.0 if large else 90.0
        if self.lie == "you-9" and large:
            train = 98.9
        if "you_optimizers" in f.study:
            order = ["LARS", "SGD", "LAMB"] if self.lie == "you-10" else ["SGD", "LARS", "LAMB"]
            test = 80 + 3 * (order.index(f.optimizer) if f.optimizer in order else 0)
        if "you_recipe" in f.study:
            test = self.by_recipe(f)
        if f.schedule != "Constant" and "longer" in f.study:
            test = 85.0
        noise = {split: self.normal(f, f.seed, f.rate, split) for split in ("train", "test")}
        return train + 0.1 * noise["train"], test - 3 * off + points * noise["test"]

    def by_recipe(self, f: Facts) -> float:
        """Test accuracy of a recipe: gains add, unless one ingredient alone is said to bring nearly all."""
        there = {
            "LARS": f.optimizer == "LARS",
            "warm-up": bool(f.warmup),
            "decay": f.schedule != "Constant",
            "smoothing": bool(f.smoothing),
            "norm": not f.decay_norm,
        }
        gains = [GAINS[k] for k, v in there.items() if v]
        scale = {"you-1": 0.1}.get(self.lie, 1.0)
        total = max(gains, default=0.0) + 12 * bool(gains) if self.lie == "you-2" else sum(gains)
        return 60 + scale * total - (5 if f.recipe and self.lie != "you-1" else 0)

    def curve(self, f: Facts, last: float) -> dict[str, list[float]]:
        """The evaluations: enough of them for the claims that read curves."""
        random = np.random.default_rng([f.seed, f.size, 7])
        noise, large = 0.001 * random.standard_normal(), f.size >= HIGH
        steps = [
            0.0,
            *dict.fromkeys(min(t, last) for t in evaluation_steps(max(2, round(last)), random.random())[1:]),
            last,
        ]
        found = {"step": steps, "examples": [f.size * t for t in steps]}
        share = [t / (t + 50) for t in steps]
        low = 0.2 if large and self.lie != "golmant-6" else 0.1
        found["trainset/loss"] = [2.0 - (2.0 - low) * x for x in [*share[:-1], 1.0]]
        better = 0.04 if large and self.lie == "you-7" else 0.0
        gap = 0.02 if large and "lowest_loss" not in f.study else 0.0
        found["val/accuracy"] = [x * (0.9 + better - gap - 0.03 * self.off(f)) + noise for x in share]
        if "WeightDistance" in f.callbacks:
            found |= self.distances(f, steps, noise)
        return found

    def distances(self, f: Facts, steps: list[float], noise: float) -> dict[str, list[float]]:
        """Distances, and accuracies that follow from them, or (you-8 a lie) from the batch size."""
        power = self.lie == "you-6" or (self.claim in ("you-3", "own-6") and not self.lie)
        random = np.random.default_rng([f.seed, f.size, 5])
        grown = [(t**0.4 if power else 1 + 0.8 * math.log(t)) if t else 0.0 for t in steps]
        reach = 0.5 if f.size >= LOW * 4 else 1.0
        path = [reach * d * math.exp(0.003 * random.standard_normal()) for d in grown]
        if self.lie == "you-8":
            return {"distance/total": path, "val/accuracy": [0.4 + 0.2 * reach + noise for _ in path]}
        return {"distance/total": path, "val/accuracy": [0.2 + 0.05 * d + noise for d in path]}

    def crossings(self, f: Facts, metric: str, taken: float) -> dict[str, Crossing]:
        """Make a target's crossings by each rule."""
        z = {rule: self.normal(f, f.seed, f.rate, metric, rule) for rule in ("line", "first")}
        line = seen.LINE[0] + seen.at(f.size, seen.LINE[1]) * z["line"]
        first = seen.at(f.size, seen.FIRST[0]) + seen.at(f.size, seen.FIRST[1]) * z["first"]
        found = {"hit": taken, "line": taken * math.exp(line), "first": taken * math.exp(first)}
        return {rule: Crossing(steps, steps * f.size, seconds=steps) for rule, steps in found.items()}

    def outcome(self, f: Facts) -> Run:
        """The run of these settings."""
        hits: list[Hit] = []
        for target in f.targets:
            never = target["value"] in NEVER
            taken = self.steps(f, target["metric"])
            found = hit(taken, f.size, target["metric"])
            status = "budget" if never and found.status == "reached" else found.status
            goal = (target["metric"], target["direction"], target["value"])
            hits.append(Hit(*goal, status, **self.crossings(f, target["metric"], taken) if status == "reached" else {}))
        lost = any(h.status == "diverged" for h in hits)
        never = any(h.status == "budget" for h in hits)
        reached = max(
            [self.steps(f, t["metric"]) for t in f.targets if math.isfinite(self.steps(f, t["metric"]))] or [40]
        )
        budget = max(f.convergence.get("budget_steps") or 0, (f.convergence.get("budget_examples") or 0) / f.size)
        stop = f.convergence.get("stop", True)
        last = (f.end or budget) if never or not stop else reached
        train, test = self.accuracies(f)
        final = {"step": last, "examples": last * f.size, "trainset/accuracy": train / 100, "val/accuracy": test / 100}
        if "LinearApproximationError" in f.callbacks:
            error = f.size / (f.base * (2 if self.lie == "golmant-8" else 11))
            final["linear_error/absolute"] = error * math.exp(seen.LINEAR_ERROR * self.normal(f, f.seed, "error"))
        ended = "diverged" if lost else "end" if f.end or not stop else "budget" if never else "targets"
        changes = f.record() | {
            "final": final,
            "stopped_by": ended,
            "cost": {"examples_per_second": 1e4 * min(1.0, f.size / (8 if self.lie == "own-1" else 2000))},
            "test": None if lost else {"test/accuracy": test / 100},
        }
        made = run(hits, f.size, f.seed, {} if lost else self.curve(f, last), **changes)
        status = "diverged" if lost else hits[0].status
        return replace(made, record=replace(made.record, status=status, targets=tuple(hits)))


def runs_of(path: Path, claim: str, holds: bool = True, draw: int = 0) -> list[Run]:
    """Go through a sweep, stage after stage, until it wants no more runs."""
    sweep = read_sweep(path)
    cells = source(sweep)
    rates = getattr(cells, "rates", None) or [math.nan]  # none where rules carry them
    world = World(claim, holds, rates[len(rates) // 2], draw)
    runs, states = [], {}
    left = State("left", {}, None)
    while new := [c for c in cells.cells(lambda c: states.get(c, left)) if c not in states]:
        for cell in new:
            runs.append(made := world.outcome(Facts(cell)))
            states[cell] = State(made.record.status, {}, made.record)
    return runs
