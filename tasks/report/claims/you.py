"""You et al. 2020: diffusion (3, 6), equal updates (7, 9), recipe (1), optimizers (10), layer-wise rates (11)."""

import itertools
import math

from tasks.report.analysis.curves import Observation, confirmed, group, ingredients, tuned_point
from tasks.report.analysis.intervals import exact, proportion
from tasks.report.analysis.measures import accuracy
from tasks.report.claims import rules
from tasks.report.claims.rules import Missing, Part, Seeds
from tasks.report.claims.studies import Case, Found, Placed, by_seed, claims_of, diffusion, equal_updates

OPTIMIZERS = ("SGD", "LARS", "LAMB")
UNTUNED = frozenset({"untuned baseline"})
NO_EQUAL = Missing("no tuned study with test accuracies whose runs make as many updates at both ends of its sizes")


def no_content(_: Case) -> Found:
    """Say that a claim (you-4, you-5) has nothing that a run could show."""
    return Missing("no empirical content")


def claim_3(case: Case) -> Found:
    """Results contradict ultra-slow (logarithmic) diffusion: the power form wins."""
    return diffusion(case, "power")


def claim_6(case: Case) -> Found:
    """The distance from the initial weights grows as log t rather than as a power of t."""
    return diffusion(case, "log")


Ends = tuple[list[Observation], list[Observation]]  # the runs at the smallest and at the largest batch size


def at_equal_updates(case: Case) -> tuple[Placed, Ends] | None:
    """Return a tuned study with test accuracies whose runs made as many updates at its smallest and largest size."""
    for p in case.placed():
        first, last = case.ends(p.curve)
        known = all(accuracy(o) is not None for o in first + last)
        if p.curve.tuned and known and min(len(first), len(last)) >= case.least_seeds and equal_updates(first + last):
            return p, (first, last)
    return None


def claim_7(case: Case) -> Found:
    """At equal updates the largest batch is no less accurate than the smallest."""
    found = at_equal_updates(case)
    if found is None:
        return NO_EQUAL
    placed, (first, last) = found
    gap = rules.difference(by_seed(last, accuracy), by_seed(first, accuracy))
    what = "test accuracy at equal updates, largest - smallest batch (points)"
    part = Part(what, gap, above=-case.margins(placed)["points"])
    return case.evidence([part], [placed], counts_steps=False)


def claim_9(case: Case) -> Found:
    """The large batch's deficit at equal updates is mostly one of training accuracy; there must be a deficit."""
    found = at_equal_updates(case)
    if found is None:
        return NO_EQUAL
    placed, ends = found
    margins = case.margins(placed)
    test, train = ([by_seed(runs, value) for runs in ends] for value in (accuracy, train_accuracy))
    lacks = rules.difference(test[0], test[1])
    premise = Part("test accuracy that the largest batch lacks (points)", lacks, above=margins["points"])
    shared = [{k: t[k] - margins["share"] * e[k] for k in t if k in e} for t, e in zip(train, test, strict=True)]
    # the share exceeds the margin where train deficit - margin x test deficit exceeds 0: no ratio is needed
    what = f"training deficit - {margins['share']:g} x test deficit (points)"
    part = Part(what, rules.difference(shared[0], shared[1]), above=0.0)
    return case.evidence([part], [placed], premise=premise, counts_steps=False)


def train_accuracy(o: Observation) -> float:
    """Return training accuracy in per cent at the end."""
    return 100 * o.run.final.get("trainset/accuracy", math.nan)


def full_batch(case: Case) -> tuple[list[Placed], list[Observation]]:
    """Return the curves whose largest batch is all data, and the runs there."""
    placed = [p for p in case.placed() if p.curve.points[-1].batch_size >= (p.workload.data.train_examples or math.inf)]
    points = [p.curve.points[-1] for p in placed]
    return placed, list(dict.fromkeys(o for point in points for o in (point.every or point.observations)))


def accuracies(case: Case, runs: list[Observation]) -> Seeds:
    """Return test accuracy by seed of the runs that count, of all or of half of them."""
    return by_seed(sorted(confirmed(runs), key=lambda o: o.seed), accuracy)


def claim_1(case: Case) -> Found:
    """A staged recipe lifts accuracy far above the tuned and the untuned baseline at a huge batch."""
    placed, runs = full_batch(case)
    arms = {k: accuracies(case, same) for k, same in group(runs, lambda o: ingredients(o.run.record)).items()}
    arms = {k: v for k, v in arms.items() if len(v) >= case.least_seeds}
    recipes = {k: v for k, v in arms.items() if k != UNTUNED}
    largest = max(map(len, recipes), default=0)
    best = [v for k, v in recipes.items() if len(k) >= max(2, largest - 1)]
    if not best or frozenset() not in arms or UNTUNED not in arms:
        return Missing("no recipe of two or more ingredients beside its tuned and its untuned baseline at full batch")
    size = placed[0].workload.data.train_examples
    same = [case.whole(p) for p in case.placed() if p.workload.data.train_examples == size]
    critical = [whole.found.b2 for whole in same if whole]
    if not critical:
        return Missing("no measured critical batch size on the images of the recipe")
    margins, level = case.margins(*placed), rules.bonferroni(0.95, len(best))
    parts = []
    for name, base in (("tuned", arms[frozenset()]), ("untuned", arms[UNTUNED])):
        gain = rules.largest_of([rules.difference(v, base, level) for v in best])
        parts.append(Part(f"gain of the best recipe over the {name} baseline (points)", gain, above=margins["points"]))
    parts.append(Part("batch size / B2", exact(size or math.nan).over(critical[0]), above=margins["multiple"]))
    return case.evidence(parts, placed, counts_steps=False)


def claim_10(case: Case) -> Found:
    """At full batch LAMB beats LARS and LARS beats momentum, with equal tuning budgets."""
    placed, runs = full_batch(case)
    arms = group(runs, lambda o: o.run.record.optimizer.name)
    values = {k: accuracies(case, arms[k]) for k in OPTIMIZERS if k in arms}
    if len(values) < len(OPTIMIZERS) or min(map(len, values.values())) < case.least_seeds:
        return Missing("no study of SGD, LARS and LAMB at B = N with test accuracies and 5 seeds each")
    points = case.margins(*placed)["points"]
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
        runs = [o for p in used for point in p.curve.points for o in case.runs(point)]
        for size, same in sorted(group(runs, lambda o: o.run.batch_size).items(), reverse=True):
            arms = {k: tuned_point(size, v).counted for k, v in group(same, kind_of).items() if k}
            if len(arms) < 3 or min(len({o.seed for o in v}) for v in arms.values()) < case.least_seeds:
                continue
            limit = case.margins(*used)["share"]
            linear, warm = (
                proportion(sum(o.status == "reached" for o in arms[k]), len(arms[k]))
                for k in ("linear", "LARS, warm-up")
            )
            parts = [
                Part(f"share of linear scaling that arrives at B = {size}", linear, below=limit),
                Part(f"share of LARS with warm-up that arrives at B = {size}", warm, above=limit),
            ]
            return case.evidence(parts, used, counts_steps=False)
    return Missing("no study with linear scaling, LARS with warm-up, and LARS without as control, 5 seeds each")


RECIPE = "you_recipe_whole you_recipe_baseline you_recipe_untuned you_recipe_critical"
CLAIMS = claims_of(
    "you",
    {
        1: (
            claim_1,
            RECIPE,
            "A staged recipe lifts accuracy far above the baseline at a huge batch (the 18 %: not tested)",
        ),
        3: (claim_3, "you_diffusion", "Results contradict ultra-slow diffusion (you-6 seen from the other side)"),
        4: (no_content, "", "It is important to understand huge-batch training"),
        5: (no_content, "", "Many optimizers have been studied there"),
        6: (claim_6, "you_diffusion", "The distance from the initial weights grows as log t, not as a power of t"),
        7: (
            claim_7,
            "you_equal_updates",
            "At equal numbers of updates a huge batch reaches small-batch accuracy",
        ),
        9: (claim_9, "you_equal_updates", "The huge-batch deficit is mostly in training accuracy"),
        10: (claim_10, "you_optimizers", "At full batch momentum < LARS < LAMB, with equal tuning budgets"),
        11: (
            claim_11,
            "you_layerwise",
            "Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains",
        ),
    },
)
