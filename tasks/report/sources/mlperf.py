"""MLPerf's reference-convergence files: how many epochs, or examples, a benchmark took at each batch size."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Rate, Record
from tasks.report.sources.runs import Found, Hit, Run, UnusableError

EXAMPLES_IN_AN_EPOCH = {"resnet": 1_281_167}  # where MLPerf counts epochs: ImageNet's training images
NOMINAL = (
    1_000_000  # examples in an epoch of a data set of unknown size: ratios, and so the batch scale, do not need it
)
LARGEST_EPOCHS = 5_000  # above it, what MLPerf calls "epochs to converge" are samples


def is_reference_point(point) -> bool:
    """Tell an entry of an MLPerf reference-convergence file."""
    return isinstance(point, dict) and {"BS", "Benchmark", "Epochs to converge"} <= set(point)


def read_mlperf(source: Path, content: dict, sizes: Mapping[str, int]) -> Found:
    """Read reference points, one run per number; `sizes` has the examples in an epoch of a benchmark."""
    runs, left_out = [], []
    for name, point in content.items():
        try:
            runs += reference_runs(source, name, point, EXAMPLES_IN_AN_EPOCH | dict(sizes))
        except UnusableError as reason:
            left_out.append((f"{source}: {name}", str(reason)))
    return runs, left_out


def resolution(values: list[float]) -> float:
    """Return the unit of a group's numbers: what all are multiples of or, if some are equal, their smaller gaps.

    0 if they do not tell.
    """
    unit = math.gcd(*(int(v) for v in values)) if all(v == int(v) for v in values) else 0
    gaps = np.diff(sorted(set(values)))
    if len(gaps) + 1 < len(values) and len(gaps):
        unit = max(unit, float(np.quantile(gaps, 0.25, method="lower")))
    return unit if unit < min(values) / 2 else 0


def checked(point: dict) -> tuple[int, list[float], str]:
    """Return a point's batch size, its numbers and its benchmark. Raises UnusableError."""
    size, values, benchmark = point["BS"], point["Epochs to converge"], point["Benchmark"]
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and 0 < v < math.inf for v in values)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1 or not numbers or not values:
        raise UnusableError("no positive batch size and epochs")
    return size, values, str(benchmark)


def reference_runs(source: Path, name: str, point: dict, sizes: Mapping[str, int]) -> list[Run]:
    """Make runs of one reference point; each number lies in its last unit. Raises UnusableError."""
    size, values, benchmark = checked(point)
    in_samples = max(values) > LARGEST_EPOCHS
    per_epoch = 1 if in_samples else sizes.get(benchmark)
    nominal = per_epoch is None
    data = "its data" + (f", an epoch counted as {NOMINAL:,} examples" if nominal else "")
    rate = (point.get("Hyperparams") or {}).get("opt_base_learning_rate")
    rate = float(rate) if isinstance(rate, int | float) else math.nan
    unit, runs = resolution(values), []
    for i, value in enumerate(values):
        low, high = ((v * (NOMINAL if nominal else per_epoch)) for v in (value - unit, value))
        middle = math.sqrt(low * high)
        hit = Hit(
            *("the quality target", "max", None, "reached"),
            hit=Crossing(middle / size, middle),
            resolution=high / low,
            nominal=nominal,
        )
        record = Record(
            VERSION,
            "reached",
            study=source.stem,
            run=f"{name}-{i}",
            task="MLPerf reference",
            network=f"MLPerf's {benchmark}",
            seed=i,
            data=Data(data),
            optimizer=Optimizer("as submitted"),
            rate=Rate(rate, rate),
            batch=Batch(size),
            targets=(hit,),
            final={"step": high / size, "examples": high},
        )
        runs.append(Run(f"{source}: {name} #{i}", record, [hit]))
    return runs
