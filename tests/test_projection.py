"""The projection of wall-clock time: every cluster file is read, and its error is measured on two real ranks."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from callbacks.convergence_detector import ConvergenceDetector
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tasks.report.figures.own import Cluster, compute_seconds, read_cluster, ring_seconds
from tests.ranks import on_ranks
from tests.tiny import Tiny, fit

FILES = sorted(Path("configs/cluster").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_cluster_files_are_read(file):
    cluster = read_cluster(file)
    assert cluster.name
    assert ring_seconds(10**6, 2, cluster) > ring_seconds(10**6, 1, cluster) == 0


def step_seconds(batch_size, devices):
    """The median seconds of a step of this batch."""
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    times = []

    class Watch(ConvergenceDetector):
        def on_train_batch_start(self, *_):
            self.since = time.perf_counter()

        def on_train_batch_end(self, *_):
            times.append(time.perf_counter() - self.since)

    task = ImageClassification(partial(SmallCNN, channels=(32, 64)), optimizer=partial(torch.optim.SGD, lr=0.01))
    fit(task, Tiny(n=512, side=28, batch_size=batch_size), 25, "32-true", (Watch(),), **strategy)
    return float(np.median(times[5:]))


def reduce_seconds(elements):
    buffer, times = torch.zeros(elements), []
    for _ in range(30):
        dist.barrier()
        since = time.perf_counter()
        dist.all_reduce(buffer)
        times.append(time.perf_counter() - since)
    return float(np.median(times))


def two_ranks(batch_size):
    """A step's seconds on two ranks, and an all-reduce's of 10 and of 1,000,000 elements."""
    seconds = step_seconds(batch_size, 2)
    return seconds, reduce_seconds(10), reduce_seconds(10**6)


@pytest.mark.slow
def test_projection_onto_two_ranks_and_its_error():
    """Step times on one rank and the two parameters of the link project the step on two ranks, which is held out."""
    torch.set_num_threads(1)
    sizes = [64, 128, 256, 512]
    alone = [step_seconds(size, 1) for size in sizes]
    for size in (128, 512):
        measured, small, large = on_ranks(2, two_ranks, size)[0]
        cluster = Cluster(latency=small / 2, bandwidth=4e6 / max(large - small, 1e-9))
        parameters = sum(p.numel() for p in SmallCNN(2, 3, (32, 64)).parameters())
        computing = compute_seconds(np.log(sizes), np.log(alone), size / 2)
        projected = computing + ring_seconds(parameters, 2, cluster)
        print(f"batch {size}: projected {projected:.4f} s, measured {measured:.4f} s, {projected / measured - 1:+.0%}")
        assert 0.4 < projected / measured < 2.5
