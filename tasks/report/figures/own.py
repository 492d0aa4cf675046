"""The project's own figures: what a run costs on other machines, and what instruments measured beside the loss."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Observation, Workload, group, main_curve
from tasks.report.analysis.intervals import NOTHING, Interval, exact, number
from tasks.report.analysis.measures import CURVATURE, LINEAR_ERROR, NOISE, mean_of
from tasks.report.analysis.projection import HELD_OUT, project
from tasks.report.figures.style import (
    GREY,
    Drawing,
    NotDrawable,
    Panels,
    Table,
    against_batch,
    any_known,
    batch_axis,
    choose,
    draw_intervals,
    largest,
    log_axis,
    look,
)

LEAST_TARGETS = 4
ERROR = "noise_scale/standard_error"
RELATIVE = "linear_error/relative"
KESKAR, TOP = "sharpness/keskar", "sharpness/top_eigenvalue"
EXAMPLE = "sharpness/example_eigenvalue"


def time_and_cost(analysis: Analysis) -> Drawing | NotDrawable:
    """Time to target and its cost, projected on P devices from the measured step times."""
    cluster = analysis.cluster
    able = [w for w in analysis.workloads if w.parameters]
    projected = {w: found for w in able if (found := project(main_curve(w), w.parameters or 0, cluster))}
    if not projected:
        return NotDrawable("no runs on one device with parameter count and seconds of which half arrived")
    w = largest(projected)
    found = projected[w]
    rows = [
        [int(size), devices, float(found.seconds[i, j]), float(found.money[i, j])]
        for j, size in enumerate(found.sizes)
        for i, devices in enumerate(found.devices)
        if math.isfinite(found.seconds[i, j])
    ]

    def draw(panels: Panels) -> None:
        least = min(rows, key=lambda row: row[2])
        by_devices = group(sorted(rows, key=lambda row: row[1]), lambda row: f"{row[1]} device{'s' * (row[1] > 1)}")
        labels = ("seconds to target (projected)", f"cost to target (at {cluster.price:g} a device-hour)")
        for axes, label, column in zip(panels, labels, (2, 3), strict=True):
            lines = {name: {int(row[0]): exact(row[column]) for row in same} for name, same in by_devices.items()}
            against_batch(axes, lines, label, log=True)
            axes.plot(least[0], least[column], "*", color="#000000", markersize=13, label="least time", zorder=5)
        panels[0].legend()

    at, seconds, on = found.best
    where = f"at batch {number(at)}" if math.isfinite(at) else "not within the batches studied"
    caption = (
        f"{w.name}, {w.hit.label}. Projected, not measured; the device is the one measured on. On {cluster.name}, "
    )
    caption += f"time to target stops falling {where}: {number(seconds)} s on {on} devices. {HELD_OUT}."
    table = Table("Projected time and cost", ["batch size", "devices", "seconds to target", "cost"], rows)
    return Drawing(2, draw, table, caption)


def noise_scale(analysis: Analysis) -> Drawing | NotDrawable:
    """What noise and curvature predict at a target against the batch size measured there, at four targets or more."""
    found = [(w, c) for w in analysis.workloads if (c := analysis.main(w)[1]) and not math.isnan(c.noise.value)]
    rows: list[list[Any]] = [[w.name, w.hit.label, c.noise, c.curvature, c.hyperbola, c.b2] for w, c in found]
    if len(rows) < LEAST_TARGETS:
        return NotDrawable(
            f"fewer than {LEAST_TARGETS} targets with {NOISE} and a fitted curve (choose more with --target)"
        )

    def draw(panels: Panels) -> None:
        for index, (name, points) in enumerate(group(rows, lambda row: str(row[0])).items()):
            for column, label, face in ((2, "noise scale", look(index)["color"]), (3, "curvature, m*", "none")):
                known = [(r[column].value, r[4]) for r in points if r[column].value > 0]
                more = {"linestyle": "none", "markerfacecolor": face, "label": f"{name}: {label}" if known else None}
                draw_intervals(panels[0], known, index, **more)
        predicted = [r[column].value for r in rows for column in (2, 3) if r[column].value > 0]
        ends = [min(predicted), max(predicted)]
        panels[0].plot(ends, ends, "--", color=GREY, label="equal")
        log_axis(panels[0], "predicted critical batch size (examples)", "x")
        log_axis(panels[0], "measured B_crit of the hyperbola (examples)")
        panels[0].legend(fontsize=7)

    columns = ["workload", "target", "noise scale", "m* (curvature)", "measured B_crit", "measured B2"]
    caption = "The noise scale is that at the target, m* that at the final weights of the same runs."
    return Drawing(1, draw, Table("Predicted and measured", columns, rows), caption)


def draw_measured(axes: Axes, analysis: Analysis, w: Workload) -> None:
    """Draw the measured B_crit across the panel, with what its interval bounds."""
    _, found = analysis.main(w)
    measured = found.hyperbola if found else NOTHING
    if math.isfinite(measured.value):
        axes.axhline(measured.value, color=GREY, linestyle="--", label="measured B_crit (hyperbola)")
        if math.isfinite(measured.low) and math.isfinite(measured.high):
            axes.axhspan(measured.low, measured.high, color=GREY, alpha=0.12, linewidth=0)


def noise_columns(o: Observation) -> np.ndarray:
    """Return epochs, noise scales and standard errors: [3, evaluations], NaN where undefined; [3, 0] if never known."""
    columns = [o.run.curve.get(name, []) for name in ("epoch", NOISE, ERROR)]
    found = np.array(list(zip(*columns, strict=False)), dtype=float).reshape(-1, 3).T
    return found if np.isfinite(found[1]).any() else found[:, :0]


def probes(o: Observation) -> list[Mapping[str, float]]:
    """Return what the run's probe found: step, low, high (infinite: nothing fell behind)."""
    return o.run.record.instruments.get("probe", {}).get("branches", [])


def along_row(o: Observation) -> list[Any]:
    """Return a run's noise scale after a quarter and at the end, where it was undefined, and its probe's brackets."""
    epochs, noise, error = noise_columns(o)
    at = [int(np.abs(epochs - share * epochs[-1]).argmin()) for share in (0.25, 1.0) if len(epochs)]
    cells = [Interval(*map(float, (noise[i], noise[i] - 2 * error[i], noise[i] + 2 * error[i]))) for i in at]
    lost = f"{np.isnan(noise[1:]).sum()} of {len(noise[1:])}" if at else ""  # none at step 0
    brackets = "; ".join(f"step {b['step']:,}: {b['low']:,} to {number(b['high'])}" for b in probes(o))
    return [o.run.batch_size, o.seed, *(cells or [NOTHING, NOTHING]), lost, brackets]


def noise_along(analysis: Analysis) -> Drawing | NotDrawable:
    """Noise scale along training, and the probe's brackets, beside the measured critical batch."""
    found = choose(analysis.workloads, lambda o: bool(noise_columns(o).size or probes(o)))
    if not found:
        return NotDrawable(f"no runs with {NOISE} or a probe")
    w, runs = found

    def draw(panels: Panels) -> None:
        for index, (size, same) in enumerate(runs.items()):
            colour = look(index)["color"]
            for i, o in enumerate(same):
                epochs, noise, error = noise_columns(o)
                label = None if i else f"batch {size:,}"
                panels[0].plot(epochs, noise, ".-", color=colour, linewidth=1, markersize=3, label=label)
                low = np.maximum(noise - 2 * error, noise / 10)
                panels[0].fill_between(epochs, low, noise + 2 * error, color=colour, alpha=0.12, linewidth=0)
                brackets = [Interval(b["low"], b["low"], b["high"]) for b in probes(o)]
                draw_intervals(panels[1], [(size * 1.06**i, b) for b in brackets], index, linestyle="none")
        log_axis(panels[0], "epochs", "x", (1.0,))
        log_axis(panels[0], "noise scale (examples), 2 standard errors")
        log_axis(panels[1], "probe: from keeping up (dot) to falling behind")
        batch_axis(panels[1], runs)
        for axes in panels:
            draw_measured(axes, analysis, w)
        panels[0].legend()

    columns = ["batch size", "seed", "noise scale after 1/4 of the run", "at its end", "undefined"]
    note = (
        "Noise scale with two jackknife standard errors, in examples; -: undefined, |G|^2 is not positive. "
        "Where many evaluations are undefined, the others are too low and their errors too small. "
        "Of the probe, 95 %; a dot without a line: no larger batch that was tried fell behind."
    )
    rows = [along_row(o) for same in runs.values() for o in same]
    table = Table("Noise scale and probe", [*columns, "probe: critical batch"], rows, note)
    return Drawing(2, draw, table, f"{w.name}. Measured at {w.hit.label}.")


def curvature(analysis: Analysis) -> Drawing | NotDrawable:
    """Linear-approximation error, sharpness, and the batch that the curvature predicts, against batch size."""
    found = choose(analysis.workloads, lambda o: LINEAR_ERROR in o.run.record.final or KESKAR in o.run.record.final)
    if not found:
        return NotDrawable(f"no runs with {LINEAR_ERROR} or {KESKAR}")
    w, runs = found
    names = (LINEAR_ERROR, RELATIVE, KESKAR, TOP, EXAMPLE, CURVATURE)
    means = {n: {size: mean_of(o.run.record.final.get(n) for o in same) for size, same in runs.items()} for n in names}

    sides = {"|L(w) - L_lin(w)| after a step": {"": means[LINEAR_ERROR]}, "sharpness (Keskar, %)": {"": means[KESKAR]}}
    sides["examples, and eigenvalue"] = {"m* = β / λ + 1": means[CURVATURE], "λ, the Hessian's top": means[TOP]}
    known = {label: curves for label, curves in sides.items() if any_known(curves)}
    if not known:
        return NotDrawable("no run whose curvature is known")

    def draw(panels: Panels) -> None:
        for axes, (label, curves) in zip(panels, known.items(), strict=True):
            against_batch(axes, curves, label, log=len(curves) > 1)
            if len(curves) > 1:
                draw_measured(axes, analysis, w)
                axes.legend()
            else:
                axes.set_ylim(bottom=0)

    columns = ["batch size", "n", "|L - L_lin|", "of the promised", "sharpness (%)", "λ", "β", "m* = β / λ + 1"]
    rows = [[size, len(same), *(means[name][size] for name in names)] for size, same in runs.items()]
    note = "Means over seeds with Student's t intervals, at the last weights. m* is proved for convex models, and "
    note += "at least this: β is the largest of a few examples."
    return Drawing(len(known), draw, Table("Curvature at the end of training", columns, rows, note), w.name)


def spent(o: Observation) -> dict[str, float | None]:
    """Return what a run spent, by column; what is not known is None."""
    cost = o.run.record.cost
    gflop = cost.flops / 1e9 if cost.flops else None
    return {
        "training seconds": cost.training_seconds,
        "with evaluations": cost.wall_seconds,
        "examples a second": cost.examples_per_second,
        "GFLOP": gflop,
        "GFLOP a second": gflop / cost.training_seconds if gflop and cost.training_seconds else None,
        "peak MiB": cost.peak_memory_bytes / 2**20 if cost.peak_memory_bytes else None,
        "energy (J)": cost.energy_joules,
        "money": cost.money,
    }


def cost(analysis: Analysis) -> Drawing | NotDrawable:
    """What the runs cost, by batch size."""
    found = choose(analysis.workloads, lambda o: o.run.record.cost.examples_per_second is not None)
    if not found:
        return NotDrawable("no runs with the instrument Cost")
    w, runs = found
    each = {size: [spent(o) for o in same] for size, same in runs.items()}
    columns = list(next(iter(each.values()))[0])
    means = {name: {size: mean_of(one[name] for one in same) for size, same in each.items()} for name in columns}
    costs = [o.run.record.cost for same in runs.values() for o in same]
    prices = {f"{c.currency}, prices of {c.prices_of}" for c in costs if c.money is not None}

    rates = ("examples a second", "GFLOP a second", "peak MiB")
    known = {name: {"": means[name]} for name in rates if any_known({"": means[name]})}

    def draw(panels: Panels) -> None:
        for axes, (name, curves) in zip(panels, known.items(), strict=True):
            against_batch(axes, curves, name, log=True)

    rows = [[size, len(same), *(means[name][size] for name in columns)] for size, same in each.items()]
    note = f"Means over seeds, of whole runs. -: not known on this machine. Money: {'; '.join(sorted(prices)) or '-'}."
    return Drawing(len(known), draw, Table("What a run cost", ["batch size", "n", *columns], rows, note), w.name)
