"""Records and curves of every kind of brokenness: named and left out, never a traceback."""

import copy
import json
import math
import shutil
from pathlib import Path

import pytest

from tasks.report.command import main
from tasks.report.sources.runs import UnusableError, read_curve, read_runs
from tests.helpers.fake_runs import make_run


def paths(tree, path=()):
    """Every field of a record, as a path of keys."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


def changed(record: dict, path: tuple, value) -> dict:
    """A copy with one field set, or gone (Ellipsis)."""
    record = copy.deepcopy(record)
    here = record
    for key in path[:-1]:
        here = here[key]
    if value is ...:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return record


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "a"
    make_run(folder, 200, 64, seed=1)
    return json.loads((folder / "record.json").read_text()), (folder / "curve.csv").read_text()


def test_any_field_may_be_wrong_without_a_traceback(base, tmp_path, capsys):
    record, curve = base
    values = (..., -1, "x", {}, 1e308, None, [], True)
    broken = [changed(record, path, value) for value in values for path in paths(record)]
    for i, content in enumerate(broken):
        run = tmp_path / "runs" / f"run{i}"
        run.mkdir(parents=True)
        (run / "record.json").write_text(json.dumps(content))
        (run / "curve.csv").write_text(curve)
    runs, left_out = read_runs(tmp_path / "runs")
    assert len(runs) + len(left_out) == len(broken)
    assert all(reason for _, reason in left_out)
    for run in (tmp_path / "runs").iterdir():  # the whole report only of the first two kinds: it draws what is left
        if int(run.name.removeprefix("run")) >= 2 * len(broken) / len(values):
            shutil.rmtree(run)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(path in page for path, _ in read_runs(tmp_path / "runs")[1])


def test_required_fields_that_are_missing_are_named(base, tmp_path):
    record, _ = base
    for name in ("seed", "batch.size", "rate.base", "data.name"):
        run = tmp_path / name
        run.mkdir()
        (run / "record.json").write_text(json.dumps(changed(record, tuple(name.split(".")), ...)))
    _, left_out = read_runs(tmp_path)
    assert {path.rsplit("/", 1)[-1]: reason for path, reason in left_out} == {
        name: f"{name} is missing" for name in ("seed", "batch.size", "rate.base", "data.name")
    }


def test_a_half_written_curve_loses_its_last_row_only(tmp_path):
    file = tmp_path / "curve.csv"
    file.write_text("step,val/loss\n0,\n1,0.5\n2")
    assert read_curve(file)["step"] == [0, 1]
    assert math.isnan(read_curve(file)["val/loss"][0])
    file.write_text("")
    assert read_curve(file) == {}
    for text in ("a,b\n1\n2,3\n", "a\nx\n"):
        file.write_text(text)
        with pytest.raises(UnusableError):
            read_curve(file)


def test_a_curve_that_ends_before_its_run_is_left_out(base, tmp_path):
    record, curve = base
    lines = curve.splitlines(keepends=True)
    for name, text in {"whole": curve, "cut": "".join(lines[:5]), "rubbish": "x\n", "empty": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record))
        (tmp_path / name / "curve.csv").write_text(text)
    runs, left_out = read_runs(tmp_path)
    assert [Path(run.source).name for run in runs] == ["whole"]
    assert {Path(path).name for path, _ in left_out} == {"cut", "rubbish", "empty"}


def test_binary_rubbish_and_missing_curves_are_no_traceback(base, tmp_path, capsys):
    record, _ = base
    for name, content in (("bytes", b"\xff\xfe\x00"), ("good", json.dumps(record).encode())):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_bytes(content)
    (tmp_path / "runs" / "good" / "curve.csv").write_bytes(b"\xff\xfe")
    _, left_out = read_runs(tmp_path / "runs")
    assert len(left_out) == 2
    (tmp_path / "runs" / "good" / "curve.csv").unlink()
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0


def test_a_seed_run_twice_counts_once_and_a_failed_try_not_at_all(tmp_path):
    from tasks.report.analysis.curves import workloads

    make_run(tmp_path / "a", 200, 64, seed=1, started="2026-01-01")
    make_run(tmp_path / "b", 300, 64, seed=1, started="2026-01-02")
    make_run(tmp_path / "c", 200, 64, seed=2, status="failed")
    (workload,) = workloads(read_runs(tmp_path)[0])
    (point,) = workload.curves[0].points
    assert point.n == 1
    assert point.interval("steps").value == pytest.approx(300, rel=0.1)
    assert point.count("failed") == 1
