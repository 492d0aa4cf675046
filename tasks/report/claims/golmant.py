"""Golmant et al. 2018: the claims on one curve (1 to 3, 7), on tasks, on rules of the rate and on the lowest loss."""

import math

import numpy as np

from tasks.report.analysis.curves import Curve, Observation, Workload, group
from tasks.report.analysis.intervals import NOTHING, Interval, proportion
from tasks.report.analysis.points import View
from tasks.report.claims import contrasts, rules
from tasks.report.claims import studies as s
from tasks.report.claims.rules import Missing, Part, Seeds

NO_CURVE = Missing("no curve tuned at 5 or more batch sizes with 5 or more seeds each")
WIDE = 256  # times the smallest batch, from which a range holds the papers'


def span(curve: Curve) -> float:
    """Return the ratio of the largest to the smallest batch size."""
    return curve.points[-1].batch_size / curve.points[0].batch_size


def claim_1(workloads: list[Workload], view: View) -> s.Found:
    """Three regimes: linear over the three smallest sizes, stagnation over the three largest."""
    for w, curve in s.whole_curves(workloads, "golmant-1", view):
        found = s.fitted(curve, view)
        margins, _ = s.judged("golmant-1", [curve])
        parts = contrasts.regimes(found.fit, found.data.sizes, margins["linear"], margins["flat"])
        return s.evidence("golmant-1", parts, [(w, curve)], wide_enough=span(curve) >= WIDE)
    return NO_CURVE


def claim_2(workloads: list[Workload], view: View) -> s.Found:
    """At the top, four times the batch saves hardly a step, on training and on validation targets."""
    for targets in s.by_target(s.whole_curves(workloads, "golmant-2", view)):
        kinds = {metric.split("/")[0] for metric in targets}
        if not {"trainset", "val"} <= kinds:
            continue
        ratio = s.judged("golmant-2", [c for _, c in targets.values()])[0]["ratio"]
        fits = {metric: s.fitted(c, view) for metric, (_, c) in targets.items()}
        parts = [contrasts.flat_top(f.fit, f.data.sizes[-1], metric, ratio) for metric, f in fits.items()]
        wide = all(span(c) >= WIDE for _, c in targets.values())
        return s.evidence("golmant-2", parts, targets.values(), wide_enough=wide)
    return Missing("no tuned study with both a training and a validation target")


def claim_3(workloads: list[Workload], view: View) -> s.Found:
    """The linear regime ends at a moderate batch size, below a sixteenth of the data."""
    for w, curve in s.whole_curves(workloads, "golmant-3", view):
        found, share = s.fitted(curve, view), s.judged("golmant-3", [curve])[0]["share"]
        end = found.linear_end.mapped(lambda b, n=w.data.train_examples: b / n)
        part = Part("end of linear scaling / size of the data", end, below=share)
        return s.evidence("golmant-3", [part], [(w, curve)])
    return NO_CURVE


def claim_4(workloads: list[Workload], view: View) -> s.Found:
    """Segmentation and language modelling saturate far earlier than classification, in examples."""
    tasks = (s.CLASSIFICATION, "Segmentation", "LanguageModeling")
    arms = s.arms(workloads, "golmant-4", view, lambda item: item[1].tuned and item[0].task in tasks)
    first = {a.workload.task: a for a in reversed(arms) if a.workload.hit.metric.startswith(s.VALIDATION)}
    if set(tasks) - set(first):
        return Missing(f"no tuned curve with two common sizes for {', '.join(sorted(set(tasks) - set(first)))}")
    margins, _ = s.judged("golmant-4", [a.curve for a in first.values()])
    base, *others = (first[task] for task in tasks)
    parts = [
        contrasts.exceeds(base.pair, a.pair, f"speed-up of classification over {a.workload.task}", margins["ratio"])
        for a in others
    ]
    return s.evidence("golmant-4", parts, [(a.workload, a.curve) for a in first.values()])


Rules = dict[str, dict[int, Seeds]]


def rule_cells(placed: list[s.Placed], view: View) -> dict[int, tuple[Rules, list[s.Placed]]]:
    """Return, by base batch size, the cells of the rules none, linear and sqrt, and where they come from."""
    found: dict[int, tuple[Rules, list[s.Placed]]] = {}
    for w, c in placed:
        base, rule = c.facts.get("rate.base_batch_size"), c.facts["rate.scaling_rule"]
        if c.tuned or not base or rule not in ("none", "linear", "sqrt"):
            continue
        cells, used = found.setdefault(base, ({}, []))
        cells.setdefault(rule, {}).update(s.cells(c, view))
        used.append((w, c))
    return found


def claim_5(workloads: list[Workload], view: View) -> s.Found:
    """Linear scaling helps at some sizes and no longer at the largest, from two baseline batch sizes."""
    fixed = [item for item in s.placed(workloads, "golmant-5") if not item[1].tuned]
    for members in group(fixed, lambda item: (item[0].data.hash, item[0].network, item[0].target)).values():
        parts, rest, used = [], [], []
        margins, _ = s.judged("golmant-5", [c for _, c in members])
        for base, (cells, there) in rule_cells(members, view).items():
            for rule, kept in (("linear", parts), ("sqrt", rest)):
                kept += rule_parts(cells, rule, base, margins["ratio"])
            used += there
        if len(parts) >= 4:  # two from each of two baselines
            return s.evidence("golmant-5", parts, used, rest=rest)
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
        contrasts.helps_somewhere(none, with_rule, ratio, f"S(none)/S({name}) at the best size"),
        contrasts.fails_at_the_top(none[sizes[-1]], with_rule[sizes[-1]], ratio, f"{name} at B = {sizes[-1]}"),
    ]


def lowest(o: Observation, name: str = "trainset/loss") -> float:
    """Return the lowest value of a run's curve."""
    return min((v for v in o.run.curve.get(name, []) if math.isfinite(v)), default=math.nan)


def claim_6(workloads: list[Workload], view: View) -> s.Found:
    """In as many updates the largest batch misses the lowest training loss of the smallest."""
    for w, curve in s.placed(workloads, "golmant-6"):
        first, last = s.ends(curve, view)
        if not curve.tuned or min(len(first), len(last)) < s.least_seeds(view) or not equal_updates(first + last):
            continue
        goal = float(np.median([lowest(o) for o in first]))
        reached = proportion(sum(lowest(o) <= goal for o in last), len(last))
        limit = s.judged("golmant-6", [curve])[0]["share"]
        part = Part(
            "share of the largest batch's runs that get to the lowest loss of the smallest", reached, below=limit
        )
        return s.evidence("golmant-6", [part], [(w, curve)], counts_steps=False)
    return Missing("no tuned study whose runs at the smallest and the largest size make as many updates")


def equal_updates(runs: list[Observation]) -> bool:
    """Return whether runs went on to the same number of updates."""
    steps = {round(o.run.stopped_at("steps")) for o in runs if not math.isnan(o.run.stopped_at("steps"))}
    return len(steps) == 1 and all(o.run.record.stopped_by in ("budget", "end") for o in runs)


def claim_7(workloads: list[Workload], view: View) -> s.Found:
    """Validation scales worse than training loss, run by run, and larger batches generalize worse."""
    for targets in s.by_target(s.whole_curves(workloads, "golmant-7", view)):
        train = next((targets[m] for m in targets if m.startswith(s.TRAIN)), None)
        names = ("val/loss", *(m for m in targets if m.startswith(s.VALIDATION)))
        validation = next((targets[m] for m in names if m in targets), None)
        if train is None or validation is None:
            continue
        margins, _ = s.judged("golmant-7", [train[1], validation[1]])
        parts = [
            Part(
                f"S({validation[0].target})/S({train[0].target}), change from the smallest to the largest size",
                contrasts.paired_trend(log_ratios(validation[1], train[1], view)).mapped(contrasts.exponential),
                above=margins["ratio"],
            ),
            Part(
                "validation error added at matched loss (points)",
                gap_at_matched_loss(train[1], view),
                margins["points"],
            ),
        ]
        return s.evidence("golmant-7", parts, [validation, train])
    return Missing("no tuned study with both a training and a validation target")


def log_ratios(a: Curve, b: Curve, view: View) -> dict[int, Seeds]:
    """Return log S(a) - log S(b) of the same runs by batch size, where both targets were reached."""
    found = {}
    for size in set(s.cells(a, view)) & set(s.cells(b, view)):
        x, y = s.cells(a, view)[size], s.cells(b, view)[size]
        same = {k: x[k] - y[k] for k in x if k in y and math.isfinite(x[k]) and math.isfinite(y[k])}
        found |= {size: same} if len(same) >= 2 else {}
    return found


def gap_at_matched_loss(curve: Curve, view: View) -> Interval:
    """Return how many points of validation accuracy the largest size loses at the same training loss."""
    first, last = s.ends(curve, view)
    lows = [lowest(o) for o in first + last]
    if not lows or any(map(math.isnan, lows)):
        return NOTHING
    small, large = (s.by_seed(runs, lambda o: accuracy_at_loss(o, max(lows))) for runs in (first, last))
    return rules.difference(small, large)


def accuracy_at_loss(o: Observation, loss: float) -> float | None:
    """Return validation accuracy in per cent where training loss first falls to a level, interpolated."""
    losses, accuracies = (np.array(o.run.curve.get(name, [])) for name in ("trainset/loss", "val/accuracy"))
    below = np.flatnonzero(losses <= loss) if len(losses) == len(accuracies) else []
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(100 * accuracies[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(100 * (accuracies[i - 1] + share * (accuracies[i] - accuracies[i - 1])))
