"""The report's files: one self-contained HTML page, the same as Markdown, and summary.json for machines."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from callbacks.record import as_json
from tasks.report.analysis.answer import Analysis, Answer
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import COUNTED, COUNTS, Curve, Observation, Point, Workload
from tasks.report.analysis.intervals import NOTHING, Interval, number
from tasks.report.claims.rules import Verdict
from tasks.report.claims.studies import Claim
from tasks.report.figures.style import Command, Spot, Table, markdown, sort_key
from tasks.report.sources.runs import Run


@dataclass(frozen=True)
class Section:
    """A figure with its numbers; `name` is that of its files and its anchor on the page."""

    name: str
    title: str
    subtitle: str
    tables: list[Table]
    spots: list[Spot]
    drawn: bool = True
    behind: Mapping[str, list[Observation]] = field(default_factory=dict)  # the runs that its numbers rest on


@dataclass(frozen=True)
class Report:
    """Everything the pages show."""

    facts: str
    answers: list[tuple[Answer, Section]]
    claims: list[tuple[Claim, Verdict, Section]]  # that were tested
    untested: list[str]  # names of claims that these runs do not test
    overview: Table
    sections: list[Section]
    notes: dict[str, list[tuple[str, str]]]  # by title: what was left out and why, where the report comes from


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
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "sort_key": sort_key}
    environment.tests["command"] = lambda cell: isinstance(cell, Command)
    sections = [*(s for _, s in report.answers), *(s for *_, s in report.claims), *report.sections]
    figures = {s.name: embedded(out / "figures" / f"{s.name}.svg") for s in sections if s.drawn}
    given = {"report": report, "figures": figures, "alone": lies_in is not None}
    page = environment.get_template("page.html").render(**given, link=lambda run: link_to(run, lies_in or out))
    (out / "report.html").write_text(page)
    (out / "report.md").write_text(as_markdown(report))


def as_markdown(report: Report) -> str:
    """Return the report as Markdown for a pull request, figures linked."""
    parts = ["# How large can the batch be?", report.facts]
    for answer, s in report.answers:
        parts += [
            f"**{answer.sentence}** {answer.confidence} {answer.measured}",
            f"![{s.title}](figures/{s.name}.png)" if s.drawn else "",
        ]
    if report.claims:
        rows = [[claim.id, claim.statement, found.label, found.reason] for claim, found, _ in report.claims]
        parts += ["## The papers' claims", markdown(Table("", ["claim", "statement", "verdict", "reason"], rows))]
    parts += [f"## {report.overview.title}", markdown(report.overview), report.overview.note]
    for s in (*(s for _, s in report.answers), *report.sections):
        parts += [f"## {s.title}", s.subtitle, f"![{s.title}](figures/{s.name}.png)" if s in report.sections else ""]
        for table in s.tables:
            parts += [f"### {table.title}", markdown(table), table.note]
    for title, items in report.notes.items():
        parts += [f"## {title}", "\n".join(f"- {name}: `{text}`" for name, text in items)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.replace("&", "&amp;").replace("<", "&lt;")  # no name of a study is HTML


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
    bounded = found.identified and math.isfinite(found.hyperbola.high)
    return {
        **{"identified": found.identified, "why_not": found.why_not, **ends(found.b2)},
        "method": "largest B with E(B) <= 2 min E: convex fit, profile interval",
        "hyperbola": {**ends(found.hyperbola), "identified": bounded},
        "ends": {factor: ends(end) for factor, end in found.ends.items()},
        "useful_end": ends(found.useful_end),
    }


def curve_summary(workload: Workload, curve: Curve, found: Critical | None) -> dict[str, Any]:
    """Return one curve of one workload."""
    summary = {"name": workload.name, "curve": curve.name, "target": workload.hit.label, "tuned": curve.tuned}
    summary |= {"points": [point_summary(p) for p in curve.points]}
    if found is None:
        return summary
    summary["critical_batch_size"] = critical_summary(found)
    summary["next_doubling"] = [
        {"batch_size": d.size, "saves_percent": ends(d.saves, "value"), "costs_percent": ends(d.costs, "value")}
        for d in found.doublings
    ]
    summary["fit"] = {
        "chosen": found.chosen,
        "candidates": [{"name": c.name, "error": c.error, "b2": c.b2} for c in found.candidates],
        "tau": found.tau,
        "left_out": found.data.left_out,
    }
    summary["predicted"] = {"noise_scale": ends(found.noise), "curvature": ends(found.curvature)}
    return summary


def claim_summary(claim: Claim, found: Verdict) -> dict[str, Any]:
    """Return one claim with its verdict; effect, low and high are those of its first part that is no premise."""
    seen, parts = found.evidence, found.evidence.judged if found.evidence else []
    margins = [{"verdict": p.verdict, "claimed": p.claimed, "above": p.above, "below": p.below} for p in parts]
    effects = [ends(p.interval, "effect") | {"premise": seen is not None and p is seen.premise} for p in parts]
    return {
        **{"id": claim.id, "paper": claim.paper, "statement": claim.statement},
        **{"verdict": found.verdict, "label": found.label, "reason": found.reason},
        **ends(seen.parts[0].interval if seen and seen.parts else NOTHING, "effect"),
        **{"n": len(seen.runs) if seen else 0, "scale": seen.scale if seen else "", "rerun": claim.rerun},
        "studies": claim.sweeps.split(),
        "parts": [{"what": p.what, **e, **m} for p, e, m in zip(parts, effects, margins, strict=True)],
        "robustness": [{"row": row, "verdict": verdict} for row, verdict in found.rows],
    }


def summary(analysis: Analysis, given: list[Answer], claims: list[tuple[Claim, Verdict]]) -> object:
    """Return the whole report."""
    answers = []
    for a in given:
        sure = {"confident": a.confident, "because": a.because, "answered": a.answered}
        answers.append({"workload": a.workload.name, "answer": a.text, **sure})
    content = {
        "version": 2,
        "answers": answers,
        "workloads": [curve_summary(w, c, found) for w in analysis.workloads for c, found in analysis.pairs(w)],
        "claims": [claim_summary(claim, found) for claim, found in claims],
        "left_out": [{"path": path, "reason": reason} for path, reason in analysis.left_out],
    }
    return as_json(content)
