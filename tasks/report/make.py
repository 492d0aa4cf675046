"""The road of a report: sources -> runs -> workloads -> fits and verdicts -> tables, figures and pages."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.report import contents, page, trust
from tasks.report.critical import Critical, critical
from tasks.report.curves import Curve, Workload, workloads
from tasks.report.figures.named import NAMED
from tasks.report.figures.steps import steps_to_target
from tasks.report.figures.time_and_cost import time_and_cost
from tasks.report.projection import Cluster, read_cluster
from tasks.report.read import Run
from tasks.report.sources import read_sources
from tasks.report.summary import summary
from tasks.report.tables import Table, plain, write_csv
from tasks.report.targets import chosen_again, parse
from tasks.report.verdicts.claims import CLAIMS, decide
from tasks.report.verdicts.decide import Verdict

PRINTED = ("curve", "batch size", "n", "reached", "censored", "diverged", "failed", "steps", "seconds")
Pairs = list[tuple[Curve, Critical | None]]
LeftOut = list[tuple[str, str]]


def slug(text: str) -> str:
    """Make a file name of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_names(found: list[Workload]) -> list[str]:
    """Give each workload its own short file name."""
    names, taken = [], Counter()
    for w in found:
        name = slug(f"{w.study} {w.task} {w.data.name} {w.hit.metric} {w.hit.value or ''}")
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return names


def both_kinds(out: Path, name: str) -> list[Path]:
    """Give a figure's files: vector and PNG."""
    return [out / "figures" / f"{name}.{kind}" for kind in ("svg", "png")]


def facts_of(runs: list[Run], found: list[Workload], left_out: LeftOut) -> str:
    """Say in a sentence what the report stands on."""
    counts = Counter(run.record.status for run in runs)
    names = {"budget": "budget spent"}
    kinds = ", ".join(f"{n:,} {names.get(status, status)}" for status, n in counts.most_common())
    more = f"; {len(left_out)} left out (see the end)" if left_out else ""
    return f"{len(runs):,} runs ({kinds}) in {len(found)} workloads{more}."


def section_of(w: Workload, pairs: Pairs, name: str, out: Path) -> page.Section:
    """Draw one workload and write its tables."""
    more = (contents.doublings_table(pairs), trust.forms_table(pairs), trust.trust_table(pairs))
    more += (trust.resampling_table(pairs), trust.predicted_table(pairs))
    more += (trust.methods_table(w.curves), trust.budget_table(w.curves))
    tables = [contents.points_table(w), *(t for t in more if t)]
    for table in tables:
        write_csv(table, out / "tables" / f"{name}-{slug(table.title)}.csv")
    steps_to_target(w, pairs, both_kinds(out, name))
    findings = [contents.finding(c, k) for c, k in pairs if k is not None and k.fit is not None]
    return page.Section(w.name, f"Steps to {w.target}", name, tables, findings)


def named_sections(
    found: list[Workload], names: Sequence[str], cluster: Cluster, out: Path
) -> tuple[list[page.Section], LeftOut]:
    """Draw the named figures that these runs give; give also the others with the reason."""
    sections, missing = [], []
    for name in names:
        make = partial(time_and_cost, cluster=cluster) if name == "time-and-cost" else NAMED[name].make
        drawing = make(found)
        if isinstance(drawing, str):
            missing.append((name, drawing))
            continue
        drawing.save(both_kinds(out, name))
        write_csv(drawing.table, out / "tables" / f"{name}.csv")
        for table in drawing.more:
            write_csv(table, out / "tables" / f"{name}-{slug(table.title)}.csv")
        sections.append(page.Section(NAMED[name].title, drawing.caption, name, drawing.tables))
    return sections, missing


def claimed(verdicts: dict[str, Verdict]) -> tuple[Table, list[page.Claimed]]:
    """Give the table of verdicts, and each claim with its parts."""
    table = contents.verdict_table(verdicts)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    made_of = [verdicts[claim.id] for claim in CLAIMS]
    return table, [
        page.Claimed(row, contents.parts_table(v), contents.robustness_table(v))
        for row, v in zip(rows, made_of, strict=True)
    ]


def read(sources: list[Path], targets: Sequence[str]) -> tuple[list[Run], list[Workload], LeftOut]:
    """Read the runs and place them. Raises ValueError where there is nothing to report."""
    wishes = [parse(text) for text in targets]
    runs, left_out = read_sources(sources)
    runs = chosen_again(runs, wishes) if wishes else runs
    found = workloads(runs)
    if not found:
        raise ValueError("no run has a target to measure steps to; choose one with --target METRIC>=VALUE.")
    return runs, found, left_out


def make_figures(sources: list[Path], out: Path, targets: Sequence[str], names: Sequence[str], cluster) -> str:
    """Draw only the named figures. Raises ValueError for a name or a figure that there is not."""
    unknown = [name for name in names if name not in NAMED]
    if unknown:
        raise ValueError(f"there is no figure {unknown[0]!r}; choose among {', '.join(NAMED)}.")
    _, found, _ = read(sources, targets)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    sections, missing = named_sections(found, names, machine(cluster), out)
    if missing:
        raise ValueError(f"figure {missing[0][0]} cannot be drawn from these runs: {missing[0][1]}.")
    texts = [
        "\n".join([s.title, s.subtitle, *map(plain, s.tables), f"{out / 'figures' / s.figure}.svg"]) for s in sections
    ]
    return "\n\n".join(texts)


def machine(file: Path | None) -> Cluster:
    """Read the machine to project on."""
    return read_cluster(file) if file else Cluster()


def make_report(sources: list[Path], out: Path, targets: Sequence[str] = (), cluster: Path | None = None) -> str:
    """Write the whole report; give the text to print, whose last line is the path of the page."""
    paper = machine(cluster)
    runs, found, left_out = read(sources, targets)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    analysis = [(w, [(c, critical(c)) for c in w.curves]) for w in found]
    verdicts = decide(found)
    table, claims = claimed(verdicts)
    overview = contents.critical_table(analysis)
    write_csv(table, out / "tables" / "verdicts.csv")
    write_csv(overview, out / "tables" / "critical-batch-sizes.csv")
    names = file_names(found)
    sections = [section_of(w, pairs, name, out) for (w, pairs), name in zip(analysis, names, strict=True)]
    more, missing = named_sections(found, list(NAMED), paper, out)
    facts = facts_of(runs, found, left_out)
    page.write(out, page.Report(facts, claims, table, overview, sections + more, missing, left_out))
    content = summary(analysis, verdicts, left_out)
    (out / "summary.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return "\n\n".join([*map(printed_points, found), facts, printed_verdicts(verdicts), str(out / "report.html")])


def printed_points(w: Workload) -> str:
    """Give the columns of a table of points that fit a terminal."""
    title, table = f"{w.name}; {w.target}", contents.points_table(w)
    few = [table.columns.index(name) for name in PRINTED]
    return f"{title}\n{plain(Table(title, list(PRINTED), [[row[i] for i in few] for row in table.rows]))}"


def printed_verdicts(verdicts: dict[str, Verdict]) -> str:
    """Count the verdicts."""
    counts = Counter(v.verdict for v in verdicts.values())
    return "Claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
