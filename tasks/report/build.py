"""The road of a report: sources -> analysis -> claims -> figures -> pages; the only place that knows them all."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.report.analysis.answer import Analysis, Answer, analyze, answers
from tasks.report.analysis.curves import Workload
from tasks.report.analysis.projection import read_cluster
from tasks.report.analysis.targets import parse, retarget
from tasks.report.claims import golmant as golmant_claims
from tasks.report.claims import own as own_claims
from tasks.report.claims import you as you_claims
from tasks.report.claims.rules import NOT_TESTED, Evidence, Verdict
from tasks.report.claims.studies import Claim, verdict_on
from tasks.report.figures import golmant, own, you
from tasks.report.figures.style import Drawing, NotDrawable, Table, plain, write_csv
from tasks.report.render import page, tables
from tasks.report.sources.others import EXAMPLES_IN_AN_EPOCH
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
    keep: Path | None = None
    command: str = ""
    epochs: Sequence[tuple[str, int]] = ()  # MLPerf benchmarks and the examples in an epoch of each
    lies_in: Path | None = None  # the folder that the page will be copied to


def read(wanted: Wanted) -> Analysis:
    """Read the runs and analyze them. Raises ValueError where there is nothing to report."""
    specs, cluster = [parse(text) for text in wanted.targets], read_cluster(wanted.cluster) if wanted.cluster else None
    runs, left_out = read_sources(wanted.sources, EXAMPLES_IN_AN_EPOCH | dict(wanted.epochs))
    if wanted.keep:
        keep(runs, wanted.keep)
    return analyze(retarget(runs, specs) if specs else runs, left_out, cluster)


def slug(text: str) -> str:
    """Return a file name made of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:120]


def file_names(found: list[Workload]) -> list[str]:
    """Return each workload's own short file name."""
    names = [slug(f"{w.study} {w.task} {w.data.name} {w.hit.metric} {w.hit.value or ''}") for w in found]
    earlier = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name}-{count + 1}" if count else name for name, count in zip(names, earlier, strict=True)]


def facts_of(analysis: Analysis) -> str:
    """Return in a sentence what the report stands on."""
    counts = Counter(run.record.status for run in analysis.runs)
    kinds = ", ".join(f"{n:,} {status}" for status, n in counts.most_common()).replace("budget", "budget spent")
    more = f"; {len(analysis.left_out)} left out, named at the end" if analysis.left_out else ""
    many = len(analysis.workloads)
    return f"{len(analysis.runs):,} runs ({kinds}) of {many} workload{'s' * (many != 1)}{more}."


def provenance(analysis: Analysis, wanted: Wanted) -> list[tuple[str, str]]:
    """Return what the report was made from, when and how."""
    records = [run.record for run in analysis.runs]
    found = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "code that trained the runs": ", ".join(sorted({r.versions["code"] for r in records if "code" in r.versions})),
        "plans": ", ".join(sorted({f"{r.study}: {r.plan.hash}" for r in records if r.plan})),
        "sources": ", ".join(map(str, wanted.sources)),
        "command": wanted.command,
    }
    return [(name, text) for name, text in found.items() if text]


def section(name: str, title: str, drawing: Drawing | None, numbers: list[Table], out: Path) -> page.Section:
    """Draw a figure, where there is one, and write its tables; return both as the page shows them."""
    files = [out / "figures" / f"{name}.{kind}" for kind in ("svg", "png")]
    spots = drawing.save(files) if drawing else []
    for table in numbers:
        main = drawing is not None and table is drawing.table
        write_csv(table, out / "tables" / (f"{name}.csv" if main else f"{name}-{slug(table.title)}.csv"))
    return page.Section(name, title, drawing.caption if drawing else "", numbers, spots, drawing is not None)


def workload_section(analysis: Analysis, given: Answer, name: str, drawn: bool, out: Path) -> page.Section:
    """Write one workload's tables, and its figure where it is to be drawn."""
    w, pairs = given.workload, analysis.pairs(given.workload)
    named = [(curve.name, curve, found) for curve, found in pairs]
    drawing = golmant.side_by_side({f"{w.name}\n{w.hit.label}": named}) if drawn else None
    made = section(name, w.name, drawing, [tables.points_table(w), *tables.curve_tables(pairs).values()], out)
    behind = {
        f"batch {p.batch_size:,}{f', {curve.name}' * (len(pairs) > 1)}": list(dict.fromkeys(p.observations + p.trials))
        for curve, _ in pairs
        for p in curve.points
    }
    return replace(made, subtitle=f"Steps to {w.hit.label}", behind=behind)


def named_sections(analysis: Analysis, names: Sequence[str], out: Path) -> tuple[list[page.Section], LeftOut]:
    """Draw the named figures that these runs give; return also the others with the reason."""
    sections, missing = [], []
    for name in names:
        title, make = FIGURES[name]
        drawing = make(analysis)
        if isinstance(drawing, NotDrawable):
            missing.append((name, drawing.reason))
        else:
            sections.append(section(name, title, drawing, [drawing.table], out))
    return sections, missing


def claim_section(analysis: Analysis, claim: Claim, verdict: Verdict, seen: Evidence, out: Path) -> page.Section:
    """Draw a claim that was tested, and write what decided it."""
    drawing, decided = golmant.claim_figure(analysis, seen), tables.parts_table(seen, verdict)
    return replace(section(f"claim-{claim.id}", claim.id, drawing, [decided], out), subtitle=claim.statement)


def verdicts_on(analysis: Analysis) -> list[tuple[Claim, Verdict]]:
    """Return the verdict on every claim, empty where no plan among the runs' names a claim."""
    named = any(run.record.plan and run.record.plan.margins for run in analysis.runs)
    return [(claim, verdict_on(claim, analysis.workloads)) for claim in CLAIMS if named]


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
    texts = [[s.title, s.subtitle, *map(plain, s.tables), f"{wanted.out}/figures/{s.name}.svg"] for s in sections]
    return "\n\n".join(map("\n".join, texts))


def clear(out: Path) -> None:
    """Make the folders that a report writes, without the tables and figures that an earlier report left there."""
    earlier = (out / "summary.json").exists()
    for folder in (out / "figures", out / "tables"):
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir() if earlier else ():
            if file.suffix in (".svg", ".png", ".csv"):
                file.unlink()


def make_report(wanted: Wanted, known: Analysis | None = None) -> str:
    """Write the whole report, on runs that are analyzed already if `known`; return the text to print."""
    analysis = known or read(wanted)
    out, given, verdicts, facts = wanted.out, answers(analysis), verdicts_on(analysis), facts_of(analysis)
    clear(out)
    names, few = file_names([a.workload for a in given]), len(given) <= MOST_PICTURES
    first = [workload_section(analysis, a, name, few or a.answered, out) for a, name in zip(given, names, strict=True)]
    sections, missing = named_sections(analysis, list(FIGURES), out)
    tested = [(claim, v, claim_section(analysis, claim, v, v.evidence, out)) for claim, v in verdicts if v.evidence]
    overview = tables.critical_table(analysis, given)
    whole = {"critical-batch-sizes": overview, "runs": tables.runs_table(analysis)}
    for name, table in (whole | {"claims": tables.claims_table(verdicts)} if tested else whole).items():
        write_csv(table, out / "tables" / f"{name}.csv")
    notes = {
        "Left out": analysis.left_out,
        "Figures these runs do not give": missing,
        "Where this comes from": provenance(analysis, wanted),
    }
    untested = [claim.id for claim, verdict in verdicts if verdict.verdict == NOT_TESTED]
    shown = {title: items for title, items in notes.items() if items}
    answered = list(zip(given, first, strict=True))
    page.write(out, page.Report(facts, answered, tested, untested, overview, sections, shown), wanted.lies_in)
    content = page.summary(analysis, given, verdicts)
    (out / "summary.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    points = map(printed_points, analysis.workloads)
    return "\n\n".join([*points, facts, *(a.text for a in given if few or a.answered), str(out / "report.html")])


def printed_points(w: Workload) -> str:
    """Return the columns of a table of batch sizes that fit a terminal."""
    title, table = f"{w.name}; {w.hit.label}", tables.points_table(w)
    few = [table.columns.index(name) for name in PRINTED]
    return f"{title}\n{plain(Table(title, list(PRINTED), [[row[i] for i in few] for row in table.rows]))}"
