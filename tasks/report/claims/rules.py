"""The rules by which claims are decided, as pure functions of numbers by seed (docs/protocol.md).

A part is an interval with the margin that the claim sets; a claim is the conjunction of its parts. It is supported
when every part is (an intersection-union test: each at the full level), and contradicted when any part is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from tasks.report.analysis.intervals import NOTHING, Interval, shift_interval

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_TESTED, PREMISE_ABSENT = "not tested", "premise absent"
DECIDED = (SUPPORTED, CONTRADICTED, PREMISE_ABSENT)
POCOCK = {1: 1.960, 2: 2.178, 3: 2.289, 4: 2.361}  # two-sided 5 % in all, by the number of looks
CELL = 0.04  # scatter of log S between tuned cells that their seeds do not show: what the choice of the rate leaves
SAME = 1e-9  # values no further apart are equal: scipy warns of lost precision
ARRIVAL = 0.8  # of a cell's runs, below which its log S is not known

Seeds = Mapping[int, float]


@dataclass(frozen=True)
class Check:
    """A yes or no that a claim needs, with what was asked."""

    what: str
    holds: bool


@dataclass(frozen=True)
class Part:
    """One measured quantity and what the claim says of it: above or below a margin, or within two."""

    what: str
    interval: Interval
    above: float | None = None
    below: float | None = None

    @property
    def verdict(self) -> str:
        """Return what this part says alone."""
        i, above, below = self.interval, self.above, self.below
        if (above is None or i.low > above) and (below is None or i.high < below):
            return SUPPORTED
        outside = (above is not None and i.high < above) or (below is not None and i.low > below)
        return CONTRADICTED if outside else INCONCLUSIVE


@dataclass(frozen=True)
class Evidence:
    """What a study says on a claim under one reading.

    `premise` is the effect that the claim speaks of, where it speaks of one: shown to be absent, there is nothing to
    decide. `rest` are readings beside the one that decides, shown and not judged.
    """

    parts: list[Part]
    n: int
    censored: float  # share of the runs that did not arrive
    scale: str
    checks: list[Check] = field(default_factory=list)
    premise: Part | None = None
    wide_enough: bool = True  # does the studied range contain the claim's?
    post_hoc: str = ""  # why the margins were not fixed before the runs; empty where they were
    counts_steps: bool = True  # does it rest on steps to a target, so that the hit's rule matters?
    rest: list[Part] = field(default_factory=list)
    runs: tuple = ()  # that it stands on


@dataclass(frozen=True)
class Missing:
    """Why a claim could not be tested."""

    reason: str


@dataclass(frozen=True)
class Verdict:
    """A decided claim; `rows` show what the other hit rule, half of the seeds or one size less say."""

    verdict: str
    reason: str
    evidence: Evidence | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)


def conjunction(evidence: Evidence) -> str:
    """Return the verdict of all parts together."""
    premise = evidence.premise
    if premise is not None and premise.verdict == CONTRADICTED:
        return PREMISE_ABSENT
    if premise is not None and premise.verdict == INCONCLUSIVE:
        return INCONCLUSIVE
    verdicts = [p.verdict for p in evidence.parts] + [SUPPORTED if c.holds else INCONCLUSIVE for c in evidence.checks]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and set(verdicts) == {SUPPORTED} else INCONCLUSIVE


def decide(evidence: Callable[[str, str], Evidence | Missing]) -> Verdict:
    """Return the verdict of a claim from its evidence, a function of the hit's rule and of which seeds count.

    It is taken back where the other unbiased rule, the local line, reverses it; half of the seeds is shown only.
    """
    seen = evidence("hit", "all")
    if isinstance(seen, Missing):
        return Verdict(NOT_TESTED, seen.reason)
    found = conjunction(seen)
    views = {"seeds: first half": ("hit", "first"), "seeds: last half": ("hit", "last")}
    if seen.counts_steps:
        views = {"hit by the local line": ("line", "all"), **views}
    there = {name: evidence(*view) for name, view in views.items()}
    rows = [(name, NOT_TESTED if isinstance(e, Missing) else conjunction(e)) for name, e in there.items()]
    by_line = dict(rows).get("hit by the local line")
    return with_reason(Verdict(found, "", seen, rows), by_line)


def with_reason(found: Verdict, by_line: str | None) -> Verdict:
    """Return the verdict with its reason, taken back where it may not stand."""
    seen = found.evidence
    label = f"post hoc: {seen.post_hoc}" if seen.post_hoc else "by a frozen plan"
    if found.verdict == INCONCLUSIVE:
        open_parts = [p.what for p in [seen.premise, *seen.parts] if p is not None and p.verdict == INCONCLUSIVE]
        open_parts += [c.what for c in seen.checks if not c.holds]
        return replace(found, reason=f"not decided: {'; '.join(open_parts)} ({label})")
    why = ""
    if {found.verdict, by_line} == {SUPPORTED, CONTRADICTED}:
        why = f"the local line says {by_line}"
    elif found.verdict == CONTRADICTED and not seen.wide_enough:
        why = "the studied range does not contain the claim's"
    if why:
        return replace(found, verdict=INCONCLUSIVE, reason=f"would be {found.verdict}, but {why}")
    return replace(found, reason=label)


def level_of(looks: int = 1) -> float:
    """Return the level of an interval that may be looked at so many times (Pocock), 0.95 for one look."""
    return float(2 * stats.norm.cdf(POCOCK[looks]) - 1)


def of_result(value: float, interval, dof: float = math.inf) -> Interval:
    """Return scipy's interval as ours."""
    return Interval(float(value), float(interval.low), float(interval.high), dof)


def mean(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return a mean with Student's t interval, NaN with fewer than two values."""
    if len(values) < 2 or not np.isfinite(values).all():
        return NOTHING
    if np.ptp(values) <= SAME:
        return Interval(values[0], values[0], values[0], len(values) - 1)
    return of_result(np.mean(values), stats.ttest_1samp(values, 0.0).confidence_interval(level), len(values) - 1)


def paired(a: Seeds, b: Seeds, level: float = 0.95) -> Interval:
    """Return the mean of a - b over the seeds that both have: for quantities of the same runs."""
    return mean([a[seed] - b[seed] for seed in a if seed in b], level)


def difference(a: Seeds, b: Seeds, level: float = 0.95) -> Interval:
    """Return the mean of a - b of different runs (Welch); by ranks where some did not arrive (infinite)."""
    x, y = list(a.values()), list(b.values())
    if min(len(x), len(y)) < 2 or np.isnan([*x, *y]).any():
        return NOTHING
    if not np.isfinite([*x, *y]).all():
        return shift_interval(x, y) if min(arrived(a), arrived(b)) >= ARRIVAL else NOTHING
    if max(np.ptp(x), np.ptp(y)) <= SAME:
        return Interval(x[0] - y[0], x[0] - y[0], x[0] - y[0], len(x) + len(y) - 2)
    found = stats.ttest_ind(x, y, equal_var=False)
    return of_result(np.mean(x) - np.mean(y), found.confidence_interval(level), float(found.df))


def arrived(values: Seeds) -> float:
    """Return the share of runs that arrived."""
    return float(np.isfinite(list(values.values())).mean())


def widened(found: Interval, cells: int, scatter: float = CELL, level: float = 0.95) -> Interval:
    """Return the interval of log S with the scatter between so many tuned cells in it."""
    extra = stats.norm.ppf((1 + level) / 2) * scatter * math.sqrt(cells)
    low, high = (math.hypot(found.value - found.low, extra), math.hypot(found.high - found.value, extra))
    return Interval(found.value, found.value - low, found.value + high, found.dof)


def minus(a: Interval, b: Interval) -> Interval:
    """Return a - b of independent quantities (recovery of the variances from both intervals)."""
    value = a.value - b.value
    low = math.hypot(a.value - a.low, b.high - b.value)
    high = math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, value - low, value + high, min(a.dof, b.dof))


def speed_up(small: Seeds, large: Seeds, level: float = 0.95) -> Interval:
    """Return log S(small batch) - log S(large batch) of two tuned cells."""
    return widened(difference(small, large, level), 2, level=level)


def speed_up_difference(a: Sequence[Seeds], b: Sequence[Seeds], level: float = 0.95) -> Interval:
    """Return by how much the log speed-up from a small to a large batch of one arm exceeds that of another.

    Each arm is (log steps at the small batch, at the large one) by seed; no form of curve is assumed.
    """
    return widened(minus(difference(*a, level), difference(*b, level)), 4, level=level)


def largest_of(intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the largest of several quantities, each already at the level for all of them.

    Supported above a margin if any is above it, and below one only if all are.
    """
    best = max(intervals, key=lambda i: i.value)
    return Interval(best.value, max(i.low for i in intervals), max(i.high for i in intervals), best.dof)


def bonferroni(level: float, comparisons: int) -> float:
    """Return the level of each of several intervals that hold together at `level`."""
    return 1 - (1 - level) / comparisons
