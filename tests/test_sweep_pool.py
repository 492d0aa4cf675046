"""Workers that die or hang are replaced, and a cell belongs to one process at a time."""

import math
import multiprocessing
import time

import pytest

from tasks.sweep import pool as pools
from tasks.sweep.files import Cell
from tasks.sweep.ledger import ATTEMPTS, Ledger
from tasks.sweep.pool import Pool, places
from tasks.sweep.worker import Place
from tests.helpers.fake_runs import make_run
from tests.helpers.stub_worker import hold, obey


def cell(order):
    return Cell("stub", ("fit", f"--order={order}"), (("order", order),))


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = Pool([Place(3, "7")], tmp_path, stall=0.6, work=obey)
    yield made
    made.close()


def give(pool, order):
    """Have the only worker do something; what the pool says of it."""
    end = time.monotonic() + 20
    while not pool.idle():
        pool.wait(0.1)
        assert time.monotonic() < end
    pool.idle()[0].give("run", cell(order))
    while time.monotonic() < end:
        if events := pool.wait(0.1):
            return events
    raise TimeoutError


def test_a_worker_has_its_share_of_cores_and_gpus(pool):
    assert give(pool, "speak") == [(cell("speak"), "ended", "speak on 7, threads 3")]


@pytest.mark.parametrize(
    ("order", "kind", "words"),
    [("die", "died", "signal 9"), ("leave", "died", "status 3"), ("sleep", "hung", "hung")],
)
def test_a_lost_worker_is_told_with_its_cell_and_replaced(pool, order, kind, words):
    [(job, said, reason)] = give(pool, order)
    assert (job, said) == (cell(order), kind)
    assert words in reason
    assert give(pool, "speak")[0][1] == "ended"


def test_a_worker_that_computes_does_not_hang(pool):
    assert give(pool, "compute")[0][1] == "ended"  # 1 s, which is more than the 0.6 s of idleness allowed


def test_a_cell_over_its_time_limit_is_ended(tmp_path):
    pool = Pool([Place()], tmp_path, limit=0.3, work=obey)
    try:
        assert give(pool, "compute")[0][1] == "hung"
    finally:
        pool.close()


def test_closing_leaves_no_process(pool):
    give(pool, "speak")
    pool.idle()[0].give("run", cell("sleep"))
    processes = [worker.process for worker in pool.workers]
    pool.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(
    ("visible", "workers", "shares"),
    [
        ("0,1", None, ["0", "1"]),
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("0", 3, ["0", "0", "0"]),
        ("4,5", 3, ["4", "5", "4"]),
        ("", 2, [None, None]),
        ("-1", 1, [None]),
    ],
)
def test_gpus_are_shared_out(monkeypatch, visible, workers, shares):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [place.gpu for place in places(workers)] == shares


def test_one_worker_per_core_without_gpus(monkeypatch):
    monkeypatch.setattr(pools, "gpus", list)
    monkeypatch.setattr(pools.os, "sched_getaffinity", lambda _: range(6))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert places(None) == [Place(1)] * 6
    assert places(2) == [Place(3)] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert places(2) == [Place(1)] * 2


# the ledger -----------------------------------------------------------------------------------------------


def start_holder(tmp_path, order="a"):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, cell(order), theirs))
    process.start()
    return process, ours.recv()


def test_a_held_cell_is_running_and_cannot_be_claimed_until_its_process_is_killed(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.state(cell("a")).status == "left"
    process, mine = start_holder(tmp_path)
    try:
        assert mine
        assert ledger.state(cell("a")).status == "running"
        with ledger.lock(cell("a")) as got:
            assert not got
        with ledger.lock(cell("b")) as got:
            assert got
    finally:
        process.kill()
        process.join()
    assert ledger.state(cell("a")).status == "left"
    with ledger.lock(cell("a")) as got:
        assert got


def test_a_cell_that_keeps_killing_its_process_is_given_up(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.folder.mkdir(parents=True)
    for attempt in range(1, ATTEMPTS + 1):
        assert ledger.state(cell("a")).status == "left"
        assert ledger.begin(cell("a"))["attempts"] == attempt
    assert ledger.state(cell("a")).status == "failed"
    ledger.mark_dead(cell("a"), "interrupted")
    assert ledger.state(cell("a")).status == "left"
    assert ledger.begin(cell("a"))["attempts"] == 1


def test_an_ended_cell_is_as_its_record_says_and_begins_anew_without_one(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.folder.mkdir(parents=True)
    run = make_run(tmp_path / "study" / "run", math.inf, 8, seed=1)
    ledger.write(cell("a"), status="done", directory=str(run), seconds=3.0)
    state = ledger.state(cell("a"))
    assert (state.status, state.seconds) == ("diverged", 3.0)
    (run / "record.json").unlink()
    assert ledger.state(cell("a")).status == "left"


def test_a_signal_between_a_run_s_end_and_its_entry_s_leaves_it_ended(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.folder.mkdir(parents=True)
    for ended, status in ((None, "left"), ("2026-01-01", "reached")):
        run = make_run(tmp_path / str(ended), 100, 8, seed=1, ended=ended)
        ledger.begin(cell("a"))
        ledger.write(cell("a"), **ledger.read(cell("a")) | {"directory": str(run)})
        ledger.mark_dead(cell("a"), "interrupted")
        assert ledger.state(cell("a")).status == status
