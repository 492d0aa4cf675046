"""The road of a report: sources -> runs -> workloads -> fits and verdicts -> tables, figures and pages."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.report import contents, page
from tasks.report.critical import Critical, critical
from tasks.report.curves import Curve, Workload, workloads
from tasks.report.figures import steps_to_target
from tasks.report.read import Run
from tasks.report.sources import read_sources
from tasks.report.summary import summary
from tasks.report.tables import Table, plain, write_csv
from tasks.report.targets import chosen_again, parse
from tasks.report.verdicts.claims import CLAIMS, decide
from tasks.report.verdicts.decide import Verdict

PRINTED = ("curve", "batch size", "n", "reached", "censored", "diverged", "failed", "steps", "seconds")


def slug(text: str) -> str:
    """Make a file name of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_names(found: list[Workload]) -> list[str]:
    """Give each workload its own short file name."""
    names, taken = [], Counter()
    for w in found:
        name = slug(f"{w.study} {w.task} {w.data['name']} {w.hit.metric} {w.hit.value or ''}")
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return names


def facts_of(runs: list[Run], found: list[Workload], left_out: list) -> str:
    """Say in a sentence what the report stands on."""
    counts = Counter(run.record["status"] for run in runs)
    names = {"budget": "budget spent"}
    kinds = ", ".join(f"{n:,} {names.get(status, status)}" for status, n in counts.most_common())
    more = f"; {len(left_out)} left out (see the end)" if left_out else ""
    return f"{len(runs):,} runs ({kinds}) in {len(found)} workloads{more}."


def section_of(w: Workload, pairs: list[tuple[Curve, Critical | None]], name: str, out: Path) -> page.Section:
    """Draw one workload and write its tables."""
    points = contents.points_table(w)
    more = (contents.doublings_table(pairs), contents.forms_table(pairs), contents.trust_table(pairs))
    more += (contents.methods_table(w.curves), contents.budget_table(w.curves))
    tables = [points, *(t for t in more if t)]
    for table in tables:
        write_csv(table, out / "tables" / f"{name}-{slug(table.title)}.csv")
    steps_to_target(w, pairs, [out / "figures" / f"{name}.{kind}" for kind in ("svg", "png")])
    return page.Section(w.name, f"Steps to {w.target}", name, tables)


def claimed(verdicts: dict[str, Verdict]) -> tuple[Table, list[page.Claimed]]:
    """Give the table of verdicts, and each claim with its parts."""
    table = contents.verdict_table(verdicts)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    made_of = [verdicts[claim.id] for claim in CLAIMS]
    return table, [
        page.Claimed(row, contents.parts_table(v), contents.robustness_table(v))
        for row, v in zip(rows, made_of, strict=True)
    ]


def make_report(sources: list[Path], out: Path, targets: Sequence[str] = ()) -> str:
    """Write the whole report; give the text to print, whose last line is the path of the page."""
    wishes = [parse(text) for text in targets]
    runs, left_out = read_sources(sources)
    runs = chosen_again(runs, wishes) if wishes else runs
    found = workloads(runs)
    if not found:
        raise ValueError("no run has a target to measure steps to; choose one with --target METRIC>=VALUE.")
    (out / "tables").mkdir(parents=True, exist_ok=True)
    analysis = [(w, [(c, critical(c)) for c in w.curves]) for w in found]
    verdicts = decide(found)
    table, claims = claimed(verdicts)
    overview = contents.critical_table(analysis)
    write_csv(table, out / "tables" / "verdicts.csv")
    write_csv(overview, out / "tables" / "critical-batch-sizes.csv")
    names = file_names(found)
    sections = [section_of(w, pairs, name, out) for (w, pairs), name in zip(analysis, names, strict=True)]
    facts = facts_of(runs, found, left_out)
    page.write(out, page.Report(facts, claims, table, overview, sections, left_out))
    content = summary(analysis, verdicts, left_out)
    (out / "summary.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    counts = Counter(v.verdict for v in verdicts.values())
    decided = "Claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    printed = [printed_points(f"{w.name}; {w.target}", contents.points_table(w)) for w in found]
    return "\n\n".join([*printed, decided, str(out / "report.html")])


def printed_points(title: str, table: Table) -> str:
    """Give the columns of a table of points that fit a terminal."""
    few = [table.columns.index(name) for name in PRINTED]
    return f"{title}\n{plain(Table(title, list(PRINTED), [[row[i] for i in few] for row in table.rows]))}"
