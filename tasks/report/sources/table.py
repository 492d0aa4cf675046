"""A tidy table of anybody's own experiment: one row a run."""

import math
from pathlib import Path

from callbacks.record import VERSION, Batch, Crossing, Data, Optimizer, Plan, Rate, Record
from tasks.report.sources.runs import Found, Hit, Run, UnusableError

NEEDED = ("batch_size", "seed", "status")  # and steps or examples
ENDS = ("reached", "budget", "diverged", "failed", "running")


def is_table(columns: list[str]) -> bool:
    """Tell a tidy table by its columns."""
    return set(NEEDED) <= set(columns) and bool({"steps", "examples"} & set(columns))


def read_table(source: Path, rows: list[dict[str, str]]) -> Found:
    """Return the runs of a table's rows, and the rows that are none with the reason."""
    runs, left_out = [], []
    for i, row in enumerate(rows):
        try:
            runs.append(run_of(source, i + 2, row))
        except UnusableError as reason:
            left_out.append((f"{source}: line {i + 2}", str(reason)))
    return runs, left_out


def number(row: dict[str, str], name: str, least: float = 0.0) -> float | None:
    """Return a cell as a number, None where it is empty. Raises UnusableError."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > least):
        raise UnusableError(f"{name} is {text!r}; give a number above {least:g}")
    return value


def run_of(source: Path, line: int, row: dict[str, str]) -> Run:
    """Return the run of one row. Raises UnusableError."""
    size, seed = number(row, "batch_size"), number(row, "seed", least=-1)
    steps, examples = number(row, "steps"), number(row, "examples")
    status = (row.get("status") or "").strip().lower()
    if size is None or size != int(size) or seed is None:
        raise UnusableError("batch_size and seed must be whole numbers")
    if status not in ENDS:
        raise UnusableError(f"status is {status!r}; give {', '.join(ENDS)}")
    steps = examples / size if steps is None and examples is not None else steps
    if steps is None and status in ("reached", "budget"):
        raise UnusableError(f"'{status}' needs steps or examples")
    at = None if steps is None else Crossing(steps, steps * size)
    hit = Hit(
        *((row.get("target") or "").strip() or "the target", "max", None, status),
        hit=at if status == "reached" else None,
    )
    rate, stage = number(row, "learning_rate") or math.nan, (row.get("stage") or "").strip()
    record = Record(
        VERSION,
        status,
        study=source.stem,
        run=f"line {line}",
        task="your table",
        network="your network",
        seed=int(seed),
        data=Data("your data"),
        optimizer=Optimizer("your optimizer"),
        rate=Rate(rate, rate),
        batch=Batch(int(size)),
        targets=(hit,),
        final={} if at is None else {"step": at.steps, "examples": at.examples},
        plan=Plan("table", stage) if stage else None,
    )
    return Run(f"{source}: line {line}", record, [hit])
