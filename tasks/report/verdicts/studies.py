"""Which runs may decide a claim, and the quantities that claims are about."""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

from tasks.report.critical import LEAST_STEPS, Critical, critical
from tasks.report.curves import COUNTED, Curve, Observation, Point, Workload, group
from tasks.report.fit_data import PRIMARY, View, half
from tasks.report.intervals import Interval, difference_interval, proportion, ratio_interval, shift_interval
from tasks.report.verdicts.decide import Evidence, Missing, Part

LEAST_SEEDS = 5
LEAST_SIZES = 5
CLASSIFICATION = "ImageClassification"
TRAIN, VALIDATION = "trainset/", "val/"
HIT_RULES = ("line",)
HIT_SHIFT = 0.1  # in log S, between batch sizes (rule 1)

critical_of = lru_cache(maxsize=4096)(critical)


def trusted(workloads: Iterable[Workload]) -> list[Workload]:
    """Leave out smoke and demonstration studies, and numbers from outside: they decide nothing."""
    own = [w for w in workloads if w.data.train_examples]
    return [w for w in own if not w.study.lower().startswith(("smoke", "demo"))]


def seeds(points: Iterable[Point]) -> int:
    """Give the least number of distinct seeds at any of the points."""
    return min((len({o.seed for o in p.counted}) for p in points), default=0)


def ready(curve: Curve) -> bool:
    """Say whether a curve may decide a claim: 5 sizes or more can be fitted, with 5 seeds or more each.

    Its best rates must lie inside the grids tried, and its largest batch need 20 steps or more (rule 2).
    """
    found = critical_of(curve, PRIMARY, False)
    if found is None or len(found.data.sizes) < LEAST_SIZES or math.exp(found.data.log_steps[-1]) < LEAST_STEPS:
        return False
    used = [p for p in curve.points if p.batch_size not in found.data.left_out]
    return seeds(used) >= LEAST_SEEDS and not any(p.untuned for p in used)


def tuned_curves(workloads: Iterable[Workload], task: str = CLASSIFICATION) -> list[tuple[Workload, Curve]]:
    """List the tuned curves of a task that may decide a claim, clean, on all data of their study; most sizes first."""
    whole: dict[tuple, float] = {}  # the largest share of the data that a study was run on
    for w in (workloads := list(workloads)):
        study = (w.study, w.data.name)
        whole[study] = max(whole.get(study, 0.0), w.data.fraction)
    found = [
        (w, c)
        for w in workloads
        if w.task == task and not w.data.label_noise
        if w.data.fraction == whole[w.study, w.data.name]
        for c in w.curves
        if c.tuned and ready(c)
    ]
    return sorted(found, key=lambda item: (-len(item[1].points), -runs_of(item[1])))


def went_on(observations: Iterable[Observation]) -> bool:
    """Say whether runs went on to their budget or end; one that stops at its target shows no final accuracy."""
    return all(o.run.record.stopped_by in ("budget", "end") for o in observations)


def runs_of(*curves: Curve) -> int:
    """Count the runs with a result."""
    return sum(p.n for c in curves for p in c.points)


def censored_share(*curves: Curve) -> float:
    """Give the share of runs that did not arrive, for whatever reason."""
    arrived = sum(p.count("reached") for c in curves for p in c.points)
    return 1 - arrived / max(runs_of(*curves), 1)


def frozen(*curves: Curve) -> bool:
    """Say whether every run carries the hash of a frozen plan."""
    runs = (o.run.record for c in curves for p in c.points for o in p.observations)
    return all(record.plan for record in runs)


def same_but_target(workload: Workload) -> tuple:
    """Give what two targets of the same runs share."""
    data = workload.data
    network = (workload.network, workload.parameters)
    return (workload.study, workload.task, *network, data.hash, data.fraction)


def scale_of(*pairs: tuple[Workload, Curve]) -> str:
    """Say on what data, network, batch sizes and seeds a verdict stands."""
    names = dict.fromkeys(f"{w.name}, {w.target} ({c.name})" for w, c in pairs)
    sizes = [p.batch_size for _, c in pairs for p in c.points]
    least = seeds(p for _, c in pairs for p in c.points if p.n)
    return f"{'; '.join(names)}; batch {min(sizes):,} to {max(sizes):,}; at least {least} seeds a point"


def span(*curves: Curve) -> float:
    """Give the ratio of the largest to the smallest batch size, the least over the curves."""
    return min(c.points[-1].batch_size / c.points[0].batch_size for c in curves)


@lru_cache(maxsize=512)
def hit_rules_agree(curve: Curve) -> bool:
    """Check that other hit rules shift log S by the same at all batch sizes, to within 0.1 (rule 1)."""
    primary = critical_of(curve, PRIMARY, False)
    for rule in HIT_RULES:
        other = critical_of(curve, View(rule=rule), False)
        if primary is None or other is None or len(other.data.sizes) != len(primary.data.sizes):
            continue  # these runs carry no such brackets
        shift = other.data.log_steps - primary.data.log_steps
        x = np.log(primary.data.sizes)
        trend = np.polyfit(x, shift, 1)[0] * (x[-1] - x[0])  # a trend, for single shifts are mostly noise
        if abs(trend) > HIT_SHIFT:
            return False
    return True


def evidence(parts: list[Part], *pairs: tuple[Workload, Curve], wide_enough: bool = True) -> Evidence:
    """Put parts together with what they stand on."""
    curves = [c for _, c in pairs]
    sizes = tuple(p.batch_size for p in curves[0].points)
    return Evidence(
        parts,
        runs_of(*curves),
        censored_share(*curves),
        scale_of(*pairs),
        wide_enough,
        not frozen(*curves),
        sizes,
        all(hit_rules_agree(c) for c in curves),
    )


def rows_of(primary: Evidence) -> list[View]:
    """List the rows of the robustness table (rule 21)."""
    views = [View(rule=rule) for rule in HIT_RULES] + [View(family="pieces"), View(without_replacement=True)]
    return views + [View(drop=size) for size in primary.sizes] + [View(seeds=h) for h in ("first", "last")]


def log(x: float) -> float:
    """Take the logarithm; that of 0, where an interval may end, is minus infinity."""
    return math.log(x) if x > 0 else -math.inf


def b2_ratio(a: Curve, b: Curve, view: View) -> Interval | None:
    """Give B2(a) / B2(b); None where the view leaves too few sizes."""
    first, second = critical_of(a, view, False), critical_of(b, view, False)
    return ratio_interval(first.b2, second.b2) if first and second else None


def fitted(curve: Curve, view: View) -> Critical | Missing:
    """Fit a curve under a view, if it leaves enough sizes."""
    found = critical_of(curve, view, False)
    return found if found and found.fit else Missing("too few batch sizes under this view")


def step_ratio(found: Critical, small: float, large: float) -> Interval:
    """Give S(small) / S(large) on the fitted curve."""
    at = found.fit.family.log_steps(np.array([small, large]))
    return found.fit.interval(np.exp(at[:, 0] - at[:, 1]))


def mean_slope(found: Critical, small: float, large: float) -> Interval:
    """Give the mean of -d log S / d log B between two sizes on the fitted curve."""
    return step_ratio(found, small, large).mapped(lambda r: math.log(r) / math.log(large / small))


def at_size(curve: Curve, size: int) -> Point | None:
    """Find the point at a batch size."""
    return next((p for p in curve.points if p.batch_size == size), None)


def ends(curve: Curve, view: View) -> tuple[list[Observation], list[Observation]]:
    """Give the runs at the smallest and at the largest batch size."""
    points = [p for p in curve.points if p.n and p.batch_size != view.drop]
    return half(points[0], view.seeds), half(points[-1], view.seeds)


def arrival(point: Point, status: str = "reached") -> Interval:
    """Give the share of runs that ended so."""
    return proportion(point.count(status), point.n)


def steps_of(point: Point, view: View) -> dict[int, float]:
    """Give steps to target by seed."""
    return {o.seed: o.value("steps", view.rule) for o in half(point, view.seeds)}


def steps_ratio(a: Point, b: Point, view: View) -> Interval:
    """Give the ratio of steps of two points: of geometric means, or by ranks where runs did not arrive."""
    logs = [{seed: math.log(v) for seed, v in steps_of(p, view).items() if v > 0} for p in (a, b)]
    if all(math.isfinite(v) for values in logs for v in values.values()):
        return difference_interval(*logs).mapped(math.exp)
    return shift_interval(*(list(values.values()) for values in logs)).mapped(math.exp)


def every_run(workload: Workload) -> list[Observation]:
    """List all runs of a workload that have a result, trials included."""
    points = [p for c in workload.curves for p in c.points]
    runs = dict.fromkeys(o for p in points for o in (p.every or p.observations))
    return [o for o in runs if o.status in COUNTED]


def by_seed(observations: Iterable[Observation], value: Callable[[Observation], float | None]) -> dict[int, float]:
    """Collect a number by seed, leaving out what is not known."""
    found = {o.seed: value(o) for o in observations}
    return {seed: v for seed, v in found.items() if v is not None and math.isfinite(v)}


def test_accuracy(o: Observation) -> float | None:
    """Give a run's test accuracy in per cent."""
    value = (o.run.record.test or {}).get("test/accuracy")
    return None if value is None else 100 * value


def pairs_by(workloads: Iterable[Workload], key: Callable) -> list[list[tuple[Workload, Curve]]]:
    """Group tuned, usable curves by a key, largest group first."""
    found = [(w, c) for w in workloads for c in w.curves if c.tuned and ready(c)]
    return sorted(group(found, lambda item: key(item[0])).values(), key=len, reverse=True)
