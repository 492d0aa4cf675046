"""You et al. 2020: diffusion (3, 6), equal updates (7, 9), recipe (1), optimizers (10), layer-wise rates (11)."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

from tasks.report.analysis.curves import Observation, Workload, choose, group, tuned_point
from tasks.report.analysis.intervals import Interval, proportion
from tasks.report.analysis.measures import DISTANCE, Growth, growth_of
from tasks.report.analysis.points import View, half
from tasks.report.analysis.settings import constant_rate, ingredients, setting
from tasks.report.claims import rules
from tasks.report.claims import studies as s
from tasks.report.claims.golmant import equal_updates
from tasks.report.claims.rules import Missing, Part, Seeds

OPTIMIZERS = ("SGD", "LARS", "LAMB")
UNTUNED = frozenset({"untuned baseline"})


def no_content(workloads: list[Workload], view: View) -> s.Found:
    """Say that a claim (you-4, you-5) has nothing that a run could show."""
    return Missing("no empirical content")


def claim_3(workloads: list[Workload], view: View) -> s.Found:
    """Results contradict ultra-slow (logarithmic) diffusion: the power form wins."""
    return diffusion(workloads, view, "you-3", "power")


def claim_6(workloads: list[Workload], view: View) -> s.Found:
    """The distance from the initial weights grows as log t rather than as a power of t."""
    return diffusion(workloads, view, "you-6", "log")


def own_6(workloads: list[Workload], view: View) -> s.Found:
    """Over 30,000 updates the power form still wins."""
    if not s.named(workloads, "own-6"):
        return Missing("no study of 30,000 updates")
    return diffusion(workloads, view, "own-6", "power")


def diffusion(workloads: list[Workload], view: View, claim: str, wins: str) -> s.Found:
    """Count the runs in which one form of growth beats the other; a run that cannot tell counts for neither."""
    for w, curve in s.placed(workloads, claim):
        points = [p for p in curve.points if len(s.cell(p, view)) >= s.least_seeds(view)]
        runs = [
            o for p in points for o in half(p, view.seeds) if DISTANCE in o.run.curve and constant_rate(o.run.record)
        ]
        if len(points) < 3 or not runs:
            continue
        margins, _ = s.judged(claim, [curve])
        known = [g for o in runs if isinstance(g := growth_of(o, margins["from_step"]), Growth)]
        log = sum(g.low > margins["delta_aic"] for g in known)
        power = sum(g.high < -margins["delta_aic"] for g in known)
        won, lost = (log, power) if wins == "log" else (power, log)
        surely, perhaps = proportion(won, len(runs)), proportion(len(runs) - lost, len(runs))
        what = f"share of runs in which the {wins} form wins ({len(known)} of {len(runs)} identifiable)"
        part = Part(what, replace(surely, high=perhaps.high), above=margins["share"])
        return s.evidence(claim, [part], [(w, curve)], counts_steps=False)
    return Missing(f"no study with {DISTANCE} at constant rate, 3 batch sizes and 5 seeds")


def at_equal_updates(workloads: list[Workload], claim: str, view: View) -> tuple[s.Placed, list, list] | None:
    """Return a tuned study with test accuracies whose runs made as many updates at its smallest and largest size."""
    for w, curve in s.placed(workloads, claim):
        first, last = s.ends(curve, view)
        known = all(s.test_accuracy(o) is not None for o in first + last)
        if curve.tuned and known and min(len(first), len(last)) >= s.least_seeds(view) and equal_updates(first + last):
            return (w, curve), first, last
    return None


NO_EQUAL = Missing("no tuned study with test accuracies whose runs make as many updates at both ends of its sizes")


def claim_7(workloads: list[Workload], view: View) -> s.Found:
    """At equal updates the largest batch is no less accurate than the smallest."""
    found = at_equal_updates(workloads, "you-7", view)
    if found is None:
        return NO_EQUAL
    used, first, last = found
    gap = rules.difference(*(s.by_seed(runs, s.test_accuracy) for runs in (last, first)))
    points = s.judged("you-7", [used[1]])[0]["points"]
    part = Part("test accuracy at equal updates, largest - smallest batch (points)", gap, above=-points)
    return s.evidence("you-7", [part], [used], counts_steps=False)


def claim_9(workloads: list[Workload], view: View) -> s.Found:
    """The large batch's deficit at equal updates is mostly one of training accuracy; there must be a deficit."""
    found = at_equal_updates(workloads, "you-9", view)
    if found is None:
        return NO_EQUAL
    used, first, last = found
    margins, _ = s.judged("you-9", [used[1]])
    test = [s.by_seed(runs, s.test_accuracy) for runs in (first, last)]
    train = [s.by_seed(runs, train_accuracy) for runs in (first, last)]
    premise = Part(
        "test accuracy that the largest batch lacks (points)", rules.difference(*test), above=margins["points"]
    )
    shared = [{k: t[k] - margins["share"] * e[k] for k in t if k in e} for t, e in zip(train, test, strict=True)]
    # the share exceeds the margin where train deficit - margin x test deficit exceeds 0: no ratio is needed
    what = f"training deficit - {margins['share']:g} x test deficit (points)"
    part = Part(what, rules.difference(*shared), above=0.0)
    return s.evidence("you-9", [part], [used], premise=premise, counts_steps=False)


def train_accuracy(o: Observation) -> float:
    """Return training accuracy in per cent at the end."""
    return 100 * o.run.final.get("trainset/accuracy", math.nan)


def confirmed(runs: list[Observation]) -> list[Observation]:
    """Return the runs that count: of the best setting, on fresh seeds where a plan gave them."""
    fresh = [o for o in runs if o.run.record.stage == "confirm"] or runs
    best = choose([o for o in runs if setting(o.run.record) in {setting(f.run.record) for f in fresh}])
    return [o for o in fresh if setting(o.run.record) == best]


def full_batch(workloads: Iterable[Workload], claim: str) -> tuple[list[s.Placed], list[Observation]]:
    """Return the runs with all data in every batch, and the curves that they are on."""
    placed = [(w, c) for w, c in s.placed(workloads, claim) if c.points[-1].batch_size >= w.data.train_examples]
    return placed, list(dict.fromkeys(o for _, c in placed for o in (c.points[-1].every or c.points[-1].observations)))


def accuracies(runs: list[Observation], view: View) -> Seeds:
    """Return test accuracy by seed of the runs that count, of all or of half of them."""
    values = s.by_seed(sorted(confirmed(runs), key=lambda o: o.seed), s.test_accuracy)
    seeds, middle = list(values), (len(values) + 1) // 2
    kept = {"all": seeds, "first": seeds[:middle], "last": seeds[len(seeds) - middle :]}[view.seeds]
    return {k: values[k] for k in kept}


def claim_1(workloads: list[Workload], view: View) -> s.Found:
    """A staged recipe lifts accuracy far above the tuned and the untuned baseline at a huge batch."""
    placed, runs = full_batch(workloads, "you-1")
    arms = {k: accuracies(same, view) for k, same in group(runs, lambda o: ingredients(o.run.record)).items()}
    arms = {k: v for k, v in arms.items() if len(v) >= s.least_seeds(view)}
    largest = max((len(k) for k in arms if k != UNTUNED), default=0)
    wholes = [v for k, v in arms.items() if k != UNTUNED and len(k) >= max(2, largest - 1)]
    if not wholes or frozenset() not in arms or UNTUNED not in arms:
        return Missing("no recipe of two or more ingredients beside its tuned and its untuned baseline at full batch")
    size = placed[0][0].data.train_examples
    critical = [s.fitted(c, view) for w, c in s.placed(workloads, "you-1") if w.data.train_examples == size]
    critical = [f for f in critical if f is not None]
    if not critical:
        return Missing("no measured critical batch size on the images of the recipe")
    margins, _ = s.judged("you-1", [c for _, c in placed])
    level = rules.bonferroni(0.95, len(wholes))
    parts = []
    for name, base in (("tuned", arms[frozenset()]), ("untuned", arms[UNTUNED])):
        gain = rules.largest_of([rules.difference(v, base, level) for v in wholes])
        parts.append(Part(f"gain of the best recipe over the {name} baseline (points)", gain, above=margins["points"]))
    b2 = critical[0].b2
    multiple = Interval(size / b2.value, size / b2.high, size / b2.low, b2.dof)
    parts.append(Part("batch size / B2", multiple, above=margins["multiple"]))
    return s.evidence("you-1", parts, placed, counts_steps=False)


def claim_10(workloads: list[Workload], view: View) -> s.Found:
    """At full batch LAMB beats LARS and LARS beats momentum, with equal tuning budgets."""
    placed, runs = full_batch(workloads, "you-10")
    arms = group(runs, lambda o: o.run.record.optimizer.name)
    values = {k: accuracies(arms[k], view) for k in OPTIMIZERS if k in arms}
    if len(values) < len(OPTIMIZERS) or min(map(len, values.values())) < s.least_seeds(view):
        return Missing("no study of SGD, LARS and LAMB at B = N with test accuracies and 5 seeds each")
    points = s.judged("you-10", [c for _, c in placed])[0]["points"]
    parts = [
        Part(f"{a} - {b} on test (points)", rules.difference(values[a], values[b]), above=points)
        for b, a in itertools.pairwise(OPTIMIZERS)
    ]
    return s.evidence("you-10", parts, placed, counts_steps=False)


def kind_of(o: Observation) -> str:
    """Return which of you-11's arms a run belongs to, empty if to none."""
    record = o.run.record
    if record.optimizer.name == "LARS":
        return "LARS, warm-up" if record.rate.warmup_steps > 0 else "LARS"
    return "linear" if record.optimizer.name == "SGD" and record.rate.scaling_rule == "linear" else ""


def claim_11(workloads: list[Workload], view: View) -> s.Found:
    """Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains."""
    for w in workloads:
        used = [(w, c) for x, c in s.placed(workloads, "you-11") if x is w]
        runs = [o for _, c in used for p in c.points for o in half(p, view.seeds)]
        for size, same in sorted(group(runs, lambda o: o.run.batch_size).items(), reverse=True):
            arms = {k: tuned_point(size, v).counted for k, v in group(same, kind_of).items() if k}
            if len(arms) < 3 or min(len({o.seed for o in v}) for v in arms.values()) < s.least_seeds(view):
                continue
            limit = s.judged("you-11", [c for _, c in used])[0]["share"]
            linear, warm = (
                proportion(sum(o.status == "reached" for o in arms[k]), len(arms[k]))
                for k in ("linear", "LARS, warm-up")
            )
            parts = [
                Part(f"share of linear scaling that arrives at B = {size}", linear, below=limit),
                Part(f"share of LARS with warm-up that arrives at B = {size}", warm, above=limit),
            ]
            return s.evidence("you-11", parts, used, counts_steps=False)
    return Missing("no study with linear scaling, LARS with warm-up, and LARS without as control, 5 seeds each")
