"""You et al. 2020: diffusion (3, 6), equal updates (7, 9), recipe (1), optimizers (10), layer-wise rates (11)."""

import itertools
import math
from functools import partial

from tasks.report.analysis.critical import LEAST_SEEDS
from tasks.report.analysis.curves import Observation, confirmed, group, ingredients, tuned_point
from tasks.report.analysis.intervals import exact, proportion
from tasks.report.analysis.measures import accuracy
from tasks.report.claims import rules
from tasks.report.claims.rules import Found, Missing, Part
from tasks.report.claims.studies import GROWTH, Case, Claim, Placed, by_seed, diffusion

OPTIMIZERS = ("SGD", "LARS", "LAMB")
UNTUNED = frozenset({"untuned baseline"})
NO_CONTENT = Missing("no empirical content")
NO_EQUAL = Missing("no tuned study with test accuracies whose runs make as many updates at both ends of its sizes")


def claim_1(case: Case) -> Found:
    """A staged recipe lifts accuracy far above the baseline at a huge batch (the 18 %: not tested)."""
    placed, runs = full_batch(case)
    same = group(runs, lambda o: ingredients(o.run.record))
    arms = {k: v for k in same if len(v := by_seed(confirmed(same[k]), accuracy)) >= LEAST_SEEDS}
    largest = max((len(k) for k in arms if k != UNTUNED), default=0)
    best = [v for k, v in arms.items() if k != UNTUNED and len(k) >= max(2, largest - 1)]
    if not best or frozenset() not in arms or UNTUNED not in arms:
        return Missing("no recipe of two or more ingredients beside its tuned and its untuned baseline at full batch")
    size = placed[0].workload.data.train_examples
    critical = case.whole(p for p in case.placed() if p.workload.data.train_examples == size)
    if not critical:
        return Missing("no measured critical batch size on the images of the recipe")
    margins, level = case.margins, 1 - 0.05 / len(best)
    parts = []
    for name, base in (("tuned", arms[frozenset()]), ("untuned", arms[UNTUNED])):
        gain = rules.largest_of([rules.difference(v, base, level) for v in best])
        parts.append(Part(f"gain of the best recipe over the {name} baseline (points)", gain, above=margins["points"]))
    parts.append(Part("batch size / B2", exact(size or math.nan).over(critical[0].found.b2), above=margins["multiple"]))
    return case.evidence(parts, [*placed, critical[0]], counts_steps=False)


def full_batch(case: Case) -> tuple[list[Placed], list[Observation]]:
    """Return the curves whose largest batch is all data, and the runs there."""
    placed = [p for p in case.placed() if p.curve.points[-1].batch_size >= (p.workload.data.train_examples or math.inf)]
    points = [p.curve.points[-1] for p in placed]
    return placed, list(dict.fromkeys(o for point in points for o in (point.every or point.observations)))


def claim_3(case: Case) -> Found:
    """Results contradict ultra-slow diffusion (you-6 seen from the other side)."""
    return diffusion(case, "power")


def claim_4(_: Case) -> Found:
    """It is important to understand huge-batch training."""
    return NO_CONTENT


def claim_5(_: Case) -> Found:
    """Many optimizers have been studied there."""
    return NO_CONTENT


def claim_6(case: Case) -> Found:
    """The distance from the initial weights grows as log t, not as a power of t."""
    return diffusion(case, "log")


def claim_7(case: Case) -> Found:
    """At equal numbers of updates a huge batch reaches small-batch accuracy."""
    for p, first, last in case.at_equal_updates(accuracy):
        gap = rules.difference(by_seed(last, accuracy), by_seed(first, accuracy))
        what = "test accuracy at equal updates, largest - smallest batch (points)"
        return case.evidence([Part(what, gap, above=-case.margins["points"])], [p], counts_steps=False)
    return NO_EQUAL


def claim_9(case: Case) -> Found:
    """The huge-batch deficit is mostly in training accuracy."""
    for p, first, last in case.at_equal_updates(accuracy):
        lacks = rules.difference(by_seed(first, accuracy), by_seed(last, accuracy))
        premise = Part("test accuracy that the largest batch lacks (points)", lacks, above=case.margins["points"])
        # the share exceeds the margin where train deficit - margin x test deficit exceeds 0: no ratio is needed
        small, large = (by_seed(runs, partial(train_less_test, case.margins["share"])) for runs in (first, last))
        what = f"training deficit - {case.margins['share']:g} x test deficit (points)"
        part = Part(what, rules.difference(small, large), above=0.0)
        return case.evidence([part], [p], premise=premise, counts_steps=False)
    return NO_EQUAL


def train_less_test(share: float, o: Observation) -> float:
    """Return training accuracy at the end less a share of test accuracy, in per cent."""
    return 100 * o.run.record.final.get("trainset/accuracy", math.nan) - share * (accuracy(o) or 0.0)


def claim_10(case: Case) -> Found:
    """At full batch momentum < LARS < LAMB, with equal tuning budgets."""
    placed, runs = full_batch(case)
    arms = group(runs, lambda o: o.run.record.optimizer.name)
    values = {k: by_seed(confirmed(arms[k]), accuracy) for k in OPTIMIZERS if k in arms}
    if len(values) < len(OPTIMIZERS) or min(map(len, values.values())) < LEAST_SEEDS:
        return Missing("no study of SGD, LARS and LAMB at B = N with test accuracies and 5 seeds each")
    points = case.margins["points"]
    parts = [
        Part(f"{a} - {b} on test (points)", rules.difference(values[a], values[b]), above=points)
        for b, a in itertools.pairwise(OPTIMIZERS)
    ]
    return case.evidence(parts, placed, counts_steps=False)


def kind_of(o: Observation) -> str:
    """Return which of you-11's arms a run belongs to, empty if to none."""
    record = o.run.record
    if record.optimizer.name == "LARS":
        return "LARS, warm-up" if record.rate.warmup_steps > 0 else "LARS"
    return "linear" if record.optimizer.name == "SGD" and record.rate.scaling_rule == "linear" else ""


def claim_11(case: Case) -> Found:
    """Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains."""
    for used in group(case.placed(), lambda p: id(p.workload)).values():
        runs = [o for p in used for point in p.curve.points for o in point.counted]
        for size, same in sorted(group(runs, lambda o: o.run.batch_size).items(), reverse=True):
            arms = {k: tuned_point(size, v).counted for k, v in group(same, kind_of).items() if k}
            if len(arms) < 3 or min(len({o.seed for o in v}) for v in arms.values()) < LEAST_SEEDS:
                continue
            limit = case.margins["share"]
            reached = {k: proportion(sum(o.status == "reached" for o in v), len(v)) for k, v in arms.items()}
            linear, warm = reached["linear"], reached["LARS, warm-up"]
            parts = [
                Part(f"share of linear scaling that arrives at B = {size}", linear, below=limit),
                Part(f"share of LARS with warm-up that arrives at B = {size}", warm, above=limit),
            ]
            return case.evidence(parts, used, counts_steps=False)
    return Missing("no study with linear scaling, LARS with warm-up, and LARS without as control, 5 seeds each")


RECIPE = "you_recipe_whole you_recipe_baseline you_recipe_untuned you_recipe_critical"
CLAIMS = [
    Claim("you-1", claim_1, {"points": 5.0, "multiple": 5.0}, RECIPE),
    Claim("you-3", claim_3, GROWTH, "you_diffusion"),
    Claim("you-4", claim_4, {}, ""),
    Claim("you-5", claim_5, {}, ""),
    Claim("you-6", claim_6, GROWTH, "you_diffusion"),
    Claim("you-7", claim_7, {"points": 0.5}, "you_equal_updates"),
    Claim("you-9", claim_9, {"share": 0.5, "points": 1.0}, "you_equal_updates"),
    Claim("you-10", claim_10, {"points": 0.5}, "you_optimizers"),
    Claim("you-11", claim_11, {"share": 0.5}, "you_layerwise"),
]
