"""How a verdict is made: zones of indifference, robustness, and Holm's correction within each paper.

Protocol rules 1, 20 and 21. A claim is a conjunction of parts: it is supported when every part is, and
contradicted when any part is. A row of the robustness table flips a verdict if in it the verdict is the
opposite one, or the effect of a part that decided lies on the other side of its margin; that a row with
less data merely decides less is no flip.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tasks.report.intervals import Interval

ALPHA = 0.025  # one-sided, as 95 % intervals have it
SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"


@dataclass(frozen=True)
class Part:
    """One measured quantity and what the claim says of it: above or below a margin, or within two."""

    what: str
    interval: Interval
    above: float | None = None
    below: float | None = None

    @property
    def ways(self) -> dict[str, float]:
        """Give the p-values of the part being supported and contradicted."""
        i, above, below = self.interval, self.above, self.below
        if below is None:
            return {SUPPORTED: i.chance_below(above), CONTRADICTED: i.chance_above(above)}
        if above is None:
            return {SUPPORTED: i.chance_above(below), CONTRADICTED: i.chance_below(below)}
        inside = max(i.chance_below(above), i.chance_above(below))
        return {SUPPORTED: inside, CONTRADICTED: min(i.chance_above(above), i.chance_below(below))}

    @property
    def verdict(self) -> str:
        """Decide this part alone."""
        i, above, below = self.interval, self.above, self.below
        if (above is None or i.low > above) and (below is None or i.high < below):
            return SUPPORTED
        outside = (above is not None and i.high < above) or (below is not None and i.low > below)
        return CONTRADICTED if outside else INCONCLUSIVE

    @property
    def side(self) -> bool:
        """Say whether the value itself agrees with the claim."""
        low = self.above if self.above is not None else -math.inf
        high = self.below if self.below is not None else math.inf
        return low < self.interval.value < high


@dataclass(frozen=True)
class Evidence:
    """What a study has to say on a claim."""

    parts: list[Part]
    n: int
    censored: float  # share of the runs that did not arrive
    scale: str
    wide_enough: bool = True  # does the studied range contain the claim's?
    post_hoc: bool = True
    sizes: tuple[int, ...] = ()  # batch sizes that can be dropped one at a time
    hit_rules_agree: bool = True


@dataclass(frozen=True)
class Missing:
    """Why a claim could not be tested."""

    reason: str


@dataclass(frozen=True)
class Verdict:
    """A decided claim."""

    verdict: str
    reason: str
    parts: list[Part] = field(default_factory=list)
    n: int = 0
    censored: float = math.nan
    scale: str = ""
    p: float = 1.0
    robustness: list[tuple[str, str, float]] = field(default_factory=list)  # (row, verdict, effect)

    @property
    def main(self) -> Part | None:
        """Give the part that stands for the claim's effect: the least certain that speaks for the verdict."""
        if not self.parts:
            return None
        way = CONTRADICTED if self.verdict == CONTRADICTED else SUPPORTED
        choose = min if way == CONTRADICTED else max
        return choose(self.parts, key=lambda part: part.ways[way])


def conjunction(parts: list[Part]) -> tuple[str, float]:
    """Decide a conjunction; give its verdict and p-value."""
    verdicts = [part.verdict for part in parts]
    if CONTRADICTED in verdicts:
        return CONTRADICTED, min(1.0, len(parts) * min(part.ways[CONTRADICTED] for part in parts))
    if all(verdict == SUPPORTED for verdict in verdicts):
        return SUPPORTED, max(part.ways[SUPPORTED] for part in parts)
    return INCONCLUSIVE, 1.0


def flips(verdict: str, primary: Evidence, row: Evidence) -> bool:
    """Say whether a row of the robustness table takes the verdict back."""
    other, _ = conjunction(row.parts)
    if {verdict, other} == {SUPPORTED, CONTRADICTED}:
        return True
    known = [p.side for p in row.parts if not math.isnan(p.interval.value)]
    if verdict == SUPPORTED:
        return not all(known)
    decided = {p.what for p in primary.parts if p.verdict == CONTRADICTED}
    return any(p.what in decided and p.side for p in row.parts)


def verdict_of(
    evidence: Callable[[object], Evidence | Missing], primary: object, rows: Callable[[Evidence], list]
) -> Verdict:
    """Decide one claim from its evidence under the primary view, and look at it under all other views."""
    seen = evidence(primary)
    if isinstance(seen, Missing):
        return Verdict(NOT_TESTED, seen.reason)
    verdict, p = conjunction(seen.parts)
    found = Verdict(verdict, "", seen.parts, seen.n, seen.censored, seen.scale, p)
    table, flipped = [], []
    for view in rows(seen):
        row = evidence(view)
        if isinstance(row, Missing):
            table.append((view.label, NOT_TESTED, math.nan))
            continue
        there, _ = conjunction(row.parts)
        same = next((x for x in row.parts if x.what == found.main.what), row.parts[0])
        table.append((view.label, there, same.interval.value))
        if verdict in (SUPPORTED, CONTRADICTED) and flips(verdict, seen, row):
            flipped.append(view.label)
    return with_reason(replace(found, robustness=table), seen, flipped)


def with_reason(found: Verdict, seen: Evidence, flipped: list[str]) -> Verdict:
    """Take back a verdict that does not hold throughout, and say why a verdict is what it is."""
    label = "post hoc: no frozen plan" if seen.post_hoc else "by a frozen plan"
    if found.verdict == INCONCLUSIVE:
        open_parts = [p.what for p in found.parts if p.verdict == INCONCLUSIVE]
        return replace(found, reason=f"not decided: {'; '.join(open_parts)} ({label})")
    why = ""
    if found.verdict == CONTRADICTED and not seen.wide_enough:
        why = "the studied range does not contain the claim's"
    elif not seen.hit_rules_agree:
        why = "the hit rules move steps by more than 0.1 in log S differently across batch sizes"
    elif flipped:
        why = f"flips under: {'; '.join(flipped)}"
    if why:
        return replace(found, verdict=INCONCLUSIVE, reason=f"would be {found.verdict}, but {why}", p=1.0)
    return replace(found, reason=label)


def holm(verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    """Take back, within one paper, what does not survive Holm's correction for many claims."""
    decided = {k: v for k, v in verdicts.items() if v.verdict in (SUPPORTED, CONTRADICTED)}
    tested = sum(v.verdict != NOT_TESTED for v in verdicts.values())
    result, alive = dict(verdicts), True
    for rank, (name, found) in enumerate(sorted(decided.items(), key=lambda item: item[1].p)):
        alive = alive and found.p <= ALPHA / (tested - rank)
        if not alive:
            reason = f"would be {found.verdict}, but not after Holm's correction (p = {found.p:.3g})"
            result[name] = replace(found, verdict=INCONCLUSIVE, reason=reason)
    return result
