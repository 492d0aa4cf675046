"""The projection of wall-clock time, against hand arithmetic; its error on real ranks: test_projection_error.py."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.report.analysis.answer import analyze
from tasks.report.analysis.projection import Cluster, project, read_cluster, reduce_seconds
from tasks.report.figures.own import time_and_cost
from tests.helpers.made_up import hyperbola, placed, study

FILES = sorted(Path("configs/cluster").glob("*.yaml"))
HAND = Cluster(devices=(1, 4), bandwidth=1e9, latency=1e-5, price=3.6)
MEGA = 10**6  # parameters


def measured(overhead, example):
    """What a run on one device records of its time; a network of 1,000,000 parameters."""

    def each(size, seed):
        seconds = 100 * (overhead + example * size)
        return {"final": {"step": 100, "examples": 100 * size, "seconds": seconds}, "parameters": MEGA}

    return each


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_cluster_files_are_read(file):
    cluster = read_cluster(file)
    assert cluster.name
    assert reduce_seconds(MEGA, 2, cluster) > reduce_seconds(MEGA, 1, cluster) == 0


def test_a_cluster_file_is_read_and_a_bad_one_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: two\ndevices: [1, 2]\nprice: 5\n")
    assert read_cluster(file) == Cluster(name="two", devices=(1, 2), price=5)
    bad_values = ["overlap: 0.5", "latency: -1", "price: abc", "price: -1", "contention: 0.5", "bandwidth: .inf"]
    bad_values += [f"devices: {wrong}" for wrong in ("[0, 2]", "[two]", "[-4, 2]", "[]", "[1.5]", "4")]
    file.write_text("bandwidth: 1e9\n")  # text to YAML
    assert read_cluster(file).bandwidth == 1e9
    for bad in ("reduce: star", "devces: [1]", "- 1", "{", "bandwidth: 0", *bad_values):
        file.write_text(bad)
        with pytest.raises(ValueError, match="is not a cluster file with name, devices"):
            read_cluster(file)


def test_all_reduces_by_hand():
    """4 MB over 8 devices at 1 GB/s and 10 us: a ring passes 14 messages of 0.5 MB, a tree 6 levels and 2 x 4 MB."""
    slow = replace(HAND, latency=1e-2)  # where the tree is faster
    assert reduce_seconds(MEGA, 8, slow) == pytest.approx(6 * 1e-2 + 8e-3)
    assert reduce_seconds(MEGA, 8, HAND) == pytest.approx(14 * (1e-5 + 0.5e-3))
    assert reduce_seconds(1000, 1000, HAND) == pytest.approx(20 * 1e-5 + 8e-6)  # 1,000 devices: 10 levels


def test_ring_messages_counted_by_passing_them_on():
    """Chunks on a ring, by hand: after 2 (P - 1) rounds of one chunk each, every device has the whole sum."""
    devices, rounds = 5, 0
    held = [[{d} for _ in range(devices)] for d in range(devices)]  # [device][chunk]: whose parts are in its sum
    while any(len(chunk) < devices for own in held for chunk in own):
        sent = [(d, (d - rounds) % devices) for d in range(devices)]
        passed = [(d, chunk, set(held[d][chunk])) for d, chunk in sent]
        for d, chunk, parts in passed:
            held[(d + 1) % devices][chunk] |= parts
        rounds += 1
    cluster = HAND
    assert reduce_seconds(devices * 250_000, devices, cluster) == pytest.approx(rounds * (1e-5 + 1e6 / 1e9))


def test_projection_agrees_with_the_formula_by_hand():
    found = time_and_cost(analyze(study(hyperbola(500), each=measured(0.001, 1e-5)), cluster=HAND))
    times = {(size, devices): (seconds, cost) for size, devices, seconds, cost in found.table.rows}
    steps = 200 * (1 + 500 / 1024)
    assert times[1024, 1][0] == pytest.approx(steps * (0.001 + 0.01024), rel=0.03)
    reduce = 2 * 3 * (1e-5 + MEGA * 4 / 4 / 1e9)
    assert times[1024, 4][0] == pytest.approx(steps * (0.001 + 0.00256 + reduce), rel=0.03)
    assert times[1024, 4][1] == pytest.approx(times[1024, 4][0] * 4 * 3.6 / 3600)
    assert times[16, 4][0] > times[16, 1][0]  # of small batches, sharing costs more than it saves


@pytest.mark.parametrize("devices", [2, 8])
def test_time_stops_falling_where_the_closed_form_says(devices):
    """T = S_min (1 + B_c / B) (c B / P + a) is least at B = sqrt(B_c a P / c), at the latency that puts it there."""
    critical, example, least = 500.0, 1e-5, 2048
    a = least**2 * example / critical / devices
    cluster = Cluster(devices=(devices,), latency=a / 2 / math.log2(devices), bandwidth=1e15)
    curve = placed(study(hyperbola(critical), scatter=0.0, each=measured(0.0, example)))[0].curves[0]
    assert project(curve, MEGA, cluster).best[0] == least
    alone = project(curve, MEGA, replace(cluster, devices=(1,)))
    assert alone.best[0] == 16  # one device, no overhead: time is examples, and small batches need least


def test_time_that_still_falls_at_the_largest_batch_is_said_to():
    found = analyze(study(hyperbola(1e7), each=measured(0.1, 1e-5)), cluster=replace(HAND, devices=(1, 64)))
    assert "not within the batches studied" in time_and_cost(found).caption
