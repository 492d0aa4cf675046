"""Wall-clock time on machines that were not there: T(B, P) = compute(B / P) + all-reduce(P) - what is hidden of it.

The alpha-beta model: a message of n bytes takes latency + n / bandwidth. Steps to the target and seconds a step are
measured on one device; everything else here is projected.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.report.analysis.curves import Curve
from tasks.report.analysis.intervals import NOTHING, Interval, resampled_interval

BYTES = 4  # of a gradient's element
SECONDS_AN_HOUR = 3600
DRAWS = 2000
NUMBERS = {"bandwidth", "latency", "price", "overlap", "contention"}
REDUCE = ("ring", "tree", "faster")
HELD_OUT = (  # tests/test_projection_error.py, runs of 8 rounds, medians
    "Held out: on two gloo ranks of a two-core machine the projection was 33 and 36 % (batch 128), 16 and 20 % (batch "
    "512) below the measured step, and 32 to 58 % below it while other programs ran"
)


@dataclass(frozen=True)
class Cluster:
    """A machine on paper."""

    name: str = "8 devices a node, 100 Gbit/s"
    devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    bandwidth: float = 12.5e9  # bytes a second between neighbours
    latency: float = 20e-6  # seconds a message
    price: float = 2.0  # money a device and hour
    overlap: float = 0.0  # share of communication hidden behind computing
    reduce: str = "faster"  # ring, tree, or at each P the faster of the two, as NCCL chooses
    contention: float = 1.0  # a device's seconds when its neighbours compute too, over those when they rest


def read_cluster(file: Path) -> Cluster:
    """Read a machine from YAML. Raises ValueError with the fields there are."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
        numbers = {name: float(found[name]) for name in NUMBERS & found.keys()}  # YAML reads 1e9 as text
        cluster = Cluster(**found | numbers | {"devices": tuple(found.get("devices", Cluster.devices))})
        sound = all(type(d) is int and d >= 1 for d in cluster.devices)
        sound &= all(math.isfinite(getattr(cluster, name)) for name in NUMBERS)
        sound &= cluster.bandwidth > 0 and min(cluster.latency, cluster.price) >= 0 and cluster.contention >= 1
        if not (sound and cluster.devices and 0 <= cluster.overlap <= 1 and cluster.reduce in REDUCE):
            raise ValueError("a value is out of range")
        return cluster
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        names = ", ".join(Cluster.__dataclass_fields__)
        raise ValueError(
            f"{file} is not a cluster file with {names}, where devices are whole numbers from 1, overlap is 0 to 1, "
            f"contention at least 1, the others not negative, and reduce {' or '.join(REDUCE)} ({error})."
        ) from None


# one step -----------------------------------------------------------------------------------------------


def ring(size: float, devices: int, cluster: Cluster) -> float:
    """Return the seconds of a ring all-reduce of `size` bytes: 2 (P - 1) messages of 1/P of it, one after the other."""
    return 2 * (devices - 1) * (cluster.latency + size / devices / cluster.bandwidth)


def tree(size: float, devices: int, cluster: Cluster) -> float:
    """Return the seconds of a double binary tree's: up and down log2 P levels, each byte over each link twice.

    Pipelined in small pieces, so that the levels add latency alone (Sanders, Speck and Träff 2009; NCCL's tree).
    """
    return 2 * math.ceil(math.log2(devices)) * cluster.latency + 2 * size / cluster.bandwidth


def reduce_seconds(parameters: int, devices: int, cluster: Cluster) -> float:
    """Return the seconds of an all-reduce of the gradient that are not hidden behind computing."""
    if devices == 1:
        return 0.0
    size = parameters * BYTES
    found = {"ring": ring(size, devices, cluster), "tree": tree(size, devices, cluster)}
    found["faster"] = min(found.values())
    return found[cluster.reduce] * (1 - cluster.overlap)


def step_seconds(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured seconds a step by the batch that one device computes: log sizes, log seconds."""
    found = {}
    for p in curve.points:
        times = [
            o.run.stopped_at("seconds") / o.run.stopped_at("steps")
            for o in p.counted
            if o.run.record.world_size == 1 and o.run.stopped_at("steps") > 0
        ]
        times = [t for t in times if math.isfinite(t) and t > 0]
        if times:
            found[p.batch_size] = float(np.median(times))
    return np.log(list(found)), np.log(list(found.values()))


def compute_seconds(log_sizes: np.ndarray, log_seconds: np.ndarray, size: float) -> float:
    """Return the seconds to compute a step on so many examples: between measurements, at least the smallest's."""
    x = math.log(size)
    beyond = max(x - log_sizes[-1], 0.0)  # past the largest measured, in proportion
    return math.exp(float(np.interp(x, log_sizes, log_seconds)) + beyond)


def projected_step(
    measured: tuple[np.ndarray, np.ndarray], parameters: int, size: int, devices: int, c: Cluster
) -> float:
    """Return the seconds of a step of the global batch `size` on so many devices, infinite if one has no example."""
    if devices > size:
        return math.inf
    computing = compute_seconds(*measured, size / devices) * (c.contention if devices > 1 else 1.0)
    return computing + reduce_seconds(parameters, devices, c)


# a run to the target ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """Seconds a step by [devices, batch sizes], infinite where a device would have no example."""

    sizes: np.ndarray
    steps: list[Interval]  # to the target, measured
    devices: tuple[int, ...]
    step: np.ndarray
    price: float

    @property
    def seconds(self) -> np.ndarray:
        """Return the seconds to the target by [devices, batch sizes]."""
        return self.step * np.array([s.value for s in self.steps])

    @property
    def money(self) -> np.ndarray:
        """Return the cost of reaching the target by [devices, batch sizes]."""
        return self.seconds * np.array(self.devices)[:, None] * self.price / SECONDS_AN_HOUR

    def best(self, row: int | None = None) -> tuple[float, float, int]:
        """Return (seconds, money, devices) of the fastest way to the target, on any or on this row's devices."""
        among = self.seconds if row is None else self.seconds[row : row + 1]
        best, j = map(int, np.unravel_index(among.argmin(), among.shape))
        i = best if row is None else row
        return float(self.seconds[i, j]), float(self.money[i, j]), self.devices[i]

    def stops_falling(self, row: int | None = None) -> Interval:
        """Return the batch beyond which time to the target stops falling, at the best P or on this row's devices.

        That is the studied size with the least time; infinite if it is the largest. The interval draws each size's
        steps from a log-normal about their median, as wide as their own interval; not known where one has none.
        """
        step = self.step.min(axis=0) if row is None else self.step[row]
        if not np.isfinite(step * [s.value for s in self.steps]).any():
            return NOTHING
        widths = np.array([log_width(s) for s in self.steps])
        draws = np.exp(np.random.default_rng(0).standard_normal((DRAWS, len(widths))) * widths)
        draws = np.vstack([np.ones(len(widths)), draws]) * np.array([s.value for s in self.steps])
        last = np.isfinite(step).nonzero()[0][-1]
        found = np.where(np.arange(len(step)) == last, math.inf, self.sizes)[(draws * step).argmin(axis=1)]
        if np.isnan(widths).any():
            return Interval(float(found[0]), math.nan, math.nan)
        return resampled_interval(found[0], found[1:])


def log_width(steps: Interval) -> float:
    """Return the standard error of log steps of an interval, 0 where no run arrived (it stays infinite)."""
    if math.isinf(steps.value):
        return 0.0
    known = steps.low > 0 and math.isfinite(steps.high)
    return math.log(steps.high / steps.low) / 2 / 1.96 if known else math.nan


def project(curve: Curve, parameters: int, cluster: Cluster) -> Projection | None:
    """Project a curve on a machine; None where no time was measured on one device or no size arrived."""
    measured, points = step_seconds(curve), [p for p in curve.points if p.n]
    steps = [p.interval("steps") for p in points]
    devices = tuple(d for d in cluster.devices if points and d <= points[-1].batch_size)
    if not len(measured[0]) or not devices or not any(math.isfinite(s.value) for s in steps):
        return None
    step = [[projected_step(measured, parameters, p.batch_size, d, cluster) for p in points] for d in devices]
    sizes = np.array([p.batch_size for p in points], dtype=float)
    return Projection(sizes, steps, devices, np.array(step), cluster.price)
