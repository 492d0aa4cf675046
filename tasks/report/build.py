"""The road of a report: sources -> analysis -> claims -> figures -> pages; the only place that knows them all."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.report.analysis.answer import Analysis, Answer, analyze, answers
from tasks.report.analysis.curves import Workload
from tasks.report.analysis.projection import read_cluster
from tasks.report.analysis.targets import parse, retarget
from tasks.report.claims import golmant as golmant_claims
from tasks.report.claims import own as own_claims
from tasks.report.claims import you as you_claims
from tasks.report.claims.rules import NOT_TESTED, Verdict
from tasks.report.claims.studies import Claim, verdict_on
from tasks.report.figures import golmant, own, you
from tasks.report.figures.style import Drawing, NotDrawable, Table, plain, write_csv
from tasks.report.render import page
from tasks.report.render.tables import (
    critical_table,
    parts_table,
    points_table,
    runs_behind,
    runs_table,
    tables_of,
    views_table,
)
from tasks.report.sources.read import read_sources
from tasks.report.sources.runs import LeftOut, keep

CLAIMS = [*golmant_claims.CLAIMS, *you_claims.CLAIMS, *own_claims.CLAIMS]
FIGURES: dict[str, tuple[str, Callable[[Analysis], Drawing | NotDrawable]]] = {
    "golmant-1": ("Golmant figure 1: contours of training loss", golmant.figure_1),
    "golmant-2": ("Golmant figure 2: speed-up by learning-rate rule", golmant.figure_2),
    "golmant-3": ("Golmant figure 3: architecture and data complexity", golmant.figure_3),
    "golmant-4": ("Golmant figure 4: size of the data", golmant.figure_4),
    "golmant-5": ("Golmant figure 5: test performance", golmant.figure_5),
    "you-optimizers": ("You: optimizers at the largest batch", you.optimizers),
    "you-recipe": ("You: the recipe, step by step", you.recipe),
    "you-diffusion": ("You: distance from the initial weights", you.diffusion),
    "time-and-cost": ("Time to target and cost on P devices, projected", own.time_and_cost),
    "noise-scale": ("Noise scale against measured critical batch size", own.noise_scale),
    "noise-along": ("Noise scale and probe along training", own.noise_along),
    "curvature": ("Linear-approximation error, sharpness and predicted batch", own.curvature),
    "cost": ("What the runs cost", own.cost),
}
MOST_PICTURES = 8  # of workloads; with more, those alone have one for which the question could be answered
PRINTED = ("curve", "batch size", "rate", "arrived", "steps", "times the fewest examples", "seconds")


@dataclass(frozen=True)
class Wanted:
    """What a report is asked for."""

    sources: list[Path]
    out: Path
    targets: Sequence[str] = ()
    figures: Sequence[str] = ()
    cluster: Path | None = None
    epochs: Mapping[str, int] = field(default_factory=dict)  # examples in an epoch, by MLPerf benchmark
    keep: Path | None = None
    command: str = ""
    lies_in: Path | None = None  # the folder that the page will be copied to


def read(wanted: Wanted) -> Analysis:
    """Read the runs and analyze them. Raises ValueError where there is nothing to report."""
    specs, cluster = [parse(text) for text in wanted.targets], read_cluster(wanted.cluster) if wanted.cluster else None
    runs, left_out = read_sources(wanted.sources, wanted.epochs)
    if wanted.keep:
        keep(runs, wanted.keep)
    return analyze(retarget(runs, specs) if specs else runs, left_out, cluster)


def slug(text: str) -> str:
    """Return a file name made of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:120]


def file_names(found: list[Workload]) -> list[str]:
    """Return each workload's own short file name."""
    names: list[str] = []
    taken = Counter[str]()
    for w in found:
        name = slug(f"{w.study} {w.task} {w.data.name} {w.hit.metric} {w.hit.value or ''}")
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return names


def both_kinds(out: Path, name: str) -> list[Path]:
    """Return a figure's files: vector and PNG."""
    return [out / "figures" / f"{name}.{kind}" for kind in ("svg", "png")]


def facts_of(analysis: Analysis) -> str:
    """Return in a sentence what the report stands on."""
    counts = Counter(run.record.status for run in analysis.runs)
    names = {"budget": "budget spent"}
    kinds = ", ".join(f"{n:,} {names.get(status, status)}" for status, n in counts.most_common())
    more = f"; {len(analysis.left_out)} left out, named at the end" if analysis.left_out else ""
    many = len(analysis.workloads)
    return f"{len(analysis.runs):,} runs ({kinds}) of {many} workload{'s' * (many != 1)}{more}."


def provenance(analysis: Analysis, wanted: Wanted) -> list[tuple[str, str]]:
    """Return what the report was made from, when and how."""
    records = [run.record for run in analysis.runs]
    versions = sorted({r.versions["code"] for r in records if "code" in r.versions})
    plans = sorted({f"{r.study}: {r.plan.hash}" for r in records if r.plan and r.plan.hash})
    found = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "code that trained the runs": ", ".join(versions),
        "plans": ", ".join(plans),
        "sources": ", ".join(map(str, wanted.sources)),
        "command": wanted.command,
    }
    return [(name, text) for name, text in found.items() if text]


def workload_section(analysis: Analysis, given: Answer, name: str, drawn: bool, out: Path) -> page.Answered:
    """Write one workload's tables, and its figure where it is to be drawn."""
    w, pairs = given.workload, analysis.pairs(given.workload)
    tables = tables_of(w, pairs)
    for table in tables:
        write_csv(table, out / "tables" / f"{name}-{slug(table.title)}.csv")
    spots = golmant.steps_to_target(w, pairs).save(both_kinds(out, name)) if drawn else []
    many = len(pairs) > 1
    behind = [
        (f"batch {p.batch_size:,}" + (f", {curve.name}" if many else ""), runs_behind(p))
        for curve, _ in pairs
        for p in curve.points
    ]
    figure = name if drawn else None
    return page.Answered(w.name, f"Steps to {w.target}", figure, tables, spots, behind, answer=given, anchor=name)


def named_sections(analysis: Analysis, names: Sequence[str], out: Path) -> tuple[list[page.Section], LeftOut]:
    """Draw the named figures that these runs give; return also the others with the reason."""
    sections, missing = [], []
    for name in names:
        title, make = FIGURES[name]
        drawing = make(analysis)
        if isinstance(drawing, NotDrawable):
            missing.append((name, drawing.reason))
            continue
        spots = drawing.save(both_kinds(out, name))
        write_csv(drawing.table, out / "tables" / f"{name}.csv")
        for table in drawing.more:
            write_csv(table, out / "tables" / f"{name}-{slug(table.title)}.csv")
        sections.append(page.Section(title, drawing.caption, name, drawing.tables, spots))
    return sections, missing


def verdicts_on(analysis: Analysis) -> list[tuple[Claim, Verdict]]:
    """Return the verdict on every claim, empty where no plan among the runs' names a claim."""
    named = any(run.record.plan and run.record.plan.margins for run in analysis.runs)
    return [(claim, verdict_on(claim, analysis.workloads)) for claim in CLAIMS if named]


def claimed(analysis: Analysis, verdicts: list[tuple[Claim, Verdict]], out: Path) -> list[page.Claimed]:
    """Draw the claims that were tested, as the page shows them."""
    found = []
    for claim, verdict in verdicts:
        if verdict.evidence:
            name = f"claim-{claim.id}"
            spots = golmant.claim_figure(analysis, verdict.evidence).save(both_kinds(out, name))
            tables = [parts_table(verdict.evidence), *([views_table(verdict)] if verdict.rows else [])]
            drawn = page.Section(claim.id, claim.statement, name, tables, spots)
            found.append(page.Claimed(claim, verdict, drawn))
    return found


def claims_table(claims: list[page.Claimed]) -> Table:
    """List the claims that were tested."""
    columns = ["claim", "statement", "verdict", "reason", "n", "scale", "rerun"]
    rows = []
    for c in claims:
        seen = c.verdict.evidence
        stands_on = [seen.n, seen.scale] if seen else [0, ""]
        rows.append([c.claim.id, c.claim.statement, c.verdict.verdict, c.verdict.reason, *stands_on, c.claim.rerun])
    return Table("Claims", columns, rows)


def make_figures(wanted: Wanted) -> str:
    """Draw only the named figures. Raises ValueError for a name or a figure that there is not."""
    unknown = [name for name in wanted.figures if name not in FIGURES]
    if unknown:
        raise ValueError(f"there is no figure {unknown[0]!r}; choose among {', '.join(FIGURES)}.")
    analysis = read(wanted)
    (wanted.out / "tables").mkdir(parents=True, exist_ok=True)
    sections, missing = named_sections(analysis, wanted.figures, wanted.out)
    if missing:
        raise ValueError(f"figure {missing[0][0]} cannot be drawn from these runs: {missing[0][1]}.")
    return "\n\n".join(
        "\n".join([s.title, s.subtitle, *map(plain, s.tables), f"{wanted.out}/figures/{s.figure}.svg"])
        for s in sections
    )


def clear(out: Path) -> None:
    """Make the folders that a report writes, without the tables and figures that an earlier report left there."""
    earlier = (out / "summary.json").exists()
    for folder, kinds in (("figures", ("*.svg", "*.png")), ("tables", ("*.csv",))):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for file in (f for kind in kinds for f in (out / folder).glob(kind) if earlier):
            file.unlink()


def make_report(wanted: Wanted) -> str:
    """Write the whole report; return the text to print, whose last line is the path of the page."""
    return report_on(read(wanted), wanted)


def report_on(analysis: Analysis, wanted: Wanted) -> str:
    """Write the whole report on runs that are analyzed; return the text to print."""
    out = wanted.out
    clear(out)
    given = answers(analysis)
    overview = critical_table(analysis, given)
    write_csv(overview, out / "tables" / "critical-batch-sizes.csv")
    write_csv(runs_table(analysis), out / "tables" / "runs.csv")
    names = file_names([a.workload for a in given])
    few = len(given) <= MOST_PICTURES
    first = [workload_section(analysis, a, name, few or a.answered, out) for a, name in zip(given, names, strict=True)]
    more, missing = named_sections(analysis, list(FIGURES), out)
    verdicts = verdicts_on(analysis)
    claims, facts = claimed(analysis, verdicts, out), facts_of(analysis)
    if claims:
        write_csv(claims_table(claims), out / "tables" / "claims.csv")
    untested = [claim.id for claim, verdict in verdicts if verdict.verdict == NOT_TESTED]
    contents = (facts, first, claims, untested, overview, more, missing, analysis.left_out)
    page.write(out, page.Report(*contents, provenance(analysis, wanted)), wanted.lies_in)
    content = page.summary(analysis, given, verdicts)
    (out / "summary.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    tables = map(printed_points, analysis.workloads)
    return "\n\n".join([*tables, facts, *(a.text for a in given), str(out / "report.html")])


def printed_points(w: Workload) -> str:
    """Return the columns of a table of batch sizes that fit a terminal."""
    title, table = f"{w.name}; {w.target}", points_table(w)
    few = [table.columns.index(name) for name in PRINTED]
    return f"{title}\n{plain(Table(title, list(PRINTED), [[row[i] for i in few] for row in table.rows]))}"
