"""Time to target and its cost on P devices, projected, and the batch beyond which time stops falling."""

import math

from tasks.report.curves import Workload
from tasks.report.figures.drawing import Drawing, largest
from tasks.report.figures.golmant import main_curve
from tasks.report.figures.style import batch_axis, log_axis, look
from tasks.report.projection import HELD_OUT, Cluster, Projection, project, step_seconds
from tasks.report.tables import Table, number

STOPS = "time stops falling at batch"


def parameters_of(w: Workload) -> int | None:
    """Give the number of parameters of a workload's network."""
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


def time_and_cost(workloads: list[Workload], cluster: Cluster | None = None) -> Drawing | str:
    """Time to target and its cost, projected on P devices from the measured step times."""
    cluster = cluster or Cluster()
    able = [w for w in workloads if parameters_of(w) and len(step_seconds(main_curve(w))[0])]
    if not able:
        return "no runs on one device with their parameter count and seconds"
    w = largest(able)
    found = project(main_curve(w), parameters_of(w), cluster)
    if found is None:
        return "no batch size at which half of the runs arrived"
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
