"""The report's pages: one self-contained HTML file, and the same as Markdown."""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from tasks.report.analysis.answer import Answer
from tasks.report.analysis.curves import Observation
from tasks.report.analysis.intervals import number
from tasks.report.figures.style import Spot, Table
from tasks.report.render.tables import Command, markdown, sort_key
from tasks.report.sources.runs import Run

MOST_LINKS = 2000  # runs listed on the page; with more it names tables/runs.csv, and stays small


@dataclass(frozen=True)
class Section:
    """A figure with its numbers."""

    title: str
    subtitle: str
    figure: str | None = None  # the figure's name without folder and ending
    tables: list[Table] = field(default_factory=list)
    spots: list[Spot] = field(default_factory=list)
    answer: Answer | None = None
    behind: list[tuple[str, list[Observation]]] = field(default_factory=list)  # what the numbers rest on


@dataclass(frozen=True)
class Claimed:
    """A claim, what was decided, and what that was made of."""

    cells: dict[str, object]
    tables: list[Table]
    runs: tuple[Run, ...] = ()  # that it rests on


@dataclass(frozen=True)
class Report:
    """Everything the pages show."""

    facts: str
    answers: list[Section]
    claims: list[Claimed]
    untested: list[str]  # names of claims that these runs do not test
    overview: Table
    sections: list[Section]
    not_drawn: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    provenance: list[tuple[str, str]]


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
        "seeds, where the plan has them. What the choice itself adds is shown by drawing the seeds again.",
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


def embedded(file: Path) -> str:
    """Return a figure as a data address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode()


def link_to(run: Run, out: Path) -> str | None:
    """Return the address of a run's directory as seen from the page, None where it has none."""
    return None if run.curve_file is None else Path(os.path.relpath(run.source, out)).as_posix()


def write(out: Path, report: Report) -> None:
    """Write report.html and report.md."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "sort_key": sort_key}
    environment.tests["command"] = lambda cell: isinstance(cell, Command)
    names = [s.figure for s in [*report.answers, *report.sections] if s.figure]
    figures = {name: embedded(out / "figures" / f"{name}.svg") for name in names}
    how = [*HOW, CLAIMS_HOW] if report.claims else HOW
    listed = sum(len(runs) for s in report.answers for _, runs in s.behind) <= MOST_LINKS
    template = environment.get_template("page.html")
    page = template.render(report=report, figures=figures, how=how, listed=listed, link=lambda run: link_to(run, out))
    (out / "report.html").write_text(page)
    (out / "report.md").write_text(as_markdown(report, how))


def as_markdown(report: Report, how: list[tuple[str, str]]) -> str:
    """Return the report as Markdown for a pull request, figures linked."""
    parts = ["# How large can the batch be?", report.facts]
    for s in report.answers:
        parts += [f"**{s.answer.sentence}** {s.answer.confidence} {s.answer.measured}", picture(s)]
    if report.claims:
        names = ("claim", "statement", "verdict", "reason")
        parts += ["## The papers' claims"]
        parts += [markdown(Table("", list(names), [[c.cells[n] for n in names] for c in report.claims]))]
    parts += [f"## {report.overview.title}", markdown(report.overview), report.overview.note]
    for s in [*report.answers, *report.sections]:
        parts += [f"## {s.title}", s.subtitle, *([picture(s)] if s.answer is None else [])]
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
