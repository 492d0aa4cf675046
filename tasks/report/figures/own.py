"""The project's own figures: what a run costs on other machines, and what instruments measured beside the loss."""

import math
from collections.abc import Callable

import numpy as np

from tasks.report.analysis.answer import Analysis
from tasks.report.analysis.curves import Curve, Observation, Workload, group, main_curve, same_but_target
from tasks.report.analysis.intervals import NOTHING, Interval, mean_interval, number
from tasks.report.analysis.measures import CURVATURE, LINEAR_ERROR, NOISE
from tasks.report.analysis.projection import HELD_OUT, Cluster, Projection, project, step_seconds
from tasks.report.figures.style import Drawing, NotDrawable, Table, batch_axis, largest, log_axis, look

LEAST_TARGETS = 4
ERROR = "noise_scale/standard_error"
RELATIVE = "linear_error/relative"
KESKAR, TOP = "sharpness/keskar", "sharpness/top_eigenvalue"
EXAMPLE = "sharpness/example_eigenvalue"
STOPS = "time stops falling at batch"


def parameters_of(w: Workload) -> int | None:
    """Return the number of parameters of a workload's network."""
    return main_curve(w).points[0].observations[0].run.record.parameters


def stops_table(found: Projection) -> Table:
    """List, at the best P and at each P, the batch beyond which time to target stops falling."""
    rows = [["best at each batch", found.stops_falling(), *found.best()]]
    rows += [[str(d), found.stops_falling(row), *found.best(row)] for row, d in enumerate(found.devices)]
    note = (
        "Projected. The studied batch size with the least time to target, [low, high] from the intervals of the "
        "steps alone; ∞: time still falls at the largest batch studied."
    )
    columns = ["devices", STOPS, "least seconds to target", "its cost", "its devices"]
    return Table("Beyond which batch does wall-clock time stop falling? (projected)", columns, rows, note)


def sentence(found: Projection, cluster: Cluster) -> str:
    """Answer the first paper's question for this machine."""
    at = found.stops_falling()
    seconds, _, devices = found.best()
    known = f" [{number(at.low)}, {number(at.high)}]" if not math.isnan(at.low) else ""
    where = f"at batch {number(at.value)}{known}" if math.isfinite(at.value) else "not within the batches studied"
    return f"On {cluster.name}, time to target stops falling {where}: {number(seconds)} s on {devices} devices."


def time_and_cost(analysis: Analysis, cluster: Cluster | None = None) -> Drawing | NotDrawable:
    """Time to target and its cost, projected on P devices from the measured step times."""
    cluster = cluster or Cluster()
    able = [w for w in analysis.workloads if parameters_of(w) and len(step_seconds(main_curve(w))[0])]
    if not able:
        return NotDrawable("no runs on one device with their parameter count and seconds")
    w = largest(able)
    found = project(main_curve(w), parameters_of(w), cluster)
    if found is None:
        return NotDrawable("no batch size at which half of the runs arrived")
    rows = [
        [int(size), devices, float(found.seconds[i, j]), float(found.money[i, j])]
        for j, size in enumerate(found.sizes)
        for i, devices in enumerate(found.devices)
        if math.isfinite(found.seconds[i, j])
    ]

    def draw(panels) -> None:
        for index, devices in enumerate(found.devices):
            points = [row for row in rows if row[1] == devices]
            for axes, column in zip(panels, (2, 3), strict=True):
                x, y = [r[0] for r in points], [r[column] for r in points]
                axes.plot(x, y, **look(index), markersize=4, label=f"{devices} device{'s' * (devices > 1)}")
        seconds, money, _ = found.best()
        size = next(row[0] for row in rows if row[2] == seconds)
        for axes, value in zip(panels, (seconds, money), strict=True):
            axes.plot(size, value, "*", color="#000000", markersize=13, label="least time", zorder=5)
        labels = ("seconds to target (projected)", f"cost to target (at {cluster.price:g} a device-hour)")
        for axes, label in zip(panels, labels, strict=True):
            batch_axis(axes, [r[0] for r in rows])
            log_axis(axes, label)
        panels[0].legend()

    caption = f"{w.name}, {w.target}. Projected, not measured; the device is the one measured on. "
    caption += f"{sentence(found, cluster)} {HELD_OUT}."
    table = Table("Projected time and cost", ["batch size", "devices", "seconds to target", "cost"], rows)
    return Drawing(2, draw, table, caption, (stops_table(found),))


# predicted and measured --------------------------------------------------------------------------------


def noise_scale(analysis: Analysis) -> Drawing | NotDrawable:
    """What noise and curvature predict at a target against the batch size measured there, at four targets or more."""
    rows = []
    for members in group(analysis.workloads, same_but_target).values():
        for w in members:
            _, found = analysis.main(w)
            if found and not math.isnan(found.noise.value):
                rows.append([w.name, w.target, found.noise, found.curvature, found.hyperbola, found.b2])
    if len(rows) < LEAST_TARGETS:
        return NotDrawable(
            f"fewer than {LEAST_TARGETS} targets with {NOISE} and a fitted curve (choose more with --target)"
        )

    def draw(panels) -> None:
        for index, (name, points) in enumerate(group(rows, lambda row: row[0]).items()):
            style = look(index) | {"linestyle": "none"}
            for column, label, more in ((2, "noise scale", {}), (3, "curvature, m*", {"markerfacecolor": "none"})):
                known = [(r[column], r[4]) for r in points if r[column].value > 0 and math.isfinite(r[4].value)]
                for predicted, measured in known:
                    draw_interval(panels[0], predicted.value, measured, style["color"])
                if known:
                    at = zip(*((x.value, y.value) for x, y in known), strict=True)
                    panels[0].plot(*at, **(style | more), label=f"{name}: {label}")
        ends = [f(r[i].value for r in rows for i in (2, 3) if r[i].value > 0) for f in (min, max)]
        panels[0].plot(ends, ends, "--", color="#777777", label="equal")
        log_axis(panels[0], "predicted critical batch size (examples)", "x")
        log_axis(panels[0], "measured B_crit of the hyperbola (examples)")
        panels[0].legend(fontsize=7)

    columns = ["workload", "target", "noise scale", "m* (curvature)", "measured B_crit", "measured B2"]
    caption = "The noise scale is that at the target, m* that at the final weights of the same runs."
    return Drawing(1, draw, Table("Predicted and measured", columns, rows), caption)


def draw_interval(axes, x: float, interval: Interval, colour: str) -> None:
    """Draw an interval's finite part."""
    ends = [v for v in (interval.low, interval.high) if math.isfinite(v) and v > 0]
    if len(ends) == 2:
        axes.plot([x, x], ends, color=colour)


# instruments --------------------------------------------------------------------------------------------


def by_batch(curve: Curve, able: Callable[[Observation], bool]) -> dict[int, list[Observation]]:
    """Collect a curve's runs that can show something, by batch size."""
    return group([o for p in curve.points for o in p.counted if able(o)], lambda o: o.run.batch_size)


def choose(workloads: list[Workload], able: Callable[[Observation], bool]) -> tuple[Workload, dict] | None:
    """Choose the workload with the most runs among those that can show something, with these runs by batch size."""
    found = [w for w in workloads if by_batch(main_curve(w), able)]
    return (w := largest(found), by_batch(main_curve(w), able)) if found else None


def middle(values: list[float]) -> Interval:
    """Return the mean of what is known with its interval, or the one value there is."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return mean_interval(known) if len(known) > 1 else Interval(known[0], math.nan, math.nan) if known else NOTHING


def draw_measured(axes, analysis: Analysis, w: Workload) -> None:
    """Draw the measured B_crit across the panel, with what its interval bounds."""
    _, found = analysis.main(w)
    measured = found.hyperbola if found else NOTHING
    if math.isfinite(measured.value):
        axes.axhline(measured.value, color="#777777", linestyle="--", label="measured B_crit (hyperbola)")
        if math.isfinite(measured.low) and math.isfinite(measured.high):
            axes.axhspan(measured.low, measured.high, color="#777777", alpha=0.12, linewidth=0)


# along training -----------------------------------------------------------------------------------------


def noise_columns(o: Observation) -> np.ndarray:
    """Return the evaluations as rows epoch, noise scale, standard error; NaN where they are undefined."""
    columns = [o.run.curve.get(name, []) for name in ("epoch", NOISE, ERROR)]
    return np.array(list(zip(*columns, strict=False)), dtype=float).reshape(-1, 3).T


def probes(o: Observation) -> list[dict]:
    """Return what the run's probe found: step, low, high (infinite: nothing fell behind)."""
    return o.run.record.instruments.get("probe", {}).get("branches", [])


def along_table(runs: dict[int, list[Observation]]) -> Table:
    """List per run the noise scale halfway and at the end, and the probe's brackets."""
    rows = []
    for size, observations in runs.items():
        for o in observations:
            epochs, noise, error = noise_columns(o)
            at = [np.abs(epochs - share * epochs[-1]).argmin() if len(epochs) else None for share in (0.25, 1.0)]
            cells = [NOTHING if i is None else plus_minus(noise[i], error[i]) for i in at]
            lost = f"{np.isnan(noise[1:]).sum()} of {len(noise[1:])}" if len(epochs) else ""  # none at step 0
            text = "; ".join(f"step {b['step']:,}: {b['low']:,} to {number(b['high'])}" for b in probes(o))
            rows.append([size, o.seed, *cells, lost, text])
    columns = ["batch size", "seed", "noise scale after 1/4 of the run", "at its end", "undefined"]
    columns += ["probe: critical batch"]
    note = (
        "Noise scale with two jackknife standard errors, in examples; -: undefined, |G|^2 is not positive. "
        "Where many evaluations are undefined, the others are too low and their errors too small."
    )
    return Table("Noise scale and probe", columns, rows, note)


def plus_minus(value: float, error: float) -> Interval:
    """Return a value with two standard errors about it."""
    return Interval(float(value), float(value - 2 * error), float(value + 2 * error))


def noise_along(analysis: Analysis) -> Drawing | NotDrawable:
    """Noise scale along training, and the probe's brackets, beside the measured critical batch."""
    found = choose(analysis.workloads, lambda o: bool(np.isfinite(noise_columns(o)[1]).any()) or bool(probes(o)))
    if not found:
        return NotDrawable(f"no runs with {NOISE} or a probe")
    w, runs = found

    def draw(panels) -> None:
        for index, (size, observations) in enumerate(runs.items()):
            colour = look(index)["color"]
            for i, o in enumerate(observations):
                epochs, noise, error = noise_columns(o)
                label = None if i else f"batch {size:,}"
                panels[0].plot(epochs, noise, ".-", color=colour, linewidth=1, markersize=3, label=label)
                low = np.maximum(noise - 2 * error, noise / 10)
                panels[0].fill_between(epochs, low, noise + 2 * error, color=colour, alpha=0.12, linewidth=0)
                for b in probes(o):
                    draw_bracket(panels[1], b, size * 1.06**i, look(index))
        panels[0].set_xscale("log")
        panels[0].set_xlabel("epochs")
        batch_axis(panels[1], list(runs))
        log_axis(panels[0], "noise scale (examples), 2 standard errors")
        log_axis(panels[1], "probe: keeps up (marker), falls behind (line's end), 95 %")
        for axes in panels:
            draw_measured(axes, analysis, w)
        panels[0].legend()

    return Drawing(2, draw, along_table(runs), f"{w.name}. Measured at {w.target}.")


def draw_bracket(axes, branch: dict, x: float, style: dict) -> None:
    """Draw a probe's bracket: from the largest batch that surely kept up to the first that surely fell behind."""
    axes.plot(x, branch["low"], **style, markersize=5, linestyle="none")
    if math.isfinite(branch["high"]):
        axes.plot([x, x], [branch["low"], branch["high"]], color=style["color"])
    else:
        axes.plot(x, branch["low"] * 1.25, "^", color=style["color"], markersize=4)


# at the end of training ---------------------------------------------------------------------------------


def final(runs: dict[int, list[Observation]], name: str) -> list[Interval]:
    """Return the mean of a final number by batch size."""
    return [middle([o.run.final.get(name, math.nan) for o in observations]) for observations in runs.values()]


def draw_means(axes, sizes: list[int], values: list[Interval], index: int, label: str | None = None) -> None:
    """Draw means with intervals against batch size."""
    axes.plot(sizes, [v.value for v in values], **look(index), markersize=5, label=label)
    for size, v in zip(sizes, values, strict=True):
        if v.low > 0 and math.isfinite(v.high):
            axes.plot([size, size], [v.low, v.high], color=look(index)["color"], linewidth=1)


def curvature(analysis: Analysis) -> Drawing | NotDrawable:
    """Linear-approximation error, sharpness, and the batch that the curvature predicts, against batch size."""
    found = choose(analysis.workloads, lambda o: LINEAR_ERROR in o.run.final or KESKAR in o.run.final)
    if not found:
        return NotDrawable(f"no runs with {LINEAR_ERROR} or {KESKAR}")
    w, runs = found
    sizes, names = list(runs), (LINEAR_ERROR, RELATIVE, KESKAR, TOP, EXAMPLE, CURVATURE)
    values = {name: final(runs, name) for name in names}

    def draw(panels) -> None:
        for axes, (name, label) in zip(
            panels,
            {LINEAR_ERROR: "|L(w) - L_lin(w)| after a step", KESKAR: "sharpness (Keskar, %)"}.items(),
            strict=False,
        ):
            draw_means(axes, sizes, values[name], 0)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
        draw_means(panels[2], sizes, values[CURVATURE], 0, "m* = β / λ + 1")
        draw_means(panels[2], sizes, values[TOP], 1, "λ, top eigenvalue of the Hessian")
        draw_measured(panels[2], analysis, w)
        log_axis(panels[2], "examples, and eigenvalue")
        panels[2].legend()
        for axes in panels:
            batch_axis(axes, sizes)

    columns = ["batch size", "n", "|L - L_lin|", "of the promised", "sharpness (%)", "λ", "β", "m* = β / λ + 1"]
    rows = [[size, len(runs[size]), *(values[name][i] for name in names)] for i, size in enumerate(sizes)]
    note = "Means over seeds with Student's t intervals, at the last weights. m* is proved for convex models, and "
    note += "at least this: β is the largest of a few examples."
    return Drawing(3, draw, Table("Curvature at the end of training", columns, rows, note), w.name)


# cost ---------------------------------------------------------------------------------------------------

COST = {  # column: how it follows from the record's cost
    "training seconds": lambda c: c.get("training_seconds"),
    "with evaluations": lambda c: c.get("wall_seconds"),
    "examples a second": lambda c: c.get("examples_per_second"),
    "GFLOP": lambda c: c["flops"] / 1e9 if c.get("flops") else None,
    "GFLOP a second": lambda c: c["flops"] / 1e9 / c["training_seconds"] if c.get("flops") else None,
    "peak MiB": lambda c: c["peak_memory_bytes"] / 2**20 if c.get("peak_memory_bytes") else None,
    "energy (J)": lambda c: c.get("energy_joules"),
    "money": lambda c: c.get("money"),
}


def cost(analysis: Analysis) -> Drawing | NotDrawable:
    """What the runs cost, by batch size."""
    found = choose(analysis.workloads, lambda o: o.run.record.cost.examples_per_second is not None)
    if not found:
        return NotDrawable("no runs with the instrument Cost")
    w, runs = found
    costs = {size: [vars(o.run.record.cost) for o in observations] for size, observations in runs.items()}
    rows = [[size, len(c), *(middle([of(one) for one in c]) for of in COST.values())] for size, c in costs.items()]
    columns = ["batch size", "n", *COST]
    priced = [c for cs in costs.values() for c in cs if c["money"] is not None]
    prices = {f"{c['currency']}, prices of {c['prices_of']}" for c in priced}

    def draw(panels) -> None:
        for axes, name in zip(panels, ("examples a second", "GFLOP a second", "peak MiB"), strict=True):
            known = [(row[0], row[columns.index(name)]) for row in rows]
            known = [(size, v) for size, v in known if math.isfinite(v.value)]
            if known:
                draw_means(axes, *map(list, zip(*known, strict=True)), 0)
                batch_axis(axes, [size for size, _ in known])
                log_axis(axes, name)

    note = f"Means over seeds, of whole runs. -: not known on this machine. Money: {'; '.join(sorted(prices)) or '-'}."
    return Drawing(3, draw, Table("What a run cost", columns, rows, note), w.name)
