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
    """Return what the runs in these directories say of their first target."""
    from tasks.report.analysis.answer import analyze, answer
    from tasks.report.sources.read import read_sources

    try:
        analysis = analyze(*read_sources(list(directories)))
    except ValueError:
        return NOTHING
    first = analysis.runs[0].record.targets[0]
    workload = next(w for w in analysis.workloads if (w.hit.metric, w.hit.value) == (first.metric, first.value))
    curve, found = analysis.main(workload)
    points = {p.batch_size: p for p in curve.points if p.n}
    steps = {size: p.interval("steps").value for size, p in points.items()}
    arrived = {size: f"{p.count('reached')} of {p.n}" for size, p in points.items()}
    rates = {size: p.counted[0].run.record.rate.effective for size, p in points.items()}
    given = answer(workload, curve, found)
    if found is None or found.fit is None:
        return Known(given.sentence, steps, arrived, rates)
    fitted, b2 = tuple(map(float, found.data.sizes)), found.b2
    return Known(given.sentence, steps, arrived, rates, fitted, b2.value, b2.low, b2.high, tuple(given.because))


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return a run's evaluations by column."""
    from tasks.report.sources.runs import read_curve

    return read_curve(path)


def page(directories: Sequence[Path], out: Path) -> str:
    """Write the report of these runs; return what it prints, whose last line is the path of the page."""
    from tasks.report.build import Wanted, make_report

    return make_report(Wanted(list(directories), out))
