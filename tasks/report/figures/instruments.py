"""What the instruments measured beside the loss: noise and probe along training, curvature at the end, and cost."""

import math
from collections.abc import Callable

import numpy as np

from tasks.report.critical import critical
from tasks.report.curves import Curve, Observation, Workload, group
from tasks.report.figures.drawing import Drawing, largest
from tasks.report.figures.golmant import main_curve
from tasks.report.figures.style import batch_axis, log_axis, look
from tasks.report.intervals import NOTHING, Interval, mean_interval
from tasks.report.predicted import CURVATURE, NOISE
from tasks.report.tables import Table, number

ERROR = "noise_scale/standard_error"
LINEAR, RELATIVE = "linear_error/absolute", "linear_error/relative"
KESKAR, TOP = "sharpness/keskar", "sharpness/top_eigenvalue"
EXAMPLE = "sharpness/example_eigenvalue"


def by_batch(curve: Curve, able: Callable[[Observation], bool]) -> dict[int, list[Observation]]:
    """Collect a curve's runs that can show something, by batch size."""
    return group([o for p in curve.points for o in p.counted if able(o)], lambda o: o.run.batch_size)


def choose(workloads: list[Workload], able: Callable[[Observation], bool]) -> tuple[Workload, dict] | None:
    """Choose the workload with the most runs among those that can show something, with these runs by batch size."""
    found = [w for w in workloads if by_batch(main_curve(w), able)]
    return (w := largest(found), by_batch(main_curve(w), able)) if found else None


def middle(values: list[float]) -> Interval:
    """Give the mean of what is known with its interval, or the one value there is."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return mean_interval(known) if len(known) > 1 else Interval(known[0], math.nan, math.nan) if known else NOTHING


def measured_batch(w: Workload) -> Interval:
    """Give the hyperbola's B_crit of the workload's curve, what a noise scale predicts."""
    found = critical(main_curve(w))
    return found.hyperbola if found else NOTHING


def draw_measured(axes, w: Workload) -> None:
    """Draw the measured B_crit across the panel, with what its interval bounds."""
    measured = measured_batch(w)
    if math.isfinite(measured.value):
        axes.axhline(measured.value, color="#777777", linestyle="--", label="measured B_crit (hyperbola)")
        if math.isfinite(measured.low) and math.isfinite(measured.high):
            axes.axhspan(measured.low, measured.high, color="#777777", alpha=0.12, linewidth=0)


# along training -----------------------------------------------------------------------------------------


def noise_columns(o: Observation) -> np.ndarray:
    """Give the evaluations as rows epoch, noise scale, standard error; NaN where they are undefined."""
    columns = [o.run.curve.get(name, []) for name in ("epoch", NOISE, ERROR)]
    return np.array(list(zip(*columns, strict=False)), dtype=float).reshape(-1, 3).T


def probes(o: Observation) -> list[dict]:
    """Give what the run's probe found: step, low, high (infinite: nothing fell behind)."""
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
    """Give a value with two standard errors about it."""
    return Interval(float(value), float(value - 2 * error), float(value + 2 * error))


def noise_along(workloads: list[Workload]) -> Drawing | str:
    """Noise scale along training, and the probe's brackets, beside the measured critical batch."""
    found = choose(workloads, lambda o: bool(np.isfinite(noise_columns(o)[1]).any()) or bool(probes(o)))
    if not found:
        return f"no runs with {NOISE} or a probe"
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
            draw_measured(axes, w)
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
    """Give the mean of a final number by batch size."""
    return [middle([o.run.final.get(name, math.nan) for o in observations]) for observations in runs.values()]


def draw_means(axes, sizes: list[int], values: list[Interval], index: int, label: str | None = None) -> None:
    """Draw means with intervals against batch size."""
    axes.plot(sizes, [v.value for v in values], **look(index), markersize=5, label=label)
    for size, v in zip(sizes, values, strict=True):
        if v.low > 0 and math.isfinite(v.high):
            axes.plot([size, size], [v.low, v.high], color=look(index)["color"], linewidth=1)


def curvature(workloads: list[Workload]) -> Drawing | str:
    """Linear-approximation error, sharpness, and the batch that the curvature predicts, against batch size."""
    found = choose(workloads, lambda o: LINEAR in o.run.final or KESKAR in o.run.final)
    if not found:
        return f"no runs with {LINEAR} or {KESKAR}"
    w, runs = found
    sizes, names = list(runs), (LINEAR, RELATIVE, KESKAR, TOP, EXAMPLE, CURVATURE)
    values = {name: final(runs, name) for name in names}

    def draw(panels) -> None:
        for axes, (name, label) in zip(
            panels, {LINEAR: "|L(w) - L_lin(w)| after a step", KESKAR: "sharpness (Keskar, %)"}.items(), strict=False
        ):
            draw_means(axes, sizes, values[name], 0)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
        draw_means(panels[2], sizes, values[CURVATURE], 0, "m* = β / λ + 1")
        draw_means(panels[2], sizes, values[TOP], 1, "λ, top eigenvalue of the Hessian")
        draw_measured(panels[2], w)
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


def cost(workloads: list[Workload]) -> Drawing | str:
    """What the runs cost, by batch size."""
    found = choose(workloads, lambda o: o.run.record.cost.examples_per_second is not None)
    if not found:
        return "no runs with the instrument Cost"
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
