"""The claims that compare arms by their speed-up from a small to a large batch: golmant-9 to -13, own-2 and own-3."""

import math
from collections import Counter

import numpy as np

from tasks.report.analysis.curves import Curve, Workload, tuned_point
from tasks.report.analysis.intervals import proportion
from tasks.report.analysis.points import View
from tasks.report.analysis.settings import horizon
from tasks.report.claims import contrasts, rules
from tasks.report.claims import studies as s
from tasks.report.claims.golmant import rule_cells
from tasks.report.claims.rules import Missing, Part, Seeds

HARD, PARTS = 0.4, (0.25, 0.5)  # the label noise and the parts of the data that decide


def momentum_arms(workloads: list[Workload], claim: str, view: View) -> list[s.Arm]:
    """Return the tuned arms of momentum SGD on validation targets of images."""
    return s.arms(
        workloads,
        claim,
        view,
        lambda item: (
            item[1].tuned
            and item[0].task == s.CLASSIFICATION
            and item[0].hit.metric.startswith(s.VALIDATION)
            and item[1].facts["optimizer.name"] == "SGD"
        ),
    )


def plain(arm: s.Arm) -> bool:
    """Return whether an arm has all data, clean labels and every class."""
    data = arm.workload.data
    return data.fraction == 1.0 and not data.label_noise and data.classes is None


def base_of(arms: list[s.Arm]) -> s.Arm | None:
    """Return the arm with all data and clean labels on the network that most arms have."""
    common = Counter(a.network for a in arms).most_common(1)
    return next((a for a in arms if plain(a) and a.network == common[0][0]), None)


def finish(claim: str, parts: list[Part], arms: list[s.Arm], view: View, **more) -> s.Found:
    """Return the evidence of arms, with the check that their rates were found."""
    used = [(a.workload, a.curve) for a in arms]
    return s.evidence(claim, parts, used, checks=s.tuned_check([c for _, c in used], view), **more)


def networks(arms: list[s.Arm]) -> dict[str, s.Arm]:
    """Return one plain arm a network, by name."""
    return {f"{a.workload.network} ({a.workload.parameters})": a for a in reversed(arms) if plain(a)}


def claim_9(workloads: list[Workload], view: View) -> s.Found:
    """The architecture changes where the plateau begins."""
    arms = networks(momentum_arms(workloads, "golmant-9", view))
    if len(arms) < 2:
        return Missing("no tuned arms of two or more networks at two common batch sizes")
    ratio = s.judged("golmant-9", [a.curve for a in arms.values()])[0]["ratio"]
    name, most = contrasts.most_different({k: a.pair for k, a in arms.items()})
    part = Part(f"speed-up of {name}", most.mapped(contrasts.exponential), above=ratio)
    return finish("golmant-9", [part], list(arms.values()), view)


def claim_10(workloads: list[Workload], view: View) -> s.Found:
    """Simpler data plateau later; label noise stands in for the papers' data sets."""
    arms = momentum_arms(workloads, "golmant-10", view)
    base = base_of(arms)
    noisy = {} if base is None else {a.workload.data.label_noise: a for a in arms if a.network == base.network}
    if HARD not in noisy:
        return Missing(f"no tuned arms with clean labels and with {HARD:.0%} wrong at two common batch sizes")
    used = [base, *(a for noise, a in noisy.items() if noise)]
    ratio = s.judged("golmant-10", [a.curve for a in used])[0]["ratio"]
    what = "speed-up with clean labels over that with {:.0%} wrong"
    made = {n: contrasts.exceeds(base.pair, a.pair, what.format(n), ratio) for n, a in noisy.items() if n}
    rest = [part for noise, part in made.items() if noise != HARD]
    return finish("golmant-10", [made[HARD]], used, view, rest=rest)


def claim_11(workloads: list[Workload], view: View) -> s.Found:
    """The size of the data has a weak effect."""
    arms = momentum_arms(workloads, "golmant-11", view)
    base = base_of(arms)
    parts_of = {} if base is None else {a.workload.data.fraction: a for a in arms if a.network == base.network}
    if set(PARTS) - set(parts_of):
        return Missing("no tuned arms with 25, 50 and 100 % of the data at two common batch sizes")
    used = [base, *(parts_of[f] for f in PARTS)]
    ratio = s.judged("golmant-11", [a.curve for a in used])[0]["ratio"]
    what = "speed-up with {:.0%} of the data over that with all"
    parts = [contrasts.the_same(parts_of[f].pair, base.pair, what.format(f), ratio) for f in PARTS]
    return finish("golmant-11", parts, used, view)


def own_2(workloads: list[Workload], view: View) -> s.Found:
    """Network and label noise change the speed-up more than the size of the data does."""
    arms = momentum_arms(workloads, "own-2", view)
    base, others = base_of(arms), networks(arms)
    same = [] if base is None else [a for a in arms if a.network == base.network]
    quarter = next((a for a in same if a.workload.data.fraction == min(PARTS)), None)
    noisy = next((a for a in same if a.workload.data.label_noise == HARD), None)
    if quarter is None or noisy is None or len(others) < 2:
        return Missing("no tuned arms of two networks, 40 % label noise and 25 % of the data at two common sizes")
    _, network = contrasts.most_different({k: a.pair for k, a in others.items()})
    noise, size = (contrasts.size_of(rules.speed_up_difference(a.pair, base.pair)) for a in (noisy, quarter))
    used = [base, quarter, noisy, *(a for a in others.values() if a is not base)]
    ratio = s.judged("own-2", [a.curve for a in used])[0]["ratio"]
    parts = [
        Part(f"effect of {name} over that of a quarter of the data", rules.minus(e, size).mapped(math.exp), above=ratio)
        for name, e in (("the network", network), ("label noise", noise))
    ]
    return finish("own-2", parts, used, view)


def own_3(workloads: list[Workload], view: View) -> s.Found:
    """Fewer classes to tell apart, a second axis of data complexity, put the plateau later."""
    arms = momentum_arms(workloads, "own-3", view)
    base = next((a for a in arms if plain(a)), None)
    same = [a for a in arms if base and a.workload.network == base.workload.network]  # its last layer is smaller
    merged = next((a for a in same if a.workload.data.classes), None)
    if base is None or merged is None:
        return Missing("no tuned arms with all classes and with merged ones at two common batch sizes")
    used = [base, merged]
    ratio = s.judged("own-3", [a.curve for a in used])[0]["ratio"]
    what = f"speed-up with {merged.workload.data.classes} merged classes over that with all"
    return finish("own-3", [contrasts.exceeds(merged.pair, base.pair, what, ratio)], used, view)


def by_horizon(curve: Curve, view: View) -> dict[int, Seeds]:
    """Return log steps at the largest size by the length of the schedule, each tuned for itself."""
    point, found = curve.points[-1], {}
    for o in point.every or point.observations:
        found.setdefault(horizon(o.run.record), []).append(o)
    found.pop(None, None)
    return {length: s.cell(tuned_point(point.batch_size, runs), view) for length, runs in found.items()}


def claim_12(workloads: list[Workload], view: View) -> s.Found:
    """Training longer does not improve the speed of convergence."""
    for w, curve in s.placed(workloads, "golmant-12"):
        cells = by_horizon(curve, view)
        cells = {length: v for length, v in cells.items() if len(v) >= s.least_seeds(view)}
        lengths = sorted(cells)
        if len(lengths) < 2 or lengths[-1] < 2 * lengths[0]:
            continue
        ratio = s.judged("golmant-12", [curve])[0]["ratio"]
        part = contrasts.saves_no_steps(cells[lengths[0]], [cells[n] for n in lengths[1:]], ratio)
        return s.evidence("golmant-12", [part], [(w, curve)])
    return Missing("no tuned study of two or more horizons at one batch size, 5 seeds each")


def heuristics(workloads: list[Workload], view: View) -> tuple[s.Arm | None, dict[str, tuple[Seeds, Seeds]], list]:
    """Return tuned momentum, the pairs of cells of every heuristic beside it, and the curves used."""
    arms = s.arms(
        workloads,
        "golmant-13",
        view,
        lambda item: (
            item[1].tuned
            and item[0].task == s.CLASSIFICATION
            and plain(s.Arm(*item, ({}, {})))
            and item[0].hit.metric.startswith(s.VALIDATION)
        ),
    )
    base = next((a for a in arms if a.optimizer == "SGD"), None)
    if base is None:
        return None, {}, []
    pairs = {a.optimizer: a.pair for a in arms if a.optimizer != "SGD"}
    used = [(a.workload, a.curve) for a in arms]
    sizes = [b for b, v in s.cells(base.curve, view).items() if v in base.pair]
    for m0, (cells, there) in rule_cells(s.placed(workloads, "golmant-13"), view).items():
        for rule in ("linear", "sqrt"):
            if all(b in cells.get(rule, {}) for b in sizes):
                pairs[f"{rule} scaling from m0 = {m0}"] = tuple(cells[rule][b] for b in sizes)
                used += there
    return base, pairs, list(dict.fromkeys(used))


def claim_13(workloads: list[Workload], view: View) -> s.Found:
    """No simple heuristic improves large-batch performance in general."""
    base, pairs, used = heuristics(workloads, view)
    if base is None or len(pairs) < 5:
        return Missing("no study of 5 or more heuristics beside tuned momentum at two common batch sizes")
    ratio = s.judged("golmant-13", [c for _, c in used])[0]["ratio"]
    parts = []
    for name, pair in pairs.items():
        what = f"speed-up of {name} over that of tuned momentum"
        lost = [math.isinf(v) for v in pair[1].values()]
        if np.mean(lost) > 0.5:  # a heuristic whose runs are lost at the large batch does not improve it
            parts.append(Part(f"share lost at the large batch, {name}", proportion(sum(lost), len(lost)), above=0.5))
        else:
            parts.append(contrasts.not_better(pair, base.pair, what, ratio))
    return s.evidence("golmant-13", parts, used)
