"""Runs exported from W&B: the CSV of a runs table, or a JSON list of runs with their histories.

Two namings are read: the record's own fields under dotted names (`batch.global`, `targets.0.status`), and
the names under which runs mirror their record to W&B's config (`batch_size`, `lr_scaling`, ...). The latter
carry no targets, which are then chosen with --target from the histories.
"""

import json
import math
from pathlib import Path

from callbacks.record import VERSION, from_fields
from tasks.report.sources.runs import Found, Run, UnusableError, hits_of, usable

MIRRORED = {
    **{"batch_size": "batch.size", "micro_batch_size": "batch.micro", "ghost_batch_size": "batch.ghost"},
    **{"learning_rate": "rate.effective", "base_learning_rate": "rate.base", "lr_scaling": "rate.scaling_rule"},
    **{"optimizer": "optimizer.name", "data": "data.name", "data_hash": "data.hash"},
    **{name: name for name in ("study", "run", "task", "network", "parameters", "seed", "precision")},
}
STATES = {"finished": "budget", "running": "running"}  # every other end of a W&B run is a failure


def nested(flat: dict) -> dict:
    """Turn dotted or slashed names such as `batch.global` and `targets.0.status` into nested fields."""
    tree: dict = {}
    for name, value in flat.items():
        *parents, last = name.replace("record/", "record.").split(".")
        here = tree
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return as_lists(tree.get("record", tree))


def as_lists(tree):
    """Turn dictionaries with keys 0, 1, ... into lists, throughout."""
    if not isinstance(tree, dict):
        return tree
    tree = {key: as_lists(value) for key, value in tree.items()}
    if tree and all(key.isdigit() for key in tree):
        return [tree[key] for key in sorted(tree, key=int)]
    return tree


def record_of(flat: dict, state: str | None, curve: dict[str, list[float]]) -> dict:
    """Make a record of exported fields, by whichever naming they have."""
    if "batch_size" not in flat or "lr_scaling" not in flat:
        return nested(flat)
    last = {name: values[-1] for name, values in curve.items() if values}
    status = STATES.get(str(state).lower(), "failed")
    mirrored = nested({new: flat[old] for old, new in MIRRORED.items() if flat.get(old) is not None})
    return {"version": VERSION, "status": status, "targets": [], "final": last, **mirrored}


def cell(text: str):
    """Read a CSV cell as JSON where it is JSON, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_rows(source: Path, rows: list[dict]) -> Found:
    """Read the rows of an exported W&B runs table, whose columns hold the record's fields under dotted names."""
    flat = [{key: cell(value) for key, value in row.items() if key and value} for row in rows]
    return checked(source, [(record_of(row, row.get("State"), {}), {}) for row in flat])


def read_list(source: Path, content: list) -> Found:
    """Read a JSON list of W&B runs ({"config", "summary", "history"}) that mirror the record."""
    found = []
    for item in content:
        item = item if isinstance(item, dict) else {}
        flat = {**(item.get("config") or {}), **(item.get("summary") or {})}
        history = item.get("history") or []
        names = dict.fromkeys(name for row in history for name in row)
        curve = {n.removeprefix("_"): [row.get(n, math.nan) for row in history] for n in names}
        curve = {n: [math.nan if v is None else v for v in values] for n, values in curve.items()}
        found.append((record_of(flat, item.get("state"), curve), curve))
    return checked(source, found)


def checked(source: Path, found: list[tuple[dict, dict]]) -> Found:
    """Check records from an export as those of run directories are."""
    runs, left_out = [], []
    for i, (record, curve) in enumerate(found):
        try:
            record = usable(from_fields(record))
        except UnusableError as reason:
            left_out.append((f"{source}: row {i + 1}", str(reason)))
        else:
            runs.append(Run(f"{source}: {record.run}", record, hits_of(record), curve_given=curve))
    return runs, left_out
