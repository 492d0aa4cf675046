"""The project's own figures: what a run costs on other machines, and what instruments measured beside the loss."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from callbacks.record import Cost
from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Observation, Workload, group, main_curve, same_but_target
from tasks.report.analysis.intervals import NOTHING, Interval, number
from tasks.report.analysis.measures import CURVATURE, LINEAR_ERROR, NOISE, mean_of
from tasks.report.analysis.projection import HELD_OUT, Cluster, Projection, project, step_seconds
from tasks.report.figures.style import (
    GREY,
    Drawing,
    NotDrawable,
    Panels,
    Table,
    batch_axis,
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
ByBatch = dict[int, list[Observation]]


# projected on other machines ------------------------------------------------------------------------------


def stops_table(found: Projection) -> Table:
    """List, at the best P and at each P, the batch beyond which time to target stops falling."""
    rows = [["best at each batch", *found.best()]]
    rows += [[str(d), *found.best(row)] for row, d in enumerate(found.devices)]
    note = (
        "Projected. The studied batch size with the least time to target; ∞: time still falls at the largest batch "
        "studied."
    )
    columns = ["devices", "time stops falling at batch", "least seconds to target", "its cost", "its devices"]
    return Table("Beyond which batch does wall-clock time stop falling? (projected)", columns, rows, note)


def sentence(found: Projection, cluster: Cluster) -> str:
    """Answer the first paper's question for this machine."""
    at, seconds, _, devices = found.best()
    where = f"at batch {number(at)}" if math.isfinite(at) else "not within the batches studied"
    return f"On {cluster.name}, time to target stops falling {where}: {number(seconds)} s on {devices} devices."


def time_and_cost(analysis: Analysis) -> Drawing | NotDrawable:
    """Time to target and its cost, projected on P devices from the measured step times."""
    cluster = analysis.cluster
    able = [w for w in analysis.workloads if w.parameters and len(step_seconds(main_curve(w))[0])]
    if not able:
        return NotDrawable("no runs on one device with their parameter count and seconds")
    projected = {w: found for w in able if (found := project(main_curve(w), w.parameters or 0, cluster))}
    if not projected:
        return NotDrawable("no batch size at which half of the runs arrived")
    w = largest(projected)
    found = projected[w]
    rows: list[list[float]] = [
        [int(size), devices, float(found.seconds[i, j]), float(found.money[i, j])]
        for j, size in enumerate(found.sizes)
        for i, devices in enumerate(found.devices)
        if math.isfinite(found.seconds[i, j])
    ]

    def draw(panels: Panels) -> None:
        labels = ("seconds to target (projected)", f"cost to target (at {cluster.price:g} a device-hour)")
        star = min(rows, key=lambda row: row[2])
        for axes, label, column in zip(panels, labels, (2, 3), strict=True):
            for index, devices in enumerate(found.devices):
                points = [row for row in rows if row[1] == devices]
                style = look(index) | {"markersize": 4, "label": f"{devices} device{'s' * (devices > 1)}"}
                axes.plot([r[0] for r in points], [r[column] for r in points], **style)
            axes.plot(star[0], star[column], "*", color="#000000", markersize=13, label="least time", zorder=5)
            batch_axis(axes, [int(r[0]) for r in rows])
            log_axis(axes, label)
        panels[0].legend()

    caption = f"{w.name}, {w.target}. Projected, not measured; the device is the one measured on. "
    caption += f"{sentence(found, cluster)} {HELD_OUT}."
    table = Table("Projected time and cost", ["batch size", "devices", "seconds to target", "cost"], rows)
    return Drawing(2, draw, table, caption, (stops_table(found),))


# predicted and measured --------------------------------------------------------------------------------


def noise_scale(analysis: Analysis) -> Drawing | NotDrawable:
    """What noise and curvature predict at a target against the batch size measured there, at four targets or more."""
    rows: list[list[Any]] = []
    for members in group(analysis.workloads, same_but_target).values():
        for w in members:
            _, found = analysis.main(w)
            if found and not math.isnan(found.noise.value):
                rows.append([w.name, w.target, found.noise, found.curvature, found.hyperbola, found.b2])
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
        ends = [f(r[i].value for r in rows for i in (2, 3) if r[i].value > 0) for f in (min, max)]
        panels[0].plot(ends, ends, "--", color=GREY, label="equal")
        log_axis(panels[0], "predicted critical batch size (examples)", "x")
        log_axis(panels[0], "measured B_crit of the hyperbola (examples)")
        panels[0].legend(fontsize=7)

    columns = ["workload", "target", "noise scale", "m* (curvature)", "measured B_crit", "measured B2"]
    caption = "The noise scale is that at the target, m* that at the final weights of the same runs."
    return Drawing(1, draw, Table("Predicted and measured", columns, rows), caption)


# instruments --------------------------------------------------------------------------------------------


def choose(workloads: list[Workload], able: Callable[[Observation], bool]) -> tuple[Workload, ByBatch] | None:
    """Choose the workload with the most runs among those that can show something, with these runs by batch size."""
    found = {w: [o for o in main_curve(w).counted if able(o)] for w in workloads}
    shown = [w for w, runs in found.items() if runs]
    return (w := largest(shown), group(found[w], lambda o: o.run.batch_size)) if shown else None


def draw_measured(axes: Axes, analysis: Analysis, w: Workload) -> None:
    """Draw the measured B_crit across the panel, with what its interval bounds."""
    _, found = analysis.main(w)
    measured = found.hyperbola if found else NOTHING
    if math.isfinite(measured.value):
        axes.axhline(measured.value, color=GREY, linestyle="--", label="measured B_crit (hyperbola)")
        if math.isfinite(measured.low) and math.isfinite(measured.high):
            axes.axhspan(measured.low, measured.high, color=GREY, alpha=0.12, linewidth=0)


# along training -----------------------------------------------------------------------------------------


def noise_columns(o: Observation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the evaluations' epochs, noise scales and standard errors; NaN where they are undefined."""
    columns = [o.run.curve.get(name, []) for name in ("epoch", NOISE, ERROR)]
    epochs, noise, error = np.array(list(zip(*columns, strict=False)), dtype=float).reshape(-1, 3).T
    return epochs, noise, error


def probes(o: Observation) -> list[Mapping[str, float]]:
    """Return what the run's probe found: step, low, high (infinite: nothing fell behind)."""
    return o.run.record.instruments.get("probe", {}).get("branches", [])


def along_table(runs: ByBatch) -> Table:
    """List per run the noise scale after a quarter and at the end, and the probe's brackets."""
    rows = []
    for o in (o for observations in runs.values() for o in observations):
        epochs, noise, error = noise_columns(o)
        cells, lost = [NOTHING, NOTHING], ""
        if len(epochs):
            at = [int(np.abs(epochs - share * epochs[-1]).argmin()) for share in (0.25, 1.0)]
            cells = [Interval(*map(float, (noise[i], noise[i] - 2 * error[i], noise[i] + 2 * error[i]))) for i in at]
            lost = f"{np.isnan(noise[1:]).sum()} of {len(noise[1:])}"  # none at step 0
        text = "; ".join(f"step {b['step']:,}: {b['low']:,} to {number(b['high'])}" for b in probes(o))
        rows.append([o.run.batch_size, o.seed, *cells, lost, text])
    columns = ["batch size", "seed", "noise scale after 1/4 of the run", "at its end", "undefined"]
    columns += ["probe: critical batch"]
    note = (
        "Noise scale with two jackknife standard errors, in examples; -: undefined, |G|^2 is not positive. "
        "Where many evaluations are undefined, the others are too low and their errors too small."
    )
    return Table("Noise scale and probe", columns, rows, note)


def noise_along(analysis: Analysis) -> Drawing | NotDrawable:
    """Noise scale along training, and the probe's brackets, beside the measured critical batch."""
    found = choose(analysis.workloads, lambda o: bool(np.isfinite(noise_columns(o)[1]).any()) or bool(probes(o)))
    if not found:
        return NotDrawable(f"no runs with {NOISE} or a probe")
    w, runs = found

    def draw(panels: Panels) -> None:
        for index, (size, observations) in enumerate(runs.items()):
            colour = look(index)["color"]
            for i, o in enumerate(observations):
                epochs, noise, error = noise_columns(o)
                label = None if i else f"batch {size:,}"
                panels[0].plot(epochs, noise, ".-", color=colour, linewidth=1, markersize=3, label=label)
                low = np.maximum(noise - 2 * error, noise / 10)
                panels[0].fill_between(epochs, low, noise + 2 * error, color=colour, alpha=0.12, linewidth=0)
                for b in probes(o):
                    draw_bracket(panels[1], b["low"], b["high"], size * 1.06**i, look(index))
        panels[0].set_xscale("log")
        panels[0].set_xlabel("epochs")
        batch_axis(panels[1], list(runs))
        log_axis(panels[0], "noise scale (examples), 2 standard errors")
        log_axis(panels[1], "probe: keeps up (marker), falls behind (line's end), 95 %")
        for axes in panels:
            draw_measured(axes, analysis, w)
        panels[0].legend()

    return Drawing(2, draw, along_table(runs), f"{w.name}. Measured at {w.target}.")


def draw_bracket(axes: Axes, low: float, high: float, x: float, style: dict[str, Any]) -> None:
    """Draw a probe's bracket: from the largest batch that surely kept up to the first that surely fell behind."""
    axes.plot(x, low, **style, markersize=5, linestyle="none")
    if math.isfinite(high):
        axes.plot([x, x], [low, high], color=style["color"])
    else:
        axes.plot(x, low * 1.25, "^", color=style["color"], markersize=4)


# at the end of training ---------------------------------------------------------------------------------


def curvature(analysis: Analysis) -> Drawing | NotDrawable:
    """Linear-approximation error, sharpness, and the batch that the curvature predicts, against batch size."""
    found = choose(analysis.workloads, lambda o: LINEAR_ERROR in o.run.final or KESKAR in o.run.final)
    if not found:
        return NotDrawable(f"no runs with {LINEAR_ERROR} or {KESKAR}")
    w, runs = found
    names = (LINEAR_ERROR, RELATIVE, KESKAR, TOP, EXAMPLE, CURVATURE)
    values = {name: [mean_of(o.run.final.get(name) for o in same) for same in runs.values()] for name in names}

    def draw(panels: Panels) -> None:
        def means(axes: Axes, name: str, index: int = 0, label: str | None = None) -> None:
            draw_intervals(axes, zip(runs, values[name], strict=True), index, label=label)

        for axes, name, label in (
            (panels[0], LINEAR_ERROR, "|L(w) - L_lin(w)| after a step"),
            (panels[1], KESKAR, "sharpness (Keskar, %)"),
        ):
            means(axes, name)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
        means(panels[2], CURVATURE, 0, "m* = β / λ + 1")
        means(panels[2], TOP, 1, "λ, top eigenvalue of the Hessian")
        draw_measured(panels[2], analysis, w)
        log_axis(panels[2], "examples, and eigenvalue")
        panels[2].legend()
        for axes in panels:
            batch_axis(axes, runs)

    columns = ["batch size", "n", "|L - L_lin|", "of the promised", "sharpness (%)", "λ", "β", "m* = β / λ + 1"]
    rows = [[size, len(same), *(values[name][i] for name in names)] for i, (size, same) in enumerate(runs.items())]
    note = "Means over seeds with Student's t intervals, at the last weights. m* is proved for convex models, and "
    note += "at least this: β is the largest of a few examples."
    return Drawing(3, draw, Table("Curvature at the end of training", columns, rows, note), w.name)


# cost ---------------------------------------------------------------------------------------------------


def spent(cost: Cost) -> dict[str, float | None]:
    """Return what a run spent, by column; what is not known is None."""
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


def means_of(costs: Sequence[Cost]) -> dict[str, Interval]:
    """Return the mean over runs of what they spent, by column."""
    each = [spent(cost) for cost in costs]
    return {name: mean_of(one[name] for one in each) for name in each[0]}


def cost(analysis: Analysis) -> Drawing | NotDrawable:
    """What the runs cost, by batch size."""
    found = choose(analysis.workloads, lambda o: o.run.record.cost.examples_per_second is not None)
    if not found:
        return NotDrawable("no runs with the instrument Cost")
    w, runs = found
    costs = {size: [o.run.record.cost for o in observations] for size, observations in runs.items()}
    means = {size: means_of(each) for size, each in costs.items()}
    prices = {f"{c.currency}, prices of {c.prices_of}" for cs in costs.values() for c in cs if c.money is not None}

    def draw(panels: Panels) -> None:
        for axes, name in zip(panels, ("examples a second", "GFLOP a second", "peak MiB"), strict=True):
            known = [(size, mean[name]) for size, mean in means.items() if math.isfinite(mean[name].value)]
            if known:
                draw_intervals(axes, known, 0)
                batch_axis(axes, [size for size, _ in known])
                log_axis(axes, name)

    rows = [[size, len(costs[size]), *mean.values()] for size, mean in means.items()]
    columns = ["batch size", "n", *next(iter(means.values()))]
    note = f"Means over seeds, of whole runs. -: not known on this machine. Money: {'; '.join(sorted(prices)) or '-'}."
    return Drawing(3, draw, Table("What a run cost", columns, rows, note), w.name)
