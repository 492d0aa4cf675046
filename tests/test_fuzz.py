"""Whatever stands in a file, it is read or refused in words, and what is whole beside it is still read.

`pytest -m slow` draws 2,000 examples of each kind, the ordinary run 40.
"""

import copy
import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tasks.report.sources.runs import read_runs
from tasks.sweep.files import Cell, read_sweep
from tasks.sweep.ledger import Ledger
from tasks.sweep.plan import source
from tests.helpers.fake_runs import make_run
from tests.helpers.hostile import write_sweep

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**300, -1, 0, 2**63, 1e308]))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20), st.just("nan"), st.just("x" * 5_000))
ANY = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=9), x, max_size=3))
PLACE = st.lists(st.integers(0, 30), min_size=1, max_size=4)
COUNTS = [40, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])]


def spoilt(content, place, value):
    """`content` with one of its values replaced, where the indices of `place` lead."""
    content = copy.deepcopy(content)
    inner = content
    for depth, index in enumerate(place):
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return value
        key = keys[index % len(keys)]
        if depth == len(place) - 1 or not isinstance(inner[key], dict | list):
            inner[key] = value
            return content
        inner = inner[key]
    return content


def drawn(count, check, *strategies):
    """Run `check` on `count` examples."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings(max_examples=count, phases=(Phase.generate,), deadline=None, database=None, suppress_health_check=quiet)(
        given(*strategies)(check)
    )()


def complaint(function, *args):
    """The sentence of a refusal, None where there is none; anything but ValueError escapes."""
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    return None


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("count", COUNTS)
def test_records_and_curves(folder, count):
    make_run(folder / "runs" / "whole", 100, 8, 0)
    bad = make_run(folder / "runs" / "bad", 100, 8, 1)
    whole, curve = json.loads((bad / "record.json").read_text()), (bad / "curve.csv").read_bytes()

    def check(place, value, cut, noise):
        (bad / "record.json").write_text(json.dumps(spoilt(whole, place, value)))
        (bad / "curve.csv").write_bytes(curve[: cut % len(curve)] + noise)
        found, left_out = read_runs(folder / "runs")
        assert "whole" in {Path(run.source).name for run in found}
        assert len(found) + len(left_out) == 2
        for run in found:
            assert len(run.hits) + len(run.curve) + len(str(run.batch_size)) > 0

    drawn(count, check, PLACE, ANY, st.integers(0, 10**6), st.binary(max_size=30))


@pytest.mark.parametrize("count", COUNTS)
def test_bytes_for_a_record(folder, count):
    make_run(folder / "runs" / "whole", 100, 8, 0)
    (folder / "runs" / "bad").mkdir()

    def check(content):
        (folder / "runs" / "bad" / "record.json").write_bytes(content)
        found, left_out = read_runs(folder / "runs")
        assert (len(found), len(left_out)) == (1, 1)

    text = ANY.map(json.dumps).map(str.encode)
    drawn(count, check, st.one_of(st.binary(), text, st.integers(1, 10**5).map(lambda n: b"[" * n)))


@pytest.mark.parametrize("count", COUNTS)
def test_ledgers(folder, count):
    ledger, cell, other = Ledger(folder), *(Cell("s", ("fit", name), (("a", name),)) for name in "ab")
    ledger.folder.mkdir()
    ledger.write(other, status="done", directory=str(folder))
    entry = {"status": "running", "attempts": 1, "started": 0.0, "seconds": 1.0, "pid": 1, "directory": "x"}

    def check(content):
        ledger.path(cell, ".json").write_bytes(content)
        problem = complaint(ledger.state, cell)
        assert problem is None or str(ledger.path(cell, ".json")) in problem
        assert ledger.state(other).entry["status"] == "done"

    mutated = st.builds(lambda place, value: json.dumps(spoilt(entry, place, value)).encode(), PLACE, ANY)
    drawn(count, check, st.one_of(st.binary(), mutated))


def sweeps(folder, name):
    """A whole sweep file and plan, and what to check once one of them is spoilt."""
    path = write_sweep(folder, name, data__batch_size=[4, 8], seed_everything=[0])
    content = yaml.safe_load(path.read_text())
    content["parameters"]["model.init_args.optimizer.init_args.lr"] = {"values": [0.1, 0.2, 0.4]}
    path.write_text(yaml.safe_dump(content))
    plan = {"learning_rate": "model.init_args.optimizer.init_args.lr", "target": 0, "margins": {"a": 1}}
    plan |= {"pilot": {"seeds": [1]}, "tune": {"seeds": [2, 3], "tolerance": 0.05}, "confirm": {"seeds": [4]}}
    return path, content, plan


def read_or_refused(path):
    """Read a sweep and its plan as the command does."""
    problem = complaint(lambda: source(read_sweep(path)))
    assert problem is None or str(path.parent) in problem


@pytest.mark.parametrize("count", COUNTS)
def test_sweep_files(folder, count):
    path, content, _ = sweeps(folder, "fuzzed")

    def check(text):
        path.write_bytes(text)
        read_or_refused(path)

    mutated = st.builds(lambda place, value: yaml.dump(spoilt(content, place, value)).encode(), PLACE, ANY)
    drawn(count, check, st.one_of(st.binary(max_size=200), mutated))


@pytest.mark.parametrize("count", COUNTS)
def test_plans(folder, count):
    path, _, plan = sweeps(folder, "fuzzed")

    def check(text):
        (folder / "fuzzed.plan.yaml").write_bytes(text)
        read_or_refused(path)

    mutated = st.builds(lambda place, value: yaml.dump(spoilt(plan, place, value)).encode(), PLACE, ANY)
    drawn(count, check, st.one_of(st.binary(max_size=200), mutated))
