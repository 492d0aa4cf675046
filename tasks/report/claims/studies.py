"""From curves to what the rules need: which runs a claim may use, their margins, and log steps by seed."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tasks.report.analysis.critical import LEAST_STEPS, Fitted, fit_curve
from tasks.report.analysis.curves import Curve, Observation, Point, Workload, group, same_but_target
from tasks.report.analysis.points import View, half
from tasks.report.claims.margins import MARGINS
from tasks.report.claims.rules import Check, Evidence, Missing, Part, Seeds

LEAST_SEEDS, LEAST_SIZES = 5, 5
CLASSIFICATION = "ImageClassification"
TRAIN, VALIDATION = "trainset/", "val/"
Found = Evidence | Missing
Placed = tuple[Workload, Curve]


def runs_on(curve: Curve) -> list[Observation]:
    """Return the runs that a curve's points stand on."""
    return [o for p in curve.points for o in p.observations]


def margins_on(curve: Curve, claim: str) -> list[dict | None]:
    """Return the margins for a claim in the plans of a curve's runs, one each, None where there are none."""
    plans = [o.run.record.plan for o in runs_on(curve)]
    return [plan.margins.get(claim) if plan else None for plan in plans]


def usable(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads of the project's own runs that no plan calls a smoke study."""
    own = [w for w in workloads if w.data.train_examples]
    plans = {id(w): [o.run.record.plan for c in w.curves for o in runs_on(c)] for w in own}
    return [w for w in own if not any(plan and plan.smoke for plan in plans[id(w)])]


def named(workloads: Iterable[Workload], claim: str) -> list[Placed]:
    """Return the curves whose plans name the claim."""
    return [(w, c) for w in workloads for c in w.curves if any(margins_on(c, claim))]


def placed(workloads: list[Workload], claim: str) -> list[Placed]:
    """Return the curves whose plans name the claim, all curves where none does."""
    return named(workloads, claim) or [(w, c) for w in workloads for c in w.curves]


def judged(claim: str, curves: Iterable[Curve]) -> tuple[dict, str]:
    """Return the margins that a claim is judged by, and why that is post hoc (empty where it is not)."""
    default = MARGINS[claim]
    given = [m for c in curves for m in margins_on(c, claim)]
    known = [m for m in given if m is not None]
    if not known:
        return default, "no plan fixed the margins"
    margins = default | {k: v for k, v in known[0].items() if k in default or k == "looks"}
    if any(m != known[0] for m in known) or len(known) < len(given):
        return margins, "the plans of its runs fix different margins"
    same = all(math.isclose(margins[k], default[k], rel_tol=1e-4) for k in default)
    return margins, "" if same else "the plan's margins are not the protocol's"


def cell(point: Point, view: View) -> Seeds:
    """Return log steps by seed at one batch size, infinite where a run did not arrive."""
    found = {o.seed: o.value("steps", view.rule) for o in half(point, view.seeds)}
    return {seed: math.log(v) if v > 0 else math.nan for seed, v in found.items()}


def least_seeds(view: View) -> int:
    """Return how many seeds a cell needs; a half of them will do where only a half is looked at."""
    return LEAST_SEEDS if view.seeds == "all" else 2


def cells(curve: Curve, view: View) -> dict[int, Seeds]:
    """Return, by batch size, the cells that count: enough seeds, and 20 steps or more on average."""
    found = {p.batch_size: cell(p, view) for p in curve.points}
    return {b: v for b, v in found.items() if len(v) >= least_seeds(view) and long_enough(v)}


def long_enough(values: Seeds) -> bool:
    """Return whether the runs that arrived took 20 steps or more."""
    arrived = [v for v in values.values() if math.isfinite(v)]
    return not arrived or float(np.mean(arrived)) >= math.log(LEAST_STEPS)


def fitted(curve: Curve, view: View) -> Fitted | None:
    """Return the fit of a tuned curve of 5 sizes or more with enough seeds and rates inside their grids."""
    if not curve.tuned:
        return None
    found = fit_curve(curve, view)
    if found is None or found.fit is None or len(found.data.sizes) < LEAST_SIZES:
        return None
    used = [p for p in curve.points if p.batch_size not in found.data.left_out]
    counts = [len(cell(p, view)) for p in used]
    if min(counts) < least_seeds(view) or any(p.untuned for p in used) or not long_enough(cell(used[-1], view)):
        return None
    return found


def whole_curves(workloads: Iterable[Workload], claim: str, view: View, task: str = CLASSIFICATION) -> list[Placed]:
    """Return the curves of a task that can be fitted, on clean labels, most sizes first."""
    found = [(w, c) for w, c in placed(workloads, claim) if w.task == task and not w.data.label_noise]
    return sorted(((w, c) for w, c in found if fitted(c, view)), key=lambda item: -len(item[1].points))


def by_target(pairs: list[Placed]) -> list[dict[str, Placed]]:
    """Return, for each study, its curves by the metric of the target."""
    same = group(pairs, lambda item: same_but_target(item[0])).values()
    return [{w.hit.metric: (w, c) for w, c in members} for members in same]


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: its log steps at a small and at a large batch size."""

    workload: Workload
    curve: Curve
    pair: tuple[Seeds, Seeds]

    @property
    def network(self) -> tuple:
        """Return what tells networks apart."""
        return self.workload.network, self.workload.parameters

    @property
    def optimizer(self) -> str:
        """Return the optimizer's name."""
        return self.curve.facts["optimizer.name"]


def arms(workloads: Iterable[Workload], claim: str, view: View, keep: Callable[[Placed], bool]) -> list[Arm]:
    """Return the arms of a claim at the smallest and the largest size that all have, at least 8 x apart."""
    found = [(item, cells(item[1], view)) for item in placed(workloads, claim) if keep(item)]
    found = [(item, by_size) for item, by_size in found if len(by_size) >= 2]
    common = sorted(set.intersection(*(set(by_size) for _, by_size in found))) if found else []
    if len(common) < 2 or common[-1] < 8 * common[0]:
        return []
    return [Arm(w, c, (by_size[common[0]], by_size[common[-1]])) for (w, c), by_size in found]


def evidence(claim: str, parts: list[Part], used: Iterable[Placed], **more) -> Evidence:
    """Return the evidence with what it stands on; `more` are further fields of it."""
    used = list(used)
    curves = [c for _, c in used]
    _, post_hoc = judged(claim, curves)
    runs = [o.run for c in curves for o in runs_on(c)]
    stands_on = (runs_of(*curves), censored_share(*curves), scale_of(used))
    return Evidence(parts, *stands_on, post_hoc=post_hoc, runs=tuple(dict.fromkeys(runs)), **more)


def tuned_check(curves: Iterable[Curve], view: View) -> list[Check]:
    """Return the check that every rate used lies inside the rates tried."""
    untuned = [p.batch_size for c in curves for p in c.points if p.untuned and len(cell(p, view)) >= LEAST_SEEDS]
    return [Check("every rate lies between worse ones", not untuned)]


def runs_of(*curves: Curve) -> int:
    """Return the number of runs with a result."""
    return sum(p.n for c in curves for p in c.points)


def censored_share(*curves: Curve) -> float:
    """Return the share of runs that did not arrive, for whatever reason."""
    return 1 - sum(p.count("reached") for c in curves for p in c.points) / max(runs_of(*curves), 1)


def scale_of(used: Iterable[Placed]) -> str:
    """Return on what data, networks and batch sizes a verdict stands."""
    used = list(used)
    names = dict.fromkeys(f"{w.name}, {w.target} ({c.name})" for w, c in used)
    sizes = [p.batch_size for _, c in used for p in c.points]
    return f"{'; '.join(names)}; batch {min(sizes):,} to {max(sizes):,}"


def by_seed(observations: Iterable[Observation], value: Callable[[Observation], float | None]) -> Seeds:
    """Return a number by seed, without the seeds for which it is not known."""
    found = {o.seed: value(o) for o in observations}
    return {seed: v for seed, v in found.items() if v is not None and math.isfinite(v)}


def test_accuracy(o: Observation) -> float | None:
    """Return a run's test accuracy in per cent; 0 for a run that diverged."""
    value = (o.run.record.test or {}).get("test/accuracy")
    return (0.0 if o.status == "diverged" else None) if value is None else 100 * value


def ends(curve: Curve, view: View) -> tuple[list[Observation], list[Observation]]:
    """Return the runs at the smallest and at the largest batch size."""
    points = [p for p in curve.points if p.n]
    return (half(points[0], view.seeds), half(points[-1], view.seeds)) if len(points) > 1 else ([], [])
