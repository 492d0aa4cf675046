"""Golmant et al. 2018: claims 1 to 13, each a pure function of a case (its runs under one view)."""

import math

import numpy as np

from tasks.report.analysis.curves import TRAIN, VALIDATION, Curve, Observation, group, horizon, tuned_point
from tasks.report.analysis.intervals import NOTHING, Interval, proportion, resampled_interval
from tasks.report.analysis.measures import LINEAR_ERROR
from tasks.report.claims import rules
from tasks.report.claims.rules import Missing, Pair, Part, Seeds
from tasks.report.claims.studies import (
    BASE,
    CLASSIFICATION,
    FIG1,
    HARD,
    NETWORKS,
    PARTS,
    Arm,
    Case,
    Found,
    Placed,
    Rules,
    base_of,
    by_seed,
    claims_of,
    equal_updates,
    networks,
)

NO_CURVE = Missing("no curve tuned at 5 or more batch sizes with 5 or more seeds each")
NO_BOTH = Missing("no tuned study with both a training and a validation target")
WIDE = 256  # times the smallest batch, from which a range holds the papers'
DRAWS = 1000


def claim_1(case: Case) -> Found:
    """Three regimes: linear over the three smallest sizes, stagnation over the three largest."""
    for whole in case.whole_curves():
        parts = rules.regimes(whole.fit, whole.found.data.sizes, **case.margins(whole))
        return case.evidence(parts, [whole], wide_enough=whole.span >= WIDE)
    return NO_CURVE


def claim_2(case: Case) -> Found:
    """At the top, four times the batch saves hardly a step, on training and on validation targets."""
    for targets in case.by_target():
        if {"trainset", "val"} <= {metric.split("/")[0] for metric in targets}:
            ratio = case.margins(*targets.values())["ratio"]
            parts = [rules.flat_top(t.fit, t.found.data.sizes[-1], metric, ratio) for metric, t in targets.items()]
            wide = all(t.span >= WIDE for t in targets.values())
            return case.evidence(parts, targets.values(), wide_enough=wide)
    return NO_BOTH


def claim_3(case: Case) -> Found:
    """The linear regime ends at a moderate batch size, below a sixteenth of the data."""
    for whole in case.whole_curves():
        examples, share = whole.workload.data.train_examples, case.margins(whole)["share"]
        return case.evidence([rules.moderate_end(whole.found.linear_end, examples, share)], [whole])
    return NO_CURVE


def claim_4(case: Case) -> Found:
    """Segmentation and language modelling saturate far earlier than classification, in examples."""
    tasks = (CLASSIFICATION, "Segmentation", "LanguageModeling")
    arms = case.arms(lambda p: p.curve.tuned and p.workload.task in tasks)
    first = {a.workload.task: a for a in reversed(arms) if a.workload.hit.metric.startswith(VALIDATION)}
    if set(tasks) - set(first):
        return Missing(f"no tuned curve with two common sizes for {', '.join(sorted(set(tasks) - set(first)))}")
    ratio = case.margins(*first.values())["ratio"]
    base, *others = (first[task] for task in tasks)
    what = "speed-up of classification over "
    parts = [rules.speed_up_part(base.pair, a.pair, what + a.workload.task, above=ratio) for a in others]
    return case.evidence(parts, first.values())


def claim_5(case: Case) -> Found:
    """Linear scaling helps at some sizes and no longer at the largest, from two baseline batch sizes."""
    fixed = [p for p in case.placed() if not p.curve.tuned]
    same = group(fixed, lambda p: (p.workload.data.hash, p.workload.network, p.workload.target))
    for members in same.values():
        ratio = case.margins(*members)["ratio"]
        found = case.rule_cells(members).items()
        parts = [part for base, (cells, _) in found for part in rule_parts(cells, "linear", base, ratio)]
        rest = [part for base, (cells, _) in found for part in rule_parts(cells, "sqrt", base, ratio)]
        if len(parts) >= 4:  # two from each of two baselines
            return case.evidence(parts, [p for _, (_, there) in found for p in there], rest=rest)
    return Missing("no studies of the rules none and linear from two baseline batch sizes with 5 seeds each")


def rule_parts(cells: Rules, rule: str, base: int, ratio: float) -> list[Part]:
    """Return what a rule does above its base: helps somewhere, and not at the largest size."""
    none, with_rule = cells.get("none", {}), cells.get(rule, {})
    sizes = sorted(b for b in set(none) & set(with_rule) if b > base)
    if len(sizes) < 2:
        return []
    name = f"{rule} from m0 = {base}"
    none, with_rule = ({b: c[b] for b in sizes} for c in (none, with_rule))
    return [
        rules.helps_somewhere(none, with_rule, ratio, f"S(none)/S({name}) at the best size"),
        rules.fails_at_the_top(none[sizes[-1]], with_rule[sizes[-1]], ratio, f"{name} at B = {sizes[-1]}"),
    ]


def lowest(o: Observation) -> float:
    """Return the lowest training loss of a run."""
    return min((v for v in o.run.curve.get("trainset/loss", []) if math.isfinite(v)), default=math.nan)


def claim_6(case: Case) -> Found:
    """In as many updates the largest batch misses the lowest training loss of the smallest."""
    for p in case.placed():
        first, last = case.ends(p.curve)
        if p.curve.tuned and min(len(first), len(last)) >= case.least_seeds and equal_updates(first + last):
            goal = float(np.median([lowest(o) for o in first]))
            reached = proportion(sum(lowest(o) <= goal for o in last), len(last))
            what = "share of the largest batch's runs that get to the lowest loss of the smallest"
            return case.evidence([Part(what, reached, below=case.margins(p)["share"])], [p], counts_steps=False)
    return Missing("no tuned study whose runs at the smallest and the largest size make as many updates")


def claim_7(case: Case) -> Found:
    """Validation scales worse than training loss, run by run, and larger batches generalize worse."""
    for targets in case.by_target():
        train = next((targets[m] for m in targets if m.startswith(TRAIN)), None)
        names = ("val/loss", *(m for m in targets if m.startswith(VALIDATION)))
        validation = next((targets[m] for m in names if m in targets), None)
        if train is None or validation is None:
            continue
        margins, goals = case.margins(train, validation), (validation.workload.target, train.workload.target)
        ratios = log_ratios(case.cells(validation.curve), case.cells(train.curve))
        change = rules.paired_trend(ratios).mapped(rules.exponential)
        gap = gap_at_matched_loss(*case.ends(train.curve))
        parts = [
            Part(
                f"S({goals[0]})/S({goals[1]}), change from the smallest to the largest size", change, margins["ratio"]
            ),
            Part("validation error added at matched loss (points)", gap, margins["points"]),
        ]
        return case.evidence(parts, [validation, train])
    return NO_BOTH


def log_ratios(a: dict[int, Seeds], b: dict[int, Seeds]) -> dict[int, Seeds]:
    """Return log S(a) - log S(b) of the same runs by batch size, where both targets were reached."""
    found: dict[int, Seeds] = {}
    for size in set(a) & set(b):
        x, y = a[size], b[size]
        same = {k: x[k] - y[k] for k in x if k in y and math.isfinite(x[k]) and math.isfinite(y[k])}
        found |= {size: same} if len(same) >= 2 else {}
    return found


def gap_at_matched_loss(first: list[Observation], last: list[Observation]) -> Interval:
    """Return how many points of validation accuracy the largest size loses at the same training loss."""
    lows = [lowest(o) for o in first + last]
    if not lows or any(map(math.isnan, lows)):
        return NOTHING
    small, large = (by_seed(runs, lambda o: accuracy_at_loss(o, max(lows))) for runs in (first, last))
    return rules.difference(small, large)


def accuracy_at_loss(o: Observation, loss: float) -> float | None:
    """Return validation accuracy in per cent where training loss first falls to a level, interpolated."""
    losses, accuracies = (np.array(o.run.curve.get(name, [])) for name in ("trainset/loss", "val/accuracy"))
    if len(losses) != len(accuracies) or not (losses <= loss).any():
        return None
    i = int((losses <= loss).argmax())
    if i == 0:
        return float(100 * accuracies[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(100 * (accuracies[i - 1] + share * (accuracies[i] - accuracies[i - 1])))


# 8: the error of the linear approximation -----------------------------------------------------------------


def crossing(sizes: list[int], values: list[float], level: float) -> float:
    """Return log2 of the size at which values first pass a level on a straight line; NaN if not inside the range."""
    above = [i for i, v in enumerate(values) if v > level]
    if not above or above[0] == 0:
        return math.nan
    i = above[0]
    part = (level - values[i - 1]) / (values[i] - values[i - 1])
    return math.log2(sizes[i - 1]) + part * math.log2(sizes[i] / sizes[i - 1])


def distance(runs: list[list[tuple[float, bool]]], sizes: list[int]) -> float:
    """Return log2(B where the median error passes 1 / B where half of the runs are lost)."""
    errors = [float(np.median([math.log(e) for e, _ in at if e > 0 and math.isfinite(e)] or [math.inf])) for at in runs]
    lost = [float(np.mean([gone for _, gone in at])) for at in runs]
    return crossing(sizes, errors, 0.0) - crossing(sizes, lost, 0.5)


def measured(runs: dict[int, list[Observation]]) -> Interval:
    """Return that distance with the percentiles of redrawn runs; NaN where either crossing is outside the range."""
    sizes = sorted(runs)
    seen = [[(o.run.final.get(LINEAR_ERROR, math.nan), o.status != "reached") for o in runs[b]] for b in sizes]
    value, random = distance(seen, sizes), np.random.default_rng(0)
    drawn = [
        distance([[at[i] for i in random.integers(len(at), size=len(at))] for at in seen], sizes) for _ in range(DRAWS)
    ]
    known = [d for d in drawn if math.isfinite(d)]
    return NOTHING if math.isnan(value) or len(known) < 0.9 * DRAWS else resampled_interval(value, known)


def claim_8(case: Case) -> Found:
    """Linear scaling fails, from every baseline batch, where the error passes 1."""
    linear = [p for p in case.placed() if p.rule == "linear"]
    parts: list[Part] = []
    used: list[Placed] = []
    for base, members in group(linear, lambda p: p.curve.record.rate.base_batch_size).items():
        runs: dict[int, list[Observation]] = {}
        for point in (point for p in members for point in p.curve.points):
            seen = [o for o in case.runs(point) if o.status == "diverged" or LINEAR_ERROR in o.run.final]
            if len(seen) >= case.least_seeds:
                runs.setdefault(point.batch_size, []).extend(seen)
        if len(runs) < 3:
            continue
        margin = case.margins(*members)["doublings"]
        what = f"log2(B where the error passes 1 / B where the rule fails), m0 = {base}"
        parts.append(Part(what, measured(runs), -margin, margin))
        used += members
    if not parts:
        return Missing(f"no linear-scaling runs with {LINEAR_ERROR} at 3 or more batch sizes, 5 seeds each")
    return case.evidence(parts, used, counts_steps=False)


# 9 to 13: arms compared by their speed-up from a small to a large batch -----------------------------------------


def claim_9(case: Case) -> Found:
    """The architecture changes where the plateau begins."""
    arms = networks(case.momentum_arms())
    if len(arms) < 2:
        return Missing("no tuned arms of two or more networks at two common batch sizes")
    name, most = rules.most_different({k: a.pair for k, a in arms.items()})
    ratio = case.margins(*arms.values())["ratio"]
    return case.of_arms([Part(f"speed-up of {name}", most.mapped(rules.exponential), above=ratio)], list(arms.values()))


def claim_10(case: Case) -> Found:
    """Simpler data plateau later; label noise stands in for the papers' data sets."""
    arms = case.momentum_arms()
    base = base_of(arms)
    noisy = {a.workload.data.label_noise: a for a in arms if base and a.network == base.network}
    if base is None or HARD not in noisy:
        return Missing(f"no tuned arms with clean labels and with {HARD:.0%} wrong at two common batch sizes")
    used = [base, *(a for noise, a in noisy.items() if noise)]
    ratio, what = case.margins(*used)["ratio"], "speed-up with clean labels over that with {:.0%} wrong"
    made = {n: rules.speed_up_part(base.pair, a.pair, what.format(n), ratio) for n, a in noisy.items() if n}
    return case.of_arms([made.pop(HARD)], used, list(made.values()))


def claim_11(case: Case) -> Found:
    """The size of the data has a weak effect."""
    arms = case.momentum_arms()
    base = base_of(arms)
    parts_of = {a.workload.data.fraction: a for a in arms if base and a.network == base.network}
    if base is None or set(PARTS) - set(parts_of):
        return Missing("no tuned arms with 25, 50 and 100 % of the data at two common batch sizes")
    used = [base, *(parts_of[f] for f in PARTS)]
    ratio, what = case.margins(*used)["ratio"], "speed-up with {:.0%} of the data over that with all"
    parts = [rules.speed_up_part(parts_of[f].pair, base.pair, what.format(f), 1 / ratio, ratio) for f in PARTS]
    return case.of_arms(parts, used)


def by_horizon(case: Case, curve: Curve) -> dict[int, Seeds]:
    """Return log steps at the largest size by the length of the schedule, each tuned for itself."""
    point = curve.points[-1]
    runs = group(point.every or point.observations, lambda o: horizon(o.run.record))
    cells = {n: case.cell(tuned_point(point.batch_size, same)) for n, same in runs.items() if n is not None}
    return {n: cell for n, cell in sorted(cells.items()) if len(cell) >= case.least_seeds}


def claim_12(case: Case) -> Found:
    """Training longer does not improve the speed of convergence."""
    for p in case.placed():
        cells = by_horizon(case, p.curve)
        if len(cells) > 1 and max(cells) >= 2 * min(cells):
            base, *longer = cells.values()
            return case.evidence([rules.saves_no_steps(base, longer, case.margins(p)["ratio"])], [p])
    return Missing("no tuned study of two or more horizons at one batch size, 5 seeds each")


def heuristics(case: Case) -> tuple[Arm | None, dict[str, Pair], list[Placed]]:
    """Return tuned momentum, the pairs of cells of every heuristic beside it, and the curves used."""
    arms = case.arms(lambda p: p.tuned_images and p.plain)
    base = next((a for a in arms if a.optimizer == "SGD"), None)
    if base is None:
        return None, {}, []
    pairs = {a.optimizer: a.pair for a in arms if a.optimizer != "SGD"}
    used: list[Placed] = list(arms)
    small, large = base.sizes
    for m0, (cells, there) in case.rule_cells(case.placed()).items():
        for rule in ("linear", "sqrt"):
            if {small, large} <= set(cells.get(rule, {})):
                pairs[f"{rule} scaling from m0 = {m0}"] = cells[rule][small], cells[rule][large]
                used += there
    return base, pairs, used


def claim_13(case: Case) -> Found:
    """No simple heuristic improves large-batch performance in general."""
    base, pairs, used = heuristics(case)
    if base is None or len(pairs) < 5:
        return Missing("no study of 5 or more heuristics beside tuned momentum at two common batch sizes")
    ratio = case.margins(*used)["ratio"]
    return case.evidence([not_better(name, pair, base.pair, ratio) for name, pair in pairs.items()], used)


def not_better(name: str, pair: Pair, base: Pair, ratio: float) -> Part:
    """Return what a heuristic gains; one whose runs are mostly lost at the large batch does not improve it."""
    lost = [math.isinf(v) for v in pair[1].values()]
    if np.mean(lost) > 0.5:
        return Part(f"share lost at the large batch, {name}", proportion(sum(lost), len(lost)), above=0.5)
    return rules.speed_up_part(pair, base, f"speed-up of {name} over that of tuned momentum", below=ratio)


# the claims, and the sweeps that test them ---------------------------------------------------------------------

RULES = "golmant_fig2_scaling_rules golmant_fig2_scaling_rules_m0_64"


CLAIMS = claims_of(
    "golmant",
    {
        1: (claim_1, FIG1, "Steps fall linearly with the batch size, then less, then no more"),
        2: (
            claim_2,
            FIG1,
            "Beyond some batch size steps stop falling, on training and test targets, while the cost rises",
        ),
        3: (claim_3, FIG1, "The linear regime ends at a moderate batch size"),
        4: (
            claim_4,
            f"{FIG1} golmant_fig1_segmentation golmant_fig1_language",
            "Segmentation and language modelling saturate far earlier than classification",
        ),
        5: (
            claim_5,
            RULES,
            "Linear and square-root scaling help only in the small-to-medium range and are never ideal",
        ),
        6: (
            claim_6,
            "golmant_lowest_loss",
            "Very large batches miss the lowest training loss: an optimization problem",
        ),
        7: (claim_7, FIG1, "Test performance scales worse than training loss, and larger batches generalize worse"),
        8: (
            claim_8,
            f"{RULES} golmant_fig2_failure golmant_fig2_failure_m0_64",
            "Linear scaling fails where the error of the linear approximation passes 1",
        ),
        9: (claim_9, NETWORKS, "The architecture changes where the plateau begins"),
        10: (
            claim_10,
            f"{BASE} golmant_arm_noise40 golmant_arm_noise20",
            "Simpler data plateau later (label noise as a proxy; the paper's own data sets are not tested)",
        ),
        11: (claim_11, f"{BASE} golmant_arm_quarter golmant_arm_half", "The size of the data set has a weak effect"),
        12: (claim_12, "golmant_longer", "Training longer does not improve convergence speed"),
        13: (
            claim_13,
            f"{BASE} golmant_arm_lars golmant_arm_lamb golmant_arm_adam golmant_fig2_scaling_rules",
            "No simple heuristic improves large-batch performance in general",
        ),
    },
)
