"""Made-up runs in memory, with known truth, for claims: brackets without the curves they came from."""

import math
from collections.abc import Callable

import numpy as np

from callbacks.record import Crossing, Record, from_fields
from tasks.report.analysis.curves import Workload, workloads
from tasks.report.sources.runs import Hit, Run
from tests.helpers.fake_runs import RATE, merged

SIZES = [16 * 2**k for k in range(11)]
EXAMPLES = 100_000
STEPS = [0, *dict.fromkeys(round(1.1**k) for k in range(1, 96))]  # of evaluations
FULL = ["warm-up", "lars", "smoothing"]  # a recipe
Steps = Callable[[float], float]


def hyperbola(critical: float, least: float = 200.0) -> Steps:
    """Return steps to target by the hyperbola."""
    return lambda b: least * (1 + critical / b)


def power(slope: float, first: float = 20_000.0) -> Steps:
    """Return steps to target by a power law."""
    return lambda b: first * (16 / b) ** slope


def hit(steps: float, size: int, metric: str = "val/accuracy") -> Hit:
    """Make a target reached after so many steps, or not (inf: diverged)."""
    status = "reached" if math.isfinite(steps) else "diverged"
    at = Crossing(steps, steps * size, seconds=steps) if math.isfinite(steps) else None
    return Hit(metric, "max", 0.8, status, hit=at, line=at, first=at)


def run(hits: list[Hit], size: int, seed: int, curve: dict | None = None, **changes) -> Run:
    """Make one run; `changes` set record fields, dotted by `__`."""
    status = "diverged" if any(h.status == "diverged" for h in hits) else "reached"
    record = {
        "version": 2,
        "targets": [],
        "status": status,
        "study": "study",
        "run": f"b{size}-s{seed}",
        "seed": seed,
        "task": "ImageClassification",
        "network": "CNN",
        "stopped_by": "targets",
        "data": {"name": "Pictures", "hash": "abc", "train_examples": EXAMPLES, "elements_per_example": 1.0},
        "optimizer": {"name": "SGD"},
        "batch": {"size": size},
        "budget": {"max_steps": None},
        "rate": dict(RATE),
        "final": {"step": 10, "examples": 10 * size},
        "test": None,
        "plan": {"hash": "h"},
    }
    record = merged(record, {name.replace("__", "."): value for name, value in changes.items()})
    record = from_fields(record)
    assert isinstance(record, Record), record
    return Run(f"{record.study}/{np.random.default_rng().random()}", record, hits, curve=curve or {})


def study(
    steps, sizes=SIZES, seeds=5, scatter=0.02, tuned=True, metrics=("val/accuracy",), each=None, draw=0, **changes
):
    """Make runs at each size and seed; `steps` is one function or one per metric; `draw` seeds the scatter.

    A tuned study has its own rate at each size. `each(size, seed)` gives further arguments of a run.
    """
    functions = steps if isinstance(steps, tuple) else (steps,) * len(metrics)
    random, runs = np.random.default_rng(draw), []
    for size in sizes:
        for seed in range(seeds):
            factor = math.exp(scatter * random.standard_normal())
            hits = [hit(f(size) * factor, size, m) for f, m in zip(functions, metrics, strict=True)]
            rate = {"rate__base": 0.01 * size**0.5, "rate__effective": 0.01 * size**0.5} if tuned else {}
            runs.append(run(hits, size, seed, **(rate | changes | (each(size, seed) if each else {}))))
    return runs


def placed(*studies: list[Run]) -> list[Workload]:
    """Place runs on curves."""
    return workloads([r for runs in studies for r in runs])


def rung(recipe: list[str], accuracy: float, noise: float = 0.2, n: int = 5) -> list[Run]:
    """Runs at the full batch with these ingredients."""

    def each(size, seed):
        value = accuracy + noise * math.sin(5 * seed + len(recipe))
        return {"recipe": recipe, "test": {"test/accuracy": value / 100}}

    return study(hyperbola(500), sizes=[EXAMPLES], seeds=n, each=each, study="recipe")


def walks(form, last: int = 10**9, share: float = 1.0) -> list[Run]:
    """Distances that grow by `form(t)` in a share of the runs, and by a power of t in the others."""

    def each(size, seed):
        steps = [t for t in STEPS if t <= last]
        mine = form if seed < 5 * share else (lambda t: t**0.4)
        random = np.random.default_rng([size, seed])
        path = [0.0] + [mine(t) * math.exp(0.02 * random.standard_normal()) for t in steps[1:]]
        return {"curve": {"step": steps, "distance/total": path}}

    return study(hyperbola(500), sizes=SIZES[::3], each=each, tuned=False)


def log_growth(t: float) -> float:
    """Return a distance that grows as log t."""
    return 1 + 0.8 * math.log(t)


def optimizers(accuracies: dict[str, float], noise: float = 0.2) -> list[list[Run]]:
    """Return runs of optimizers at the full batch with these best accuracies; other rates lose 1, 3 and 8 points."""

    def trials(name, best):
        def each(size, seed):
            lost = [0.0, 1.0, 3.0, 8.0][seed % 4] + noise * math.sin(3 * seed + len(name))
            value = (best - lost) / 100
            return {"test": {"test/accuracy": value}, "final": {"step": 9, "val/accuracy": value}}

        return study(hyperbola(500), sizes=[EXAMPLES], seeds=24, each=each, optimizer={"name": name})

    return [trials(name, best) for name, best in accuracies.items()]
