"""From curves to what the rules need: which runs a claim may use, their margins, and log steps by seed."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from callbacks.record import Rule
from tasks.report.analysis import curves
from tasks.report.analysis.critical import LEAST_SEEDS, LEAST_SIZES, LEAST_STEPS, Fitted, fit_curve
from tasks.report.analysis.curves import TRAIN, VALIDATION, Curve, Observation, Point, T, Workload, group
from tasks.report.analysis.fits import Fit
from tasks.report.analysis.intervals import NOTHING, Interval, proportion, resampled_interval
from tasks.report.analysis.measures import DISTANCE, Growth, growth_of
from tasks.report.claims.rules import Check, Evidence, Found, Missing, Pair, Part, Seeds, Verdict, decide

DRAWS = 2000  # of the runs, where a claim draws them again
CLASSIFICATION = "ImageClassification"
PAPERS = {"golmant": "Golmant et al. 2018", "you": "You et al. 2020", "own": "this project's reading"}
HARD, PARTS = 0.4, (0.25, 0.5)  # the label noise and the parts of the data that decide
WIDE = 256  # times the smallest batch, from which a range holds the papers'
FIG1, BASE = "golmant_fig1_classification", "golmant_arm_base"  # sweeps that test several claims
NETWORKS = f"{BASE} golmant_arm_wide golmant_arm_lenet"
# Default margins of several claims: a ratio of speed-ups or steps, and how surely one form of growth beats the other.
RATIO, GROWTH = {"ratio": 1.25}, {"delta_aic": 10.0, "share": 0.8, "from_step": 60}


@dataclass(frozen=True)
class Claim:
    """One claim; `evidence` is the pure function that follows its row in docs/protocol.md, its docstring the claim."""

    id: str
    evidence: Callable[["Case"], Found]
    margins: dict[str, float]  # that it is judged by where its plan says nothing else: docs/protocol.md has the reasons
    sweeps: str  # the studies under configs/sweeps whose embedded.yaml test it, none where no sweep does

    @property
    def statement(self) -> str:
        """Return what the claim says."""
        return str(self.evidence.__doc__).rstrip(".")

    @property
    def paper(self) -> str:
        """Return the paper's name."""
        return PAPERS[self.id.split("-")[0]]

    @property
    def rerun(self) -> str:
        """Return the command that tests the claim anew, empty where there is none."""
        files = " ".join(f"configs/sweeps/{name}/embedded.yaml" for name in self.sweeps.split())
        again = f"python -m tasks sweep {files} --runs runs/again && python -m tasks report runs/again --out report"
        return again if files else ""


def verdict_on(claim: Claim, workloads: Iterable[Workload]) -> Verdict:
    """Return the verdict on one claim from the project's own runs that no plan calls a smoke study."""
    own = [w for w in workloads if w.data.train_examples]
    smoke = {w for w in own for c in w.curves for o in c.runs if o.run.record.plan and o.run.record.plan.smoke}
    return decide(lambda rule: claim.evidence(Case(claim, [w for w in own if w not in smoke], rule)))


@dataclass(frozen=True)
class Placed:
    """A curve with the workload that it belongs to."""

    workload: Workload
    curve: Curve

    @property
    def plain(self) -> bool:
        """Return whether it has all data, clean labels and every class."""
        data = self.workload.data
        return data.fraction == 1.0 and not data.label_noise and data.classes is None


@dataclass(frozen=True)
class Whole(Placed):
    """A curve that can be fitted."""

    found: Fitted
    fit: Fit

    @property
    def wide(self) -> bool:
        """Return whether its batch sizes span as much as the papers'."""
        return self.curve.points[-1].batch_size >= WIDE * self.curve.points[0].batch_size


@dataclass(frozen=True)
class Arm(Placed):
    """One arm of a comparison: its log steps at a small and at a large batch size."""

    pair: Pair
    sizes: tuple[int, int]


Cells = dict[int, Seeds]  # log steps by batch size and seed
Measure = Callable[[Observation], float | None]


@dataclass(frozen=True)
class Case:
    """One claim and the runs, read by one rule for hits."""

    claim: Claim
    workloads: list[Workload]
    rule: Rule  # by which hits are read

    def given(self, curve: Curve) -> list[dict[str, float]]:
        """Return the margins for the claim in the plans of a curve's runs, one each, empty where there are none."""
        each = [plan.margins.get(self.claim.id, {}) if (plan := o.run.record.plan) else {} for o in curve.runs]
        return [{k: v for k, v in margins.items() if isinstance(v, int | float)} for margins in each]

    def named(self) -> list[Placed]:
        """Return the curves whose plans name the claim."""
        return [Placed(w, c) for w in self.workloads for c in w.curves if any(self.given(c))]

    def placed(self) -> list[Placed]:
        """Return the curves whose plans name the claim, all curves where none does."""
        return self.named() or [Placed(w, c) for w in self.workloads for c in w.curves]

    @property
    def margins(self) -> dict[str, float]:
        """Return the margins that the claim is judged by: those of the first plan that names it, else its own."""
        fixed = next((margins for p in self.named() for margins in self.given(p.curve) if margins), {})
        return {name: fixed.get(name, margin) for name, margin in self.claim.margins.items()}

    def evidence(self, parts: list[Part], used: Collection[Placed], **more: Any) -> Evidence:
        """Return the evidence with what it stands on; `more` are further fields of it."""
        here = [o.run for p in used for o in p.curve.counted if not isinstance(p, Arm) or o.run.batch_size in p.sizes]
        used = list(dict.fromkeys(Placed(p.workload, p.curve) for p in used))
        given = [self.margins, *(margins for p in used for margins in self.given(p.curve))]
        frozen = all(margins == self.claim.margins for margins in given)
        names = dict.fromkeys(f"{p.workload.name}, {p.workload.hit.label} ({p.curve.name})" for p in used)
        sizes = [point.batch_size for p in used for point in p.curve.points]
        scale = f"{'; '.join(names)}; batch {min(sizes):,} to {max(sizes):,}"
        more = {"runs": list(dict.fromkeys(here))} | more
        return Evidence(parts, scale, frozen=frozen, curves=told_apart(used), **more)

    def cell(self, point: Point) -> Seeds:
        """Return log steps by seed at one batch size, infinite where a run did not arrive."""
        found = {o.seed: o.value("steps", self.rule) for o in point.counted}
        return {seed: math.log(v) if v > 0 else math.nan for seed, v in found.items()}

    def cells(self, curve: Curve) -> Cells:
        """Return the cells that count by batch size."""
        return {p.batch_size: cell for p in curve.points if sure(cell := self.cell(p))}

    def whole(self, placed: Iterable[Placed], tuned: bool = True) -> list[Whole]:
        """Return those curves, tuned or not, of 5 sizes or more with enough seeds and rates inside their grids."""
        whole = []
        for p in placed:
            found = fit_curve(p.curve, self.rule) if p.curve.tuned == tuned else None
            if found is None or found.fit is None or len(found.data.sizes) < LEAST_SIZES:
                continue
            used = [point for point in p.curve.points if point.batch_size not in found.data.left_out]
            if all(sure(self.cell(point)) and not point.untuned for point in used):
                whole.append(Whole(p.workload, p.curve, found, found.fit))
        return whole

    def whole_images(self) -> list[Whole]:
        """Return the curves of image classification that can be fitted, on clean labels, most sizes first."""
        clean = [p for p in self.placed() if p.workload.task == CLASSIFICATION and not p.workload.data.label_noise]
        return sorted(self.whole(clean), key=lambda whole: -len(whole.curve.points))

    def both_targets(self) -> dict[str, Whole]:
        """Return, by metric, the whole curves of a study with both training and validation targets, if there is one."""
        for members in group(self.whole_images(), lambda whole: curves.experiment(whole.curve.record)).values():
            found = {whole.workload.hit.metric: whole for whole in members}
            if all(any(metric.startswith(kind) for metric in found) for kind in (TRAIN, VALIDATION)):
                return found
        return {}

    def arms(self, keep: Callable[[Placed], bool], tasks: Sequence[str] = (CLASSIFICATION,)) -> list[Arm]:
        """Return the claim's tuned arms at the smallest and the largest size that all have, at least 8 x apart."""
        of_tasks = [p for p in self.placed() if p.curve.tuned and p.workload.task in tasks and keep(p)]
        seen = [p for p in of_tasks if p.workload.hit.metric.startswith(VALIDATION)]
        found = [(p, cells) for p in seen if len(cells := self.cells(p.curve)) >= 2]
        common = set.intersection(*(set(cells) for _, cells in found)) if found else set()
        small, large = min(common, default=0), max(common, default=0)
        if not common or large < 8 * small:
            return []
        return [Arm(p.workload, p.curve, (cells[small], cells[large]), (small, large)) for p, cells in found]

    def momentum_arms(self) -> list[Arm]:
        """Return the tuned arms of momentum SGD on images."""
        return self.arms(lambda p: p.curve.record.optimizer.name == "SGD")

    def of_arms(self, parts: list[Part], arms: Sequence[Arm], rest: Sequence[Part] = ()) -> Evidence:
        """Return the evidence of arms, with the check that every rate used lies inside the rates tried."""
        points = [p for arm in arms for p in arm.curve.points if p.n >= LEAST_SEEDS]
        checks = [Check("every rate lies between worse ones", not any(p.untuned for p in points))]
        return self.evidence(parts, arms, checks=checks, rest=list(rest))

    def rule_cells(self, placed: Iterable[Placed]) -> dict[int, tuple[dict[str, Cells], list[Placed]]]:
        """Return, by base batch size, the cells of the rules none, linear and sqrt, and where they come from."""
        found: dict[int, tuple[dict[str, Cells], list[Placed]]] = {}
        for p in placed:
            rate = p.curve.record.rate
            if not p.curve.tuned and rate.base_batch_size and rate.scaling_rule in ("none", "linear", "sqrt"):
                cells, used = found.setdefault(rate.base_batch_size, ({}, []))
                cells.setdefault(rate.scaling_rule, {}).update(self.cells(p.curve))
                used.append(p)
        return found

    def at_equal_updates(self, value: Measure) -> Iterator[tuple[Placed, list[Observation], list[Observation]]]:
        """Return the tuned studies whose runs at both ends made as many updates and know a value, with those runs."""
        for p in self.placed():
            first, last = ends(p.curve)
            runs, enough = first + last, min(len(first), len(last)) >= LEAST_SEEDS
            known = all(v is not None and math.isfinite(v) for v in map(value, runs))
            steps = {round(at) for o in runs if not math.isnan(at := o.run.stopped_at("steps"))}
            ended = all(o.run.record.stopped_by in ("budget", "end") for o in runs)
            if p.curve.tuned and enough and known and ended and len(steps) == 1:
                yield p, first, last


def ends(curve: Curve) -> tuple[list[Observation], list[Observation]]:
    """Return the runs at the smallest and at the largest batch size."""
    points = [p for p in curve.points if p.n]
    return (points[0].counted, points[-1].counted) if len(points) > 1 else ([], [])


def sure(cell: Seeds) -> bool:
    """Return whether a cell counts: enough seeds, and 20 steps or more on average in the runs that arrived."""
    arrived = [v for v in cell.values() if math.isfinite(v)]
    return len(cell) >= LEAST_SEEDS and (not arrived or float(np.mean(arrived)) >= math.log(LEAST_STEPS))


def told_apart(used: Sequence[Placed]) -> list[tuple[str, Curve]]:
    """Return each curve with a name, of what is not the same for all of them."""
    rows = [(p.workload.study, p.workload.network, p.workload.hit.label, p.curve.name) for p in used]
    telling = [i for i in range(4) if len({row[i] for row in rows}) > 1] or [3]
    return [(", ".join(row[i] for i in telling), p.curve) for row, p in zip(rows, used, strict=True)]


def by_seed(observations: Iterable[Observation], value: Measure) -> dict[int, float]:
    """Return a number by seed, in the order of seeds, without those for which it is not known."""
    found = {o.seed: value(o) for o in sorted(observations, key=lambda o: o.seed)}
    return {seed: v for seed, v in found.items() if v is not None and math.isfinite(v)}


def beside_base(arms: list[Arm]) -> tuple[Arm | None, list[Arm]]:
    """Return the arm with all data and clean labels on the network that most arms have, and all arms on it."""
    same = max(group(arms, lambda a: (a.workload.network, a.workload.parameters)).values(), key=len, default=[])
    return next((a for a in same if a.plain), None), same


def networks(arms: list[Arm]) -> dict[str, Arm]:
    """Return one plain arm a network, by name."""
    return {f"{a.workload.network} ({a.workload.parameters})": a for a in reversed(arms) if a.plain}


def first_at(goal: float, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return the x at which y first comes to a goal, on straight lines: x[0] if at once, NaN if never."""
    there = np.flatnonzero(np.asarray(y) >= goal)
    if not len(there):
        return math.nan
    around = slice(max(int(there[0]) - 1, 0), int(there[0]) + 1)
    return float(np.interp(goal, y[around], x[around]))


def redrawn(statistic: Callable[[list[list[T]]], float], values: list[list[T]]) -> Interval:
    """Return a statistic of the runs at each size with the percentiles of redrawing them; a tenth may be unknown."""
    value, rng = statistic(values), np.random.default_rng(0)
    drawn = [statistic([[at[i] for i in rng.integers(len(at), size=len(at))] for at in values]) for _ in range(DRAWS)]
    known = [d for d in drawn if math.isfinite(d)]
    return NOTHING if math.isnan(value) or len(known) < 0.9 * DRAWS else resampled_interval(value, known)


def diffusion(case: Case, wins: str) -> Found:
    """Count the runs in which one form of growth beats the other; a run that cannot tell counts for neither."""
    for p in case.placed():
        seen = [o for o in p.curve.counted if DISTANCE in o.run.curve and curves.constant_rate(o.run.record)]
        sizes = [same for same in group(seen, lambda o: o.run.batch_size).values() if len(same) >= LEAST_SEEDS]
        if len(sizes) < 3:
            continue
        runs = [o for same in sizes for o in same]
        known = [g for o in runs if isinstance(g := growth_of(o, case.margins["from_step"]), Growth)]
        log = sum(g.low > case.margins["delta_aic"] for g in known)
        power = sum(g.high < -case.margins["delta_aic"] for g in known)
        won, all_but_lost = (log, len(runs) - power) if wins == "log" else (power, len(runs) - log)
        surely, perhaps = proportion(won, len(runs)), proportion(all_but_lost, len(runs))
        what = f"share of runs in which the {wins} form wins ({won} of {len(runs)}; {all_but_lost - won} undecided)"
        part = Part(what, replace(surely, high=perhaps.high), above=case.margins["share"])
        return case.evidence([part], [p], counts_steps=False)
    return Missing(f"no study with {DISTANCE} at constant rate, 3 batch sizes and 5 seeds")
