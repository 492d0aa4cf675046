"""Made-up runs in memory, with known truth, for claims: brackets without the curves they came from."""

import math
from collections.abc import Callable

import numpy as np

from callbacks.record import Crossing, Record, from_fields
from tasks.report.analysis.curves import Workload, workloads
from tasks.report.sources.runs import Hit, Run
from tests.helpers.fake_runs import merged

SIZES = [16 * 2**k for k in range(11)]
EXAMPLES = 100_000
Steps = Callable[[float], float]


def hyperbola(critical: float, least: float = 200.0) -> Steps:
    """Give steps to target by the hyperbola."""
    return lambda b: least * (1 + critical / b)


def power(slope: float, first: float = 20_000.0) -> Steps:
    """Give steps to target by a power law."""
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
        **{"version": 2, "targets": [], "status": status, "study": "study", "run": f"b{size}-s{seed}", "seed": seed},
        **{"task": "ImageClassification", "network": "CNN", "stopped_by": "targets"},
        "data": {"name": "Pictures", "hash": "abc", "train_examples": EXAMPLES, "elements_per_example": 1.0},
        **{"optimizer": {"name": "SGD"}, "batch": {"size": size}, "budget": {"max_steps": None}},
        "rate": {
            **{"base": 0.1, "effective": 0.1, "scaling_rule": "none", "base_batch_size": None},
            **{"schedule": "constant", "warmup": "none"},
        },
        **{"final": {"step": 10, "examples": 10 * size}, "test": None, "plan": {"hash": "h"}},
    }
    record = merged(record, {name.replace("__", "."): value for name, value in changes.items()})
    record = from_fields(record)
    assert isinstance(record, Record), record
    return Run(f"{record.study}/{np.random.default_rng().random()}", record, hits, curve_given=curve or {})


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
