"""The one analysis that claims, figures and pages read, and the answer it gives in a sentence."""

import math
import re
from dataclasses import dataclass, field

from callbacks.record import Unit
from tasks.report.analysis.critical import LEAST_SEEDS, Critical, critical
from tasks.report.analysis.curves import Curve, Observation, Point, Workload, every_run, main_curve, workloads
from tasks.report.analysis.intervals import NOTHING, Interval, number
from tasks.report.analysis.measures import DISTANCE, Growth, NotIdentifiable, growth_of
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
    growth: dict[Observation, Growth | NotIdentifiable]
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
    curves = [c for w in found for c in w.curves]
    walked = [o for w in found for o in every_run(w) if DISTANCE in o.run.curve]
    growth = {o: growth_of(o) for o in walked}
    return Analysis(runs, found, {c: critical(c) for c in curves}, growth, left_out or [], cluster or Cluster())


@dataclass(frozen=True)
class Answer:
    """What one workload's runs say to the one who has to choose a batch size."""

    workload: Workload
    curve: Curve
    found: Critical | None
    sentence: str
    confident: bool
    because: list[str]  # why the confidence is limited; empty where it is high
    measured: str = ""  # the fastest and the cheapest batch on the device measured

    @property
    def answered(self) -> bool:
        """Return whether enough batch sizes arrived to say how far the batch can be raised."""
        return self.found is not None and self.found.fit is not None

    @property
    def confidence(self) -> str:
        """Return the confidence as a sentence."""
        if self.confident:
            return "Confidence: high."
        return f"Confidence: limited, because {'; '.join(self.because)}."

    @property
    def text(self) -> str:
        """Return the whole answer."""
        return " ".join(part for part in (self.sentence, self.confidence, self.measured) if part)


def answers(analysis: Analysis) -> list[Answer]:
    """Return one answer a workload, those first that say how far the batch can be raised."""
    given = [answer(w, *analysis.main(w), width=wider(w, analysis.workloads)) for w in analysis.workloads]
    return sorted(given, key=lambda a: (not a.confident, not a.answered))


def answer(w: Workload, curve: Curve, found: Critical | None, width: str = "") -> Answer:
    """Return how far the batch of a workload can be raised, how sure that is, and what is fastest and cheapest."""
    because = doubts(curve, found)
    parts = [f"{subject(w, width)}: {limit(found)}.", rate_there(curve, found)]
    return Answer(
        *(w, curve, found, " ".join(part for part in parts if part), not because, because),
        measured=fastest_and_cheapest(curve),
    )


# what the sentence is made of -----------------------------------------------------------------------------


def subject(w: Workload, width: str = "") -> str:
    """Return what was trained, on what, and to which target; `width` is given where another of its name is narrower."""
    network = spaced(w.network)
    first = network.split()[0]
    if first[1:].islower():
        network = network[0].lower() + network[1:]
    network = f"wider {network} ({width})" if width else network
    vowel = network[0] in (SPOKEN_AN if first.isupper() else "aeiouAEIOU")
    size = f"{w.data.train_examples:,} " if w.data.train_examples else ""
    noise = f" ({100 * w.data.label_noise:g} % of the labels wrong)" if w.data.label_noise else ""
    article = "" if network.startswith(("your ", "MLPerf's ")) else "An " if vowel else "A "
    text = f"{article}{network} on {size}{spaced(w.data.name)}{' examples' if size else ''}{noise} to {goal(w)}"
    return text[0].upper() + text[1:]


def channels(w: Workload) -> list[int]:
    """Return the channels of a workload's network as its settings have them, empty where they do not."""
    here: object = w.curves[0].record.settings
    for key in ("model", "init_args", "network", "init_args", "channels"):
        here = here.get(key) if isinstance(here, dict) else None
    return here if isinstance(here, list) and here and all(isinstance(width, int) for width in here) else []


def wider(w: Workload, others: list[Workload]) -> str:
    """Return the channels of a network that is wider than another of its name, else nothing."""
    narrowest = min((max(channels(o)) for o in others if o.network == w.network and channels(o)), default=0)
    return f"{', '.join(map(str, channels(w)))} channels" if max(channels(w), default=0) > narrowest else ""


def spaced(name: str) -> str:
    """Return a name in camel case as words; LeNet and its kin are one."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])(?!Net)", " ", name)


def goal(w: Workload) -> str:
    """Return the target in words."""
    split, _, metric = w.hit.metric.partition("/")
    if w.hit.value is None or split not in SPLITS:
        return w.target
    metric = metric.replace("miou", "mean IoU")
    if metric in ("accuracy", "mean IoU"):
        return f"{100 * w.hit.value:.3g} % {SPLITS[split]} {metric}"
    return f"a {SPLITS[split]} {metric} of {w.hit.value:.4g}"


def between(found: Interval, smallest: float) -> str:
    """Return a batch size with its interval: 115 (85 to 160)."""
    low, high = found.low > smallest, math.isfinite(found.high)
    if low and high:
        ends = f"{found.low:,.0f} to {found.high:,.0f}"
    else:
        ends = (
            f"{found.low:,.0f} or more"
            if low
            else f"{found.high:,.0f} or less"
            if high
            else "these runs do not bound it"
        )
    return f"{found.value:,.0f} ({ends})"


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


def advised(curve: Curve, found: Critical | None) -> Point | None:
    """Return the studied batch nearest to the end of useful doubling, None where there is no such end."""
    if found is None or found.fit is None or math.isnan(found.useful_end.value):
        return None
    at = math.log(min(max(found.useful_end.value, found.data.sizes[0]), found.data.sizes[-1]))
    points = [p for p in curve.points if p.n and p.batch_size not in found.data.left_out]
    return min(points, key=lambda p: abs(math.log(p.batch_size) - at), default=None)


def rate_of(point: Point) -> float:
    """Return the learning rate of a point's runs, NaN where it is not known."""
    return point.observations[0].run.record.rate.effective if point.observations else math.nan


def rate_there(curve: Curve, found: Critical | None) -> str:
    """Return the rate at the batch advised, as a sentence; empty where it is not known."""
    point = advised(curve, found)
    if point is None or math.isnan(rate_of(point)):
        return ""
    edge = ", at an edge of the rates tried" if curve.tuned and point.untuned else ""
    kind = "Best rate" if curve.tuned else "Rate"
    return f"{kind} there: {rate_of(point):.3g}{edge} (studied at batch {point.batch_size:,})."


def doubts(curve: Curve, found: Critical | None) -> list[str]:
    """Return what limits the confidence in the answer, the gravest first."""
    records = [o.run.record for p in curve.points for o in p.observations]
    reasons = []
    if any(r.plan and r.plan.smoke for r in records):
        reasons.append("it is a demo or a smoke study")
    seeds = min((len({o.seed for o in p.counted}) for p in curve.points if p.n), default=0)
    if seeds < LEAST_SEEDS:
        reasons.append(f"only {seeds} seed{'s' * (seeds != 1)} at some batch size, {LEAST_SEEDS} are needed")
    return reasons + (found.why_not if found else ["fewer than two batch sizes arrived"])


def fastest_and_cheapest(curve: Curve) -> str:
    """Return the batch that took the least time on the device measured, and the one that needed the fewest examples."""
    times = known(curve, "seconds")
    examples = known(curve, "examples")
    parts = []
    if times:
        size, seconds = min(times, key=lambda item: item[1])
        parts.append(f"Fastest on the device measured: batch {size:,}, {number(seconds)} s to the target.")
    if examples and not any(o.hit.nominal for p in curve.points for o in p.observations):
        size, count = min(examples, key=lambda item: item[1])
        parts.append(f"Cheapest: batch {size:,}, {number(round(count))} examples.")
    return " ".join(parts)


def known(curve: Curve, unit: Unit) -> list[tuple[int, float]]:
    """Return (batch size, cost to the target) where it is finite."""
    found = [(p.batch_size, p.interval(unit).value) for p in curve.points if p.n]
    return [(size, value) for size, value in found if math.isfinite(value)]


def money(point: Point) -> Interval:
    """Return what the training seconds to the target cost at the recorded price of a device-hour, if it is one."""
    records = [o.run.record for o in point.counted]
    rates = {(r.cost.device_hour, r.world_size) for r in records}
    price, devices = rates.pop() if len(rates) == 1 else (None, 1)
    if price is None:
        return NOTHING
    return point.interval("seconds").mapped(lambda seconds: seconds / 3600 * price * devices)
