"""The project's own figures: projected time and money, noise scale against measurement, tuning budget."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.report.critical import critical
from tasks.report.curves import COUNTED, Curve, Workload, group
from tasks.report.figures.drawing import Drawing, largest, points_of
from tasks.report.figures.golmant import main_curve
from tasks.report.figures.style import batch_axis, log_axis, look
from tasks.report.intervals import Interval
from tasks.report.predicted import NOISE, curvature_batch_of, noise_scale_of
from tasks.report.tables import Table
from tasks.report.tuning import best_of
from tasks.report.verdicts.studies import same_but_target

LEAST_TARGETS = 4
BYTES = 4  # of a gradient's element
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Cluster:
    """A machine on paper."""

    name: str = "8 devices a node, 100 Gbit/s"
    devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    bandwidth: float = 12.5e9  # bytes a second between neighbours
    latency: float = 20e-6  # seconds a message
    price: float = 2.0  # money a device and hour
    overlap: float = 0.0  # share of communication hidden behind computing


def read_cluster(file: Path) -> Cluster:
    """Read a machine from YAML. Raises ValueError with the fields there are."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
        return Cluster(**(found | {"devices": tuple(found.get("devices", Cluster.devices))}))
    except (OSError, TypeError, AttributeError, yaml.YAMLError) as error:
        names = ", ".join(Cluster.__dataclass_fields__)
        raise ValueError(f"{file} is not a cluster file with {names} ({error}).") from None


def step_seconds(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Give the measured seconds a step by the batch that one device computes: log sizes, log seconds."""
    found = {}
    for p in curve.points:
        times = [
            o.run.stopped_at("seconds") / o.run.stopped_at("steps")
            for o in p.counted
            if o.run.record.get("world_size", 1) == 1 and o.run.stopped_at("steps") > 0
        ]
        times = [t for t in times if math.isfinite(t) and t > 0]
        if times:
            found[p.batch_size] = float(np.median(times))
    return np.log(list(found)), np.log(list(found.values()))


def compute_seconds(log_sizes: np.ndarray, log_seconds: np.ndarray, size: float) -> float:
    """Give the seconds to compute a step on so many examples: between measurements, at least the smallest's."""
    x = math.log(size)
    beyond = max(x - log_sizes[-1], 0.0)  # past the largest measured, in proportion
    return math.exp(float(np.interp(x, log_sizes, log_seconds)) + beyond)


def ring_seconds(parameters: int, devices: int, cluster: Cluster) -> float:
    """Give the seconds of a ring all-reduce: 2 (P - 1) messages of 1/P of the gradient (alpha-beta model)."""
    if devices == 1:
        return 0.0
    share = parameters * BYTES / devices / cluster.bandwidth
    return 2 * (devices - 1) * (cluster.latency + share) * (1 - cluster.overlap)


def projected(curve: Curve, parameters: int, cluster: Cluster) -> list[list]:
    """Give (batch, devices, seconds to target, money) for every batch size and number of devices."""
    sizes, seconds = step_seconds(curve)
    rows = []
    for p in curve.points if len(sizes) else []:
        steps = p.interval("steps").value if p.n else math.inf
        for devices in cluster.devices:
            if devices > p.batch_size or not math.isfinite(steps):
                continue
            step = compute_seconds(sizes, seconds, p.batch_size / devices)
            total = steps * (step + ring_seconds(parameters, devices, cluster))
            rows.append([p.batch_size, devices, total, total * devices * cluster.price / SECONDS_AN_HOUR])
    return rows


def parameters_of(w: Workload) -> int | None:
    """Give the number of parameters of a workload's network."""
    return main_curve(w).points[0].observations[0].run.record.get("parameters")


def time_and_cost(workloads: list[Workload], cluster: Cluster | None = None) -> Drawing | str:
    """Time to target and its cost, projected on P devices from the measured step times."""
    cluster = cluster or Cluster()
    able = [w for w in workloads if parameters_of(w) and len(step_seconds(main_curve(w))[0])]
    if not able:
        return "no runs on one device with their parameter count and seconds"
    w = largest(able)
    rows = projected(main_curve(w), parameters_of(w), cluster)
    if not rows:
        return "no batch size at which half of the runs arrived"
    by_devices = group(rows, lambda row: row[1])

    def draw(panels) -> None:
        for index, (devices, points) in enumerate(by_devices.items()):
            for axes, column in zip(panels, (2, 3), strict=True):
                x, y = [r[0] for r in points], [r[column] for r in points]
                axes.plot(x, y, **look(index), markersize=4, label=f"{devices} devices")
        for axes, label in zip(
            panels,
            ("seconds to target (projected)", f"cost to target (at {cluster.price:g} a device-hour)"),
            strict=True,
        ):
            batch_axis(axes, [r[0] for r in rows])
            log_axis(axes, label)
        panels[0].legend()

    caption = f"{w.name}, {w.target}. Projected, not measured: {cluster.name}; the device is the one measured on."
    table = Table("Projected time and cost", ["batch size", "devices", "seconds to target", "cost"], rows)
    return Drawing(2, draw, table, caption)


def noise_scale(workloads: list[Workload]) -> Drawing | str:
    """What noise and curvature predict at a target against the batch size measured there, at four targets or more."""
    rows = []
    for members in group(workloads, same_but_target).values():
        for w in members:
            found, curve = critical(main_curve(w)), main_curve(w)
            noise, curvature = noise_scale_of(curve), curvature_batch_of(curve)
            if found and not math.isnan(noise.value):
                rows.append([w.name, w.target, noise, curvature, found.hyperbola, found.b2])
    if len(rows) < LEAST_TARGETS:
        return f"fewer than {LEAST_TARGETS} targets with {NOISE} and a fitted curve (choose more with --target)"

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


def tuning_budget(workloads: list[Workload]) -> Drawing | str:
    """How the curve looks when each batch size was tuned with only k trials."""
    tuned = [(w, c) for w in workloads for c in w.curves if c.tuned and any(len(p.trials) > 2 for p in c.points)]
    if not tuned:
        return "no tuned curve with more than two trials a batch size"
    w, curve = max(tuned, key=lambda item: points_of(item[1]))
    trials = {p.batch_size: [o.value("steps") for o in p.trials if o.status in COUNTED] for p in curve.points}
    most = min(len(v) for v in trials.values() if v)
    budgets = sorted({1, 2, most // 2, most} - {0})
    rows = [[k, size, best_of(v, k)] for k in budgets for size, v in trials.items() if len(v) >= k]

    def draw(panels) -> None:
        for index, k in enumerate(budgets):
            points = [(r[1], r[2]) for r in rows if r[0] == k and math.isfinite(r[2])]
            panels[0].plot(*zip(*points, strict=True), **look(index), label=f"best of {k}") if points else None
        batch_axis(panels[0], list(trials))
        log_axis(panels[0], "median of the fewest steps of k trials")
        panels[0].legend()

    return Drawing(
        1, draw, Table("Steps by tuning budget", ["k", "batch size", "steps"], rows), f"{w.name}, {w.target}."
    )
