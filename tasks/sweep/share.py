"""Runs that need no second training: another study's, or those of the same study before its plan was amended."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from callbacks.record import Record, read_plan_fields, read_record, to_json, write_atomically

LABELS = ("study", "name", "plan")  # what does not change a run
ENDS = ("reached", "budget", "outrun", "diverged")


class Shared:
    """Where the finished runs of a folder are, by their settings: a small file each in `<runs>/.sweep/same/`."""

    def __init__(self, runs: Path) -> None:
        self.runs, self.folder = runs, runs / ".sweep" / "same"

    def _file(self, settings: dict[str, Any]) -> Path:
        same = settings | {"run": {name: value for name, value in settings["run"].items() if name not in LABELS}}
        return self.folder / hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]

    def note(self, settings: dict[str, Any], directory: Path) -> None:
        """Let later cells with these settings find the run in `directory`."""
        if isinstance(ended(directory), Record):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file(settings), os.path.relpath(directory, self.runs))

    def take(self, settings: dict[str, Any], directory: Path) -> Path | None:
        """Return the directory of a finished run with these settings, labelled as they say; None where there is none.

        A run of another study is copied to `directory`, without its checkpoints. A run of the same study was made
        under an earlier plan: it keeps its directory, and its record says `amended`.
        """
        try:
            found = self.runs / self._file(settings).read_text()
        except OSError:
            return None
        record = ended(found)
        if record is None or not (found / "config.yaml").exists() or (directory / "record.json").exists():
            return None
        labels = settings["run"]
        plan = read_plan_fields(labels["plan"]) if labels["plan"] else None
        if record.study == labels["study"]:
            self._write(found, found, replace(record, plan=plan and replace(plan, amended=True)))
            return found
        origin = f"{record.study}/{record.run}"
        mine = replace(record, study=labels["study"], run=labels["name"], plan=plan, copied_from=origin)
        self._write(found, directory, mine)
        return directory

    @staticmethod
    def _write(found: Path, directory: Path, record: Record) -> None:
        labels = {"study": record.study, "name": record.run, "plan": plan_fields(record)}
        directory.mkdir(parents=True, exist_ok=True)
        if found != directory:
            shutil.copyfile(found / "curve.csv", directory / "curve.csv")
        config = yaml.safe_load((found / "config.yaml").read_text())
        config["run"] |= labels
        write_atomically(directory / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        settings = record.settings | {"run": record.settings.get("run", {}) | labels}
        write_atomically(directory / "record.json", to_json(replace(record, settings=settings)))


def plan_fields(record: Record) -> dict[str, Any] | None:
    """Return the record's plan as a configuration has it."""
    if record.plan is None:
        return None
    return {name: value for name, value in vars(record.plan).items() if value not in (None, False, {})}


def ended(directory: Path) -> Record | None:
    """Return the record of a run that came to an end of its own, None where there is none."""
    record = read_record(directory / "record.json")
    return record if isinstance(record, Record) and record.ended and record.status in ENDS else None
