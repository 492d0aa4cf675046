"""What a named figure consists of: panels, the numbers beside them, a caption."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.report.curves import Curve, Workload
from tasks.report.figures.style import figure
from tasks.report.tables import Table

PANEL = (5.6, 4.4)  # inches


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn: `draw` is given its panels, left to right."""

    panels: int
    draw: Callable
    table: Table
    caption: str
    more: tuple[Table, ...] = ()

    @property
    def tables(self) -> list[Table]:
        """Give the numbers beside the figure."""
        return [self.table, *self.more]

    def save(self, files: list[Path]) -> None:
        """Draw the figure into files."""
        size = (PANEL[0] * self.panels + 0.4, PANEL[1])
        with figure(files, ncols=self.panels, squeeze=False, figsize=size) as panels:
            self.draw(panels[0])


def points_of(curve: Curve) -> int:
    """Count the runs with a result along a curve."""
    return sum(p.n for p in curve.points)


def largest(workloads: Iterable[Workload]) -> Workload:
    """Choose the workload with the most runs."""
    return max(workloads, key=lambda w: sum(points_of(c) for c in w.curves))


def steps_table(named: list[tuple[str, str, Curve]]) -> Table:
    """List the points of several curves: (panel, name, curve)."""
    rows = []
    for panel, name, curve in named:
        for p in (p for p in curve.points if p.n):
            counts = [p.count(status) for status in ("reached", "budget", "diverged")]
            rows.append([panel, name, p.batch_size, p.n, *counts, p.interval("steps"), p.interval("examples")])
    columns = ["panel", "curve", "batch size", "n", "reached", "censored", "diverged", "steps", "examples"]
    return Table("The numbers", columns, rows)
