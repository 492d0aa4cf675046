"""No record ends a report: what cannot be used is named and left out, and no name of a study is markup or formula."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.report.command import main
from tasks.report.sources.runs import read_runs
from tests.helpers.fake_runs import make_run, make_study

RECORDS = [  # the text of a record.json, and why its run is left out
    ("[" * 100_000, "not readable as JSON"),
    ("1" * 5_000, "not readable as JSON"),
    ('{"version": 1, "seed": ' + "1" * 5_000 + "}", "not readable as JSON"),
    ("{}", "not a run record (no version)"),
    ("[]", "not a run record"),
    ('{"version": [], "a": 1}', "record version []"),
    ("\ufeff{}", "not a run record"),
]
FIELDS = [  # a field of a whole record, its value, and why the run is left out
    ("batch__size", 10**300, "batch.size is wrong: Input should be less than"),
    ("parameters", int("7" * 400), "parameters is wrong: Input should be less than"),
    ("network", "x" * 5_000, "network is wrong: String should have at most 2000 characters"),
    ("study", "\ud800", "not readable as JSON"),
    ("final__step", 10**20, "curve.csv ends before the run did"),
]


@pytest.fixture
def runs(tmp_path):
    """A folder with one whole run."""
    make_run(tmp_path / "runs" / "whole", 100, 8, 0)
    return tmp_path / "runs"


@pytest.mark.parametrize(("text", "reason"), RECORDS, ids=lambda text: text[:20])
def test_a_bad_record_is_left_out_and_named(runs, text, reason):
    (runs / "bad").mkdir()
    (runs / "bad" / "record.json").write_text(text)
    found, [(path, why)] = read_runs(runs)
    assert [Path(run.source).name for run in found] == ["whole"]
    assert (Path(path).name, why[: len(reason)]) == ("bad", reason)
    assert len(why) < 300


@pytest.mark.parametrize(("field", "value", "reason"), FIELDS, ids=[field for field, _, _ in FIELDS])
def test_a_value_that_was_never_measured_is_left_out_and_named(runs, field, value, reason):
    make_run(runs / "bad", 100, 8, 1, **{field: value})
    found, [(path, why)] = read_runs(runs)
    assert len(found) == 1
    assert Path(path).name == "bad"
    assert why.startswith(reason)


def test_a_run_within_a_run_is_left_out_and_named(runs):
    make_run(runs / "whole" / "inner", 100, 8, 1)
    found, left_out = read_runs(runs)
    assert len(found) == 1
    assert left_out == [(str(runs / "whole" / "inner"), f"it lies within the run {runs / 'whole'}")]


def test_a_name_is_neither_html_nor_a_formula(tmp_path):
    name = r"<script>alert(1)</script> & $\frac{1$"
    make_study(tmp_path / "runs", lambda size: 800 / size + 20, [4, 8, 16], range(2), study=name)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    texts = [tmp_path / "report/report.md", tmp_path / "report/report.html", *tmp_path.glob("report/figures/*.svg")]
    assert len(texts) > 2
    for path in texts:
        assert "<script>alert" not in path.read_text(), path
    assert r"$\frac{1$" in "".join(path.read_text() for path in texts[2:])
    assert "&lt;script>alert(1)" in texts[0].read_text()


def test_an_out_that_cannot_be_written_is_one_sentence(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, why in ((tmp_path / "file", "Not a directory"), (Path("/proc/nowhere"), "No such file or directory")):
        assert main([str(runs), "--out", str(out)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"report: {out}")
        assert line.endswith(f": {why}: give another --out")


def test_a_reader_that_goes_away_does_not_end_a_report(runs, tmp_path):
    report = f"{sys.executable} -m tasks report {runs} --out {tmp_path / 'report'}"
    script = f"({report}; echo $? > {tmp_path}/status) | true"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, env=os.environ)
    assert (tmp_path / "status").read_text() == "0\n"
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["workloads"]
    assert not done.stderr
