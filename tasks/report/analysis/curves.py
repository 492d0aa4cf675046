"""From runs to curves: which runs belong together, and what was seen at each batch size."""

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from callbacks.record import Data
from tasks.report.analysis.intervals import Interval, log_median, middle_interval
from tasks.report.analysis.settings import WORDS, arm, fixed_settings, plan_says_untuned, setting
from tasks.report.sources.runs import Hit, Run

COUNTED = ("reached", "budget", "diverged")  # the ends that are results; failed and running are not


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

    def value(self, unit: str, rule: str = "hit") -> float:
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

    def count(self, status: str) -> int:
        """Count the runs that ended so."""
        return sum(o.status == status for o in self.observations)

    @property
    def counted(self) -> list[Observation]:
        """Return the runs with a result: reached, budget spent, diverged."""
        return [o for o in self.observations if o.status in COUNTED]

    @property
    def n(self) -> int:
        """Count the runs with a result."""
        return len(self.counted)

    def values(self, unit: str, rule: str = "hit") -> list[float]:
        """Return each counted run's cost in this unit, infinite where the target was not reached."""
        return [o.value(unit, rule) for o in self.counted]

    def interval(self, unit: str) -> Interval:
        """Return the mean of the logs over seeds with its 95 % interval, or the median where some did not arrive."""
        return self.intervals[unit]

    def __post_init__(self) -> None:
        resolution = max((o.hit.resolution for o in self.counted), default=1.0)
        found = {unit: middle_interval(self.values(unit), resolution) for unit in ("steps", "examples", "seconds")}
        object.__setattr__(self, "intervals", found)


@dataclass(frozen=True, eq=False)
class Curve:
    """Steps to one target against batch size, all else the same: one line of a figure."""

    name: str
    facts: dict
    tuned: bool  # settings chosen at each batch size; else one rule carries the rate from size to size
    points: list[Point]


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
    def target(self) -> str:
        """Name the target."""
        return self.hit.label

    @property
    def name(self) -> str:
        """Name the workload in one line."""
        parts = [self.data.name]
        if self.data.fraction != 1.0:
            parts.append(f"{100 * self.data.fraction:g} % of the data")
        if self.data.label_noise:
            parts.append(f"{100 * self.data.label_noise:g} % label noise")
        return f"{self.study}: {self.task}, {', '.join(parts)}, {self.network}"


def is_tuned(observations: list[Observation]) -> bool:
    """Tell a curve tuned at each size from fixed ones: no rule carries the rate, and several were tried."""
    records = [o.run.record for o in observations]
    return records[0].rate.scaling_rule == "none" and len({setting(record)[:-1] for record in records}) > 1


def group(items, key) -> dict:
    """Collect items by key, in the order of first appearance."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def without_repeats(observations: list[Observation]) -> list[Observation]:
    """Keep one run per seed and setting: a finished before a running before a failed one, then the last."""

    def preference(o: Observation):
        return (o.status in COUNTED, o.status == "running", o.run.record.started or "")

    same = group(observations, lambda o: (o.seed, setting(o.run.record), o.run.record.stage))
    return [max(repeats, key=preference) for repeats in same.values()]


def distance_to_target(o: Observation) -> float:
    """Return how far a run's end is from its target, 0 if it was reached; infinite if it diverged or is not known."""
    end = o.run.final.get(o.hit.metric, math.nan)
    if o.status == "reached":
        return 0.0
    if o.status != "budget" or o.hit.value is None or math.isnan(end):
        return math.inf
    return (o.hit.value - end) * (1 if o.hit.direction == "max" else -1)


def choose(observations: list[Observation]) -> tuple:
    """Choose the setting with the fewest median steps, misses as infinite; of misses, that which ends nearest."""

    def score(item):
        values = [o.value("steps") for o in item[1] if o.status in (*COUNTED, "outrun")]  # outrun: beaten
        finite = [math.log(v) for v in values if math.isfinite(v) and v > 0]
        mean = sum(finite) / len(finite) if finite else math.inf
        median = log_median(np.array(values)) if values else math.inf
        return (median, statistics.median(map(distance_to_target, item[1])), -len(finite), mean, item[0][0])

    return min(group(observations, lambda o: setting(o.run.record)).items(), key=score)[0]


def tuned_point(batch_size: int, observations: list[Observation]) -> Point:
    """Choose on the tuning runs, estimate on the confirming ones where the plan has them."""
    stages = group(observations, lambda o: o.run.record.stage)
    confirm = stages.pop("confirm", [])
    trials = [o for stage in stages.values() for o in stage] or confirm
    confirmed = {setting(o.run.record) for o in confirm}
    chosen = choose([o for o in trials if setting(o.run.record) in confirmed] or confirm or trials)
    rates = sorted({o.run.record.rate.effective for o in trials})
    kept = [o for o in confirm or trials if setting(o.run.record) == chosen]
    at_edge = len(rates) > 1 and chosen[0] in (rates[0], rates[-1])
    told = plan_says_untuned([o.run.record for o in kept])
    return Point(batch_size, kept, trials, observations, untuned=at_edge if told is None else told)


def curve_points(observations: list[Observation], tuned: bool) -> list[Point]:
    """Make one point per batch size."""
    by_size = group(observations, lambda o: o.run.batch_size)
    make = tuned_point if tuned else Point
    return [make(size, without_repeats(by_size[size])) for size in sorted(by_size)]


def split_arms(observations: list[Observation]) -> list[tuple[dict, bool, list[Observation]]]:
    """Divide a workload's runs into curves: (what is the same along it, tuned or not, runs)."""
    arms = []
    for facts, members in group(observations, lambda o: arm(o.run.record)).items():
        if is_tuned(members):
            arms.append((dict(facts), True, members))
            continue
        for more, same in group(members, lambda o: fixed_settings(o.run.record)).items():
            arms.append((dict(facts + more), False, same))
    return arms


def curve_names(arms: list[tuple[dict, bool, list[Observation]]]) -> list[str]:
    """Name each curve by optimizer and rule, and by whatever else differs between them."""
    base = ("optimizer.name", "rate.scaling_rule")
    every = dict.fromkeys(name for facts, _, _ in arms for name in facts)
    differing = [n for n in every if len({str(facts.get(n)) for facts, _, _ in arms}) > 1 and n not in base]
    names = []
    for facts, tuned, _ in arms:
        rule = facts["rate.scaling_rule"]
        words = [facts["optimizer.name"], "tuned at each size" if tuned else f"{rule} scaling"]
        if rule == "none" and not tuned:
            words[1] = "same rate"
        words += [f"{WORDS.get(n, n.split('.')[-1])} {facts[n]}" for n in differing if facts.get(n) is not None]
        names.append(", ".join(words))
    return names


def workload_key(observation: Observation) -> tuple:
    """Return what all runs of one figure share."""
    record, hit = observation.run.record, observation.hit
    data = record.data
    return (
        *(record.study, record.task, record.network, record.parameters),
        *(data.name, data.hash, data.fraction, data.label_noise),
        *(hit.metric, hit.direction, hit.value, str(hit.plateau)),
    )


def workloads(runs: list[Run]) -> list[Workload]:
    """Group runs into workloads and curves; pilots are left out, since they only set budgets."""
    seen = [Observation(r, h) for r in runs if r.record.stage != "pilot" for h in r.hits]
    found = []
    for members in group(seen, workload_key).values():
        arms = split_arms(members)
        curves = [
            Curve(name, facts, tuned, curve_points(same, tuned))
            for name, (facts, tuned, same) in zip(curve_names(arms), arms, strict=True)
        ]
        record = members[0].run.record
        found.append(
            Workload(
                *(record.study, record.task, record.data, record.network),
                *(record.parameters, members[0].hit, curves),
            )
        )
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


def confirmed(runs: list[Observation]) -> list[Observation]:
    """Return the runs that count: of the best setting, on fresh seeds where a plan gave them."""
    fresh = [o for o in runs if o.run.record.stage == "confirm"] or runs
    best = choose([o for o in runs if setting(o.run.record) in {setting(f.run.record) for f in fresh}])
    return [o for o in fresh if setting(o.run.record) == best]


def main_curve(w: Workload) -> Curve:
    """Return the curve that stands for a workload: the tuned one, else the one with the same rate, else any."""

    def order(c: Curve) -> tuple:
        return (not c.tuned, c.facts["rate.scaling_rule"] != "none", -sum(p.n for p in c.points))

    return min(w.curves, key=order)


def same_but_target(workload: Workload) -> tuple:
    """Return what two targets of the same runs share."""
    data = workload.data
    return (workload.study, workload.task, workload.network, workload.parameters, data.hash, data.fraction)
