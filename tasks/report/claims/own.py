"""The project's own reading: what fills the machine (1), what moves the plateau (2, 3), and longer programmes (4-6)."""

import math

import numpy as np

from tasks.report.analysis.critical import fit_curve
from tasks.report.analysis.curves import Curve
from tasks.report.analysis.intervals import Interval, resampled_interval
from tasks.report.claims import rules
from tasks.report.claims.rules import Missing, Part
from tasks.report.claims.studies import (
    BASE,
    FIG1,
    HARD,
    LEAST_SIZES,
    NETWORKS,
    PARTS,
    Case,
    Found,
    base_of,
    by_seed,
    claims_of,
    diffusion,
    networks,
)

FULL = 0.9  # of the largest throughput, from which the machine counts as filled
DRAWS = 2000
LEAST_KINDS = 4  # networks and tasks, for a statement on all of them


def throughputs(case: Case, curve: Curve) -> dict[int, np.ndarray]:
    """Return log examples a second of the runs, for each batch size at which they recorded it."""
    found = {}
    for p in curve.points:
        rates = by_seed(case.runs(p), lambda o: o.run.record.cost.examples_per_second)
        if len(rates) >= case.least_seeds:
            found[p.batch_size] = np.log([v for v in rates.values() if v > 0])
    return found


def filling_size(sizes: np.ndarray, rates: np.ndarray) -> float:
    """Return where log throughput first comes to 90 % of its largest, interpolated in the log of the batch size."""
    goal = rates.max() + math.log(FULL)
    i = int(np.flatnonzero(rates >= goal)[0])
    if i == 0:
        return float(sizes[0])
    part = (goal - rates[i - 1]) / (rates[i] - rates[i - 1])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** part)


def filling(found: dict[int, np.ndarray]) -> Interval:
    """Return the batch size that fills the machine, with the percentiles of redrawn runs."""
    sizes, random = np.array(sorted(found), float), np.random.default_rng(0)
    values = [found[b] for b in sorted(found)]
    drawn = np.array([[random.choice(v, len(v)).mean() for v in values] for _ in range(DRAWS)])
    value = filling_size(sizes, np.array([v.mean() for v in values]))
    return resampled_interval(value, [filling_size(sizes, row) for row in drawn])


def claim_1(case: Case) -> Found:
    """The critical batch size lies below the batch that fills this machine."""
    for whole in case.whole_curves():
        rates = throughputs(case, whole.curve)
        if len(rates) >= LEAST_SIZES:
            share, ratio = whole.found.b2.over(filling(rates)), case.margins(whole)["ratio"]
            part = Part(f"B2 / batch at {FULL:.0%} of the largest throughput", share, below=ratio)
            return case.evidence([part], [whole])
    return Missing("no tuned curve with examples a second (the Cost callback) at 5 or more batch sizes")


def claim_2(case: Case) -> Found:
    """Network and label noise change the speed-up more than the size of the data does."""
    arms = case.momentum_arms()
    base, others = base_of(arms), networks(arms)
    same = [a for a in arms if base and a.network == base.network]
    quarter = next((a for a in same if a.workload.data.fraction == min(PARTS)), None)
    noisy = next((a for a in same if a.workload.data.label_noise == HARD), None)
    if base is None or quarter is None or noisy is None or len(others) < 2:
        return Missing("no tuned arms of two networks, 40 % label noise and 25 % of the data at two common sizes")
    _, network = rules.most_different({k: a.pair for k, a in others.items()})
    noise, size = (rules.size_of(rules.speed_up_difference(a.pair, base.pair)) for a in (noisy, quarter))
    used = [base, quarter, noisy, *(a for a in others.values() if a is not base)]
    ratio, what = case.margins(*used)["ratio"], "effect of {} over that of a quarter of the data"
    parts = [
        Part(what.format(name), rules.minus(effect, size).mapped(math.exp), above=ratio)
        for name, effect in (("the network", network), ("label noise", noise))
    ]
    return case.of_arms(parts, used)


def claim_3(case: Case) -> Found:
    """Fewer classes to tell apart, a second axis of data complexity, put the plateau later."""
    arms = case.momentum_arms()
    base = next((a for a in arms if a.plain), None)
    same = [a for a in arms if base and a.workload.network == base.workload.network]  # its last layer is smaller
    merged = next((a for a in same if a.workload.data.classes), None)
    if base is None or merged is None:
        return Missing("no tuned arms with all classes and with merged ones at two common batch sizes")
    what = f"speed-up with {merged.workload.data.classes} merged classes over that with all"
    part = rules.speed_up_part(merged.pair, base.pair, what, above=case.margins(base, merged)["ratio"])
    return case.of_arms([part], [base, merged])


def claim_4(case: Case) -> Found:
    """For every network and task four times the batch saves hardly a step at the top."""
    found = case.whole_named()
    if len({(whole.workload.task, *whole.network) for whole in found}) < LEAST_KINDS:
        return Missing(f"no tuned curves of {LEAST_KINDS} or more networks and tasks")
    ratio = case.margins(*found)["ratio"]
    names = [f"{whole.workload.name}, {whole.workload.hit.metric}" for whole in found]
    parts = [rules.flat_top(w.fit, w.found.data.sizes[-1], name, ratio) for w, name in zip(found, names, strict=True)]
    return case.evidence(parts, found)


def claim_5(case: Case) -> Found:
    """With one rate for all sizes, as the paper ran it, the curve has the same regimes and a moderate linear end."""
    for p in case.named():
        found = fit_curve(p.curve, case.view)
        if p.curve.tuned or found is None or found.fit is None or len(found.data.sizes) < LEAST_SIZES:
            continue
        margins = case.margins(p)
        parts = rules.regimes(found.fit, found.data.sizes, margins["linear"], margins["flat"])
        parts.append(rules.moderate_end(found.linear_end, p.workload.data.train_examples, margins["share"]))
        return case.evidence(parts, [p])
    return Missing("no curve of 5 or more batch sizes at one rate for all of them")


def claim_6(case: Case) -> Found:
    """Over 30,000 updates the distance still grows as a power of t."""
    return diffusion(case, "power") if case.named() else Missing("no study of 30,000 updates")


CLAIMS = claims_of(
    "own",
    {
        1: (claim_1, FIG1, "The critical batch size lies below the batch that fills this machine"),
        2: (
            claim_2,
            f"{NETWORKS} golmant_arm_quarter golmant_arm_noise40",
            "Scaling depends more on the network and on data complexity than on the size of the data",
        ),
        3: (claim_3, f"{BASE} golmant_arm_merged", "Fewer classes to tell apart put the plateau later"),
        4: (
            claim_4,
            "golmant_curve_language golmant_curve_segmentation golmant_curve_lenet golmant_curve_wide",
            "For every network and task tried, steps stop falling beyond some batch size",
        ),
        5: (
            claim_5,
            "golmant_one_rate",
            "With one rate for all sizes, as Golmant et al. ran it: three regimes and a moderate linear end",
        ),
        6: (claim_6, "you_diffusion_long", "Over 30,000 updates the distance still grows as a power of t"),
    },
)
