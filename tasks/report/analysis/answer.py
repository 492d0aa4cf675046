"""The one analysis that claims, figures and pages read, and the answer it gives in a sentence."""

import math
import re
from dataclasses import dataclass, field

from callbacks.record import Unit
from tasks.report.analysis.critical import LEAST_SEEDS, Critical, critical
from tasks.report.analysis.curves import Curve, Observation, Point, Workload, main_curve, workloads
from tasks.report.analysis.intervals import NOTHING, Interval, number
from tasks.report.analysis.measures import DISTANCE, Growth, growth_of
from tasks.report.analysis.projection import Cluster
from tasks.report.sources.runs import LeftOut, Run

SPOKEN_AN = "AEFHILMNORSX"  # letters whose names begin with a vowel
SPLITS = {"val": "validation", "trainset": "training", "test": "test"}


@dataclass(frozen=True)
class Analysis:
    """All that is worked out from the runs, once."""

    runs: list[Run]
    workloads: list[Workload]
    found: dict[Curve, Critical | None]
    growth: dict[Observation, Growth | None]  # None where a run cannot tell its form
    left_out: LeftOut = field(default_factory=list)
    cluster: Cluster = field(default_factory=Cluster)  # the machine that time and cost are projected on

    def pairs(self, workload: Workload) -> list[tuple[Curve, Critical | None]]:
        """Return a workload's curves with what they say."""
        return [(curve, self.found[curve]) for curve in workload.curves]

    def main(self, workload: Workload) -> tuple[Curve, Critical | None]:
        """Return the curve that stands for a workload, with what it says."""
        curve = main_curve(workload)
        return curve, self.found[curve]


def analyze(runs: list[Run], left_out: LeftOut | None = None, cluster: Cluster | None = None) -> Analysis:
    """Work out everything from the runs. Raises ValueError where none has a target."""
    found = workloads(runs)
    if not found:
        raise ValueError("no run has a target to measure steps to; choose one with --target METRIC>=VALUE.")
    growth = {o: growth_of(o) for w in found for o in main_curve(w).counted if DISTANCE in o.run.curve}
    critical_sizes = {c: critical(c) for w in found for c in w.curves}
    return Analysis(runs, found, critical_sizes, growth, left_out or [], cluster or Cluster())


@dataclass(frozen=True)
class Answer:
    """What one workload's runs say to the one who has to choose a batch size."""

    workload: Workload
    curve: Curve
    found: Critical | None
    sentence: str
    because: list[str]  # why the confidence is limited; empty where it is high
    measured: str  # the fastest and the cheapest batch on the device measured

    @property
    def confident(self) -> bool:
        """Return whether nothing limits the confidence."""
        return not self.because

    @property
    def answered(self) -> bool:
        """Return whether enough batch sizes arrived to say how far the batch can be raised."""
        return self.found is not None and self.found.fit is not None

    @property
    def confidence(self) -> str:
        """Return the confidence as a sentence."""
        return f"Confidence: limited, because {'; '.join(self.because)}." if self.because else "Confidence: high."

    @property
    def text(self) -> str:
        """Return the whole answer."""
        return " ".join(part for part in (self.sentence, self.confidence, self.measured) if part)


def answers(analysis: Analysis) -> list[Answer]:
    """Return one answer a workload, those first that say how far the batch can be raised."""
    given = [answer(w, *analysis.main(w)) for w in analysis.workloads]
    return sorted(given, key=lambda a: (not a.confident, not a.answered))


def answer(w: Workload, curve: Curve, found: Critical | None) -> Answer:
    """Return how far the batch of a workload can be raised, how sure that is, and what is fastest and cheapest."""
    sentence = f"{subject(w)}: {limit(found)}. {rate_there(curve, found)}".strip()
    return Answer(w, curve, found, sentence, doubts(curve, found), fastest_and_cheapest(curve))


def subject(w: Workload) -> str:
    """Return what was trained, on what, and to which target."""
    network = spaced(w.network)
    first = network.split()[0]
    if first[1:].islower():
        network = network[0].lower() + network[1:]
    vowel = network[0] in (SPOKEN_AN if first.isupper() else "aeiouAEIOU")
    article = "" if network.startswith(("your ", "MLPerf's ")) else "An " if vowel else "A "
    network += f" ({w.parameters:,} parameters)" if w.parameters else ""
    data, n = spaced(w.data.name), w.data.train_examples
    examples = f"{n:,} {data} examples" if n else data
    noise = f" ({100 * w.data.label_noise:g} % of the labels wrong)" if w.data.label_noise else ""
    text = f"{article}{network} on {examples}{noise} to {goal(w)}"
    return text[0].upper() + text[1:]


def spaced(name: str) -> str:
    """Return a name in camel case as words; LeNet and its kin are one."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])(?!Net)", " ", name)


def goal(w: Workload) -> str:
    """Return the target in words."""
    split, _, metric = w.hit.metric.partition("/")
    if w.hit.value is None or split not in SPLITS:
        return w.hit.label
    metric = metric.replace("miou", "mean IoU")
    if metric in ("accuracy", "mean IoU"):
        return f"{100 * w.hit.value:.3g} % {SPLITS[split]} {metric}"
    return f"a {SPLITS[split]} {metric} of {w.hit.value:.4g}"


def between(found: Interval, smallest: float) -> str:
    """Return a batch size with its interval: 115 (85 to 160)."""
    low = f"{found.low:,.0f}" if found.low > smallest else ""
    high = f"{found.high:,.0f}" if math.isfinite(found.high) else ""
    one_sided = f"{low} or more" if low else f"{high} or less" if high else "these runs do not bound it"
    return f"{found.value:,.0f} ({f'{low} to {high}' if low and high else one_sided})"


def limit(found: Critical | None) -> str:
    """Return how far the batch can be raised, and from where on it costs too much."""
    if found is None or found.fit is None:
        return "too few batch sizes arrived to say how far the batch can be raised (4 are needed, better 7)"
    first, last = (f"{size:,.0f}" for size in found.data.sizes[[0, -1]])
    useful, double, smallest = found.useful_end, found.b2, found.data.sizes[0]
    if math.isinf(useful.value):
        raised = f"raise the batch up to {last}, the largest studied: each doubling still saves a fifth of the steps"
    elif useful.value < smallest:
        raised = f"stay at batch {first} or below: from there on, doubling saves less than a fifth of the steps"
    else:
        raised = f"raise the batch up to about {between(useful, smallest)}"
        raised += ", each doubling saves at least a fifth of the steps"
    if math.isinf(double.value):
        return f"{raised}; no batch up to {last} costs twice the examples"
    return f"{raised}; beyond {between(double, smallest)} a run costs more than twice the examples"


def rate_of(point: Point) -> float:
    """Return the learning rate of a point's runs, NaN where it is not known."""
    return point.observations[0].run.record.rate.effective


def rate_there(curve: Curve, found: Critical | None) -> str:
    """Return the rate at the studied batch nearest to the end of useful doubling; empty where it is not known."""
    if found is None or found.fit is None:
        return ""
    sizes = found.data.sizes
    at = math.log(min(max(found.useful_end.value, sizes[0]), sizes[-1]))
    points = [p for p in curve.points if p.n and p.batch_size not in found.data.left_out]
    point = min(points, key=lambda p: abs(math.log(p.batch_size) - at))
    if math.isnan(rate_of(point)):
        return ""
    edge = ", at an edge of the rates tried" if curve.tuned and point.untuned else ""
    kind = "Best rate" if curve.tuned else "Rate"
    return f"{kind} there: {rate_of(point):.3g}{edge} (studied at batch {point.batch_size:,})."


def doubts(curve: Curve, found: Critical | None) -> list[str]:
    """Return what limits the confidence in the answer, the gravest first."""
    reasons = []
    if any(o.run.record.plan and o.run.record.plan.smoke for o in curve.runs):
        reasons.append("it is a demo or a smoke study")
    seeds = min((len({o.seed for o in p.counted}) for p in curve.points if p.n), default=0)
    if seeds < LEAST_SEEDS:
        reasons.append(f"only {seeds} seed{'s' * (seeds != 1)} at some batch size, {LEAST_SEEDS} are needed")
    return reasons + (found.why_not if found else ["fewer than two batch sizes arrived"])


def fastest_and_cheapest(curve: Curve) -> str:
    """Return the batch that took the least time on the device measured, and the one that needed the fewest examples."""

    def least(unit: Unit) -> tuple[float, int] | None:
        costs = [(p.interval(unit).value, p.batch_size) for p in curve.points if p.n]
        return min((cost for cost in costs if math.isfinite(cost[0])), default=None)

    time, examples, parts = least("seconds"), least("examples"), []
    if time:
        parts.append(f"Fastest on the device measured: batch {time[1]:,}, {number(time[0])} s to the target.")
    if examples and not any(o.hit.nominal for o in curve.runs):
        parts.append(f"Cheapest: batch {examples[1]:,}, {number(round(examples[0]))} examples.")
    return " ".join(parts)


def money(point: Point) -> Interval:
    """Return what the training seconds to the target cost at the recorded price of a device-hour, if it is one."""
    records = [o.run.record for o in point.counted]
    rates = {(r.cost.device_hour, r.world_size) for r in records}
    price, devices = rates.pop() if len(rates) == 1 else (None, 1)
    if price is None:
        return NOTHING
    return point.interval("seconds").mapped(lambda seconds: seconds / 3600 * price * devices)
