"""The index of the studies (configs/sweeps/README.md): what each asks, which claims it decides, and what it took."""

import re
from collections.abc import Mapping
from pathlib import Path

from tasks.sweep.files import read_sweep
from tasks.sweep.plan import is_plan, read_plan

SWEEPS = Path("configs/sweeps")
SENTENCE = re.compile(r"(?<=[.?])(?<!Fig\.)(?<!\bal\.) ")


def sweep_files() -> dict[str, list[Path]]:
    """Return the sweep files of every study, by its folder."""
    files: dict[str, list[Path]] = {}
    for path in sorted(SWEEPS.glob("*/*.yaml")):
        if not is_plan(path):
            files.setdefault(path.parent.name, []).append(path)
    return files


def question(path: Path) -> str:
    """Return the first sentence of a sweep file's first comment."""
    comment = path.read_text().split("\nprogram:")[0].splitlines()
    return SENTENCE.split(" ".join(line.removeprefix("#").strip() for line in comment))[0]


def claim_order(claim: str) -> tuple[str, int]:
    """Return what puts golmant-2 before golmant-10."""
    paper, number = claim.rsplit("-", 1)
    return paper, int(number)


def index(took: Mapping[str, tuple[int, float]]) -> list[list[str]]:
    """Return a row a study; `took` has the kept runs of a study and the minutes of one worker that they took."""
    rows = []
    for study, paths in sweep_files().items():
        sweeps = [read_sweep(path) for path in paths]
        plans = [plan for plan in map(read_plan, sweeps) if plan]
        claims = sorted({claim for plan in plans for claim in plan.margins}, key=claim_order)
        grids = [f"[{s.path.stem}]({study}/{s.path.name}) {len(s.choices()):,}" for s in sweeps]
        runs, minutes = took.get(study, (0, 0.0))
        measured = f"{runs:,} runs, {minutes:.0f} min" if runs else "-"
        rows.append([study, question(paths[0]), ", ".join(claims) or "-", ", ".join(grids), measured])
    return rows
