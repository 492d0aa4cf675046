"""The report's files: one self-contained HTML page, the same as Markdown, and summary.json for machines."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from tasks.report.analysis.answer import Analysis, Answer
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import COUNTED, COUNTS, Curve, Observation, Point, Workload
from tasks.report.analysis.intervals import NOTHING, Interval, number
from tasks.report.claims.rules import Part, Verdict
from tasks.report.claims.studies import Claim
from tasks.report.figures.style import Command, Spot, Table, markdown, sort_key
from tasks.report.sources.runs import LeftOut, Run

MOST_LINKS = 2000  # runs listed on the page; with more it names tables/runs.csv, and stays small


@dataclass(frozen=True)
class Section:
    """A figure with its numbers."""

    title: str
    subtitle: str
    figure: str | None  # its name without folder and ending, None where it is not drawn
    tables: list[Table]
    spots: list[Spot]
    behind: list[tuple[str, list[Observation]]] = field(default_factory=list)  # what the numbers rest on


@dataclass(frozen=True)
class Answered(Section):
    """A workload's section, which the page opens with."""

    answer: Answer = field(kw_only=True)
    anchor: str = field(kw_only=True)


@dataclass(frozen=True)
class Claimed:
    """A claim that was tested, what was decided, and what that was made of."""

    claim: Claim
    verdict: Verdict
    drawn: Section


@dataclass(frozen=True)
class Report:
    """Everything the pages show."""

    facts: str
    answers: list[Answered]
    claims: list[Claimed]
    untested: list[str]  # names of claims that these runs do not test
    overview: Table
    sections: list[Section]
    not_drawn: LeftOut
    left_out: LeftOut
    provenance: LeftOut


HOW = [
    (
        "Steps to a target",
        "A run's evaluations lie at steps that grow by a ratio. Through them the isotonic regression on log step is "
        "laid: the best curve that never gets worse. The hit is where it crosses the target; it counts once the run "
        "has gone on to 1.5 times that step. A run that spent its budget or diverged counts as infinite; failed and "
        "running runs are not counted.",
    ),
    (
        "A batch size's number and its interval",
        "The mean of the logs over seeds with Student's t. Where a run did not arrive it is the median by ranks. The "
        "number of runs stands beside it.",
    ),
    (
        "How far the batch can be raised",
        "One value per batch size is fitted, so that the scatter between sizes makes the interval. Where the examples "
        "pass 1.2, 1.25 or 2 times the fewest is read off the convex curve nearest to the points. The interval holds "
        "every answer of the curves steps = S_min [1 + (B_crit / B)^p]^(1/p) that the points do not reject, and "
        "reaches over the same interval moved to the estimate. S_min are the steps no batch goes below, B_crit is "
        "the batch at the bend, p how sharp the bend is. Sizes at which fewer than 80 % of the runs arrive, and "
        "batches above a quarter of the data, are not fitted.",
    ),
    (
        "The learning rate",
        "On a tuned curve the rate is chosen at each batch size on tuning seeds and the steps are measured on fresh "
        "seeds, where the plan has them.",
    ),
    (
        "Confidence",
        "High: the rate was tuned at each of 5 or more sizes with 5 or more seeds, the interval lies inside the range "
        "studied, steps nearly halve with each doubling at the small end (slope above 0.8) and hardly change at the "
        "large one (below 0.3), and forms of curve that fit as well agree within a factor of 1.5. Limited: the reasons "
        "stand beside it.",
    ),
]
CLAIMS_HOW = (
    "Claims",
    "An effect must lie with its whole 95 % interval on one side of a margin that the plan fixed before the runs. A "
    "claim with several parts is supported when every part is. A verdict is taken back where the other unbiased way to "
    "read a hit reverses it. Smoke studies and demos decide nothing.",
)


def embedded(file: Path) -> Markup:
    """Return a figure as a data address between double quotes, so that the page needs no other file."""
    text = " ".join(file.read_text().replace('"', "'").split())
    return Markup("data:image/svg+xml,") + Markup(quote(text, safe=" !$()*+,/:;=?@[]{}<>'"))


def link_to(run: Run, out: Path) -> str | None:
    """Return the address of a run's directory, or of the file that it is in, as seen from the page."""
    place = run.folder or Path(run.source.split(": ")[0])
    return Path(os.path.relpath(place, out)).as_posix() if place.exists() else None


def write(out: Path, report: Report, lies_in: Path | None = None) -> None:
    """Write report.html and report.md; the page's links are those from `lies_in`, where it is to be copied to."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "sort_key": sort_key}
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.tests["command"] = lambda cell: isinstance(cell, Command)
    sections = [*report.answers, *(c.drawn for c in report.claims), *report.sections]
    figures = {s.figure: embedded(out / "figures" / f"{s.figure}.svg") for s in sections if s.figure}
    how = [*HOW, CLAIMS_HOW] if report.claims else HOW
    listed = sum(len(runs) for s in report.answers for _, runs in s.behind) <= MOST_LINKS
    template = environment.get_template("page.html")
    given = {"report": report, "figures": figures, "how": how, "listed": listed, "alone": lies_in is not None}
    page = template.render(**given, link=lambda run: link_to(run, lies_in or out))
    (out / "report.html").write_text(page)
    (out / "report.md").write_text(as_markdown(report, how))


def as_markdown(report: Report, how: list[tuple[str, str]]) -> str:
    """Return the report as Markdown for a pull request, figures linked."""
    parts = ["# How large can the batch be?", report.facts]
    for a in report.answers:
        parts += [f"**{a.answer.sentence}** {a.answer.confidence} {a.answer.measured}", picture(a)]
    if report.claims:
        rows = [[c.claim.id, c.claim.statement, c.verdict.label, c.verdict.reason] for c in report.claims]
        parts += ["## The papers' claims", markdown(Table("", ["claim", "statement", "verdict", "reason"], rows))]
    parts += [f"## {report.overview.title}", markdown(report.overview), report.overview.note]
    for s in (*report.answers, *report.sections):
        parts += [f"## {s.title}", s.subtitle, *([] if isinstance(s, Answered) else [picture(s)])]
        for table in s.tables:
            parts += [f"### {table.title}", markdown(table), *([table.note] if table.note else [])]
    parts += ["## How each number is made", "\n".join(f"- **{name}.** {text}" for name, text in how)]
    for title, items in (("Figures these runs do not give", report.not_drawn), ("Left out", report.left_out)):
        parts += [f"## {title}", "\n".join(f"- `{name}`: {reason}" for name, reason in items)] if items else []
    parts += ["## Where this comes from", "\n".join(f"- {name}: `{text}`" for name, text in report.provenance)]
    text = "\n\n".join(parts) + "\n"
    return text.replace("&", "&amp;").replace("<", "&lt;")  # no name of a study is HTML


def picture(section: Section) -> str:
    """Return a section's figure as a link."""
    return f"![{section.title}](figures/{section.figure}.png)" if section.figure else ""


# summary.json (contract 6) --------------------------------------------------------------------------------


def plain(value: object) -> object:
    """Return what JSON can hold: infinity and NaN become the record's strings, throughout."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def ends(interval: Interval, name: str = "estimate") -> dict[str, float]:
    """Return an interval's three numbers."""
    return {name: interval.value, "low": interval.low, "high": interval.high}


def point_summary(point: Point) -> dict[str, Any]:
    """Return one point."""
    counts = {name: point.count(status) for name, status in COUNTS.items() if status in COUNTED}
    costs = {str(unit): ends(i, "median") for unit, i in point.intervals.items()}
    return {"batch_size": point.batch_size, "n": point.n, **counts, **costs, "untuned": point.untuned}


def critical_summary(found: Critical) -> dict[str, Any]:
    """Return B2, and the hyperbola's B_crit beside it."""
    hyperbola = {
        **ends(found.hyperbola),
        "identified": found.identified and math.isfinite(found.hyperbola.high),
        "lack_of_fit_p": found.hyperbola_lack_of_fit,
    }
    return {
        "identified": found.identified,
        "why_not": found.why_not,
        "bound": found.bound,
        **ends(found.b2),
        "method": "largest B with E(B) <= 2 min E: convex fit, profile interval",
        "hyperbola": hyperbola,
        "ends": {factor: ends(end) for factor, end in found.ends.items()},
        "useful_end": ends(found.useful_end),
    }


def fit_summary(found: Critical) -> dict[str, Any]:
    """Return the forms compared and the scatter between sizes."""
    return {
        "chosen": found.chosen,
        "candidates": [{"name": c.name, "error": c.error, "b2": c.b2} for c in found.candidates],
        "tau": found.tau,
        "left_out": found.data.left_out,
    }


def curve_summary(workload: Workload, curve: Curve, found: Critical | None) -> dict[str, Any]:
    """Return one curve of one workload."""
    summary = {"name": workload.name, "curve": curve.name, "target": workload.target, "tuned": curve.tuned}
    summary |= {"points": [point_summary(p) for p in curve.points]}
    if found is None:
        return summary
    doublings = [(d.size, ends(d.saves, "value"), ends(d.costs, "value")) for d in found.doublings]
    names = ("batch_size", "saves_percent", "costs_percent")
    summary |= {
        "critical_batch_size": critical_summary(found),
        "next_doubling": [dict(zip(names, row, strict=True)) for row in doublings],
        "fit": fit_summary(found),
        "predicted": {"noise_scale": ends(found.noise), "curvature": ends(found.curvature)},
    }
    return summary


def part_summary(part: Part) -> dict[str, Any]:
    """Return one measured part of a claim."""
    margins = {"verdict": part.verdict, "claimed": part.claimed, "above": part.above, "below": part.below}
    return {"what": part.what, **ends(part.interval, "effect"), **margins}


def claim_summary(claim: Claim, found: Verdict) -> dict[str, Any]:
    """Return one claim with its verdict; effect, low and high are those of its first part."""
    seen = found.evidence
    first = seen.parts[0].interval if seen and seen.parts else NOTHING
    return {
        **{"id": claim.id, "paper": claim.paper, "statement": claim.statement},
        **{"verdict": found.verdict, "label": found.label, "reason": found.reason, **ends(first, "effect")},
        **{"n": seen.n if seen else 0, "scale": seen.scale if seen else "", "rerun": claim.rerun},
        "studies": claim.sweeps.split(),
        "parts": [part_summary(p) for p in seen.parts] if seen else [],
        "robustness": [{"row": row, "verdict": verdict} for row, verdict in found.rows],
    }


def summary(analysis: Analysis, given: list[Answer], claims: list[tuple[Claim, Verdict]]) -> object:
    """Return the whole report."""
    content = {
        "version": 2,
        "answers": [
            {
                **{"workload": a.workload.name, "answer": a.text, "confident": a.confident, "because": a.because},
                "answered": a.answered,
            }
            for a in given
        ],
        "workloads": [curve_summary(w, c, found) for w in analysis.workloads for c, found in analysis.pairs(w)],
        "claims": [claim_summary(claim, found) for claim, found in claims],
        "left_out": [{"path": path, "reason": reason} for path, reason in analysis.left_out],
    }
    return plain(content)
