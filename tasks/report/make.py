"""The road of a report: sources -> runs -> workloads -> tables and figures -> pages."""

import json
import math
import re
from pathlib import Path

from tasks.report import page
from tasks.report.curves import Point, Workload, workloads
from tasks.report.figures import steps_to_target
from tasks.report.read import Run, read_runs
from tasks.report.tables import Table, plain, points_table, write_csv


def read_sources(sources: list[Path]) -> tuple[list[Run], list[tuple[str, str]]]:
    """Read all sources, each run once. Raises ValueError where one does not exist or no run is usable."""
    runs, left_out = {}, []
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source} does not exist; give a folder that holds runs, such as `runs/`.")
        found, problems = read_runs(source)
        runs |= {run.source: run for run in found}
        left_out += problems
    if not runs:
        reason = f" ({len(left_out)} left out, the first: {left_out[0][1]})" if left_out else ""
        raise ValueError(f"no usable run in {', '.join(map(str, sources))}{reason}; train some first.")
    return list(runs.values()), left_out


def slug(text: str) -> str:
    """Make a file name of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_names(found: list[Workload]) -> list[str]:
    """Give each workload its own short file name."""
    names, taken = [], {}
    for w in found:
        name = slug(f"{w.study} {w.task} {w.data['name']} {w.hit.metric} {w.hit.value or 'plateau'}")
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return names


def plain_number(value):
    """Make a number JSON can hold: infinity and NaN become the record's strings, throughout."""
    if isinstance(value, dict):
        return {key: plain_number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_number(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def point_summary(curve: str, point: Point) -> dict:
    """Give one point as summary.json holds it."""
    summary = {"curve": curve, "batch_size": point.batch_size, "n": point.n}
    for name, status in (("reached", "reached"), ("censored", "budget"), ("diverged", "diverged")):
        summary[name] = point.count(status)
    for unit in ("steps", "examples", "seconds"):
        i = point.interval(unit)
        summary[unit] = {"median": i.value, "low": i.low, "high": i.high}
    return summary


def summary(found: list[Workload], left_out: list[tuple[str, str]]) -> dict:
    """Give the report for machines."""
    return {
        "version": 1,
        "workloads": [
            {
                "name": w.name,
                "target": w.target,
                "points": [point_summary(c.name, p) for c in w.curves for p in c.points],
            }
            for w in found
        ],
        "left_out": [{"path": path, "reason": reason} for path, reason in left_out],
    }


def make_report(sources: list[Path], out: Path) -> str:
    """Write the whole report; give the text to print, whose last line is the path of the page."""
    runs, left_out = read_sources(sources)
    found = workloads(runs)
    if not found:
        raise ValueError("no run has a target, so there are no steps to measure; set targets in the config.")
    (out / "tables").mkdir(parents=True, exist_ok=True)
    sections = []
    for w, name in zip(found, file_names(found), strict=True):
        table = points_table(w)
        write_csv(table, out / "tables" / f"{name}.csv")
        steps_to_target(w, [out / "figures" / f"{name}.svg", out / "figures" / f"{name}.png"])
        sections.append(page.Section(w.name, w.target, name, table))
    (out / "summary.json").write_text(json.dumps(plain_number(summary(found, left_out)), indent=1) + "\n")
    page.write(out, sections, len(runs), left_out)
    return "\n\n".join([*(printed(s.table) for s in sections), f"{out / 'report.html'}"])


def printed(table: Table) -> str:
    """Give a table's title and the columns that fit a terminal."""
    few = [i for i, c in enumerate(table.columns) if not c.startswith("examples") and c != "running"]
    short = Table(table.title, [table.columns[i] for i in few], [[row[i] for i in few] for row in table.rows])
    return f"{table.title}\n{plain(short)}"
