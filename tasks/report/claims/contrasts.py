"""The parts of the claims on steps to a target, as pure functions of log steps by seed and of fitted curves."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from tasks.report.analysis import fits
from tasks.report.analysis.intervals import NOTHING, Interval, proportion
from tasks.report.claims import rules
from tasks.report.claims.rules import Part, Seeds

Pair = tuple[Seeds, Seeds]  # log steps by seed at a small and at a large batch


def regimes(fitted: fits.Fit, sizes: Sequence[float], linear: float, flat: float) -> list[Part]:
    """Return the parts of golmant-1: the slope -d log S / d log B at either end."""
    ends = [(sizes[0], sizes[2]), (sizes[-3], sizes[-1])]
    low, high = (log_ratio(fitted, *end).mapped(lambda r, e=end: r / math.log(e[1] / e[0])) for end in ends)
    return [
        Part("slope over the three smallest sizes", low, above=linear),
        Part("slope over the three largest sizes", high, below=flat),
    ]


def log_ratio(fitted: fits.Fit, small: float, large: float) -> Interval:
    """Return log S(small) - log S(large) on a fitted curve."""
    at = fitted.family.log_steps(np.array([small, large]))
    return fitted.interval(at[:, 0] - at[:, 1])


def flat_top(fitted: fits.Fit, top: float, metric: str, ratio: float) -> Part:
    """Return golmant-2's part for one target: four times the batch saves hardly a step, so it costs twice as much."""
    found = log_ratio(fitted, top / 4, top).mapped(math.exp)
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


def exceeds(a: Pair, b: Pair, what: str, ratio: float, level: float = 0.95) -> Part:
    """Return the part "the speed-up of a exceeds that of b by more than a factor"."""
    return Part(what, rules.speed_up_difference(a, b, level).mapped(math.exp), above=ratio)


def the_same(a: Pair, b: Pair, what: str, ratio: float, level: float = 0.95) -> Part:
    """Return the part "the speed-ups of a and b agree to within a factor"."""
    return Part(what, rules.speed_up_difference(a, b, level).mapped(math.exp), above=1 / ratio, below=ratio)


def not_better(a: Pair, base: Pair, what: str, ratio: float, level: float = 0.95) -> Part:
    """Return the part "the speed-up of a exceeds that of the base by less than a factor"."""
    return Part(what, rules.speed_up_difference(a, base, level).mapped(math.exp), below=ratio)


def most_different(arms: Mapping[str, Pair], level: float = 0.95) -> tuple[str, Interval]:
    """Return which two arms differ most in their log speed-up, and by how much, for all pairs together (Bonferroni)."""
    pairs = [(a, b) for a in arms for b in arms if a != b]
    level = rules.bonferroni(level, len(pairs) // 2)
    found = {f"{a} over {b}": rules.speed_up_difference(arms[a], arms[b], level) for a, b in pairs}
    name = max(found, key=lambda k: found[k].value)
    return name, rules.largest_of(list(found.values()))


def size_of(effect: Interval) -> Interval:
    """Return the absolute value of an effect."""
    low = 0.0 if effect.low <= 0 <= effect.high else min(abs(effect.low), abs(effect.high))
    return Interval(abs(effect.value), low, max(abs(effect.low), abs(effect.high)), effect.dof)


def helps_somewhere(none: Mapping[int, Seeds], rule: Mapping[int, Seeds], ratio: float, what: str) -> Part:
    """Return golmant-5's first part: at some batch size above the base the rule saves steps (Bonferroni over sizes)."""
    level = rules.bonferroni(0.95, len(rule))
    found = [rules.difference(none[b], rule[b], level) for b in rule]
    known = [i for i in found if not math.isnan(i.value)]
    best = rules.largest_of(known) if known else NOTHING
    return Part(what, best.mapped(exponential), above=ratio)


def fails_at_the_top(none: Seeds, rule: Seeds, ratio: float, what: str) -> Part:
    """Return golmant-5's second part: at the largest size the rule saves no steps, or most of its runs are lost."""
    lost = sum(math.isinf(v) for v in rule.values())
    if lost > len(rule) / 2:
        return Part(f"share of runs that do not arrive, {what}", proportion(lost, len(rule)), above=0.5)
    found = rules.difference(none, rule)
    return Part(f"S(none)/S({what})", found.mapped(exponential), below=ratio)


def saves_no_steps(base: Seeds, longer: Sequence[Seeds], ratio: float) -> Part:
    """Return golmant-12's part: the best of the longer horizons saves less than a factor of the steps (Bonferroni).

    Paired by seed: at the full batch a seed is the initial weights and nothing else.
    """
    level = rules.bonferroni(0.95, len(longer))
    found = [rules.widened(rules.paired(base, x, level), 2, level=level) for x in longer]
    what = "S(shortest horizon)/S(best of the longer ones)"
    return Part(what, rules.largest_of(found).mapped(exponential), below=ratio)


def exponential(x: float) -> float:
    """Return e^x, infinite where a rank interval is."""
    return math.exp(x) if x < 700 else math.inf
