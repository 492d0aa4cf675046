"""From curves to what the rules need: which runs a claim may use, their margins, and log steps by seed."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.report.analysis.critical import LEAST_STEPS, Fitted, fit_curve
from tasks.report.analysis.curves import (
    VALIDATION,
    Curve,
    Observation,
    Point,
    Workload,
    constant_rate,
    group,
    same_but_target,
)
from tasks.report.analysis.fits import Fit
from tasks.report.analysis.intervals import proportion
from tasks.report.analysis.measures import DISTANCE, Growth, growth_of
from tasks.report.analysis.points import View
from tasks.report.claims.rules import MARGINS, Check, Evidence, Missing, Pair, Part, Seeds, Verdict, decide

LEAST_SEEDS, LEAST_SIZES = 5, 5
CLASSIFICATION = "ImageClassification"
PAPERS = {"golmant": "Golmant et al. 2018", "you": "You et al. 2020", "own": "this project's reading"}
HARD, PARTS = 0.4, (0.25, 0.5)  # the label noise and the parts of the data that decide
FIG1, BASE = "golmant_fig1_classification", "golmant_arm_base"  # sweeps that test several claims
NETWORKS = f"{BASE} golmant_arm_wide golmant_arm_lenet"
Found = Evidence | Missing


@dataclass(frozen=True)
class Claim:
    """One claim; `evidence` is the pure function that follows its row in docs/protocol.md."""

    id: str
    statement: str
    evidence: Callable[["Case"], Found]
    sweeps: str  # the studies under configs/sweeps whose embedded.yaml test it, none where no sweep does

    @property
    def paper(self) -> str:
        """Return the paper's name."""
        return PAPERS[self.id.split("-")[0]]

    @property
    def rerun(self) -> str:
        """Return the command that tests the claim anew, empty where there is none."""
        if not self.sweeps:
            return ""
        files = " ".join(f"configs/sweeps/{name}/embedded.yaml" for name in self.sweeps.split())
        return f"python -m tasks sweep {files} --runs runs/again && python -m tasks report runs/again --out report"


def claims_of(paper: str, rows: Mapping[int, tuple[Callable[["Case"], Found], str, str]]) -> list[Claim]:
    """Return a paper's claims, by number what decides each, the sweeps that test it, and what it says."""
    return [Claim(f"{paper}-{i}", text, evidence, sweeps) for i, (evidence, sweeps, text) in rows.items()]


def verdict_on(claim: Claim, workloads: Iterable[Workload]) -> Verdict:
    """Return the verdict on one claim; no claim is corrected for the others."""
    kept = usable(workloads)
    return decide(lambda view: claim.evidence(Case(claim.id, kept, view)))


def usable(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads of the project's own runs that no plan calls a smoke study."""
    own = [w for w in workloads if w.data.train_examples]
    plans = {id(w): [o.run.record.plan for c in w.curves for o in c.runs] for w in own}
    return [w for w in own if not any(plan and plan.smoke for plan in plans[id(w)])]


# what a claim finds among the runs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """A curve with the workload that it belongs to."""

    workload: Workload
    curve: Curve

    @property
    def network(self) -> tuple[str, int | None]:
        """Return what tells networks apart."""
        return self.workload.network, self.workload.parameters

    @property
    def optimizer(self) -> str:
        """Return the optimizer's name."""
        return self.curve.record.optimizer.name

    @property
    def rule(self) -> str:
        """Return the rule that carries the rate from size to size."""
        return self.curve.record.rate.scaling_rule

    @property
    def plain(self) -> bool:
        """Return whether it has all data, clean labels and every class."""
        data = self.workload.data
        return data.fraction == 1.0 and not data.label_noise and data.classes is None

    @property
    def tuned_images(self) -> bool:
        """Return whether it is a tuned curve of image classification on a validation target."""
        metric = self.workload.hit.metric
        return self.curve.tuned and self.workload.task == CLASSIFICATION and metric.startswith(VALIDATION)


@dataclass(frozen=True)
class Whole(Placed):
    """A tuned curve that can be fitted."""

    found: Fitted
    fit: Fit

    @property
    def span(self) -> float:
        """Return the ratio of the largest to the smallest batch size."""
        return self.curve.points[-1].batch_size / self.curve.points[0].batch_size


@dataclass(frozen=True)
class Arm(Placed):
    """One arm of a comparison: its log steps at a small and at a large batch size."""

    pair: Pair
    sizes: tuple[int, int]


Rules = dict[str, dict[int, Seeds]]


@dataclass(frozen=True)
class Case:
    """One claim under one view of the runs."""

    claim: str
    workloads: list[Workload]
    view: View

    @property
    def least_seeds(self) -> int:
        """Return how many seeds a cell needs; a half of them will do where only a half is looked at."""
        return LEAST_SEEDS

    def given(self, curve: Curve) -> list[dict[str, Any] | None]:
        """Return the margins for the claim in the plans of a curve's runs, one each, None where there are none."""
        plans = [o.run.record.plan for o in curve.runs]
        return [plan.margins.get(self.claim) if plan else None for plan in plans]

    def named(self) -> list[Placed]:
        """Return the curves whose plans name the claim."""
        return [Placed(w, c) for w in self.workloads for c in w.curves if any(self.given(c))]

    def placed(self) -> list[Placed]:
        """Return the curves whose plans name the claim, all curves where none does."""
        return self.named() or [Placed(w, c) for w in self.workloads for c in w.curves]

    def judged(self, used: Iterable[Placed]) -> tuple[dict[str, float], str]:
        """Return the margins that the claim is judged by, and why that is post hoc (empty where it is not)."""
        default = MARGINS[self.claim]
        given = [m for p in used for m in self.given(p.curve)]
        known = [m for m in given if m is not None]
        if not known:
            return default, "no plan fixed the margins"
        margins = default | {k: v for k, v in known[0].items() if k in default}
        if any(m != known[0] for m in known) or len(known) < len(given):
            return margins, "the plans of its runs fix different margins"
        same = all(math.isclose(margins[k], default[k], rel_tol=1e-4) for k in default)
        return margins, "" if same else "the plan's margins are not the protocol's"

    def margins(self, *used: Placed) -> dict[str, float]:
        """Return the margins that the claim is judged by."""
        return self.judged(used)[0]

    def evidence(self, parts: list[Part], used: Iterable[Placed], **more: Any) -> Evidence:
        """Return the evidence with what it stands on; `more` are further fields of it."""
        used = list(dict.fromkeys(Placed(p.workload, p.curve) for p in used))
        n, post_hoc = sum(len(p.curve.counted) for p in used), self.judged(used)[1]
        curves = zip(told_apart(used), (p.curve for p in used), strict=True)
        return Evidence(parts, n, scale_of(used), post_hoc=post_hoc, curves=tuple(curves), **more)

    def runs(self, point: Point) -> list[Observation]:
        """Return a point's runs, or the half of them that is looked at."""
        return sorted(point.counted, key=lambda o: o.seed)

    def ends(self, curve: Curve) -> tuple[list[Observation], list[Observation]]:
        """Return the runs at the smallest and at the largest batch size."""
        points = [p for p in curve.points if p.n]
        return (self.runs(points[0]), self.runs(points[-1])) if len(points) > 1 else ([], [])

    def cell(self, point: Point) -> Seeds:
        """Return log steps by seed at one batch size, infinite where a run did not arrive."""
        found = {o.seed: o.value("steps", self.view.rule) for o in self.runs(point)}
        return {seed: math.log(v) if v > 0 else math.nan for seed, v in found.items()}

    def cells(self, curve: Curve) -> dict[int, Seeds]:
        """Return, by batch size, the cells that count: enough seeds, and 20 steps or more on average."""
        found = {p.batch_size: self.cell(p) for p in curve.points}
        return {b: v for b, v in found.items() if len(v) >= self.least_seeds and long_enough(v)}

    def whole(self, placed: Placed) -> Whole | None:
        """Return a tuned curve of 5 sizes or more with enough seeds and rates inside their grids, with its fit."""
        curve = placed.curve
        found = fit_curve(curve, self.view) if curve.tuned else None
        if found is None or found.fit is None or len(found.data.sizes) < LEAST_SIZES:
            return None
        used = [p for p in curve.points if p.batch_size not in found.data.left_out]
        cells = [self.cell(p) for p in used]
        if min(map(len, cells)) < self.least_seeds or any(p.untuned for p in used) or not long_enough(cells[-1]):
            return None
        return Whole(placed.workload, curve, found, found.fit)

    def whole_named(self) -> list[Whole]:
        """Return the curves that can be fitted among those whose plans name the claim."""
        return [whole for p in self.named() if (whole := self.whole(p))]

    def whole_curves(self) -> list[Whole]:
        """Return the curves of image classification that can be fitted, on clean labels, most sizes first."""
        clean = [p for p in self.placed() if p.workload.task == CLASSIFICATION and not p.workload.data.label_noise]
        found = [whole for p in clean if (whole := self.whole(p))]
        return sorted(found, key=lambda whole: -len(whole.curve.points))

    def by_target(self) -> list[dict[str, Whole]]:
        """Return, for each study, its whole curves by the metric of the target."""
        same = group(self.whole_curves(), lambda whole: same_but_target(whole.workload)).values()
        return [{whole.workload.hit.metric: whole for whole in members} for members in same]

    def arms(self, keep: Callable[[Placed], bool]) -> list[Arm]:
        """Return the arms of the claim at the smallest and the largest size that all have, at least 8 x apart."""
        found = [(p, self.cells(p.curve)) for p in self.placed() if keep(p)]
        found = [(p, by_size) for p, by_size in found if len(by_size) >= 2]
        common = set.intersection(*(set(by_size) for _, by_size in found)) if found else set()
        small, large = min(common, default=0), max(common, default=0)
        if not common or large < 8 * small:
            return []
        return [Arm(p.workload, p.curve, (cells[small], cells[large]), (small, large)) for p, cells in found]

    def momentum_arms(self) -> list[Arm]:
        """Return the tuned arms of momentum SGD on validation targets of images."""
        return self.arms(lambda p: p.tuned_images and p.optimizer == "SGD")

    def of_arms(self, parts: list[Part], arms: Sequence[Arm], rest: Sequence[Part] = ()) -> Evidence:
        """Return the evidence of arms, with the check that every rate used lies inside the rates tried."""
        points = [p for arm in arms for p in arm.curve.points if len(self.cell(p)) >= LEAST_SEEDS]
        check = Check("every rate lies between worse ones", not any(p.untuned for p in points))
        return self.evidence(parts, arms, checks=[check], rest=list(rest))

    def rule_cells(self, placed: Iterable[Placed]) -> dict[int, tuple[Rules, list[Placed]]]:
        """Return, by base batch size, the cells of the rules none, linear and sqrt, and where they come from."""
        found: dict[int, tuple[Rules, list[Placed]]] = {}
        for p in placed:
            base = p.curve.record.rate.base_batch_size
            if p.curve.tuned or not base or p.rule not in ("none", "linear", "sqrt"):
                continue
            cells, used = found.setdefault(base, ({}, []))
            cells.setdefault(p.rule, {}).update(self.cells(p.curve))
            used.append(p)
        return found


def long_enough(values: Seeds) -> bool:
    """Return whether the runs that arrived took 20 steps or more."""
    arrived = [v for v in values.values() if math.isfinite(v)]
    return not arrived or float(np.mean(arrived)) >= math.log(LEAST_STEPS)


def told_apart(used: Sequence[Placed]) -> list[str]:
    """Return a name for each curve, of what is not the same for all of them."""
    rows = [(p.workload.study, p.workload.network, p.workload.target, p.curve.name) for p in used]
    telling = [i for i in range(4) if len({row[i] for row in rows}) > 1] or [3]
    return [", ".join(row[i] for i in telling) for row in rows]


def scale_of(used: Sequence[Placed]) -> str:
    """Return on what data, networks and batch sizes a verdict stands."""
    names = dict.fromkeys(f"{p.workload.name}, {p.workload.target} ({p.curve.name})" for p in used)
    sizes = [point.batch_size for p in used for point in p.curve.points]
    return f"{'; '.join(names)}; batch {min(sizes):,} to {max(sizes):,}"


def by_seed(observations: Iterable[Observation], value: Callable[[Observation], float | None]) -> dict[int, float]:
    """Return a number by seed, without the seeds for which it is not known."""
    found = {o.seed: value(o) for o in observations}
    return {seed: v for seed, v in found.items() if v is not None and math.isfinite(v)}


def base_of(arms: list[Arm]) -> Arm | None:
    """Return the arm with all data and clean labels on the network that most arms have."""
    common = Counter(a.network for a in arms).most_common(1)
    return next((a for a in arms if a.plain and a.network == common[0][0]), None)


def networks(arms: list[Arm]) -> dict[str, Arm]:
    """Return one plain arm a network, by name."""
    return {f"{a.workload.network} ({a.workload.parameters})": a for a in reversed(arms) if a.plain}


def equal_updates(runs: list[Observation]) -> bool:
    """Return whether runs went on to the same number of updates."""
    steps = {round(o.run.stopped_at("steps")) for o in runs if not math.isnan(o.run.stopped_at("steps"))}
    return len(steps) == 1 and all(o.run.record.stopped_by in ("budget", "end") for o in runs)


def diffusion(case: Case, wins: str) -> Found:
    """Count the runs in which one form of growth beats the other; a run that cannot tell counts for neither."""
    for p in case.placed():
        points = [point for point in p.curve.points if len(case.cell(point)) >= case.least_seeds]
        seen = [o for point in points for o in case.runs(point)]
        runs = [o for o in seen if DISTANCE in o.run.curve and constant_rate(o.run.record)]
        if len(points) < 3 or not runs:
            continue
        margins = case.margins(p)
        known = [g for o in runs if isinstance(g := growth_of(o, margins["from_step"]), Growth)]
        log = sum(g.low > margins["delta_aic"] for g in known)
        power = sum(g.high < -margins["delta_aic"] for g in known)
        won, lost = (log, power) if wins == "log" else (power, log)
        surely, perhaps = proportion(won, len(runs)), proportion(len(runs) - lost, len(runs))
        what = f"share of runs in which the {wins} form wins ({len(known)} of {len(runs)} identifiable)"
        part = Part(what, replace(surely, high=perhaps.high), above=margins["share"])
        return case.evidence([part], [p], counts_steps=False)
    return Missing(f"no study with {DISTANCE} at constant rate, 3 batch sizes and 5 seeds")
