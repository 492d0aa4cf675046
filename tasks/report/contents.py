"""What the report's tables hold."""

import math

from tasks.report.critical import Critical
from tasks.report.curves import COUNTED, Curve, Point, Workload
from tasks.report.intervals import Interval, proportion
from tasks.report.survival import log_normal_median, turnbull_median
from tasks.report.tables import Table, number
from tasks.report.tuning import best_of, shallue
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


def medians(point: Point) -> tuple[float, ...]:
    """Give what a point costs: steps, examples, seconds."""
    return tuple(point.interval(unit).value for unit in ("steps", "examples", "seconds"))


def on_front(point: Point, others: list[Point]) -> bool:
    """Say whether no other batch size is as cheap in steps, examples and seconds and cheaper in one."""
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
        units = [p.interval(unit) for unit in ("steps", "examples", "seconds")]
        share = proportion(p.count("reached"), p.n)
        rows.append([curve.name, p.batch_size, p.n, *counts, share, *units, speedup, cost, ", ".join(marks)])
    return rows


def points_table(workload: Workload) -> Table:
    """List every point of a workload with counts, and medians with 95 % intervals."""
    columns = ["curve", "batch size", "n", *COUNTS, "P(reach)", "steps", "examples", "seconds"]
    columns += ["speed-up", "cost ratio", "marks"]
    rows = [row for curve in workload.curves for row in point_rows(curve)]
    note = (
        "Medians over seeds with 95 % intervals; a run that spent its budget or diverged counts as ∞. "
        "Speed-up and cost ratio are against the smallest batch that arrived. Pareto: no other size is as "
        "cheap in steps, examples and seconds. Untuned: the best rate lies at an edge of those tried."
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
    nothing = Interval(math.nan, math.nan, math.nan)
    if found is None:
        return [name, curve.name, "no", nothing, "too few points", nothing, nothing, nothing, math.nan, ""]
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


def forms_table(pairs: Pairs) -> Table | None:
    """Compare the forms of curve by how well they predict a batch size left out."""
    rows = []
    for curve, found in pairs:
        for c in found.candidates if found else []:
            rows.append([curve.name, c.name, c.error, c.b2, "chosen" if c.name == found.chosen else ""])
    note = (
        "Error: root mean square of log steps at each size when predicted from the others. "
        "The simplest form within one standard error of the best is chosen."
    )
    return Table("Forms of curve", ["curve", "form", "error", "B2", ""], rows, note) if rows else None


def methods_table(curves: list[Curve]) -> Table:
    """Lay other ways to score a batch size beside the median."""
    rows = []
    for curve in curves:
        for p in (p for p in curve.points if p.n):
            best = shallue(p)
            others = [turnbull_median(p), log_normal_median(p), best[0] if best else math.nan]
            rows.append([curve.name, p.batch_size, p.interval("steps").value, *others, best[1] if best else ""])
    note = (
        "Turnbull and log-normal take a spent budget as right-censored where it stopped; the fit leaves out "
        "runs that diverged. Shallue: the fewest steps of any trial, at its first measurement past the goal."
    )
    columns = [
        "curve",
        "batch size",
        "median",
        "Turnbull median",
        "log-normal median",
        "Shallue's steps",
        "trial",
    ]
    return Table("Steps by other methods", columns, rows, note)


def budget_table(curves: list[Curve]) -> Table | None:
    """Show how each batch size looks with fewer trials to tune it."""
    tuned = [c for c in curves if c.tuned and any(len(p.trials) > 2 for p in c.points)]
    if not tuned:
        return None
    sizes = [len(p.trials) for c in tuned for p in c.points if p.trials]
    budgets = sorted({1, *(2**k for k in range(1, 12) if 2**k < min(sizes)), min(sizes)})
    rows = []
    for c in tuned:
        for p in (p for p in c.points if p.trials):
            steps = [o.value("steps") for o in p.trials if o.status in COUNTED]
            rows.append([c.name, p.batch_size, *(best_of(steps, k) if len(steps) >= k else math.nan for k in budgets)])
    columns = ["curve", "batch size", *(f"best of {k}" for k in budgets)]
    return Table("Steps by tuning budget", columns, rows, "Median of the fewest steps among k trials drawn at random.")


def trust_table(pairs: Pairs) -> Table | None:
    """Say how far each fit can be trusted."""
    rows = []
    for curve, found in pairs:
        if found and found.fit:
            left_out = "; ".join(f"{size:,}: {reason}" for size, reason in found.data.left_out.items())
            ends = [found.sensitivity.get(f"without the {end} size", math.nan) for end in ("smallest", "largest")]
            rows.append([curve.name, found.tau, found.largest_residual, *ends, left_out])
    columns = ["curve", "scatter between sizes (log)", "largest residual (log)", "B2 without smallest"]
    return Table("How far to trust it", [*columns, "B2 without largest", "not fitted"], rows) if rows else None


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
