"""The road of a report: sources -> runs -> workloads -> tables and figures -> pages."""

import json
import re
from pathlib import Path

from tasks.report import page
from tasks.report.curves import Workload, workloads
from tasks.report.figures import steps_to_target
from tasks.report.sources import read_sources
from tasks.report.summary import analyse, summary
from tasks.report.tables import Table, plain, points_table, write_csv


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
    (out / "summary.json").write_text(json.dumps(summary(analyse(found), left_out), indent=1) + "\n")
    page.write(out, sections, len(runs), left_out)
    return "\n\n".join([*(printed(s.table) for s in sections), f"{out / 'report.html'}"])


def printed(table: Table) -> str:
    """Give a table's title and the columns that fit a terminal."""
    few = [i for i, c in enumerate(table.columns) if not c.startswith("examples") and c != "running"]
    short = Table(table.title, [table.columns[i] for i in few], [[row[i] for i in few] for row in table.rows])
    return f"{table.title}\n{plain(short)}"
