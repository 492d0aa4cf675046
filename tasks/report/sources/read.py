"""Every kind of source a report can be made from, and which kind a file is."""

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tasks.report.sources.others import EXAMPLES_IN_AN_EPOCH, POINT, is_table, read_mlperf, read_table, read_wandb
from tasks.report.sources.runs import ENDING, Found, LeftOut, Run, read_kept, read_runs

GROWING = "its batch grows in training (data.growth), so it has no one place over the batch size"
KINDS = (
    f"give a folder of runs, a file of kept runs (*{ENDING}), an MLPerf reference file (.json), a W&B export (.json, "
    ".csv), or a table (.csv) with the columns batch_size, seed, status, and steps or examples"
)
ENDINGS = (".json", ".csv", ENDING)


def read_sources(sources: list[Path], epochs: Mapping[str, int] = EXAMPLES_IN_AN_EPOCH) -> Found:
    """Read all sources, each run once. Raises ValueError where one does not exist or no run is usable."""
    runs: dict[str, Run] = {}
    left_out: LeftOut = []
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source} does not exist; {KINDS}.")
        found, problems = read_source(source, epochs)
        growing = [run.source for run in found if run.record.data.growth]
        runs |= {run.source: run for run in found if run.source not in growing}
        left_out += [*problems, *((name, GROWING) for name in growing)]
    if not runs:
        first = f"{len(left_out)} left out, the first: {left_out[0][1]}; " if left_out else ""
        raise ValueError(f"no usable run in {', '.join(map(str, sources))}: {first}{KINDS}.")
    return told_apart(list(runs.values())), left_out


def read_source(source: Path, epochs: Mapping[str, int] = EXAMPLES_IN_AN_EPOCH) -> Found:
    """Read a folder of runs, one file of another kind, or a folder of such files."""
    if source.is_dir():
        runs, left_out = read_runs(source)
        files = [] if runs or left_out else sorted(p for p in source.iterdir() if p.name.endswith(ENDINGS))
        for found, problems in (read_source(file, epochs) for file in files):
            runs, left_out = runs + found, left_out + problems
        return runs, left_out
    if source.name.endswith(ENDING):
        return read_kept(source)
    try:
        return read_csv(source) if source.suffix == ".csv" else read_json(source, epochs)
    except (ValueError, RecursionError, csv.Error) as error:
        return [], [(str(source), f"neither JSON nor CSV ({error})")]


def read_csv(source: Path) -> Found:
    """Read a tidy table, or W&B's table of the suite's runs, which has its columns."""
    with open(source, newline="", encoding="utf-8-sig") as file:
        rows = [{k.strip().lower(): v or "" for k, v in row.items() if k} for row in csv.DictReader(file)]
    return read_table(source, rows) if rows and is_table(rows[0]) else ([], [(str(source), "no table of runs")])


def read_json(source: Path, epochs: Mapping[str, int]) -> Found:
    """Read MLPerf reference points or a list of W&B runs."""
    content = json.loads(source.read_text())
    if isinstance(content, dict) and content and all(isinstance(p, dict) and set(p) >= POINT for p in content.values()):
        return read_mlperf(source, content, epochs)
    if isinstance(content, list):
        return read_wandb(source, content)
    return [], [(str(source), "neither MLPerf reference points nor a W&B export")]


def told_apart(runs: list[Run]) -> list[Run]:
    """Name studies of one name after where they lie, unless that is one place or all of them follow one plan."""
    places: dict[str, dict[str, set[str | None]]] = {}
    for run in runs:
        plans = places.setdefault(run.record.study, {}).setdefault(place(run), set())
        plans.add(run.record.plan.hash if run.record.plan else None)
    apart = {s for s, found in places.items() if len(found) > 1 and not set.intersection(*found.values()) - {None}}
    return [
        replace(run, record=replace(run.record, study=f"{run.record.study} ({place(run)})"))
        if run.record.study in apart
        else run
        for run in runs
    ]


def place(run: Run) -> str:
    """Return the folder of a run's study, or the file that it comes from."""
    return str(run.folder.parent) if run.folder else run.source.split(": ")[0]
