"""What the report's tables hold."""

import math

from tasks.report.critical import Critical
from tasks.report.curves import Curve, Point, Workload
from tasks.report.intervals import NOTHING, Interval, proportion
from tasks.report.tables import Table, number
from tasks.report.verdicts.claims import CLAIMS
from tasks.report.verdicts.decide import Verdict

Pairs = list[tuple[Curve, Critical | None]]
COUNTS = {
    "reached": "reached",
    "censored": "budget",
    "diverged": "diverged",
    "failed": "failed",
    "running": "running",
}


def money(point: Point) -> Interval:
    """Give what the training seconds to the target cost at the recorded price of a device-hour, if it is one."""
    records = [o.run.record for o in point.counted]
    rates = {(r.cost.device_hour, r.world_size) for r in records}
    price, devices = rates.pop() if len(rates) == 1 else (None, 1)
    if not isinstance(price, int | float):
        return NOTHING
    return point.interval("seconds").mapped(lambda seconds: seconds / 3600 * price * devices)


def medians(point: Point) -> tuple[float, ...]:
    """Give what a point costs: steps, examples, seconds, money."""
    return (*(point.interval(unit).value for unit in ("steps", "examples", "seconds")), money(point).value)


def on_front(point: Point, others: list[Point]) -> bool:
    """Say whether no other batch size is as cheap in steps, examples, seconds and money and cheaper in one."""
    mine = [v for v in medians(point) if not math.isnan(v)]
    if not all(math.isfinite(v) for v in mine):
        return False
    rivals = [[v for v in medians(p) if not math.isnan(v)] for p in others if p is not point]
    same = [r for r in rivals if len(r) == len(mine)]
    return not any(all(a <= b for a, b in zip(r, mine, strict=True)) and r != mine for r in same)


def point_rows(curve: Curve) -> list[list]:
    """Give a curve's rows of the table of points."""
    points = [p for p in curve.points if p.observations]
    steps = {p.batch_size: p.interval("steps") for p in points if p.n}
    first = next((b for b in sorted(steps) if math.isfinite(steps[b].value)), None)
    rows = []
    for p in points:
        s = steps.get(p.batch_size)
        speedup = steps[first].value / s.value if s and first is not None and s.value > 0 else math.nan
        cost = p.batch_size / first / speedup if first is not None and speedup > 0 else math.nan
        marks = [m for m, yes in (("untuned", p.untuned), ("Pareto", on_front(p, points))) if yes]
        counts = [p.count(status) for status in COUNTS.values()]
        units = [*(p.interval(unit) for unit in ("steps", "examples", "seconds")), money(p)]
        share = proportion(p.count("reached"), p.n)
        rows.append([curve.name, p.batch_size, p.n, *counts, share, *units, speedup, cost, ", ".join(marks)])
    return rows


def points_table(workload: Workload) -> Table:
    """List every point of a workload with counts, and medians with 95 % intervals."""
    columns = ["curve", "batch size", "n", *COUNTS, "P(reach)", "steps", "examples", "seconds", "money"]
    columns += ["speed-up", "cost ratio", "marks"]
    rows = [row for curve in workload.curves for row in point_rows(curve)]
    at = columns.index("money")
    if all(math.isnan(row[at].value) for row in rows):  # no prices were given
        columns, rows = columns[:at] + columns[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    note = (
        "Medians over seeds with 95 % intervals; a run that spent its budget or diverged counts as ∞. "
        "Speed-up and cost ratio are against the smallest batch that arrived. Pareto: no other size is as "
        "cheap in steps, examples, seconds and money (training seconds at the recorded price, where there is one). "
        "Untuned: the best rate lies at an edge of those tried. P(reach): Clopper and Pearson."
    )
    return Table("Every batch size", columns, rows, note)


def finding(curve: Curve, found: Critical) -> str:
    """Say in words, to the one who must choose, what a curve says."""
    kind = "critical batch size" if curve.tuned else "saturation batch of this rule"
    known = number(found.b2) if found.identified else f"{found.bound} (not identified)"
    useful, top = found.useful_end, f"{found.data.sizes[-1]:,.0f}"
    ends = "beyond the largest size studied" if math.isinf(useful.value) else f"up to batch {number(useful)}"
    text = f"{curve.name}: {kind} B2 {known}. Doubling still saves at least 20 % of the steps {ends}"
    if math.isinf(useful.high):
        text += f" ({top} was the largest fitted)"
    late = [
        (size, why) for size, why in found.data.left_out.items() if "arrived" in why and size > found.data.sizes[-1]
    ]
    if late:
        text += f". At batch {late[0][0]:,} {late[0][1]}"
    return text + "."


def critical_row(name: str, curve: Curve, found: Critical | None) -> list:
    """Give one curve's row of the table of critical batch sizes."""
    if found is None:
        return [name, curve.name, "no", NOTHING, "too few points", NOTHING, NOTHING, NOTHING, math.nan, ""]
    return [
        *(name, curve.name, "yes" if found.identified else "no", found.b2),
        "" if found.identified else found.bound,
        *(found.hyperbola, found.linear_end, found.useful_end, found.hyperbola_lack_of_fit),
        "; ".join(found.why_not),
    ]


def critical_table(analysis: list[tuple[Workload, Pairs]]) -> Table:
    """List what every curve says about batch size."""
    columns = ["workload", "curve", "identified", "B2 (E ≤ 2 min E)", "B2 is", "hyperbola B_crit"]
    columns += ["end of linear scaling", "doubling saves ≥ 20 % up to", "lack of fit p", "why not identified"]
    rows = [critical_row(f"{w.name}, {w.target}", c, k) for w, pairs in analysis for c, k in pairs]
    note = (
        "B2 is the largest batch that needs at most twice the examples of the cheapest; on a curve not tuned "
        "at each size it is the saturation batch of its rule. ∞ means beyond the largest batch studied."
    )
    return Table("Critical batch sizes", columns, rows, note)


def doublings_table(pairs: Pairs) -> Table | None:
    """List what each doubling of the batch saves and costs."""
    rows = []
    for curve, found in pairs:
        for size, saves in found.doublings if found else []:
            costs = Interval(*(100 * (1 - 2 * s) for s in (saves.value, saves.high, saves.low)))
            rows.append([curve.name, size, 2 * size, saves.mapped(lambda s: 100 * s), costs])
    columns = ["curve", "from", "to", "saves % of the steps", "costs % more examples"]
    return Table("The next doubling", columns, rows) if rows else None


def verdict_table(verdicts: dict[str, Verdict]) -> Table:
    """List all claims with what was decided."""
    rows = []
    for claim in CLAIMS:
        v = verdicts[claim.id]
        effect = v.main.interval if v.main else Interval(math.nan, math.nan, math.nan)
        what = v.main.what if v.main else ""
        share = round(100 * v.censored) if not math.isnan(v.censored) else math.nan
        rows.append([claim.id, claim.statement, v.verdict, what, effect, v.n, share, v.reason, v.scale, claim.rerun])
    columns = [
        "claim",
        "statement",
        "verdict",
        "measure",
        "effect",
        "n",
        "% not arrived",
        "reason",
        "scale",
        "rerun",
    ]
    return Table("Verdicts", columns, rows)


def parts_table(verdict: Verdict) -> Table:
    """List the parts that a verdict was made of."""
    rows = []
    for p in verdict.parts:
        wanted = " and ".join(f"{w} {m:.3g}" for w, m in (("above", p.above), ("below", p.below)) if m is not None)
        rows.append([p.what, p.interval, wanted, p.verdict])
    return Table("Parts", ["measure", "effect", "claim says", "decides"], rows)


def robustness_table(verdict: Verdict) -> Table:
    """List the verdict and its effect under every other view."""
    return Table("Robustness", ["view", "verdict", "effect"], [list(row) for row in verdict.robustness])
