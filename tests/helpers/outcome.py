"""What a run of the real command line left behind, to be compared bit for bit."""

import csv
import json
from pathlib import Path

import torch

from callbacks.rolling_checkpoint import FINAL


def outcome(root: Path) -> tuple[dict, list, dict]:
    """The record and the curve without what a wall clock says, and the final weights and optimizer."""
    (directory,) = root.glob("*/run")
    record = json.loads((directory / "record.json").read_text())
    for name in ("started", "ended", "resumes", "cost", "versions"):  # the last: someone may commit meanwhile
        record.pop(name)
    record["final"].pop("seconds")
    for target in record["targets"]:
        for rule in ("hit", "line", "first"):
            (target[rule] or {}).pop("seconds", None)
    rows = list(csv.DictReader((directory / "curve.csv").read_text().splitlines()))
    for row in rows:
        row.pop("seconds")
    final = torch.load(directory / "checkpoints" / FINAL, weights_only=True)
    return record, rows, {"weights": final["state_dict"], "optimizer": final["optimizer_states"]}


def assert_same(one: Path, other: Path) -> None:
    """Raise AssertionError unless both runs have one record, curve and state."""
    (record, rows, state), (record2, rows2, state2) = outcome(one), outcome(other)
    assert rows == rows2
    assert record == record2
    torch.testing.assert_close(state, state2, rtol=0, atol=0)
