"""What the report's tables hold."""

import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callbacks.record import Unit
from tasks.report.analysis.answer import Analysis, Answer, money, rate_of
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import COUNTS, Curve, Point, Workload
from tasks.report.analysis.intervals import NOTHING, proportion
from tasks.report.claims.rules import Evidence, Verdict
from tasks.report.claims.studies import Claim
from tasks.report.figures.style import Command, Table


def on_front(point: Point, others: list[Point]) -> bool:
    """Return whether no other batch size is as cheap in steps, examples, seconds and money and cheaper in one."""
    costs = {p: [i.value for i in (*p.intervals.values(), money(p)) if not math.isnan(i.value)] for p in others}
    mine = costs.pop(point)
    same = [cost for cost in costs.values() if len(cost) == len(mine)]
    beaten = any(cost != mine and all(a <= b for a, b in zip(cost, mine, strict=True)) for cost in same)
    return all(map(math.isfinite, mine)) and not beaten


def fit_command(point: Point) -> Command:
    """Return the command that trains once more as a point's runs were, on a new seed; empty without run directories."""
    seed = max(o.seed for o in point.every or point.observations) + 1
    config = Path(point.observations[0].run.source, "config.yaml")
    command = f"python -m tasks fit --config {shlex.quote(str(config))} --seed_everything {seed}"
    return Command(command if config.exists() else "")


def point_rows(curve: Curve) -> list[dict[str, Any]]:
    """Return a curve's rows of the table of batch sizes."""
    points = [p for p in curve.points if p.observations]
    fewest = min((i.value for p in points if math.isfinite((i := p.interval("examples")).value)), default=math.nan)
    rows = []
    for p in points:
        marks = ["rate at an edge"] * (curve.tuned and p.untuned) + ["Pareto"] * on_front(p, points)
        rows.append(
            {
                "curve": curve.name,
                "batch size": p.batch_size,
                "rate": rate_of(p),
                "steps": p.interval("steps"),
                "times the fewest examples": p.interval("examples").value / fewest,
                "examples": p.interval("examples"),
                "seconds": p.interval("seconds"),
                "arrived": f"{p.count('reached')} of {p.n}",
                "remarks": ", ".join(marks),
                "train so": fit_command(p),
                "n": p.n,
                **{name: p.count(status) for name, status in COUNTS.items()},
                "P(reach)": proportion(p.count("reached"), p.n),
                "money": money(p),
            }
        )
    return rows


def points_table(workload: Workload) -> Table:
    """List every batch size of a workload, what decides first."""
    rows = [row for curve in workload.curves for row in point_rows(curve)]
    columns = list(rows[0]) if rows else ["curve"]
    if len(workload.curves) == 1:
        columns = [*columns[1:], "curve"]
    note = (
        "Means of logs over seeds with 95 % intervals, medians where a run did not arrive (it counts as ∞). Rate at an "
        "edge: of the rates tried, so a better one may lie beyond. Pareto: no other size is as cheap in steps, "
        "examples, seconds and money at once. The CSV has more columns."
    )
    shown = columns.index("train so") + any(row["train so"] for row in rows)
    return Table("Every batch size", columns, [[row[c] for c in columns] for row in rows], note, shown)


def runs_table(analysis: Analysis) -> Table:
    """List every run once a target, with where it lies."""
    columns = ["study", "target", "stage", "seed", "batch", "rate", "status", "steps", "seconds", "path"]
    units: tuple[Unit, ...] = ("steps", "seconds")
    rows = []
    for run in analysis.runs:
        r = run.record
        for hit in run.hits:
            there = [hit.at(u) if hit.status == "reached" else run.stopped_at(u) for u in units]
            row = [r.study, hit.label, r.stage or "", r.seed, r.batch.size, r.rate.effective, hit.status, *there]
            rows.append([*row, run.source])
    return Table("Runs", columns, rows)


def critical_row(given: Answer, curve: Curve, found: Critical | None) -> list[Any]:
    """Return one curve's row of the table of critical batch sizes."""
    name = f"{given.workload.name}, {given.workload.hit.label}"
    sure = ("high" if given.confident else "limited") if curve is given.curve else ""
    if found is None:
        return [name, *[NOTHING] * 4, sure, curve.name, "no", NOTHING, "too few points"]
    told = ["yes" if found.identified else "no", found.hyperbola, "; ".join(found.why_not)]
    return [name, found.useful_end, *reversed(found.ends.values()), sure, curve.name, *told]


def critical_table(analysis: Analysis, given: list[Answer]) -> Table:
    """List what every curve says about batch size."""
    columns = ["workload", "doubling saves a fifth up to", "at most twice the fewest examples up to (B2)"]
    columns += ["at most 1.25 times up to", "at most 1.2 times up to", "confidence", "curve"]
    columns += ["identified", "hyperbola B_crit", "why not identified"]
    rows = [critical_row(answer, *pair) for answer in given for pair in analysis.pairs(answer.workload)]
    note = (
        "Batch sizes with 95 % intervals; ∞: beyond the largest batch studied. B2, the largest batch at most twice as "
        "dear as the cheapest, is a critical batch size where it is identified; on a curve whose rate was not tuned at "
        "each size it is where that rule of the rate saturates."
    )
    return Table("How far the batch can be raised", columns, rows, note, 7)


CURVE_TABLES = {  # their columns after the curve, and their note
    "What the next doubling saves": (["from", "to", "saves % of the steps", "costs % more examples"], ""),
    "Forms of curve": (
        ["form", "error", "B2", ""],
        "Error: root mean square of log steps at each size when predicted from the others. "
        "The simplest form within one standard error of the best is chosen.",
    ),
    "How far to trust the fit": (["scatter between sizes (log)", "not fitted"], ""),
    "Predicted and measured": (
        ["noise scale at the target", "m* at the end (curvature)", "hyperbola B_crit", "B2"],
        "Medians over the runs of all batch sizes that know it. m*: Ma, Bassily and Belkin, at the final weights.",
    ),
}


def curve_rows(found: Critical) -> tuple[list[list[Any]], ...]:
    """Return the rows of each of these tables, in their order, that one fitted curve gives."""
    left_out = "; ".join(f"{size:,}: {reason}" for size, reason in found.data.left_out.items())
    predicted = not (math.isnan(found.noise.value) and math.isnan(found.curvature.value))
    return (
        [[d.size, 2 * d.size, d.saves, d.costs] for d in found.doublings],
        [[c.name, c.error, c.b2, "chosen" if c.name == found.chosen else ""] for c in found.candidates],
        [[found.tau, left_out]] if found.fit else [],
        [[found.noise, found.curvature, found.hyperbola, found.b2]] if predicted else [],
    )


def curve_tables(pairs: Iterable[tuple[Curve, Critical | None]]) -> dict[str, Table]:
    """Return what the fitted curves say, by the tables' titles; a table of no rows is left out."""
    each = [(curve.name, curve_rows(found)) for curve, found in pairs if found]
    tables = {}
    for at, (title, (columns, note)) in enumerate(CURVE_TABLES.items()):
        rows = [[name, *row] for name, rows in each for row in rows[at]]
        if rows:
            tables[title] = Table(title, ["curve", *columns], rows, note)
    return tables


def parts_table(seen: Evidence, verdict: Verdict) -> Table:
    """List the parts that a verdict was made of, the premise first, and what was seen beside them."""
    kinds = {"premise": [seen.premise] if seen.premise else [], "decides": seen.parts, "beside": seen.rest}
    rows: list[list[Any]] = [
        [p.what, p.interval, p.claimed, p.verdict, kind] for kind, parts in kinds.items() for p in parts
    ]
    rows += [[c.what, "yes" if c.holds else "no", "yes", "", "check"] for c in seen.checks]
    rows += [[view, "", "", said, "beside"] for view, said in verdict.rows]
    return Table("Parts", ["measure", "effect", "claim says", "verdict", "role"], rows)


def claims_table(verdicts: Iterable[tuple[Claim, Verdict]]) -> Table:
    """List the claims that were tested."""
    columns = ["claim", "statement", "verdict", "reason", "n", "scale", "rerun"]
    rows = [
        [claim.id, claim.statement, found.verdict, found.reason, len(seen.runs), seen.scale, claim.rerun]
        for claim, found in verdicts
        if (seen := found.evidence)
    ]
    return Table("Claims", columns, rows)
