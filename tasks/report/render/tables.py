"""What the report's tables hold."""

import math
import shlex
from pathlib import Path
from typing import Any

from callbacks.record import Unit
from tasks.report.analysis.answer import Analysis, Answer, money, rate_of
from tasks.report.analysis.critical import Critical
from tasks.report.analysis.curves import COUNTS, Curve, Observation, Point, Workload
from tasks.report.analysis.intervals import NOTHING, proportion
from tasks.report.claims.rules import Evidence, Verdict
from tasks.report.figures.style import Command, Table

Pairs = list[tuple[Curve, Critical | None]]


# every batch size -----------------------------------------------------------------------------------------


def known_costs(point: Point) -> list[float]:
    """Return what is known of a point's cost: steps, examples, seconds, money."""
    costs = [*point.intervals.values(), money(point)]
    return [i.value for i in costs if not math.isnan(i.value)]


def on_front(point: Point, others: list[Point]) -> bool:
    """Return whether no other batch size is as cheap in steps, examples, seconds and money and cheaper in one."""
    mine = known_costs(point)
    if not all(map(math.isfinite, mine)):
        return False
    rivals = [known_costs(p) for p in others if p is not point]
    same = [r for r in rivals if len(r) == len(mine)]
    return not any(all(a <= b for a, b in zip(r, mine, strict=True)) and r != mine for r in same)


def fit_command(point: Point) -> Command:
    """Return the command that trains once more at a point's batch size and rate, on a seed that was not used."""
    record = point.observations[0].run.record
    seed = max(o.seed for o in point.every or point.observations) + 1
    config = Path(point.observations[0].run.source, "config.yaml")
    if config.exists():
        return Command(f"python -m tasks fit --config {shlex.quote(str(config))} --seed_everything {seed}")
    if not record.settings:  # of runs from elsewhere
        return Command("")
    rate = "" if math.isnan(record.rate.base) else f" --model.optimizer.lr {record.rate.base:g}"
    return Command(f"python -m tasks fit --config CONFIG --data.batch_size {point.batch_size}{rate}")


def point_rows(curve: Curve) -> list[dict[str, Any]]:
    """Return a curve's rows of the table of batch sizes."""
    points = [p for p in curve.points if p.observations]
    arrived = [p for p in points if p.n and math.isfinite(p.interval("steps").value)]
    fewest = min((p.interval("examples").value for p in arrived), default=math.nan)
    first = arrived[0].interval("steps").value if arrived else math.nan
    rows = []
    for p in points:
        steps, examples = p.interval("steps"), p.interval("examples")
        marks = ["rate at an edge"] * (curve.tuned and p.untuned) + ["Pareto"] * on_front(p, points)
        rows.append(
            {
                "curve": curve.name,
                "batch size": p.batch_size,
                "rate": rate_of(p),
                "steps": steps,
                "times the fewest examples": examples.value / fewest,
                "examples": examples,
                "seconds": p.interval("seconds"),
                "arrived": f"{p.count('reached')} of {p.n}",
                "remarks": ", ".join(marks),
                "train so": fit_command(p),
                "n": p.n,
                **{name: p.count(status) for name, status in COUNTS.items()},
                "P(reach)": proportion(p.count("reached"), p.n),
                "speed-up": first / steps.value if steps.value > 0 else math.nan,
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
        "Means of logs over seeds with 95 % intervals, medians where a run did not arrive (it counts as ∞). Times the "
        "fewest examples: against the cheapest batch size of the curve. Rate at an edge: the best rate tried was the "
        "largest or the smallest, so a better one may lie beyond. Pareto: no other size is as cheap in steps, "
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


def runs_behind(point: Point) -> list[Observation]:
    """Return the runs that a point rests on: those scored, then those its rate was chosen from."""
    return list(dict.fromkeys([*point.observations, *point.trials]))


# what the curves say --------------------------------------------------------------------------------------


def critical_row(given: Answer, name: str, curve: Curve, found: Critical | None) -> list[Any]:
    """Return one curve's row of the table of critical batch sizes."""
    sure = ("high" if given.confident else "limited") if curve is given.curve else ""
    if found is None:
        return [name, *[NOTHING] * 4, sure, curve.name, "no", "too few points", NOTHING, math.nan, ""]
    return [
        *(name, found.useful_end, *reversed(found.ends.values()), sure, curve.name),
        *("yes" if found.identified else "no", "" if found.identified else found.bound),
        *(found.hyperbola, found.hyperbola_lack_of_fit, "; ".join(found.why_not)),
    ]


def critical_table(analysis: Analysis, given: list[Answer]) -> Table:
    """List what every curve says about batch size."""
    columns = ["workload", "doubling saves a fifth up to", "at most twice the fewest examples up to (B2)"]
    columns += ["at most 1.25 times up to", "at most 1.2 times up to", "confidence", "curve"]
    columns += ["identified", "B2 is", "hyperbola B_crit", "lack of fit p", "why not identified"]
    rows = [
        critical_row(a, f"{a.workload.name}, {a.workload.target}", curve, found)
        for a in given
        for curve, found in analysis.pairs(a.workload)
    ]
    note = (
        "Batch sizes with 95 % intervals; ∞: beyond the largest batch studied. B2, the largest batch at most twice "
        "as dear as the cheapest, is a critical batch size where it is identified; on a curve whose rate "
        "was not tuned at each size it is where that rule of the rate saturates. Hyperbola: B_crit of steps = S_min "
        "(1 + B_crit / B)."
    )
    return Table("How far the batch can be raised", columns, rows, note, 7)


def doublings_table(pairs: Pairs) -> Table | None:
    """List what each doubling of the batch saves and costs."""
    rows = [
        [curve.name, d.size, 2 * d.size, d.saves, d.costs]
        for curve, found in pairs
        for d in (found.doublings if found else [])
    ]
    columns = ["curve", "from", "to", "saves % of the steps", "costs % more examples"]
    return Table("What the next doubling saves", columns, rows) if rows else None


def forms_table(pairs: Pairs) -> Table | None:
    """Compare the forms of curve by how well they predict a batch size left out."""
    rows = [
        [curve.name, c.name, c.error, c.b2, "chosen" if c.name == found.chosen else ""]
        for curve, found in pairs
        if found
        for c in found.candidates
    ]
    note = (
        "Error: root mean square of log steps at each size when predicted from the others. "
        "The simplest form within one standard error of the best is chosen."
    )
    return Table("Forms of curve", ["curve", "form", "error", "B2", ""], rows, note) if rows else None


def trust_table(pairs: Pairs) -> Table | None:
    """List how far each fit can be trusted."""
    rows = []
    for curve, found in pairs:
        if found and found.fit:
            left_out = "; ".join(f"{size:,}: {reason}" for size, reason in found.data.left_out.items())
            p = found.hyperbola_lack_of_fit
            rows.append([curve.name, found.tau, p, left_out])
    columns = ["curve", "scatter between sizes (log)", "hyperbola's lack of fit p"]
    columns += ["not fitted"]
    return Table("How far to trust the fit", columns, rows) if rows else None


def predicted_table(pairs: Pairs) -> Table | None:
    """Lay the batch sizes that gradient noise and curvature predict beside the measured ones."""
    rows = [
        [curve.name, found.noise, found.curvature, found.hyperbola, found.b2]
        for curve, found in pairs
        if found and not (math.isnan(found.noise.value) and math.isnan(found.curvature.value))
    ]
    columns = ["curve", "noise scale at the target", "m* at the end (curvature)", "hyperbola B_crit", "B2"]
    note = "Medians over the runs of all batch sizes that know it. m*: Ma, Bassily and Belkin, at the final weights."
    return Table("Predicted and measured", columns, rows, note) if rows else None


def tables_of(workload: Workload, pairs: Pairs) -> list[Table]:
    """Return all tables of one workload."""
    makers = (doublings_table, forms_table, trust_table, predicted_table)
    return [points_table(workload), *(table for make in makers if (table := make(pairs)))]


# claims ---------------------------------------------------------------------------------------------------


def parts_table(seen: Evidence) -> Table:
    """List the parts that a verdict was made of, the premise first, and what was seen beside them."""
    rows: list[list[Any]] = []
    kinds = [("premise", [seen.premise] if seen.premise else []), ("decides", seen.parts), ("beside", seen.rest)]
    for kind, parts in kinds:
        for p in parts:
            rows.append([p.what, p.interval, p.claimed, p.verdict, kind])
    rows += [[what, "yes" if holds else "no", "yes", "", "check"] for what, holds in seen.checks.items()]
    return Table("Parts", ["measure", "effect", "claim says", "verdict", "role"], rows)


def views_table(verdict: Verdict) -> Table:
    """List what the other rule for a hit says."""
    return Table("Seen otherwise", ["view", "verdict"], [list(row) for row in verdict.rows])
