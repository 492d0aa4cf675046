"""Golmant et al. 2018: claims 1 to 13, each a pure function of a case (its runs under one view)."""

import math
from functools import partial

import numpy as np

from tasks.report.analysis.critical import LEAST_SEEDS
from tasks.report.analysis.curves import TRAIN, VALIDATION, Observation, group, horizon, tuned_point
from tasks.report.analysis.intervals import Interval, proportion
from tasks.report.analysis.measures import LINEAR_ERROR
from tasks.report.claims import rules, studies
from tasks.report.claims.rules import Found, Missing, Part
from tasks.report.claims.studies import BASE, FIG1, NETWORKS, RATIO, Case, Cells, Claim, Placed

NO_CURVE = Missing("no curve tuned at 5 or more batch sizes with 5 or more seeds each")
NO_BOTH = Missing("no tuned study with both a training and a validation target")


def claim_1(case: Case) -> Found:
    """Steps fall linearly with the batch size, then less, then no more."""
    for whole in case.whole_images():
        parts = rules.regimes(whole.fit, whole.found.data.sizes, **case.margins)
        return case.evidence(parts, [whole], wide_enough=whole.wide)
    return NO_CURVE


def claim_2(case: Case) -> Found:
    """Beyond some batch size steps stop falling, on training and test targets, while the cost rises."""
    targets = case.both_targets()
    if not targets:
        return NO_BOTH
    ratio, wide = case.margins["ratio"], all(whole.wide for whole in targets.values())
    parts = [rules.flat_top(w.fit, w.found.data.sizes[-1], metric, ratio) for metric, w in targets.items()]
    return case.evidence(parts, targets.values(), wide_enough=wide)


def claim_3(case: Case) -> Found:
    """The linear regime ends at a moderate batch size."""
    for whole in case.whole_images():
        examples, share = whole.workload.data.train_examples, case.margins["share"]
        return case.evidence([rules.moderate_end(whole.found.ends[1.25], examples, share)], [whole])
    return NO_CURVE


def claim_4(case: Case) -> Found:
    """Segmentation and language modelling saturate far earlier than classification."""
    tasks = (studies.CLASSIFICATION, "Segmentation", "LanguageModeling")
    first = {a.workload.task: a for a in reversed(case.arms(lambda _: True, tasks))}
    if set(tasks) - set(first):
        return Missing(f"no tuned curve with two common sizes for {', '.join(sorted(set(tasks) - set(first)))}")
    base, *others = (first[task] for task in tasks)
    ratio, what = case.margins["ratio"], "speed-up of classification over "
    parts = [rules.speed_up_part(base.pair, a.pair, what + a.workload.task, above=ratio) for a in others]
    return case.evidence(parts, first.values())


def claim_5(case: Case) -> Found:
    """Linear and square-root scaling help only in the small-to-medium range and are never ideal."""
    fixed = [p for p in case.placed() if not p.curve.tuned]
    same = group(fixed, lambda p: (p.workload.data.hash, p.workload.network, p.workload.hit.label))
    for members in same.values():
        found, ratio = case.rule_cells(members).items(), case.margins["ratio"]
        parts = [part for base, (cells, _) in found for part in rule_parts(cells, "linear", base, ratio)]
        rest = [part for base, (cells, _) in found for part in rule_parts(cells, "sqrt", base, ratio)]
        if len(parts) >= 4:  # two from each of two baselines
            return case.evidence(parts, [p for _, (_, there) in found for p in there], rest=rest)
    return Missing("no studies of the rules none and linear from two baseline batch sizes with 5 seeds each")


def rule_parts(cells: dict[str, Cells], rule: str, base: int, ratio: float) -> list[Part]:
    """Return what a rule does above its base: helps somewhere, and not at the largest size."""
    none, with_rule = cells.get("none", {}), cells.get(rule, {})
    sizes = sorted(b for b in set(none) & set(with_rule) if b > base)
    if len(sizes) < 2:
        return []
    name, top = f"{rule} from m0 = {base}", sizes[-1]
    return [
        rules.helps_somewhere(none, {b: with_rule[b] for b in sizes}, ratio, f"S(none)/S({name}) at the best size"),
        rules.fails_at_the_top(none[top], with_rule[top], ratio, f"{name} at B = {top}"),
    ]


def lowest(o: Observation) -> float:
    """Return the lowest training loss of a run."""
    return min((v for v in o.run.curve.get("trainset/loss", []) if math.isfinite(v)), default=math.nan)


def claim_6(case: Case) -> Found:
    """Very large batches miss the lowest training loss: an optimization problem."""
    for p, first, last in case.at_equal_updates(lowest):
        goal = float(np.median([lowest(o) for o in first]))
        reached = proportion(sum(lowest(o) <= goal for o in last), len(last))
        what = "share of the largest batch's runs that get to the lowest loss of the smallest"
        return case.evidence([Part(what, reached, below=case.margins["share"])], [p], counts_steps=False)
    return Missing("no tuned study whose runs at the smallest and the largest size make as many updates")


def claim_7(case: Case) -> Found:
    """Test performance scales worse than training loss, and larger batches generalize worse."""
    targets = case.both_targets()
    if not targets:
        return NO_BOTH
    train, other = (next(targets[m] for m in targets if m.startswith(kind)) for kind in (TRAIN, VALIDATION))
    used = [targets.get("val/loss", other), train]
    goals = "/".join(f"S({whole.workload.hit.label})" for whole in used)
    change = rules.paired_trend(log_ratios(*(case.cells(whole.curve) for whole in used))).mapped(math.exp)
    gap = gap_at_matched_loss(*studies.ends(train.curve))
    parts = [
        Part(f"{goals}, change from the smallest to the largest size", change, above=case.margins["ratio"]),
        Part("validation error added at matched loss (points)", gap, above=case.margins["points"]),
    ]
    return case.evidence(parts, used)


def log_ratios(a: Cells, b: Cells) -> Cells:
    """Return log S(a) - log S(b) of the same runs by batch size, where both targets were reached."""
    found: Cells = {}
    for size in set(a) & set(b):
        each = {seed: a[size][seed] - b[size][seed] for seed in a[size] if seed in b[size]}
        found[size] = {seed: ratio for seed, ratio in each.items() if math.isfinite(ratio)}
    return {size: ratios for size, ratios in found.items() if len(ratios) >= 2}


def gap_at_matched_loss(first: list[Observation], last: list[Observation]) -> Interval:
    """Return how many points of validation accuracy the largest size loses at the same training loss."""
    loss = np.max([lowest(o) for o in first + last], initial=-math.inf)

    def accuracy(o: Observation) -> float:
        """In per cent, where training loss first falls so low."""
        losses, accuracies = (np.array(o.run.curve.get(name, [])) for name in ("trainset/loss", "val/accuracy"))
        return 100 * studies.first_at(-loss, accuracies, -losses) if len(losses) == len(accuracies) else math.nan

    return rules.difference(studies.by_seed(first, accuracy), studies.by_seed(last, accuracy))


def failures_apart(sizes: list[int], runs: list[list[Observation]]) -> float:
    """Return log2(B where the median error passes 1 / B where half of the runs are lost), NaN if outside the range."""
    logs = np.log2(sizes)
    known = [[e for o in at if 0 < (e := o.run.record.final.get(LINEAR_ERROR, math.nan)) < math.inf] for at in runs]
    errors = [float(np.median(np.log(at))) if at else math.inf for at in known]
    lost = [float(np.mean([o.status != "reached" for o in at])) for at in runs]
    passes, fails = studies.first_at(0.0, logs, errors), studies.first_at(0.5, logs, lost)
    return math.nan if logs[0] in (passes, fails) else passes - fails


def claim_8(case: Case) -> Found:
    """Linear scaling fails where the error of the linear approximation passes 1."""
    linear = [p for p in case.placed() if p.curve.record.rate.scaling_rule == "linear"]
    parts, used = list[Part](), list[Placed]()
    for base, members in group(linear, lambda p: p.curve.record.rate.base_batch_size).items():
        seen = [
            o for p in members for o in p.curve.counted if o.status == "diverged" or LINEAR_ERROR in o.run.record.final
        ]
        by_size = sorted(group(seen, lambda o: o.run.batch_size).items())
        runs = {size: same for size, same in by_size if len(same) >= LEAST_SEEDS}
        if len(runs) >= 3:
            found = studies.redrawn(partial(failures_apart, list(runs)), list(runs.values()))
            what = f"log2(B where the error passes 1 / B where the rule fails), m0 = {base}"
            parts.append(Part(what, found, -case.margins["doublings"], case.margins["doublings"]))
            used += members
    if not parts:
        return Missing(f"no linear-scaling runs with {LINEAR_ERROR} at 3 or more batch sizes, 5 seeds each")
    return case.evidence(parts, used, counts_steps=False)


def claim_9(case: Case) -> Found:
    """The architecture changes where the plateau begins."""
    arms = studies.networks(case.momentum_arms())
    if len(arms) < 2:
        return Missing("no tuned arms of two or more networks at two common batch sizes")
    name, most = rules.most_different({k: a.pair for k, a in arms.items()})
    return case.of_arms([Part(f"speed-up of {name}", most.mapped(math.exp), case.margins["ratio"])], [*arms.values()])


def claim_10(case: Case) -> Found:
    """Simpler data plateau later (label noise as a proxy; the paper's own data sets are not tested)."""
    base, same = studies.beside_base(case.momentum_arms())
    noisy = {a.workload.data.label_noise: a for a in same if a.workload.data.label_noise}
    if base is None or studies.HARD not in noisy:
        return Missing(f"no tuned arms with clean labels and with {studies.HARD:.0%} wrong at two common batch sizes")
    used = [base, *noisy.values()]
    ratio, what = case.margins["ratio"], "speed-up with clean labels over that with {:.0%} wrong"
    made = {n: rules.speed_up_part(base.pair, a.pair, what.format(n), ratio) for n, a in noisy.items()}
    return case.of_arms([made.pop(studies.HARD)], used, list(made.values()))


def claim_11(case: Case) -> Found:
    """The size of the data set has a weak effect."""
    base, same = studies.beside_base(case.momentum_arms())
    parts_of = {a.workload.data.fraction: a for a in same}
    if base is None or set(studies.PARTS) - set(parts_of):
        return Missing("no tuned arms with 25, 50 and 100 % of the data at two common batch sizes")
    used = [base, *(parts_of[f] for f in studies.PARTS)]
    ratio, what = case.margins["ratio"], "speed-up with {:.0%} of the data over that with all"
    parts = [rules.speed_up_part(parts_of[f].pair, base.pair, what.format(f), 1 / ratio, ratio) for f in studies.PARTS]
    return case.of_arms(parts, used)


def claim_12(case: Case) -> Found:
    """Training longer does not improve convergence speed."""
    for p in case.placed():
        point = p.curve.points[-1]
        runs = group(point.every or point.observations, lambda o: horizon(o.run.record))
        points = {n: tuned_point(point.batch_size, runs[n]) for n in sorted(n for n in runs if n is not None)}
        cells = {n: cell for n, tuned in points.items() if len(cell := case.cell(tuned)) >= LEAST_SEEDS}
        if len(cells) > 1 and max(cells) >= 2 * min(cells):
            base, *longer = cells.values()
            used = [o.run for n in cells for o in points[n].counted]
            return case.evidence([rules.saves_no_steps(base, longer, case.margins["ratio"])], [p], runs=used)
    return Missing("no tuned study of two or more horizons at one batch size, 5 seeds each")


def claim_13(case: Case) -> Found:
    """No simple heuristic improves large-batch performance in general."""
    arms = case.arms(lambda p: p.plain)
    pairs = {a.curve.record.optimizer.name: a.pair for a in arms}
    base, used = pairs.pop("SGD", None), list[Placed](arms)
    small, large = arms[0].sizes if arms else (0, 0)
    for m0, (cells, there) in case.rule_cells(case.placed()).items():
        for rule in ("linear", "sqrt"):
            if {small, large} <= set(cells.get(rule, {})):
                pairs[name := f"{rule} scaling from m0 = {m0}"] = cells[rule][small], cells[rule][large]
                ruled = [p for p in there if p.curve.record.rate.scaling_rule == rule]
                used += [studies.Arm(p.workload, p.curve, pairs[name], (small, large)) for p in ruled]
    if base is None or len(pairs) < 5:
        return Missing("no study of 5 or more heuristics beside tuned momentum at two common batch sizes")
    parts = []
    for name, pair in pairs.items():
        what = f"speed-up of {name} over that of tuned momentum"
        part = rules.speed_up_part(pair, base, what, below=case.margins["ratio"])
        parts.append(rules.unless_lost(part, pair[1], f"share lost at the large batch, {name}"))
    return case.evidence(parts, used)


OPTIMIZERS = "golmant_arm_lars golmant_arm_lamb golmant_arm_adam"
SCALING = "golmant_fig2_scaling_rules golmant_fig2_failure"
RULES = f"{SCALING} golmant_fig2_scaling_rules_m0_64 golmant_fig2_failure_m0_64"
CLAIMS = [
    Claim("golmant-1", claim_1, {"linear": 0.8, "flat": 0.2}, FIG1),
    Claim("golmant-2", claim_2, RATIO, FIG1),
    Claim("golmant-3", claim_3, {"share": 1 / 16}, FIG1),
    Claim("golmant-4", claim_4, RATIO, f"{FIG1} golmant_fig1_segmentation golmant_fig1_language"),
    Claim("golmant-5", claim_5, RATIO, RULES),
    Claim("golmant-6", claim_6, {"share": 0.5}, "golmant_lowest_loss"),
    Claim("golmant-7", claim_7, RATIO | {"points": 0.5}, FIG1),
    Claim("golmant-8", claim_8, {"doublings": 1.0}, RULES),
    Claim("golmant-9", claim_9, RATIO, NETWORKS),
    Claim("golmant-10", claim_10, RATIO, f"{BASE} golmant_arm_noise40 golmant_arm_noise20"),
    Claim("golmant-11", claim_11, {"ratio": 1.5}, f"{BASE} golmant_arm_quarter golmant_arm_half"),
    Claim("golmant-12", claim_12, RATIO, "golmant_longer"),
    Claim("golmant-13", claim_13, {"ratio": 1.75}, f"{BASE} {OPTIMIZERS} {SCALING}"),
]
