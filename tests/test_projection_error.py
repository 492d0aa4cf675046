"""How wrong the projection is where it can be checked: a step on two gloo ranks of this machine, held out."""

import logging
import os
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from callbacks.convergence_detector import ConvergenceDetector
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tasks.report.analysis.projection import Cluster, projected_step
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import Tiny, fit

ROUNDS = 8
SIZES = (128, 512)  # of the global batch on two ranks; one rank computes half of it
ELEMENTS = (10, 10**6)  # of the all-reduces that give latency and bandwidth
NETWORK = partial(SmallCNN, channels=(32, 64))


def step_seconds(batch_size, devices):
    """The seconds from one step to the next, after warm-up: the first quartile, which other programs disturb least."""
    strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
    starts = []

    class Watch(ConvergenceDetector):
        def on_train_batch_start(self, *_):
            starts.append(time.perf_counter())

    task = ImageClassification(NETWORK, optimizer=partial(torch.optim.SGD, lr=0.01))
    fit(task, Tiny(n=512, side=28, batch_size=batch_size), 40, "32-true", (Watch(),), **strategy)
    return float(np.quantile(np.diff(starts[10:]), 0.25))


def reduce_seconds(elements):
    """The seconds of an all-reduce of float32 elements, as above."""
    buffer, starts = torch.zeros(elements), []
    for _ in range(40):
        dist.barrier()
        starts.append(time.perf_counter())
        dist.all_reduce(buffer)
        starts.append(time.perf_counter())
    return float(np.quantile(np.diff(starts)[::2], 0.25))


def measure(barrier):
    """Of every round, on this rank: seconds alone, beside the other, together, and of the all-reduces."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    rank, rows = int(os.environ["LOCAL_RANK"]), []
    for _ in range(ROUNDS):
        row = {}
        for turn in range(2):  # one rank at a time: the other waits asleep
            barrier.wait()
            if turn == rank:
                row["alone"] = [step_seconds(size // 2, 1) for size in SIZES]
        row["beside"] = [(barrier.wait(), step_seconds(size // 2, 1))[1] for size in SIZES]
        barrier.wait()
        row["together"] = [step_seconds(size, 2) for size in SIZES]
        row["reduce"] = [reduce_seconds(n) for n in ELEMENTS]
        dist.destroy_process_group()
        rows.append(row)
    return rows


@pytest.mark.slow
def test_projection_onto_two_ranks_and_its_error():
    """Steps on one rank, the link and the contention project the step on two; both in turns, so that drift cancels."""
    ranks = on_ranks(2, measure, mp.get_context("spawn").Barrier(2))
    table = {key: np.array([[row[key] for row in rank] for rank in ranks]).mean(0) for key in ranks[0][0]}
    contention = table["beside"] / table["alone"]
    small, large = np.median(table["reduce"], axis=0)
    link = {"latency": small / 2, "bandwidth": ELEMENTS[1] * 4 / (large - small)}
    print(f"\nlatency {link['latency']:.2g} s, bandwidth {link['bandwidth']:.3g} B/s")
    parameters = sum(p.numel() for p in NETWORK(2, 3).parameters())
    print(f"{parameters:,} parameters, load {os.getloadavg()[0]:.1f}")
    for key, rows in table.items():
        print(key, np.array2string(rows.T * 1e3, precision=2, suppress_small=True), "ms")
    for i, size in enumerate(SIZES):
        other = float(np.median(contention[:, 1 - i]))  # from the other size: this one is held out
        for name, factor in (("no contention", 1.0), (f"contention {other:.2f}", other)):
            cluster = Cluster(**link, contention=factor)
            measured = table["together"][:, i]
            projected = [
                projected_step((np.log([size / 2]), np.log([alone])), parameters, size, 2, cluster)
                for alone in table["alone"][:, i]
            ]
            errors = np.array(projected) / measured - 1
            low, middle, high = (f"{q:+.0%}" for q in np.quantile(errors, [0.1, 0.5, 0.9]))
            print(f"batch {size}, {name}: measured {np.median(measured):.4f} s, off {middle} [{low}, {high}]")
    assert abs(np.median(errors)) < 0.5
