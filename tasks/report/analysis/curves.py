"""From runs to curves: what a record is grouped by, which runs belong together, what was seen at each batch size."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from callbacks.record import Data, Record, Rule, Unit
from tasks.report.analysis.intervals import Interval, log_median, middle_interval
from tasks.report.sources.runs import Hit, Run, outside

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Setting = tuple[float, str, tuple[tuple[str, str], ...], int | None]
Facts = dict[str, Any]
UNITS: tuple[Unit, ...] = ("steps", "examples", "seconds")
TRAIN, VALIDATION = "trainset/", "val/"  # what metrics of these splits begin with
COUNTED = ("reached", "budget", "diverged")  # the ends that are results; failed and running are not
COUNTS = {"reached": "reached", "censored": "budget", "diverged": "diverged", "failed": "failed", "running": "running"}
WORDS = {"rate.base_batch_size": "m0 =", "rate.base": "base rate", "rate.warmup": "warm-up"}
WORDS |= {"batch.ghost": "ghost batch", "begun_from": "begun from the checkpoint"}
ARRIVAL = 0.8  # of the runs of a cell, below which its middle is neither fitted nor compared
MOMENTA = ("momentum", "betas", "beta", "alpha")  # vary with the batch size where they are scaled with it
ARM = (
    *("optimizer.name", "rate.scaling_rule", "rate.base_batch_size", "rate.schedule"),
    *("rate.momentum_scaling", "rate.beta2_scaling", "batch.ghost", "batch.epoch_end", "batch.sampling", "precision"),
    *("regularization.label_smoothing", "regularization.decay_norm_bias"),
)


def optimizer_settings(record: Record) -> Facts:
    """Return the optimizer's scalar settings, without what is scaled with the batch."""
    scaled = MOMENTA if {record.rate.momentum_scaling, record.rate.beta2_scaling} != {"none"} else ()
    settings = {k: v for k, v in record.optimizer.settings.items() if k not in scaled}
    return {k: str(v) if isinstance(v, list | tuple | dict) else v for k, v in settings.items()}


def constant_rate(record: Record) -> bool:
    """Return whether the rate is held after warm-up."""
    return record.rate.schedule.lower().startswith("constant")


def horizon(record: Record) -> int | None:
    """Return the steps over which a decaying rate was planned, None where the rate is held."""
    return None if constant_rate(record) else record.rate.horizon_steps or record.budget.max_steps


def setting(record: Record) -> Setting:
    """Return what a tuned curve may choose at each batch size: rate, warm-up, optimizer, length of a decay."""
    own = tuple(sorted((k, str(v)) for k, v in optimizer_settings(record).items()))
    return (record.rate.effective, record.rate.warmup, own, horizon(record))


def arm(record: Record) -> Facts:
    """Return what is the same all along a curve, whether tuned or not."""
    recipe = None if record.recipe is None else ", ".join(record.recipe) or "baseline"
    facts = dict(zip(ARM, attrgetter(*ARM)(record), strict=True))
    return facts | outside(record) | {"recipe": recipe}


def fixed_settings(record: Record) -> Facts:
    """Return what else is the same along a curve that is not tuned."""
    own = {f"optimizer.{k}": v for k, v in sorted(optimizer_settings(record).items())}
    return {"rate.base": record.rate.base, "rate.warmup": record.rate.warmup} | own


def experiment(record: Record) -> tuple[object, ...]:
    """Return what runs share whose targets may be the same: study, network and data."""
    data = record.data
    trained = (record.study, record.task, record.network, record.parameters)
    return (*trained, data.name, data.hash, data.fraction, data.label_noise)


def ingredients(record: Record) -> frozenset[str]:
    """Return what a run adds to plain SGD at one rate: as its `recipe` says, else as its other fields do."""
    if record.recipe is not None:
        return frozenset(record.recipe)
    rate, name = record.rate, record.optimizer.name
    found = {
        name: name != "SGD",
        f"{rate.scaling_rule} scaling": rate.scaling_rule != "none",
        "warm-up": rate.warmup_steps > 0,
        "decaying rate": not constant_rate(record),
        "label smoothing": bool(record.regularization.label_smoothing),
        "ghost batch": record.batch.ghost not in (None, "global"),
        "no decay of norms and biases": not record.regularization.decay_norm_bias,
    }
    return frozenset(word for word, there in found.items() if there)


@dataclass(frozen=True, eq=False)
class Observation:
    """One run's answer to one target."""

    run: Run
    hit: Hit

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return self.run.record.seed

    @property
    def status(self) -> str:
        """Return how the target ended in this run."""
        return self.hit.status

    def value(self, unit: Unit, rule: Rule = "hit") -> float:
        """Return the cost of reaching the target; infinite for a budget spent and for divergence."""
        return self.hit.at(unit, rule)


@dataclass(frozen=True, eq=False)
class Point:
    """All that was seen at one batch size of one curve."""

    batch_size: int
    observations: list[Observation]
    trials: list[Observation] = field(default_factory=list)  # what the choice of settings was made from
    every: list[Observation] = field(default_factory=list)  # all runs at this size, of whatever setting and stage
    untuned: bool = False  # the best learning rate lies at an edge of those tried
    intervals: dict[Unit, Interval] = field(default_factory=dict, init=False)  # of the cost in each unit

    def __post_init__(self) -> None:
        counted = self.counted
        resolution = max((o.hit.resolution for o in counted), default=1.0)
        for unit in UNITS:
            self.intervals[unit] = middle_interval([o.value(unit) for o in counted], resolution)

    @property
    def counted(self) -> list[Observation]:
        """Return the runs with a result: reached, budget spent, diverged."""
        return [o for o in self.observations if o.status in COUNTED]

    @property
    def n(self) -> int:
        """Count the runs with a result."""
        return len(self.counted)

    def count(self, status: str) -> int:
        """Count the runs that ended so."""
        return sum(o.status == status for o in self.observations)

    def interval(self, unit: Unit) -> Interval:
        """Return the cost in this unit with its 95 % interval."""
        return self.intervals[unit]


@dataclass(frozen=True, eq=False)
class Curve:
    """Steps to one target against batch size, all else the same: one line of a figure."""

    name: str
    tuned: bool  # settings chosen at each batch size; else one rule carries the rate from size to size
    points: list[Point]

    @property
    def record(self) -> Record:
        """Return the record of one of its runs, for what is the same along the curve."""
        return self.points[0].observations[0].run.record

    @property
    def runs(self) -> list[Observation]:
        """Return the runs that its points stand on."""
        return [o for p in self.points for o in p.observations]

    @property
    def counted(self) -> list[Observation]:
        """Return those of them with a result."""
        return [o for o in self.runs if o.status in COUNTED]


@dataclass(frozen=True, eq=False)
class Workload:
    """One target on one data set and network in one study: what one figure shows."""

    study: str
    task: str
    data: Data
    network: str
    parameters: int | None
    hit: Hit
    curves: list[Curve]

    @property
    def name(self) -> str:
        """Name the workload in one line."""
        data, parts = self.data, [self.data.name]
        parts += [f"{100 * data.fraction:g} % of the data"] if data.fraction != 1.0 else []
        parts += [f"{100 * data.label_noise:g} % label noise"] if data.label_noise else []
        return f"{self.study}: {self.task}, {', '.join(parts)}, {self.network}"


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Collect items by key, in the order of first appearance."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def without_repeats(observations: list[Observation]) -> list[Observation]:
    """Keep one run per size, seed and setting: a finished before a running before a failed one, then the last."""

    def preference(o: Observation) -> tuple[bool, bool, str]:
        return (o.status in COUNTED, o.status == "running", o.run.record.started or "")

    same = group(observations, lambda o: (o.run.batch_size, o.seed, setting(o.run.record), o.run.record.stage))
    return [max(repeats, key=preference) for repeats in same.values()]


def distance_to_target(o: Observation) -> float:
    """Return how far a run's end is from its target, 0 if it was reached; infinite if it diverged or is not known."""
    gap = o.hit.gap(o.run.record.final.get(o.hit.metric, math.nan))
    return {"reached": 0.0, "budget": math.inf if math.isnan(gap) else gap}.get(o.status, math.inf)


def choose(observations: list[Observation]) -> Setting:
    """Choose the setting with the fewest median steps, misses as infinite; of misses, that which ends nearest."""

    def score(item: tuple[Setting, list[Observation]]) -> tuple[float, ...]:
        values = [o.value("steps") for o in item[1] if o.status in (*COUNTED, "outrun")]  # outrun: beaten
        finite = [math.log(v) for v in values if math.isfinite(v) and v > 0]
        mean = sum(finite) / len(finite) if finite else math.inf
        median = log_median(np.array(values)) if values else math.inf
        return (median, statistics.median(map(distance_to_target, item[1])), -len(finite), mean, item[0][0])

    return min(group(observations, lambda o: setting(o.run.record)).items(), key=score)[0]


def tuned_point(batch_size: int, observations: list[Observation]) -> Point:
    """Choose on the tuning runs, estimate on the confirming ones where the plan has them."""
    confirm = [o for o in observations if o.run.record.stage == "confirm"]
    trials = [o for o in observations if o.run.record.stage != "confirm"] or confirm
    fresh = {setting(o.run.record) for o in confirm}
    chosen = choose([o for o in trials if setting(o.run.record) in fresh] or confirm or trials)
    kept = [o for o in confirm or trials if setting(o.run.record) == chosen]
    told = [plan.tuned if (plan := o.run.record.plan) else None for o in kept]
    rates = sorted({o.run.record.rate.effective for o in trials})
    at_edge = len(rates) > 1 and chosen[0] in (rates[0], rates[-1])
    untuned = at_edge if None in told else not all(told)  # the plan's word on its search, where it has one
    return Point(batch_size, kept, trials, observations, untuned)


def confirmed(runs: list[Observation]) -> list[Observation]:
    """Return the runs that count of those at one batch size: of the best setting, on fresh seeds where there are."""
    return tuned_point(runs[0].run.batch_size, runs).observations


Arm = tuple[Facts, bool, list[Observation]]  # what is the same along a curve, tuned or not, its runs


def split_arms(observations: list[Observation]) -> list[Arm]:
    """Divide a workload's runs into curves: tuned ones, whose rate no rule carries and was tried, and fixed ones."""
    arms: list[Arm] = []
    for key, members in group(observations, lambda o: tuple(arm(o.run.record).items())).items():
        facts = dict(key)
        tried = {setting(o.run.record)[:-1] for o in members}
        if facts["rate.scaling_rule"] == "none" and len(tried) > 1:
            arms.append((facts, True, members))
            continue
        for more, same in group(members, lambda o: tuple(fixed_settings(o.run.record).items())).items():
            arms.append((facts | dict(more), False, same))
    return arms


def curve_names(arms: list[Arm]) -> list[str]:
    """Name each curve by optimizer and rule, and by whatever else differs between them."""
    base = ("optimizer.name", "rate.scaling_rule")
    every = dict.fromkeys(name for facts, _, _ in arms for name in facts)
    differing = [n for n in every if len({str(facts.get(n)) for facts, _, _ in arms}) > 1 and n not in base]
    names = []
    for facts, tuned, _ in arms:
        rule = facts["rate.scaling_rule"]
        how = "tuned at each size" if tuned else "same rate" if rule == "none" else f"{rule} scaling"
        more = [f"{WORDS.get(n, n.split('.')[-1])} {facts[n]}" for n in differing if facts.get(n) is not None]
        names.append(", ".join([facts["optimizer.name"], how, *more]))
    return names


def workloads(runs: list[Run]) -> list[Workload]:
    """Group runs into workloads and curves; pilots are left out, since they only set budgets."""
    found, seen = [], [Observation(r, h) for r in runs if r.record.stage != "pilot" for h in r.hits]
    targets = attrgetter("metric", "direction", "value", "plateau")
    for members in group(seen, lambda o: (experiment(o.run.record), targets(o.hit))).values():
        arms, r = split_arms(members), members[0].run.record
        curves = []
        for name, (_, tuned, same) in zip(curve_names(arms), arms, strict=True):
            by_size = sorted(group(without_repeats(same), lambda o: o.run.batch_size).items())
            make = tuned_point if tuned else Point
            curves.append(Curve(name, tuned, [make(size, there) for size, there in by_size]))
        found.append(Workload(r.study, r.task, r.data, r.network, r.parameters, members[0].hit, curves))
    return found


def every_run(workload: Workload) -> list[Observation]:
    """Return all runs of a workload that have a result, trials included."""
    points = [p for c in workload.curves for p in c.points]
    runs = dict.fromkeys(o for p in points for o in (p.every or p.observations))
    return [o for o in runs if o.status in COUNTED]


def at_largest(workload: Workload) -> list[Observation]:
    """Return the runs with a result at the largest batch size."""
    runs = every_run(workload)
    size = max((o.run.batch_size for o in runs), default=0)
    return [o for o in runs if o.run.batch_size == size]


def main_curve(w: Workload) -> Curve:
    """Return the curve that stands for a workload: the tuned one, else the one with the same rate, else any."""
    return min(w.curves, key=lambda c: (not c.tuned, c.record.rate.scaling_rule != "none", -len(c.counted)))
