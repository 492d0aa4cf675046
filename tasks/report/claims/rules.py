"""The rules by which claims are decided, as pure functions of numbers by seed and of fitted curves (docs/protocol.md).

A part is an interval with the margin that the claim sets; a claim is the conjunction of its parts. It is supported
when every part is (an intersection-union test: each at the full level), and contradicted when any part is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from tasks.report.analysis import fits
from tasks.report.analysis.curves import Curve
from tasks.report.analysis.intervals import (
    NOTHING,
    Interval,
    exact,
    mean_interval,
    proportion,
    shift_interval,
    welch_interval,
)
from tasks.report.analysis.points import PRIMARY, View
from tasks.report.sources.runs import Run

PAPERS_DATA = {"CIFAR10", "CIFAR100", "SVHN", "Cityscapes", "WikiText2", "ImageNet"}
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_TESTED, PREMISE_ABSENT = "not tested", "premise absent"
DECIDED = (SUPPORTED, CONTRADICTED, PREMISE_ABSENT)
CELL = 0.04  # scatter of log S between tuned cells that their seeds do not show: what the choice of the rate leaves
ARRIVAL = 0.8  # of a cell's runs, below which its log S is not known

Seeds = Mapping[int, float]
Pair = tuple[Seeds, Seeds]  # log steps by seed at a small and at a large batch


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
    def claimed(self) -> str:
        """Return what the claim says: above 1.25, or above one number and below another."""
        margins = (("above", self.above), ("below", self.below))
        return " and ".join(f"{word} {margin:.3g}" for word, margin in margins if margin is not None)

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
    scale: str
    checks: list[Check] = field(default_factory=list)
    premise: Part | None = None
    wide_enough: bool = True  # does the studied range contain the claim's?
    post_hoc: str = ""  # why the margins were not fixed before the runs; empty where they were
    counts_steps: bool = True  # does it rest on steps to a target, so that the hit's rule matters?
    rest: list[Part] = field(default_factory=list)
    curves: tuple[tuple[str, Curve], ...] = ()  # that it stands on, with what tells them apart

    @property
    def runs(self) -> list[Run]:
        """Return the runs that it stands on."""
        return list(dict.fromkeys(o.run for _, curve in self.curves for o in curve.runs))


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

    @property
    def label(self) -> str:
        """Return the verdict with its tier: on other data than the papers' own it holds for a proxy and no more."""
        if self.verdict not in (SUPPORTED, CONTRADICTED):
            return self.verdict
        names = {run.record.data.name for run in self.evidence.runs} if self.evidence else set()
        tier = "the papers' data" if names and names <= PAPERS_DATA else "a proxy"
        return f"{self.verdict} on {tier}"


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


def decide(evidence: Callable[[View], Evidence | Missing]) -> Verdict:
    """Return the verdict of a claim from its evidence, which depends on the hit's rule.

    It is taken back where the other unbiased rule, the local line, reverses it.
    """
    seen = evidence(PRIMARY)
    if isinstance(seen, Missing):
        return Verdict(NOT_TESTED, seen.reason)
    views = {"hit by the local line": View("line")} if seen.counts_steps else {}
    rows = {}
    for name, view in views.items():
        other = evidence(view)
        rows[name] = NOT_TESTED if isinstance(other, Missing) else conjunction(other)
    verdict, reason = reasoned(seen, rows.get("hit by the local line"))
    return Verdict(verdict, reason, seen, list(rows.items()))


def reasoned(seen: Evidence, by_line: str | None) -> tuple[str, str]:
    """Return the verdict with its reason, taken back where it may not stand."""
    found = conjunction(seen)
    label = f"post hoc: {seen.post_hoc}" if seen.post_hoc else "by a frozen plan"
    if found == INCONCLUSIVE:
        open_parts = [p.what for p in [seen.premise, *seen.parts] if p is not None and p.verdict == INCONCLUSIVE]
        open_parts += [c.what for c in seen.checks if not c.holds]
        return found, f"not decided: {'; '.join(open_parts)} ({label})"
    if {found, by_line} == {SUPPORTED, CONTRADICTED}:
        return INCONCLUSIVE, f"would be {found}, but the local line says {by_line}"
    if found == CONTRADICTED and not seen.wide_enough:
        return INCONCLUSIVE, f"would be {found}, but the studied range does not contain the claim's"
    return found, label


# intervals of numbers by seed -----------------------------------------------------------------------------


def paired(a: Seeds, b: Seeds, level: float = 0.95) -> Interval:
    """Return the mean of a - b over the seeds that both have: for quantities of the same runs."""
    return mean_interval([a[seed] - b[seed] for seed in a if seed in b], level)


def difference(a: Seeds, b: Seeds, level: float = 0.95) -> Interval:
    """Return the mean of a - b of different runs (Welch); by ranks where some did not arrive (infinite)."""
    x, y = list(a.values()), list(b.values())
    if any(map(math.isinf, [*x, *y])) and min(len(x), len(y)) > 1:
        return shift_interval(x, y) if min(arrived(a), arrived(b)) >= ARRIVAL else NOTHING
    return welch_interval(x, y, level)


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


def speed_up_difference(a: Pair, b: Pair, level: float = 0.95) -> Interval:
    """Return by how much the log speed-up from a small to a large batch of one arm exceeds that of another.

    No form of curve is assumed.
    """
    each = [difference(small, large, level) for small, large in (a, b)]
    return widened(minus(*each), 4, level=level)


def largest_of(intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the largest of several quantities, each already at the level for all of them.

    Supported above a margin if any is above it, and below one only if all are.
    """
    best = max(intervals, key=lambda i: i.value)
    return Interval(best.value, max(i.low for i in intervals), max(i.high for i in intervals), best.dof)


def bonferroni(level: float, comparisons: int) -> float:
    """Return the level of each of several intervals that hold together at `level`."""
    return 1 - (1 - level) / comparisons


# what each claim is judged by where its plan says nothing else: docs/protocol.md gives the reasons ----------

RATIO = 1.25  # of speed-ups or steps, from which an effect counts

MARGINS: dict[str, dict[str, float]] = {
    "golmant-1": {"linear": 0.8, "flat": 0.2},
    "golmant-2": {"ratio": RATIO},
    "golmant-3": {"share": 1 / 16},
    "golmant-4": {"ratio": RATIO},
    "golmant-5": {"ratio": RATIO},
    "golmant-6": {"share": 0.5},
    "golmant-7": {"ratio": RATIO, "points": 0.5},
    "golmant-8": {"doublings": 1.0},
    "golmant-9": {"ratio": RATIO},
    "golmant-10": {"ratio": RATIO},
    "golmant-11": {"ratio": 1.5},
    "golmant-12": {"ratio": RATIO},
    "golmant-13": {"ratio": 1.75},
    "you-1": {"points": 5.0, "multiple": 5.0},
    "you-2": {"share": 0.25},
    "you-3": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
    "you-6": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
    "you-7": {"points": 0.5},
    "you-8": {"share": 0.25},
    "you-9": {"share": 0.5, "points": 1.0},
    "you-10": {"points": 0.5},
    "you-11": {"share": 0.5},
    "own-1": {"ratio": 1.0},
    "own-2": {"ratio": 1.0},
    "own-3": {"ratio": RATIO},
    "own-4": {"ratio": RATIO},
    "own-5": {"linear": 0.8, "flat": 0.2, "share": 1 / 16},
    "own-6": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
}


# the parts of the claims on steps to a target -------------------------------------------------------------


def regimes(fitted: fits.Fit, sizes: Sequence[float] | np.ndarray, linear: float, flat: float) -> list[Part]:
    """Return the parts of golmant-1: the slope -d log S / d log B at either end."""
    low, high = (slope(fitted, sizes[a], sizes[b]) for a, b in ((0, 2), (-3, -1)))
    return [
        Part("slope over the three smallest sizes", low, above=linear),
        Part("slope over the three largest sizes", high, below=flat),
    ]


def moderate_end(end: Interval, examples: int | None, share: float) -> Part:
    """Return golmant-3's part: the linear regime ends below a share of the data."""
    return Part("end of linear scaling / size of the data", end.over(exact(examples or math.nan)), below=share)


def slope(fitted: fits.Fit, small: float, large: float) -> Interval:
    """Return -d log S / d log B between two batch sizes on a fitted curve."""
    at = fitted.family.log_steps(np.array([small, large]))
    return fitted.interval((at[:, 0] - at[:, 1]) / math.log(large / small))


def flat_top(fitted: fits.Fit, top: float, metric: str, ratio: float) -> Part:
    """Return golmant-2's part for one target: four times the batch saves hardly a step, so it costs twice as much."""
    found = slope(fitted, top / 4, top).mapped(lambda beta: 4**beta)
    return Part(f"S(B)/S(4B) at the top, {metric}", found, below=ratio)


def paired_trend(ratios: Mapping[int, Seeds]) -> Interval:
    """Return by how much a log ratio of the same runs changes from the smallest to the largest batch size.

    A straight line in log B through one mean a size, so that scatter between sizes is in the interval (K - 2 degrees).
    """
    sizes = sorted(ratios)
    if len(sizes) < 3:
        return NOTHING
    x = np.log2(sizes)
    found = stats.linregress(x, [float(np.mean(list(ratios[b].values()))) for b in sizes])
    span = x[-1] - x[0]
    half = float(stats.t.ppf(0.975, len(sizes) - 2) * found.stderr * span)
    value = float(found.slope * span)
    return Interval(value, value - half, value + half, len(sizes) - 2)


def speed_up_part(a: Pair, b: Pair, what: str, above: float | None = None, below: float | None = None) -> Part:
    """Return the part on the speed-up of a over that of b: above one factor, below another, or both."""
    return Part(what, speed_up_difference(a, b).mapped(math.exp), above, below)


def most_different(arms: Mapping[str, Pair]) -> tuple[str, Interval]:
    """Return which two arms differ most in their log speed-up, and by how much, for all pairs together (Bonferroni)."""
    pairs = [(a, b) for a in arms for b in arms if a != b]
    level = bonferroni(0.95, len(pairs) // 2)
    found = {f"{a} over {b}": speed_up_difference(arms[a], arms[b], level) for a, b in pairs}
    name = max(found, key=lambda k: found[k].value)
    return name, largest_of(list(found.values()))


def size_of(effect: Interval) -> Interval:
    """Return the absolute value of an effect."""
    low = 0.0 if effect.low <= 0 <= effect.high else min(abs(effect.low), abs(effect.high))
    return Interval(abs(effect.value), low, max(abs(effect.low), abs(effect.high)), effect.dof)


def helps_somewhere(none: Mapping[int, Seeds], rule: Mapping[int, Seeds], ratio: float, what: str) -> Part:
    """Return golmant-5's first part: at some batch size above the base the rule saves steps (Bonferroni over sizes)."""
    level = bonferroni(0.95, len(rule))
    found = [difference(none[b], rule[b], level) for b in rule]
    known = [i for i in found if not math.isnan(i.value)]
    best = largest_of(known) if known else NOTHING
    return Part(what, best.mapped(exponential), above=ratio)


def fails_at_the_top(none: Seeds, rule: Seeds, ratio: float, what: str) -> Part:
    """Return golmant-5's second part: at the largest size the rule saves no steps, or most of its runs are lost."""
    lost = sum(math.isinf(v) for v in rule.values())
    if lost > len(rule) / 2:
        return Part(f"share of runs that do not arrive, {what}", proportion(lost, len(rule)), above=0.5)
    found = difference(none, rule)
    return Part(f"S(none)/S({what})", found.mapped(exponential), below=ratio)


def saves_no_steps(base: Seeds, longer: Sequence[Seeds], ratio: float) -> Part:
    """Return golmant-12's part: the best of the longer horizons saves less than a factor of the steps (Bonferroni).

    Paired by seed: at the full batch a seed is the initial weights and nothing else.
    """
    level = bonferroni(0.95, len(longer))
    found = [widened(paired(base, x, level), 2, level=level) for x in longer]
    what = "S(shortest horizon)/S(best of the longer ones)"
    return Part(what, largest_of(found).mapped(exponential), below=ratio)


def exponential(x: float) -> float:
    """Return e^x, infinite where a rank interval is."""
    return math.exp(x) if x < 700 else math.inf
