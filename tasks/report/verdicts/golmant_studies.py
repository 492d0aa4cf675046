"""Golmant et al. 2018, claims 7 to 13: those that compare curves of several studies or arms."""

import math

import numpy as np

from tasks.report.curves import Curve, Observation, Workload, group, tuned_point
from tasks.report.fit_data import View, half
from tasks.report.intervals import NOTHING, Interval, difference_interval, middle_interval
from tasks.report.settings import horizon
from tasks.report.verdicts import studies as s
from tasks.report.verdicts.decide import Evidence, Missing, Part

LINEAR_ERROR = "linear_error/absolute"  # |L(w) - linear approximation| at the end of training, in `final`
TOO_FEW = Missing("too few batch sizes under this view")
Found = Evidence | Missing


def accuracy_at_loss(o, loss: float) -> float | None:
    """Give validation accuracy in per cent where training loss first falls to a level, interpolated."""
    losses, accuracies = o.run.curve.get("trainset/loss"), o.run.curve.get("val/accuracy")
    if not losses or not accuracies:
        return None
    i = next((i for i, v in enumerate(losses) if v <= loss), None)
    if i is None:
        return None
    if i == 0:
        return 100 * accuracies[0]
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return 100 * (accuracies[i - 1] + share * (accuracies[i] - accuracies[i - 1]))


def gap_at_matched_loss(curve: Curve, view: View) -> Interval:
    """Give how many points of validation accuracy the largest size loses at the same training loss."""
    first, last = s.ends(curve, view)
    lows = [
        min((v for v in o.run.curve.get("trainset/loss", []) if math.isfinite(v)), default=math.nan)
        for o in first + last
    ]
    if not lows or any(math.isnan(v) for v in lows):
        return NOTHING
    level = max(lows)  # the lowest that all of them reach
    small, large = (s.by_seed(runs, lambda o: accuracy_at_loss(o, level)) for runs in (first, last))
    return difference_interval(small, large)


def claim_7(workloads: list[Workload], view: View) -> Found:
    """Test performance scales worse than training loss, and larger batches generalize worse."""
    for pairs in group(s.tuned_curves(workloads), lambda item: s.same_but_target(item[0])).values():
        train, test = (next((p for p in pairs if p[0].hit.metric.startswith(k)), None) for k in (s.TRAIN, s.VALIDATION))
        if train is None or test is None:
            continue
        ratio = s.b2_ratio(test[1], train[1], view)
        if ratio is None:
            return TOO_FEW
        parts = [
            Part("B2(validation)/B2(train)", ratio, below=0.8),
            Part(
                "validation error added at matched training loss (points)",
                gap_at_matched_loss(test[1], view),
                above=0.5,
            ),
        ]
        return s.evidence(parts, test, train)
    return Missing("no tuned study with both a training and a validation target")


def first_failure(curve: Curve) -> tuple[float, float] | None:
    """Give (last size at which a rule works, first at which most runs do not arrive)."""
    for before, point in zip(curve.points, curve.points[1:], strict=False):
        if point.n and point.count("reached") < point.n / 2:
            return before.batch_size, point.batch_size
    return None


def where_error_passes(curve: Curve, level: float, view: View) -> float | None:
    """Give the size at which the median linear-approximation error passes a level, on the log scale."""
    sizes, errors = [], []
    for point in curve.points:
        values = [o.run.final.get(LINEAR_ERROR, math.nan) for o in half(point, view.seeds)]
        values = [v for v in values if math.isfinite(v) and v > 0]
        if values:
            sizes.append(math.log(point.batch_size))
            errors.append(math.log(np.median(values)))
    above = [i for i, e in enumerate(errors) if e > math.log(level)]
    if not above or above[0] == 0:
        return None
    i = above[0]
    share = (math.log(level) - errors[i - 1]) / (errors[i] - errors[i - 1])
    return math.exp(sizes[i - 1] + share * (sizes[i] - sizes[i - 1]))


def claim_8(workloads: list[Workload], view: View) -> Found:
    """Linear scaling fails where the error of the linear approximation passes 1."""
    for w in workloads:
        for curve in w.curves:
            if curve.facts["rate.scaling_rule"] != "linear" or s.seeds(curve.points) < s.LEAST_SEEDS:
                continue
            passes, fails = where_error_passes(curve, 1.0, view), first_failure(curve)
            if passes is None or fails is None:
                continue
            low, high = (math.log2(passes / size) for size in (fails[1], fails[0]))
            part = Part(
                "log2(B where the error passes 1 / B where the rule fails)",
                Interval((low + high) / 2, low, high),
                -1.0,
                1.0,
            )
            return s.evidence([part], (w, curve))
    return Missing(f"no linear-scaling curve with {LINEAR_ERROR} that passes 1 and a batch size at which it fails")


def claim_9(workloads: list[Workload], view: View) -> Found:
    """The architecture changes where the plateau begins."""
    key = lambda w: (w.study, w.task, w.data.hash, w.hit.metric)  # noqa: E731
    for found in s.pairs_by(workloads, key):
        by_network = {(w.network, w.parameters): (w, c) for w, c in found}
        if len(by_network) < 2:
            continue
        ratios = [
            s.b2_ratio(a[1], b[1], view)
            for i, a in enumerate(by_network.values())
            for j, b in enumerate(by_network.values())
            if i != j
        ]
        if any(r is None for r in ratios):
            return TOO_FEW
        comparisons = len(ratios) // 2
        logs = [r.mapped(s.log).widened(comparisons) for r in ratios if r.value > 0 and math.isfinite(r.value)]
        if not logs:
            return Missing("no network's B2 lies inside the range studied")
        most = max(logs, key=lambda i: i.value)
        spread = Interval(most.value, max(i.low for i in logs), max(i.high for i in logs), most.dof)
        return s.evidence(
            [Part("largest/smallest B2 over networks", spread.mapped(math.exp), above=2.0)],
            *by_network.values(),
        )
    return Missing("no study with tuned curves of two or more networks")


def compare_b2(workloads: list[Workload], fact: str, values: tuple[float, float], part: dict, view: View) -> Found:
    """Compare B2 at two values of one fact of the data, all else the same."""
    key = lambda w: (w.study, w.task, w.data.name, w.network, w.hit.metric)  # noqa: E731
    for found in s.pairs_by(workloads, key):
        by_value = {getattr(w.data, fact): (w, c) for w, c in found}
        if not set(values) <= set(by_value):
            continue
        a, b = (by_value[v] for v in values)
        ratio = s.b2_ratio(a[1], b[1], view)
        if ratio is None:
            return TOO_FEW
        names = "/".join(f"B2({100 * v:g} %)" for v in values)
        return s.evidence([Part(f"{names} by {fact.replace('_', ' ')}", ratio, **part)], a, b)
    return Missing(f"no study with tuned curves at {fact.replace('_', ' ')} {' and '.join(f'{v:g}' for v in values)}")


def claim_10(workloads: list[Workload], view: View) -> Found:
    """Simpler data plateau later; label noise stands in for the papers' data sets."""
    return compare_b2(workloads, "label_noise", (0.0, 0.4), {"above": 1.5}, view)


def claim_11(workloads: list[Workload], view: View) -> Found:
    """The size of the data has a weak effect."""
    return compare_b2(workloads, "fraction", (0.25, 1.0), {"above": 1 / 1.5, "below": 1.5}, view)


def best_by_horizon(curve: Curve) -> dict[int, list[Observation]]:
    """Give the runs that count at the largest size by the length of their schedule, each tuned for itself."""
    point = curve.points[-1]
    lengths = group(point.every or point.observations, lambda o: horizon(o.run.record))
    lengths.pop(None, None)
    return {length: tuned_point(point.batch_size, runs).counted for length, runs in lengths.items()}


def claim_12(workloads: list[Workload], view: View) -> Found:
    """Training longer improves neither speed nor, much, the test result."""
    for w, curve in s.tuned_curves(workloads):
        by_horizon = best_by_horizon(curve)
        horizons = sorted(by_horizon)
        if len(horizons) < 2 or horizons[-1] < 2 * horizons[0]:
            continue
        if min(len({o.seed for o in runs}) for runs in by_horizon.values()) < s.LEAST_SEEDS:
            continue
        steps = {h: middle_interval([o.value("steps", view.rule) for o in by_horizon[h]]) for h in horizons}
        best = min(horizons, key=lambda h: steps[h].value)
        logs = [{o.seed: math.log(o.value("steps", view.rule)) for o in by_horizon[h]} for h in (horizons[0], best)]
        ratio = difference_interval(*logs).mapped(math.exp)
        gains = [
            difference_interval(
                s.by_seed(by_horizon[h], s.test_accuracy), s.by_seed(by_horizon[horizons[0]], s.test_accuracy)
            ).widened(len(horizons) - 1)
            for h in horizons[1:]
        ]
        gain = max(gains, key=lambda i: i.high)
        parts = [Part("S(shortest horizon)/S(best horizon)", ratio, below=1.25)]
        return s.evidence(
            [*parts, Part("test accuracy gained by a longer horizon (points)", gain, below=0.5)], (w, curve)
        )
    return Missing("no tuned study with two or more horizons (max_steps) at its largest batch size, 5 seeds each")


def claim_13(workloads: list[Workload], view: View) -> Found:
    """No simple heuristic improves large-batch performance in general."""
    for w in workloads:
        curves = [c for c in w.curves if c.tuned and s.ready(c)]
        base = next((c for c in curves if c.facts["optimizer.name"] == "SGD"), None)
        if base is None or len(curves) < 6:
            continue
        others = [c for c in curves if c is not base]
        ratios = [(c, s.b2_ratio(c, base, view)) for c in others]
        if any(r is None for _, r in ratios):
            return TOO_FEW
        parts = [
            Part(
                f"B2({c.name})/B2({base.name})",
                r.mapped(s.log).widened(len(others)).mapped(math.exp)
                if math.isfinite(r.value)
                else Interval(r.value, 0.0, math.inf),  # beyond the range studied: nothing to go by
                below=2.0,
            )
            for c, r in ratios
            if r.value > 0
        ]
        return s.evidence(parts, *((w, c) for c in curves)) if parts else TOO_FEW
    return Missing("no study of 5 or more heuristics beside SGD, each tuned at 5 or more batch sizes")
