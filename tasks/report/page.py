"""The report's pages: one self-contained HTML file, and the same as Markdown."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from tasks.report.tables import Table, markdown, number, sort_key


@dataclass(frozen=True)
class Section:
    """A figure with its numbers."""

    title: str
    subtitle: str
    figure: str | None = None  # the figure's name without folder and ending
    tables: list[Table] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Claimed:
    """A claim's row and what it was made of."""

    cells: dict[str, object]
    parts: Table
    robustness: Table


@dataclass(frozen=True)
class Report:
    """Everything the pages show."""

    facts: str
    claims: list[Claimed]
    verdicts: Table
    overview: Table
    sections: list[Section]
    not_drawn: list[tuple[str, str]]
    left_out: list[tuple[str, str]]


HOW = [
    (
        "Steps to a target",
        "A run's hit is the first evaluation at which the centred median of 3 evaluations meets the target; "
        "its steps are the middle, on the log scale, of that evaluation and the one before. A run that spent "
        "its budget or diverged counts as infinite in every median; failed and running runs are not counted.",
    ),
    (
        "Intervals of medians",
        "With 6 or more runs, interpolated order statistics; with fewer, Student's t on the log scale. Equal "
        "steps are quantized and reach over their brackets. n stands beside.",
    ),
    (
        "Critical batch sizes",
        "One log median per batch size is fitted, so that the scatter between sizes makes the interval. B2 "
        "is read off the convex curve nearest to the points; its interval holds every B2 of the softened "
        "hyperbolas S = S_min [1 + (B_crit/B)^p]^(1/p) that the points do not reject, and reaches over the same "
        "interval moved to the estimate. Points with fewer than "
        "80 % of their runs arriving, and batches above a quarter of the data, are not fitted. What choosing "
        "the rate adds is shown beside, by drawing the seeds again; at Golmant's target, which is an outcome, "
        "the interval is widened by what other seeds would have made of the target.",
    ),
    (
        "Identified",
        "Rates tuned at each of 5 or more sizes, the interval inside the range studied, slope above 0.8 at "
        "the small end and below 0.3 at the large, and forms of curve that fit as well agree within 1.5.",
    ),
    (
        "Verdicts",
        "An effect must lie with its whole 95 % interval on one side of a margin fixed beforehand, keep its "
        "side under every other hit rule, form of fit, dropped batch size and half of the seeds, and survive "
        "Holm's correction within its paper. Studies with fewer than 5 seeds or sizes, smoke and "
        "demonstration studies decide nothing. Without a frozen plan a verdict is labelled post hoc.",
    ),
]


def embedded(file: Path) -> str:
    """Give a figure as a data address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode()


def write(out: Path, report: Report) -> None:
    """Write report.html and report.md."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "sort_key": sort_key}
    names = [s.figure for s in report.sections if s.figure]
    figures = {name: embedded(out / "figures" / f"{name}.svg") for name in names}
    template = environment.get_template("page.html")
    (out / "report.html").write_text(template.render(report=report, figures=figures, how=HOW))
    (out / "report.md").write_text(as_markdown(report))


def as_markdown(report: Report) -> str:
    """Write the report as Markdown for a pull request, figures linked."""
    parts = ["# Batch-size report", report.facts, "## Verdicts", markdown(report.verdicts)]
    parts += [f"## {report.overview.title}", markdown(report.overview), report.overview.note]
    for s in report.sections:
        parts += [f"## {s.title}", s.subtitle]
        parts += [f"![{s.title}](figures/{s.figure}.png)"] if s.figure else []
        parts += [f"- {line}" for line in s.findings]
        for table in s.tables:
            parts += [f"### {table.title}", markdown(table), *([table.note] if table.note else [])]
    parts += ["## How each number was made", "\n".join(f"- **{name}.** {text}" for name, text in HOW)]
    if report.not_drawn:
        parts += ["## Figures these runs do not give"]
        parts += ["\n".join(f"- {name}: {reason}" for name, reason in report.not_drawn)]
    if report.left_out:
        parts += ["## Left out", "\n".join(f"- `{path}`: {reason}" for path, reason in report.left_out)]
    text = "\n\n".join(parts) + "\n"
    return text.replace("&", "&amp;").replace("<", "&lt;")  # no name of a study is HTML
