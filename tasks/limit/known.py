"""What the runs so far say: the only place of `limit` that knows the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Known:
    """The answer so far.

    Args:
        sentence: the answer in words.
        steps: the steps to the target by batch size, infinite where it was not reached.
        arrived: how many of the runs that count reached it, as "4 of 5".
        rates: the learning rates of these runs.
        fitted: the batch sizes that the answer rests on.
        value: the largest batch whose runs need at most twice the fewest examples, NaN where nothing is known.
        low: the low end of its 95 % interval.
        high: the high end, infinite where it lies beyond the sizes studied.
        doubts: what stands between this and a critical batch size.
    """

    sentence: str
    steps: dict[int, float] = field(default_factory=dict)
    arrived: dict[int, str] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    fitted: tuple[float, ...] = ()
    value: float = math.nan
    low: float = 0.0
    high: float = math.inf
    doubts: tuple[str, ...] = ()


NOTHING = Known("nothing is known yet: no run has ended")


def known(directories: Sequence[Path]) -> Known:
    """Return what the runs in these directories say."""
    from tasks.report.contents import finding
    from tasks.report.critical import critical
    from tasks.report.make import read

    try:
        _, workloads, _ = read(list(directories), ())
    except ValueError:
        return NOTHING
    curve = max(workloads[0].curves, key=lambda c: len(c.points))
    points = {p.batch_size: p for p in curve.points if p.n}
    steps = {size: p.interval("steps").value for size, p in points.items()}
    arrived = {size: f"{p.count('reached')} of {p.n}" for size, p in points.items()}
    rates = {size: p.counted[0].run.record.rate.effective for size, p in points.items()}
    found = critical(curve)
    if found is None or found.fit is None:
        return Known(f"{len(steps)} batch sizes are measured: too few for an answer", steps, arrived, rates)
    return Known(
        finding(curve, found),
        *(steps, arrived, rates),
        tuple(map(float, found.data.sizes)),
        *(found.b2.value, found.b2.low, found.b2.high),
        doubts=tuple(found.why_not),
    )


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return a run's evaluations by column."""
    from tasks.report.read import read_curve

    return read_curve(path)


def page(directories: Sequence[Path], out: Path) -> str:
    """Write the report of these runs; return what it prints, whose last line is the path of the page."""
    from tasks.report.make import make_report

    return make_report(list(directories), out)
