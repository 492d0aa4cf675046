"""Every kind of source a report can be made from."""

import json
import math
from pathlib import Path

import numpy as np

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Rate, Record
from tasks.report import wandb_export
from tasks.report.read import Run, read_runs
from tasks.report.record import Hit, UnusableError

EXAMPLES_IN_AN_EPOCH = {"resnet": 1_281_167}  # where MLPerf counts epochs: ImageNet's training images
GROWING = "its batch grows in training (data.growth), so it has no one place over the batch size"
LARGEST_EPOCHS = 5_000  # above it, what MLPerf calls "epochs to converge" are samples

Found = tuple[list[Run], list[tuple[str, str]]]


def read_sources(sources: list[Path]) -> Found:
    """Read all sources, each run once. Raises ValueError where one does not exist or no run is usable."""
    runs, left_out = {}, []
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source} does not exist; give a folder that holds runs, such as `runs/`.")
        found, problems = read_source(source)
        growing = [run.source for run in found if run.record.data.growth]
        runs |= {run.source: run for run in found if run.source not in growing}
        left_out += [*problems, *((name, GROWING) for name in growing)]
    if not runs:
        reason = f" ({len(left_out)} left out, the first: {left_out[0][1]})" if left_out else ""
        raise ValueError(f"no usable run in {', '.join(map(str, sources))}{reason}; train some first.")
    return list(runs.values()), left_out


def read_source(source: Path) -> Found:
    """Read a folder of runs, an MLPerf file, a W&B export, or a folder of such files."""
    if source.is_dir():
        runs, left_out = read_runs(source)
        files = [] if runs or left_out else sorted(p for p in source.iterdir() if p.suffix in (".json", ".csv"))
        each = [read_source(file) for file in files]
        return runs + [r for found, _ in each for r in found], left_out + [p for _, problems in each for p in problems]
    try:
        if source.suffix == ".csv":
            return wandb_export.read_table(source)
        content = json.loads(source.read_text())
    except (UnicodeDecodeError, ValueError) as error:
        return [], [(str(source), f"neither JSON nor CSV ({error})")]
    if isinstance(content, dict) and all(is_reference_point(p) for p in content.values()):
        return read_mlperf(source, content)
    if isinstance(content, list):
        return wandb_export.read_list(source, content)
    return [], [(str(source), "neither MLPerf reference points nor a W&B export")]


def is_reference_point(point) -> bool:
    """Tell an entry of an MLPerf reference-convergence file."""
    return isinstance(point, dict) and {"BS", "Benchmark", "Epochs to converge"} <= set(point)


def read_mlperf(source: Path, content: dict) -> Found:
    """Read MLPerf reference convergence points: one run per number, one workload per file."""
    runs, left_out = [], []
    for name, point in content.items():
        try:
            runs += reference_runs(source, name, point)
        except UnusableError as reason:
            left_out.append((f"{source}: {name}", str(reason)))
    return runs, left_out


def resolution(values: list[float]) -> float:
    """Give the unit of a group's numbers: what all are multiples of or, if some are equal, their smaller gaps.

    0 if they do not tell.
    """
    unit = math.gcd(*(int(v) for v in values)) if all(v == int(v) for v in values) else 0
    gaps = np.diff(sorted(set(values)))
    if len(gaps) + 1 < len(values) and len(gaps):
        unit = max(unit, float(np.quantile(gaps, 0.25, method="lower")))
    return unit if unit < min(values) / 2 else 0


def reference_runs(source: Path, name: str, point: dict) -> list[Run]:
    """Make runs of one MLPerf reference point; each number lies in its last unit. Raises UnusableError."""
    size, values = point["BS"], point["Epochs to converge"]
    if not isinstance(size, int) or size < 1 or not values or not all(v > 0 for v in values):
        raise UnusableError("no positive batch size and epochs")
    benchmark = point["Benchmark"]
    per_epoch = 1 if max(values) > LARGEST_EPOCHS else EXAMPLES_IN_AN_EPOCH.get(benchmark)
    if per_epoch is None:
        raise UnusableError(f"counts epochs, and the size of the data set of {benchmark!r} is not known")
    rate = point.get("Hyperparams", {}).get("opt_base_learning_rate", math.nan)
    unit, runs = resolution(values), []
    for i, value in enumerate(values):
        low, high = (value - unit) * per_epoch, value * per_epoch
        middle = math.sqrt(low * high)
        hit = Hit(
            *("MLPerf quality target", "max", None, "reached"),
            hit=Crossing(middle / size, middle),
            resolution=high / low,
        )
        record = Record(
            VERSION,
            "reached",
            study="MLPerf",
            run=f"{name}-{i}",
            task="MLPerf reference",
            network=benchmark,
            seed=i,
            data=Data(f"{benchmark} data"),
            optimizer=Optimizer("as submitted"),
            rate=Rate(rate, rate),
            batch=Batch(size),
            targets=(hit,),
            final={"step": high / size, "examples": high},
        )
        runs.append(Run(f"{source}: {name} #{i}", record, [hit]))
    return runs
