"""The report's pages: one self-contained HTML file, and the same as Markdown."""

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2

from tasks.report.tables import Table, markdown, number


@dataclass(frozen=True)
class Section:
    """A figure with its numbers."""

    title: str
    subtitle: str
    file: str  # the figure's name without folder and ending
    table: Table


def embedded(file: Path) -> str:
    """Give a figure as a data address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode()


def write(out: Path, sections: list[Section], runs: int, left_out: list[tuple[str, str]]) -> None:
    """Write report.html and report.md."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = number
    figures = {s.file: embedded(out / "figures" / f"{s.file}.svg") for s in sections}
    template = environment.get_template("page.html")
    (out / "report.html").write_text(
        template.render(sections=sections, figures=figures, runs=runs, left_out=left_out)
    )
    (out / "report.md").write_text(as_markdown(sections, runs, left_out))


def as_markdown(sections: list[Section], runs: int, left_out: list[tuple[str, str]]) -> str:
    """Write the report as Markdown, figures linked."""
    parts = ["# Batch-size report", f"{runs} runs. Medians over seeds with 95 % intervals."]
    for s in sections:
        parts += [f"## {s.title}", s.subtitle, f"![{s.title}](figures/{s.file}.png)", markdown(s.table)]
    if left_out:
        parts += ["## Left out", "\n".join(f"- `{path}`: {reason}" for path, reason in left_out)]
    return "\n\n".join(parts) + "\n"
