"""The rules by which claims are decided: pure functions of numbers by seed and of fitted curves (docs/protocol.md)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import stats

from callbacks.record import Rule
from tasks.report.analysis import fits
from tasks.report.analysis.curves import ARRIVAL, Curve
from tasks.report.analysis.intervals import NOTHING, Interval, mean_interval, proportion, shift_interval, welch_interval
from tasks.report.sources.runs import Run

PAPERS_DATA = {"CIFAR10", "CIFAR100", "SVHN", "Cityscapes", "WikiText2", "ImageNet"}
SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_TESTED, PREMISE_ABSENT = "not tested", "premise absent"
CELL = 0.04  # scatter of log S between tuned cells that their seeds do not show: what the choice of the rate leaves

Seeds = Mapping[int, float]
Pair = tuple[Seeds, Seeds]  # log steps by seed at a small and at a large batch


class Check(NamedTuple):
    """A yes or no that a claim needs."""

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
    """What a study says on a claim under one reading."""

    parts: list[Part]
    scale: str
    checks: list[Check] = field(default_factory=list)  # what else it needs
    premise: Part | None = None  # the effect that the claim speaks of: shown to be absent, there is nothing to decide
    wide_enough: bool = True  # does the studied range contain the claim's?
    frozen: bool = True  # were the protocol's margins fixed before the runs, in all their plans?
    counts_steps: bool = True  # does it rest on steps to a target, so that the hit's rule matters?
    rest: list[Part] = field(default_factory=list)  # readings beside the one that decides, shown and not judged
    curves: list[tuple[str, Curve]] = field(default_factory=list)  # that it stands on, with what tells them apart
    runs: list[Run] = field(default_factory=list)  # behind its numbers, those of `rest` included

    @property
    def judged(self) -> list[Part]:
        """Return the premise, if there is one, and the parts."""
        return [*([self.premise] if self.premise else []), *self.parts]


class Missing(NamedTuple):
    """Why a claim cannot be tested."""

    reason: str


Found = Evidence | Missing


@dataclass(frozen=True)
class Verdict:
    """A decided claim; `rows` show what the other rule for the hit says."""

    verdict: str
    reason: str
    evidence: Evidence | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Return the verdict with its tier: on other data than the papers' own it holds for a proxy and no more."""
        if self.evidence is None or self.verdict not in (SUPPORTED, CONTRADICTED):
            return self.verdict
        names = {curve.record.data.name for _, curve in self.evidence.curves}
        tier = "the papers' data" if names and names <= PAPERS_DATA else "a proxy"
        return f"{self.verdict} on {tier}"


def conjunction(evidence: Evidence) -> str:
    """Return the verdict of all parts together: an intersection-union test, so each is at the full level."""
    premise = evidence.premise
    if premise is not None and premise.verdict != SUPPORTED:
        return PREMISE_ABSENT if premise.verdict == CONTRADICTED else INCONCLUSIVE
    verdicts = {p.verdict for p in evidence.parts} | {INCONCLUSIVE for c in evidence.checks if not c.holds}
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts == {SUPPORTED} else INCONCLUSIVE


def decide(evidence: Callable[[Rule], Found]) -> Verdict:
    """Return the verdict on a claim, taken back where the local line, the other unbiased rule of hits, reverses it."""
    seen = evidence("hit")
    if isinstance(seen, Missing):
        return Verdict(NOT_TESTED, seen.reason)
    found, by_line = conjunction(seen), ""
    if seen.counts_steps:
        other = evidence("line")
        by_line = NOT_TESTED if isinstance(other, Missing) else conjunction(other)
    reason = "by a frozen plan" if seen.frozen else "post hoc: not every run's plan fixed the protocol's margins"
    if found == INCONCLUSIVE:
        undecided = [p.what for p in seen.judged if p.verdict == INCONCLUSIVE]
        undecided += [c.what for c in seen.checks if not c.holds]
        reason = f"not decided: {'; '.join(undecided)} ({reason})"
    elif {found, by_line} == {SUPPORTED, CONTRADICTED}:
        found, reason = INCONCLUSIVE, f"would be {found}, but the local line says {by_line}"
    elif found == CONTRADICTED and not seen.wide_enough:
        found, reason = INCONCLUSIVE, f"would be {found}, but the studied range does not contain the claim's"
    return Verdict(found, reason, seen, [("hit by the local line", by_line)] if by_line else [])


def difference(a: Seeds, b: Seeds, level: float = 0.95) -> Interval:
    """Return the mean of a - b of different runs (Welch); by ranks where some did not arrive (infinite)."""
    x, y = list(a.values()), list(b.values())
    if min(len(x), len(y)) < 2 or np.isfinite([*x, *y]).all():
        return welch_interval(x, y, level)
    return shift_interval(x, y, level) if min(np.isfinite(v).mean() for v in (x, y)) >= ARRIVAL else NOTHING


def minus(a: Interval, b: Interval) -> Interval:
    """Return a - b of independent quantities (recovery of the variances from both intervals)."""
    value = a.value - b.value
    low = math.hypot(a.value - a.low, b.high - b.value)
    high = math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, value - low, value + high)


def widened(found: Interval, cells: int, level: float = 0.95) -> Interval:
    """Return the interval of log S with the scatter between so many tuned cells in it."""
    extra = float(stats.norm.ppf((1 + level) / 2)) * CELL * math.sqrt(cells)
    return minus(found, Interval(0.0, -extra, extra))


def speed_up_difference(a: Pair, b: Pair, level: float = 0.95) -> Interval:
    """Return by how much the log speed-up of one arm exceeds that of another; no form of curve is assumed."""
    return widened(minus(difference(*a, level), difference(*b, level)), 4, level)


def largest_of(intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the largest quantity: above a margin if any is surely, below one only if all are."""
    known = [i for i in intervals if not math.isnan(i.value)]  # one that is not known may be any
    high = max(i.high for i in known) if len(known) == len(intervals) else math.inf
    return Interval(max(i.value for i in known), max(i.low for i in known), high) if known else NOTHING


def size_of(effect: Interval) -> Interval:
    """Return the absolute value of an effect."""
    low = 0.0 if effect.low <= 0 <= effect.high else min(abs(effect.low), abs(effect.high))
    return Interval(abs(effect.value), low, max(abs(effect.low), abs(effect.high)))


def slope(fitted: fits.Fit, small: float, large: float) -> Interval:
    """Return -d log S / d log B between two batch sizes on a fitted curve."""
    at = fitted.family.log_steps(np.array([small, large]))
    return fitted.interval((at[:, 0] - at[:, 1]) / math.log(large / small))


def regimes(fitted: fits.Fit, sizes: Sequence[float] | np.ndarray, linear: float, flat: float) -> list[Part]:
    """Return the parts of golmant-1: the slope -d log S / d log B at either end."""
    return [
        Part("slope over the three smallest sizes", slope(fitted, sizes[0], sizes[2]), above=linear),
        Part("slope over the three largest sizes", slope(fitted, sizes[-3], sizes[-1]), below=flat),
    ]


def moderate_end(end: Interval, examples: int | None, share: float) -> Part:
    """Return golmant-3's part: the linear regime ends below a share of the data."""
    found = end.mapped(lambda size: size / (examples or math.nan))
    return Part("end of linear scaling / size of the data", found, below=share)


def flat_top(fitted: fits.Fit, top: float, metric: str, ratio: float) -> Part:
    """Return golmant-2's part for one target: four times the batch saves hardly a step, so it costs twice as much."""
    found = slope(fitted, top / 4, top).mapped(lambda beta: 4**beta)
    return Part(f"S(B)/S(4B) at the top, {metric}", found, below=ratio)


def paired_trend(ratios: Mapping[int, Seeds]) -> Interval:
    """Return by how much a log ratio of the same runs changes from the smallest to the largest batch size."""
    sizes = sorted(ratios)
    if len(sizes) < 3:
        return NOTHING
    x = np.log2(sizes)
    # one mean a size, so that scatter between sizes is in the interval (K - 2 degrees of freedom)
    found = stats.linregress(x, [float(np.mean(list(ratios[b].values()))) for b in sizes])
    value, error = (float(of_slope * (x[-1] - x[0])) for of_slope in (found.slope, found.stderr))
    half = float(stats.t.ppf(0.975, len(sizes) - 2)) * error
    return Interval(value, value - half, value + half)


def speed_up_part(a: Pair, b: Pair, what: str, above: float | None = None, below: float | None = None) -> Part:
    """Return the part on the speed-up of a over that of b: above one factor, below another, or both."""
    return Part(what, speed_up_difference(a, b).mapped(math.exp), above, below)


def most_different(arms: Mapping[str, Pair]) -> tuple[str, Interval]:
    """Return which two arms differ most in their log speed-up, and by how much, for all pairs together (Bonferroni)."""
    pairs = [(a, b) for a in arms for b in arms if a != b]
    level = 1 - 0.05 / (len(pairs) // 2)
    found = {f"{a} over {b}": speed_up_difference(arms[a], arms[b], level) for a, b in pairs}
    return max(found, key=lambda name: found[name].value), largest_of(list(found.values()))


def helps_somewhere(none: Mapping[int, Seeds], rule: Mapping[int, Seeds], ratio: float, what: str) -> Part:
    """Return golmant-5's first part: at some batch size above the base the rule saves steps (Bonferroni over sizes)."""
    found = [difference(none[b], rule[b], 1 - 0.05 / len(rule)) for b in rule]
    known = [i for i in found if not math.isnan(i.value)]
    return Part(what, largest_of(known or [NOTHING]).mapped(math.exp), above=ratio)


def fails_at_the_top(none: Seeds, rule: Seeds, ratio: float, what: str) -> Part:
    """Return golmant-5's second part: at the largest size the rule saves no steps, or most of its runs are lost."""
    part = Part(f"S(none)/S({what})", difference(none, rule).mapped(math.exp), below=ratio)
    return unless_lost(part, rule, f"share of runs that do not arrive, {what}")


def unless_lost(part: Part, runs: Seeds, what: str) -> Part:
    """Return a part, or in its place the share of runs that are lost where that is most of them."""
    lost = sum(map(math.isinf, runs.values()))
    return Part(what, proportion(lost, len(runs)), above=0.5) if lost > len(runs) / 2 else part


def saves_no_steps(base: Seeds, longer: Sequence[Seeds], ratio: float) -> Part:
    """Return golmant-12's part: the best of the longer horizons saves less than a factor of the steps (Bonferroni)."""
    level = 1 - 0.05 / len(longer)  # paired by seed: at the full batch a seed is the initial weights and nothing else
    saved = [mean_interval([base[seed] - x[seed] for seed in base if seed in x], level) for x in longer]
    found = largest_of([widened(each, 2, level) for each in saved])
    return Part("S(shortest horizon)/S(best of the longer ones)", found.mapped(math.exp), below=ratio)
