"""Golmant et al. 2018, claims 1 to 13, each decided as its row of the protocol says."""

import math
from collections.abc import Callable

import numpy as np

from tasks.report.curves import Curve, Workload, group
from tasks.report.fit_data import View
from tasks.report.intervals import NOTHING, Interval, difference_interval, proportion
from tasks.report.verdicts import studies as s
from tasks.report.verdicts.decide import Evidence, Missing, Part

NO_TUNED = Missing("no classification curve tuned at 5 or more batch sizes with 5 or more seeds each")
WIDEST = 3.0  # of a share, on either side, that is looked at
LEAST_DEFICIT = 1.0  # points of test accuracy, below which there is nothing to share out
SHARE = "train deficit / test deficit, where the latter exceeds 1 point"
Found = Evidence | Missing


def claim_1(workloads: list[Workload], view: View) -> Found:
    """Three regimes: linear over the three smallest sizes, stagnation over the three largest."""
    for w, curve in s.tuned_curves(workloads):
        found = s.fitted(curve, view)
        if isinstance(found, Missing):
            return found
        b = found.data.sizes
        slopes = [float(found.fit.family.slope(x)[found.fit.best]) for x in b]
        between = float(any(0.2 < slope < 0.8 for slope in slopes))
        parts = [
            Part("slope over the three smallest sizes", s.mean_slope(found, b[0], b[2]), above=0.8),
            Part("slope over the three largest sizes", s.mean_slope(found, b[-3], b[-1]), below=0.2),
            Part("a size with a slope between", Interval(between, between, between), above=0.5),
        ]
        return s.evidence(parts, (w, curve), wide_enough=s.span(curve) >= 256)
    return NO_TUNED


def claim_2(workloads: list[Workload], view: View) -> Found:
    """At the top, four times the batch saves hardly a step and costs twice the examples."""
    for pairs in group(s.tuned_curves(workloads), lambda item: s.same_but_target(item[0])).values():
        chosen = [next((p for p in pairs if p[0].hit.metric.startswith(k)), None) for k in (s.TRAIN, s.VALIDATION)]
        if None in chosen:
            continue
        parts = []
        for w, curve in chosen:
            found = s.fitted(curve, view)
            if isinstance(found, Missing):
                return found
            top = found.data.sizes[-1]
            ratio = s.step_ratio(found, top / 4, top)
            cost = Interval(*(4 / r for r in (ratio.value, ratio.high, ratio.low)), ratio.dof)
            parts += [
                Part(f"S(B)/S(4B) at the top, {w.hit.metric}", ratio, below=1.25),
                Part(f"E(4B)/E(B) at the top, {w.hit.metric}", cost, above=2.0),
            ]
        return s.evidence(parts, *chosen, wide_enough=s.span(*(c for _, c in chosen)) >= 256)
    return Missing("no tuned study with both a training and a validation target")


def claim_3(workloads: list[Workload], view: View) -> Found:
    """The linear regime ends at a moderate batch size, below a sixteenth of the data."""
    for w, curve in s.tuned_curves(workloads):
        found = s.fitted(curve, view)
        if isinstance(found, Missing):
            return found
        end = found.linear_end.mapped(lambda b, n=w.data.train_examples: b / n)
        return s.evidence([Part("end of linear scaling / size of the data", end, below=1 / 16)], (w, curve))
    return NO_TUNED


def claim_4(workloads: list[Workload], view: View) -> Found:
    """Segmentation and language modelling saturate far earlier than classification."""
    curves = {t: s.tuned_curves(workloads, t) for t in (s.CLASSIFICATION, "Segmentation", "LanguageModeling")}
    missing = [task for task, found in curves.items() if not found]
    if missing:
        return Missing(f"no tuned curve with enough sizes and seeds for {', '.join(missing)}")
    (base, base_curve), *others = [found[0] for found in curves.values()]
    parts = []
    for w, curve in others:
        ratio = s.b2_ratio(base_curve, curve, view)
        if ratio is None:
            return Missing("too few batch sizes under this view")
        scale = (base.data.elements_per_example or 1.0) / (w.data.elements_per_example or 1.0)
        parts += [
            Part(f"B2(classification)/B2({w.task}), examples", ratio, above=2.0),
            Part(
                f"B2(classification)/B2({w.task}), elements",
                ratio.mapped(lambda r, k=scale: r * k),
                above=2.0,
            ),
        ]
    return s.evidence(parts, (base, base_curve), *others)


def rule_arms(workload: Workload) -> dict[int, dict[str, Curve]]:
    """Find, by baseline batch size, the fixed curves of the rules none, linear and sqrt."""
    arms: dict[int, dict[str, Curve]] = {}
    fixed = [c for c in workload.curves if not c.tuned]
    for c in fixed:
        m0 = c.facts.get("rate.base_batch_size")
        if c.facts["rate.scaling_rule"] in ("linear", "sqrt") and m0:
            arms.setdefault(m0, {})[c.facts["rate.scaling_rule"]] = c
    for m0, rules in arms.items():
        rate = next(iter(rules.values())).facts["rate.base"]
        for c in fixed:
            mine = c.facts.get("rate.base_batch_size") in (m0, None) and c.facts["rate.base"] == rate
            if c.facts["rate.scaling_rule"] == "none" and mine:
                rules["none"] = c
    return {m0: rules for m0, rules in arms.items() if "none" in rules and len(rules) > 1}


def rule_parts(m0: int, rule: str, none: Curve, curve: Curve, view: View) -> list[Part]:
    """Ask of one rule: does it help in the middle, fall short of ideal, and no longer help at the top?"""
    sizes = [p.batch_size for p in curve.points if p.batch_size > m0 and s.at_size(none, p.batch_size)]
    sizes = [b for b in sizes if b != view.drop]
    start = s.at_size(curve, m0)
    if len(sizes) < 3 or start is None:
        return []
    middle, top = sizes[(len(sizes) - 1) // 2], sizes[-1]
    a, b = s.at_size(none, middle), s.at_size(curve, middle)
    ideal = s.steps_ratio(start, b, view).mapped(lambda r: r * m0 / middle)
    last = s.at_size(curve, top)
    lost = s.arrival(last, "diverged")
    name = f"{rule} from m0 = {m0}"
    parts = [
        Part(f"S(none)/S({name}) at B = {middle}", s.steps_ratio(a, b, view), above=1.25),
        Part(f"speed-up of {name} over the ideal at B = {middle}", ideal, below=0.9),
    ]
    if lost.value > 0.5:
        return [*parts, Part(f"P(diverged), {name}, at B = {top}", lost, above=0.5)]
    ratio = s.steps_ratio(last, s.at_size(none, top), view)
    return [*parts, Part(f"S({name})/S(none) at B = {top}", ratio, above=0.8)]


def same_question(w: Workload) -> tuple:
    """Give what workloads of different studies share that ask the same of the same data and network."""
    return (w.task, w.data.hash, w.network, w.parameters, w.target)


def claim_5(workloads: list[Workload], view: View) -> Found:
    """Linear and square-root scaling help only at small to medium sizes and never reach the ideal."""
    for members in group(workloads, same_question).values():
        parts, used = [], {}
        arms = [(w, m0, rules) for w in members for m0, rules in rule_arms(w).items()]
        for w, m0, rules in arms:
            for rule in sorted({"linear", "sqrt"} & set(rules)):
                if min(s.seeds(rules[r].points) for r in (rule, "none")) < s.LEAST_SEEDS:
                    continue
                more = rule_parts(m0, rule, rules["none"], rules[rule], view)
                parts += more
                used |= {(m0, rule): (w, rules[rule])} if more else {}
        if len({m0 for m0, _ in used}) >= 2 and {rule for _, rule in used} == {"linear", "sqrt"}:
            return s.evidence(parts, *used.values(), wide_enough=s.span(*(c for _, c in used.values())) >= 128)
    return Missing("no studies of the rules none, linear and sqrt from two baseline batch sizes with 5 seeds each")


def lowest(o, name: str = "trainset/loss") -> float:
    """Give the lowest value of a run's curve."""
    values = [v for v in o.run.curve.get(name, []) if math.isfinite(v)]
    return min(values, default=math.nan)


def claim_6(workloads: list[Workload], view: View) -> Found:
    """The largest batches miss the lowest training loss: an optimization problem."""
    for w, curve in s.tuned_curves(workloads):
        first, last = s.ends(curve, view)
        if not s.went_on(first + last):
            continue
        most = max(v for p in curve.points for v in p.values("examples") if math.isfinite(v))
        goal = float(np.median([lowest(o) for o in first]))
        if math.isnan(goal):
            continue
        reached = proportion(sum(lowest(o) <= goal for o in last), len(last))
        parts = [Part("P(lowest loss of the smallest batch is reached) at the largest", reached, below=0.5)]
        if any(o.run.stopped_at("examples") < 4 * most for o in last):
            parts.append(Part("budget at least 4 times the largest number of examples needed", NOTHING, above=0.0))
        parts.append(Part(SHARE, deficit_share(first, last), above=0.5))
        return s.evidence(parts, (w, curve))
    return Missing("no tuned study whose runs went on to their budget at the smallest and the largest size")


def deficit_share(first: list, last: list) -> Interval:
    """Give train deficit / test deficit of the last against the first, where the latter exceeds a point."""
    test = [s.by_seed(runs, s.test_accuracy) for runs in (first, last)]
    train = [s.by_seed(runs, lambda o: 100 * o.run.final.get("trainset/accuracy", math.nan)) for runs in (first, last)]
    if any(len(values) < 2 for values in test + train):
        return NOTHING
    gap, train_gap = difference_interval(*test), difference_interval(*train)
    if not gap.low > LEAST_DEFICIT:
        return NOTHING
    value = train_gap.value / gap.value
    # The share is the r where train gap - r x test gap is 0: inside while its interval holds 0 (Fieller).

    def inside(r: float) -> bool:
        return zero_inside(combined(train[0], test[0], r), combined(train[1], test[1], r))

    return Interval(value, edge(inside, value, -WIDEST), edge(inside, value, WIDEST), gap.dof)


def edge(inside: Callable[[float], bool], start: float, reach: float) -> float:
    """Find by halving where `inside` ends on the way from `start` to `start + reach`."""
    near, far = 0.0, 1.0
    for _ in range(20):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(start + reach * middle) else (near, middle)
    return start + reach * near


def combined(train: dict[int, float], test: dict[int, float], share: float) -> dict[int, float]:
    """Give train - share x test accuracy by seed."""
    return {seed: train[seed] - share * test[seed] for seed in train if seed in test}


def zero_inside(a: dict[int, float], b: dict[int, float]) -> bool:
    """Say whether the interval of a difference holds 0."""
    found = difference_interval(a, b)
    return found.low <= 0 <= found.high
