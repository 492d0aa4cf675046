"""The project's own reading: what fills the machine (1), what moves the plateau (2, 3), and longer programmes (4-6)."""

import math
from functools import partial

import numpy as np

from tasks.report.analysis.critical import LEAST_SEEDS, LEAST_SIZES
from tasks.report.claims import rules, studies
from tasks.report.claims.rules import Found, Missing, Part
from tasks.report.claims.studies import BASE, FIG1, GROWTH, NETWORKS, RATIO, Case, Claim, by_seed

FULL = 0.9  # of the largest throughput, from which the machine counts as filled
LEAST_KINDS = 4  # networks and tasks, for a statement on all of them


def filling_size(sizes: list[int], rates: list[list[float]]) -> float:
    """Return the batch size at which mean log throughput, given by run and size, comes to 90 % of its largest."""
    means = np.array([np.mean(at) for at in rates])
    return math.exp(studies.first_at(means.max() + math.log(FULL), np.log(sizes), means))


def claim_1(case: Case) -> Found:
    """The critical batch size lies below the batch that fills this machine."""
    for whole in case.whole_images():
        points = whole.curve.points
        found = {p.batch_size: by_seed(p.counted, lambda o: o.run.record.cost.examples_per_second) for p in points}
        rates = {b: [math.log(v) for v in at.values() if v > 0] for b, at in found.items() if len(at) >= LEAST_SEEDS}
        if len(rates) >= LEAST_SIZES:
            sizes = list(rates)
            filling = studies.redrawn(partial(filling_size, sizes), list(rates.values()))
            share, ratio = whole.found.b2.over(filling), case.margins["ratio"]
            part = Part(f"B2 / batch at {FULL:.0%} of the largest throughput", share, below=ratio)
            return case.evidence([part], [whole])
    return Missing("no tuned curve with examples a second (the Cost callback) at 5 or more batch sizes")


def claim_2(case: Case) -> Found:
    """Scaling depends more on the network and on data complexity than on the size of the data."""
    arms = case.momentum_arms()
    (base, same), others = studies.beside_base(arms), studies.networks(arms)
    quarter = next((a for a in same if a.workload.data.fraction == min(studies.PARTS)), None)
    noisy = next((a for a in same if a.workload.data.label_noise == studies.HARD), None)
    if base is None or quarter is None or noisy is None or len(others) < 2:
        return Missing("no tuned arms of two networks, 40 % label noise and 25 % of the data at two common sizes")
    _, network = rules.most_different({k: a.pair for k, a in others.items()})
    noise, size = (rules.size_of(rules.speed_up_difference(a.pair, base.pair)) for a in (noisy, quarter))
    used = [base, quarter, noisy, *(a for a in others.values() if a is not base)]
    ratio, what = case.margins["ratio"], "effect of {} over that of a quarter of the data"
    parts = [
        Part(what.format(name), rules.minus(effect, size).mapped(math.exp), above=ratio)
        for name, effect in (("the network", network), ("label noise", noise))
    ]
    return case.of_arms(parts, used)


def claim_3(case: Case) -> Found:
    """Fewer classes to tell apart put the plateau later."""
    arms = case.momentum_arms()
    base = next((a for a in arms if a.plain), None)
    same = [a for a in arms if base and a.workload.network == base.workload.network]  # its last layer is smaller
    merged = next((a for a in same if a.workload.data.classes), None)
    if base is None or merged is None:
        return Missing("no tuned arms with all classes and with merged ones at two common batch sizes")
    what = f"speed-up with {merged.workload.data.classes} merged classes over that with all"
    part = rules.speed_up_part(merged.pair, base.pair, what, above=case.margins["ratio"])
    return case.of_arms([part], [base, merged])


def claim_4(case: Case) -> Found:
    """For every network and task tried, steps stop falling beyond some batch size."""
    found = case.whole(case.named())
    if len({(w.workload.task, w.workload.network, w.workload.parameters) for w in found}) < LEAST_KINDS:
        return Missing(f"no tuned curves of {LEAST_KINDS} or more networks and tasks")
    ratio = case.margins["ratio"]
    names = [f"{whole.workload.name}, {whole.workload.hit.metric}" for whole in found]
    parts = [rules.flat_top(w.fit, w.found.data.sizes[-1], name, ratio) for w, name in zip(found, names, strict=True)]
    return case.evidence(parts, found)


def claim_5(case: Case) -> Found:
    """With one rate for all sizes, as Golmant et al. ran it: three regimes and a moderate linear end."""
    for whole in case.whole(case.named(), tuned=False):
        parts = rules.regimes(whole.fit, whole.found.data.sizes, case.margins["linear"], case.margins["flat"])
        examples, share = whole.workload.data.train_examples, case.margins["share"]
        parts.append(rules.moderate_end(whole.found.ends[1.25], examples, share))
        return case.evidence(parts, [whole])
    return Missing("no curve of 5 or more batch sizes at one rate for all of them")


def claim_6(case: Case) -> Found:
    """Over 30,000 updates the distance still grows as a power of t."""
    return studies.diffusion(case, "power") if case.named() else Missing("no study of 30,000 updates")


CURVES = "golmant_curve_language golmant_curve_segmentation golmant_curve_lenet golmant_curve_wide"
CLAIMS = [
    Claim("own-1", claim_1, {"ratio": 1.0}, FIG1),
    Claim("own-2", claim_2, {"ratio": 1.0}, f"{NETWORKS} golmant_arm_quarter golmant_arm_noise40"),
    Claim("own-3", claim_3, RATIO, f"{BASE} golmant_arm_merged"),
    Claim("own-4", claim_4, RATIO, CURVES),
    Claim("own-5", claim_5, {"linear": 0.8, "flat": 0.2, "share": 1 / 16}, "golmant_one_rate"),
    Claim("own-6", claim_6, GROWTH, "you_diffusion_long"),
]
