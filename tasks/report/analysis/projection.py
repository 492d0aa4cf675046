"""Wall-clock time on machines that were not there: T(B, P) = compute(B / P) + all-reduce(P).

A message of n bytes takes latency + n / bandwidth. Only steps and the seconds of one on one device are measured.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from callbacks.record import Count, Finite, Positive
from tasks.report.analysis.curves import Curve

BYTES = 4  # of a gradient's element
NotNegative = Annotated[Finite, Field(ge=0)]
HELD_OUT = (  # tests/test_projection_error.py
    "Held out on two gloo ranks, it was 16 to 36 % below the measured step, and up to 58 % beside other programs"
)


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Cluster:
    """A machine on paper."""

    name: str = "8 devices a node, 100 Gbit/s"
    devices: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 64)
    bandwidth: Positive = 12.5e9  # bytes a second between neighbours
    latency: NotNegative = 20e-6  # seconds a message
    price: NotNegative = 2.0  # money a device and hour
    contention: Annotated[Finite, Field(ge=1)] = 1.0  # a device's seconds when its neighbours compute too, over alone


def read_cluster(file: Path) -> Cluster:
    """Read a machine from YAML. Raises ValueError with the fields there are."""
    try:
        return TypeAdapter(Cluster).validate_python(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    except (OSError, ValueError, yaml.YAMLError) as error:
        faults = [" ".join(str(error).split())]
    names = ", ".join(Cluster.__dataclass_fields__)
    raise ValueError(f"{file} is not a cluster file with {names} ({'; '.join(faults)}).")


def reduce_seconds(parameters: int, devices: int, c: Cluster) -> float:
    """Return the seconds of an all-reduce of the gradient, by the faster kind, as NCCL chooses.

    A ring passes 2 (P - 1) messages of 1/P of it one after the other. A double binary tree goes up and down log2 P
    levels, in small pieces, so that levels add latency alone (Sanders, Speck and Träff 2009; NCCL's tree).
    """
    size = parameters * BYTES
    ring = 2 * (devices - 1) * (c.latency + size / devices / c.bandwidth)
    tree = 2 * math.ceil(math.log2(devices)) * c.latency + 2 * size / c.bandwidth
    return min(ring, tree)


def step_seconds(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured seconds a step by the batch that one device computes: log sizes, log seconds."""
    found = {}
    for p in curve.points:
        alone = [o.run for o in p.counted if o.run.record.world_size == 1 and o.run.stopped_at("steps") > 0]
        times = [run.stopped_at("seconds") / run.stopped_at("steps") for run in alone]
        times = [t for t in times if 0 < t < math.inf]
        if times:
            found[p.batch_size] = float(np.median(times))
    return np.log(list(found)), np.log(list(found.values()))


def projected_step(
    measured: tuple[np.ndarray, np.ndarray], parameters: int, size: int, devices: int, c: Cluster
) -> float:
    """Return the seconds of a step of the global batch `size` on so many devices, infinite if one has no example."""
    if devices > size:
        return math.inf
    log_sizes, log_seconds = measured
    x = math.log(size / devices)
    beyond = max(x - log_sizes[-1], 0.0)  # past the largest batch measured in proportion, never below the smallest
    computing = math.exp(float(np.interp(x, log_sizes, log_seconds)) + beyond)
    return computing * (c.contention if devices > 1 else 1.0) + reduce_seconds(parameters, devices, c)


@dataclass(frozen=True)
class Projection:
    """Seconds to the target and their cost, [devices, batch sizes]; infinite where a device would have no example."""

    sizes: np.ndarray
    devices: tuple[int, ...]
    seconds: np.ndarray
    money: np.ndarray

    @property
    def best(self) -> tuple[float, float, int]:
        """Return the fastest way to the target: batch (infinite: it still falls at the largest), seconds, devices."""
        i, j = map(int, np.unravel_index(self.seconds.argmin(), self.seconds.shape))
        last = j == np.flatnonzero(np.isfinite(self.seconds).any(axis=0))[-1]  # of the sizes that arrived
        return math.inf if last else float(self.sizes[j]), float(self.seconds[i, j]), self.devices[i]


def project(curve: Curve, parameters: int, cluster: Cluster) -> Projection | None:
    """Project a curve on a machine; None where no time was measured on one device or no size arrived."""
    measured, points = step_seconds(curve), [p for p in curve.points if p.n]
    steps = np.array([p.interval("steps").value for p in points])
    devices = tuple(d for d in cluster.devices if points and d <= points[-1].batch_size)
    if not len(measured[0]) or not devices or not np.isfinite(steps).any():
        return None
    sizes = [p.batch_size for p in points]
    step = np.array([[projected_step(measured, parameters, size, d, cluster) for size in sizes] for d in devices])
    seconds = step * steps
    money = seconds * np.array(devices)[:, None] * cluster.price / 3600
    return Projection(np.array(sizes, dtype=float), devices, seconds, money)
