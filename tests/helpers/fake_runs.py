"""Made-up run directories with a known truth, in the format of contract 3."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from callbacks.hit import crossing_at, hits

GOAL, CEILING, FLOOR = 0.8, 0.9, 0.1
RATE = {  # of a record, with a constant rate that follows no rule
    "base": 0.1,
    "effective": 0.1,
    "scaling_rule": "none",
    "base_batch_size": None,
    "schedule": "constant",
    "warmup": "none",
}


def accuracy(step: float, steps_to_goal: float) -> float:
    """Return a learning curve that rises from 0.1 to 0.9 and passes 0.8 at exactly `steps_to_goal`."""
    rate = math.log((CEILING - FLOOR) / (CEILING - GOAL)) / steps_to_goal
    return CEILING - (CEILING - FLOOR) * math.exp(-rate * step)


def evaluation_steps(last: int, phase: float, ratio: float = 1.1) -> list[int]:
    """Return geometric evaluation steps from 0 to `last` with a phase in [0, 1)."""
    count = int(math.log(last) / math.log(ratio)) + 1
    grid = {round(ratio ** (k + phase)) for k in range(count + 1)}
    return [0, *sorted(s for s in grid if 0 < s <= last)]


def curve_rows(steps_to_goal: float, batch_size: int, budget: int, phase: float) -> list[dict]:
    """Make evaluations until the hit is followed up, or to the budget."""
    rows = []
    for step in evaluation_steps(budget, phase):
        value = accuracy(step, steps_to_goal)
        rows.append(
            {
                "step": step,
                "examples": step * batch_size,
                "epoch": step * batch_size / 10_000,
                "seconds": step * (0.001 + 1e-5 * batch_size),
                "lr": 0.1,
                "train/loss": "" if step == 0 else 1 - value,
                "trainset/loss": 1 - value,
                "val/accuracy": value,
                "val/loss": 1 - value,
            }
        )
        if found_in(rows):
            break
    return rows


def found_in(rows: list[dict]) -> dict[str, dict]:
    """Return the goal's crossings by rule, as a record has them; empty where it is not reached."""
    found = hits([r["step"] for r in rows], [r["val/accuracy"] for r in rows], "max", GOAL)
    columns = {name: [r[name] for r in rows] for name in ("step", "examples", "epoch", "seconds")}
    rules = zip(("hit", "line", "first"), found or (), strict=False)
    return {rule: vars(at) for rule, step in rules if (at := crossing_at(columns, step))}


def merged(record: dict, changes: dict) -> dict:
    """Set dotted names in nested dictionaries."""
    for name, value in changes.items():
        *parents, last = name.split(".")
        inner = record
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return record


def make_run(folder: Path, steps_to_goal: float, batch_size: int, seed: int, budget: int = 10**6, **changes) -> Path:
    """Write one run; infinite `steps_to_goal` diverges; `changes` set record fields, dotted by `__`."""
    finite = math.isfinite(steps_to_goal)
    phase = np.random.default_rng([seed, batch_size]).random()
    rows = curve_rows(steps_to_goal if finite else 1e12, batch_size, budget if finite else 40, phase)
    found = found_in(rows)
    status = "diverged" if not finite else "reached" if found else "budget"
    if not finite:
        rows[-1]["trainset/loss"] = math.nan
    last = rows[-1]
    final = {k: v for k, v in last.items() if isinstance(v, (int, float)) and math.isfinite(v)}
    record = {
        "version": 2,
        "status": status,
        "stopped_by": "targets" if status == "reached" else status,
        "study": "study",
        "run": folder.name,
        "task": "ImageClassification",
        "seed": seed,
        "data": {
            "name": "FashionMNIST",
            "hash": "abc",
            "train_examples": 10_000,
            "val_examples": 2000,
            "test_examples": 10_000,
            "elements_per_example": 1.0,
            "fraction": 1.0,
            "label_noise": 0.0,
        },
        "network": "SmallCNN",
        "parameters": 12_345,
        "optimizer": {"name": "SGD", "settings": {"momentum": 0.9}},
        "rate": dict(RATE),
        "batch": {
            "size": batch_size,
            "micro": 256,
            "ghost": None,
            "epoch_end": "wrap",
            "sampling": "without replacement",
        },
        "world_size": 1,
        "precision": "32-true",
        "accelerator": "cpu",
        "budget": {"steps": budget, "examples": None, "max_steps": None, "max_epochs": None},
        "targets": [
            {
                "metric": "val/accuracy",
                "direction": "max",
                "value": GOAL,
                "plateau": None,
                "status": status,
                **found,
            }
        ],
        "final": final,
        "test": {"test/loss": 0.5, "test/accuracy": 0.8},
        "cost": {"peak_memory_bytes": None},
        "plan": None,
        "versions": {"code": "x", "torch": "y"},
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "resumes": 0,
    }
    record = merged(record, {name.replace("__", "."): value for name, value in changes.items()})
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    with open(folder / "curve.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def make_study(
    folder: Path,
    steps: Callable[[int], float],
    sizes: list[int],
    seeds: range,
    scatter: float = 0.05,
    between: float = 0.0,
    **changes,
) -> Path:
    """Write runs whose steps to the goal are `steps(B)` with log-normal scatter by run and by batch size."""
    random = np.random.default_rng(0)
    for size in sizes:
        u = between * random.standard_normal()
        for seed in seeds:
            truth = steps(size) * math.exp(u + scatter * random.standard_normal())
            label = "-".join(str(v) for v in changes.values())
            make_run(folder / f"b{size}-s{seed}-{label}".replace("/", "_"), truth, size, seed, **changes)
    return folder
