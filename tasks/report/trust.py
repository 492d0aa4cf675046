"""The tables that say how far a number can be trusted: other forms, other methods, seeds redrawn, predictions."""

import math

from tasks.report.contents import Pairs
from tasks.report.curves import COUNTED, Curve
from tasks.report.predicted import curvature_batch_of, noise_scale_of
from tasks.report.survival import log_normal_median, turnbull_median
from tasks.report.tables import Table
from tasks.report.targets import DRAWS
from tasks.report.tuning import best_of, shallue


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
            p = found.hyperbola_lack_of_fit
            rows.append([curve.name, found.tau, found.largest_residual, p, *ends, left_out])
    columns = ["curve", "scatter between sizes (log)", "largest residual (log)", "hyperbola's lack of fit p"]
    columns += ["B2 without smallest", "B2 without largest", "not fitted"]
    return Table("How far to trust it", columns, rows) if rows else None


def resampling_table(pairs: Pairs) -> Table | None:
    """Say what the choice of settings, or a target that is an outcome, adds."""
    rows = []
    for curve, found in pairs:
        again = found.resampled if found else None
        if again:
            scatters = (again.held_scatter, again.scatter)
            rows.append([curve.name, *scatters, 100 * again.changed, again.held, again.b2, found.b2])
    columns = ["curve", "scatter of a point (log S)", "with the choice repeated", "% chosen otherwise"]
    columns += ["B2, seeds redrawn", "B2, choice repeated too", "B2 as reported"]
    note = (
        f"{DRAWS} draws of every size's seeds; in each the settings are chosen again and, where the target is "
        "an outcome, the target is taken again. What was chosen but never confirmed is estimated by its tuning runs. "
        "The reported interval already holds the choice, as scatter between sizes."
    )
    return Table("What the choice of settings adds", columns, rows, note) if rows else None


def predicted_table(pairs: Pairs) -> Table | None:
    """Lay the batch sizes that gradient noise and curvature predict beside the measured ones."""
    rows = []
    for curve, found in pairs:
        noise, curvature = noise_scale_of(curve), curvature_batch_of(curve)
        if found and not (math.isnan(noise.value) and math.isnan(curvature.value)):
            rows.append([curve.name, noise, curvature, found.hyperbola, found.b2])
    columns = ["curve", "noise scale at the target", "m* at the end (curvature)", "hyperbola B_crit", "B2"]
    note = "Medians over the runs of all batch sizes that know it. m*: Ma, Bassily and Belkin, at the final weights."
    return Table("Predicted and measured", columns, rows, note) if rows else None
