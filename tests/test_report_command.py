"""The report end to end on made-up run directories."""

import csv
import json
import math
import re
import subprocess
import sys
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from tasks.report.command import main
from tests.helpers.fake_runs import make_run, make_study

SIZES = [16, 64, 256, 1024]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A study of two rules, of which one gets late at 256 and diverges at 1024, with bad neighbours."""
    folder = tmp_path_factory.mktemp("runs")
    make_study(folder / "a", lambda b: 100 * (1 + 300 / b), SIZES, range(3), budget=4000)
    linear = {"rate__scaling_rule": "linear", "rate__base_batch_size": 16}
    make_study(folder / "a", lambda b: math.inf if b > 500 else 90 * (1 + 300 / b), SIZES, range(3), **linear)
    make_run(folder / "a" / "late", 10_000, 256, seed=8, budget=300)
    make_run(folder / "a" / "broken", 100, 256, seed=9, status="failed")
    bad = folder / "bad"
    make_run(bad / "old", 100, 16, seed=0, version=0)
    make_run(bad / "no-batch", 100, 16, seed=0, batch__size=None)
    for name, text in (("cut", '{"version": 1, "sta'), ("foreign", '{"a": 1}'), ("list", "[1]")):
        (bad / name).mkdir()
        (bad / name / "record.json").write_text(text)
    make_run(bad / "curve", 100, 16, seed=0)
    (bad / "curve" / "curve.csv").write_text("step,loss\n1,x\n2,3\n")
    return folder


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert main([str(runs), "--out", str(out)]) == 0
    return out


def test_every_promised_file_is_there_and_the_page_needs_no_other(report):
    page = (report / "report.html").read_text()
    drawn = {f.stem for f in report.glob("figures/*.svg")}
    embedded = re.findall(r'src="data:image/svg\+xml,([^"]*)"', page)
    assert len(embedded) == len(drawn) >= 3
    assert all(ElementTree.fromstring(unquote(svg)).tag.endswith("svg") for svg in embedded)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert {f.stem for f in report.glob("figures/*.png")} == drawn
    assert "![" in (report / "report.md").read_text()


def test_counts_and_medians_in_summary_and_csv_agree(report):
    summary = json.loads((report / "summary.json").read_text())
    points = {(w["curve"], p["batch_size"]): p for w in summary["workloads"] for p in w["points"]}
    none, linear = "SGD, same rate", "SGD, linear scaling, m0 = 16"
    at_256 = points[none, 256]
    assert (at_256["n"], at_256["reached"], at_256["censored"]) == (4, 3, 1)  # the failed run is not scored
    assert points[linear, 1024]["diverged"] == 3
    assert points[linear, 1024]["steps"]["median"] == "inf"
    for size in SIZES[:3]:
        assert points[none, size]["steps"]["median"] == pytest.approx(100 * (1 + 300 / size), rel=0.15)
        ratio = points[none, size]["examples"]["median"] / points[none, size]["steps"]["median"]
        assert ratio == pytest.approx(size, rel=1e-6)
    with open(next(report.glob("tables/*every-batch-size.csv"))) as file:
        rows = {(row["curve"], int(row["batch size"])): row for row in csv.DictReader(file)}
    assert float(rows[none, 16]["steps value"]) == points[none, 16]["steps"]["median"]
    assert rows[linear, 1024]["steps value"] == "inf"


def test_unusable_records_are_named_with_their_reason(report):
    left_out = json.loads((report / "summary.json").read_text())["left_out"]
    reasons = {item["path"].rsplit("/", 1)[-1]: item["reason"] for item in left_out}
    assert set(reasons) == {"old", "no-batch", "cut", "foreign", "list", "curve"}
    assert "version 0" in reasons["old"]
    assert "batch.size" in reasons["no-batch"]
    assert "JSON" in reasons["cut"]
    assert "curve.csv" in reasons["curve"]
    assert all(name in (report / "report.html").read_text() for name in reasons)


def test_the_table_is_printed_and_the_path_of_the_page_comes_last(runs, tmp_path, capsys):
    assert main([str(runs / "a"), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "report.html")
    assert any("∞" in line for line in lines)


def test_nothing_to_report_is_one_sentence_and_status_2(runs, tmp_path, capsys):
    for source in (tmp_path / "nowhere", tmp_path, runs / "bad"):
        assert main([str(source), "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_report_imports_no_torch():
    code = "import sys, tasks.report.command, tasks.report.build; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
