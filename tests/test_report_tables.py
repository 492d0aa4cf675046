"""Sources that are files: a tidy table of anybody's own, kept studies; and studies that must not be pooled."""

import json
import math
import random

import pytest

from tasks.report.analysis.answer import analyze, answers
from tasks.report.command import main
from tasks.report.sources.read import read_source, read_sources
from tasks.report.sources.runs import keep, read_kept, read_runs
from tests.helpers.fake_runs import make_run, make_study


def write_table(path, lines: list[str], header="batch_size,seed,steps,status,learning_rate"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def own_experiment(path):
    """Steps of 200 (1 + 100 / B), exactly, at two rates of which the smaller takes a tenth more."""
    lines = [
        f"{b},{seed},{200 * (1 + 100 / b) * more * (1 + 0.01 * seed)},reached,{rate}"
        for b in (4, 8, 16, 32, 64, 128, 256, 512, 1024)
        for seed in range(5)
        for rate, more in ((0.1, 1.1), (0.2, 1.0), (0.3, 1.2))
    ]
    return write_table(path, lines)


def test_a_tidy_table_is_enough_for_a_critical_batch_size(tmp_path, capsys):
    runs, left_out = read_sources([own_experiment(tmp_path / "mine.csv")])
    assert not left_out
    (found,) = answers(analyze(runs))
    assert found.found.b2.low < 108 < found.found.b2.high  # E doubles at B_crit + 2 x the smallest batch
    assert "Best rate there: 0.2" in found.sentence
    assert found.confident, found.because
    assert main([str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert lines[-3] == found.text


def test_examples_stand_in_for_steps_and_a_budget_is_censored(tmp_path):
    header = "batch_size,seed,examples,status"
    rows = ["10,0,500,reached", "10,1,900,budget", "10,2,,diverged", "10,3,,budget"]
    runs, left_out = read_source(write_table(tmp_path / "t.csv", rows, header))
    assert not left_out
    assert [r.hits[0].at("steps") for r in runs] == [50, math.inf, math.inf, math.inf]
    assert runs[1].stopped_at("steps") == 90


def test_rows_that_are_no_run_are_named_with_their_line(tmp_path):
    rows = ["16,0,100,reached,0.1", "x,0,1,reached,0.1", "16,0,1,won,0.1", "16,0,,reached,0.1", "16,0,-1,reached,0.1"]
    runs, left_out = read_source(write_table(tmp_path / "t.csv", rows))
    assert len(runs) == 1
    assert [path.split(": ")[-1] for path, _ in left_out] == ["line 3", "line 4", "line 5", "line 6"]
    assert all(w in reason for w, (_, reason) in zip(("batch_size", "won", "steps", "steps"), left_out, strict=True))


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "{", "[1]", '{"a": 1}'])
def test_a_file_of_the_wrong_kind_says_what_the_kinds_are(tmp_path, text, capsys):
    (tmp_path / ("x.csv" if text.startswith("a") else "x.json")).write_text(text)
    assert main([str(next(tmp_path.glob("x.*"))), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "a table (.csv) with the columns" in error


def test_kept_runs_are_those_of_the_folder_and_the_same_bytes_in_any_order(tmp_path):
    make_study(tmp_path / "study", lambda b: 100 * (1 + 300 / b), [16, 64], range(2))
    make_run(tmp_path / "study" / "lost", math.inf, 64, seed=9)
    runs, _ = read_runs(tmp_path / "study")
    keep(runs, tmp_path / "a.jsonl.xz")
    random.Random(0).shuffle(runs)
    keep(runs, tmp_path / "b.jsonl.xz")
    assert (tmp_path / "a.jsonl.xz").read_bytes() == (tmp_path / "b.jsonl.xz").read_bytes()
    again, left_out = read_kept(tmp_path / "a.jsonl.xz")
    assert not left_out
    by_name = {r.record.run: r for r in runs}
    for run in again:
        before = by_name[run.record.run]
        assert run.record == before.record
        assert run.hits == before.hits
        for name, values in before.curve.items():
            assert run.curve[name] == pytest.approx(values, rel=0, abs=0, nan_ok=True)


def test_a_damaged_line_of_a_kept_file_is_named_and_a_damaged_file_too(tmp_path):
    import lzma

    make_run(tmp_path / "study" / "a", 100, 16, seed=0)
    keep(read_runs(tmp_path)[0], tmp_path / "a.jsonl.xz")
    text = lzma.decompress((tmp_path / "a.jsonl.xz").read_bytes()).decode()
    lines = [text.strip(), "{}", text[:40], json.dumps({"record": {}, "curve": {"step": [1], "lr": []}})]
    (tmp_path / "b.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    runs, left_out = read_kept(tmp_path / "b.jsonl.xz")
    assert len(runs) == 1
    assert [path.split(": ")[-1] for path, _ in left_out] == ["line 2", "line 3", "line 4"]
    (tmp_path / "c.jsonl.xz").write_bytes((tmp_path / "a.jsonl.xz").read_bytes()[:-9])
    assert "no whole file" in read_kept(tmp_path / "c.jsonl.xz")[1][0][1]


def test_two_studies_of_one_name_pool_only_under_one_plan(tmp_path):
    for folder in ("here", "there"):
        make_study(tmp_path / folder / "study", lambda b: 100 * (1 + 300 / b), [16, 64], range(2))
    names = {r.record.study for r in read_sources([tmp_path / "here", tmp_path / "there"])[0]}
    assert len(names) == 2
    assert all(str(tmp_path) in name for name in names)
    for folder in ("one", "two"):
        plan = {"plan": {"hash": "h"}}
        make_study(tmp_path / folder / "study", lambda b: 100 * (1 + 300 / b), [16, 64], range(2), **plan)
    assert {r.record.study for r in read_sources([tmp_path / "one", tmp_path / "two"])[0]} == {"study"}


def test_a_used_folder_keeps_no_stale_tables(tmp_path):
    make_study(tmp_path / "runs" / "study", lambda b: 100 * (1 + 300 / b), [16, 64], range(2))
    own_experiment(tmp_path / "mine.csv")
    assert main([str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "mine.txt").write_text("a file of somebody's")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert not [f for f in (tmp_path / "out").rglob("*") if f.name.startswith("mine-")]
    assert (tmp_path / "out" / "mine.txt").exists()


def test_every_number_leads_to_its_runs(tmp_path):
    make_study(tmp_path / "runs" / "study", lambda b: 100 * (1 + 300 / b), [16, 64], range(2))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    rows = (tmp_path / "out" / "tables" / "runs.csv").read_text().splitlines()
    assert rows[0] == "study,target,stage,seed,batch,rate,status,steps,seconds,path"
    assert len(rows) == 5
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f'href="../runs/study/{f.name}"' in page for f in (tmp_path / "runs" / "study").iterdir())


def test_a_long_list_of_runs_is_counted(tmp_path):
    lines = [f"{size},{seed},{1600 / size + seed},reached,0.1" for size in (4, 8) for seed in range(20)]
    write_table(tmp_path / "mine.csv", lines)
    assert main([str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("20 runs, seed 0 (reached), seed 1 (reached), seed 2 (reached) and 17 more") == 2


def test_of_two_networks_of_one_name_each_says_its_size(tmp_path):
    for name, parameters in (("a", 20490), ("b", 33770)):
        make_study(tmp_path / name, lambda b: 100 + 9000 / b, [16, 64], [0], network="SmallCNN", parameters=parameters)
    told = [a.sentence.split(" on ")[0] for a in answers(analyze(read_sources([tmp_path])[0]))]
    assert sorted(told) == ["A small CNN (20,490 parameters)", "A small CNN (33,770 parameters)"]


def test_a_failed_row_is_not_scored_and_no_study_has_another_s_target(tmp_path):
    rows = ["64,1,reached,a,100,", "64,2,failed,a,100,", "64,1,budget,b,,", "64,2,reached,b,,70"]
    header = "batch_size,seed,status,study,steps_to_target/a,steps_to_target/b"
    runs, left_out = read_source(write_table(tmp_path / "t.csv", rows, header))
    assert not left_out
    told = [(r.record.study, r.record.status, [(h.metric, h.status) for h in r.hits]) for r in runs]
    assert told == [
        ("a", "reached", [("a", "reached")]),
        ("a", "failed", [("a", "failed")]),
        ("b", "budget", [("b", "budget")]),
        ("b", "reached", [("b", "reached")]),
    ]
