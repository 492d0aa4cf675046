"""Every sweep file that comes with the project: its count, W&B's rules, and its cells through the real parser."""

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import cli, publish
from tasks.report.sources.read import read_sources
from tasks.sweep import parameters
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import Ledger, State
from tasks.sweep.plan import is_plan, plan_beside, read_plan, source
from tasks.sweep.worker import local_flags
from tests.helpers import power

MARGINS = power.MARGINS | {"you-2": {"share": 0.25}}  # has no power: decided by no function
FILES = sorted(p for p in Path(__file__).parent.parent.glob("configs/sweeps/**/*.yaml") if not is_plan(p))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_head_s_number_of_runs_is_the_grid_s_and_first_and_last_cell_parse(path):
    sweep = read_sweep(path)
    choices = sweep.choices()
    head = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    product, count = re.search(r"([^.:#]*) = ([\d,]+) runs", head).groups()
    assert int(count.replace(",", "")) == len(choices)
    factors = [int(part) for part in re.findall(r"(\d+) [a-z]", product)]
    assert len(choices) == math.prod(factors)
    for values in (choices[0], choices[-1]):
        cli.place(sweep.cell(values).args)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_plan_fits(path):
    assert source(read_sweep(path)).cells(lambda cell: State("left", {}, None))


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_study_is_the_folder_s_and_its_plan_s_margins_are_the_protocol_s(path):
    """A margin that is not the protocol's would make every verdict of the study post hoc."""
    sweep = read_sweep(path)
    assert sweep.name == (path.stem if path.parent.name == "demo" else path.parent.name)
    margins = plan.margins if (plan := read_plan(sweep)) else {}
    for claim, given in margins.items():
        assert given == pytest.approx(MARGINS[claim])


def test_every_plan_serves_a_sweep():
    plans = {p for p in Path("configs/sweeps").rglob("*.yaml") if is_plan(p)}
    assert {plan_beside(path).resolve() for path in FILES} >= {p.resolve() for p in plans}


def test_the_index_of_the_studies_is_made_from_their_files_and_the_kept_runs():
    runs, left_out = read_sources(publish.sources())
    assert not left_out
    readme = Path("configs/sweeps/README.md").read_text()
    content = json.loads(Path("results/summary.json").read_text())
    assert publish.filled(readme, {"index": publish.studies_index(content, publish.time_taken(runs))}) == readme


def test_the_table_of_the_readme_is_the_kept_summary_s():
    readme = Path("README.md").read_text()
    content = json.loads(Path("results/summary.json").read_text())
    assert publish.filled(readme, {"head": publish.head(content)}) == readme


def test_a_claim_names_the_studies_that_it_used():
    for claim in json.loads(Path("results/summary.json").read_text())["claims"]:
        used = {name.split(":")[0] for name in claim["scale"].split("; ") if ":" in name}
        assert used <= set(claim["studies"]), claim["id"]


def test_a_planned_cell_parses():
    path = next(path for path in FILES if plan_beside(path).exists())
    cli.place(source(read_sweep(path)).cells(lambda cell: State("left", {}, None))[0].args)


def test_a_cell_is_the_same_run_under_an_agent_and_on_this_machine(tmp_path):
    sweep = read_sweep(Path("configs/sweeps/golmant_fig1_language/paper.yaml"))
    args = sweep.cell(sweep.choices()[0]).args
    here = cli.place([*args, *local_flags(Ledger(tmp_path))]).directory
    assert here.relative_to(tmp_path) == cli.place(args).directory.relative_to("runs")


ENGINE = """
import json, sys, warnings, yaml
warnings.simplefilter("ignore")
from sweeps.config.cfg import schema_violations_from_proposed_config as violations
def refused(content):
    try:
        return bool(violations(content))
    except Exception:
        return True
given = json.load(sys.stdin)
files = [refused(yaml.safe_load(open(path))) for path in given[0]]
print(json.dumps([files, [refused(content) for content in given[1]]]))
"""


def made_up_sweep(source):
    """A sweep with one parameter of any fields, mostly bad."""
    values = {"values": [[1, 2], [], "x"], "probabilities": [[0.5, 0.5], [1.0]], "value": [1, "x"]}
    names = ["min", "max", "mu", "sigma", "q", "a", "b", "value", "values", "probabilities"]
    fields = source.sample(names, source.choice([0, 1, 1, 2, 2, 3]))
    parameter = {name: source.choice(values.get(name, [0, 1, -1, 0.5, 2.0, 3])) for name in fields}
    if (
        kind := source.choice(["constant", "categorical", "uniform", "q_normal", "log_uniform", "nonsense", None])
    ) is not None:
        parameter["distribution"] = kind
    return {"method": "grid", "parameters": {"a": parameter}}


@pytest.mark.slow
def test_w_and_b_s_own_engine_accepts_every_file_and_refuses_no_more_than_the_check(tmp_path):
    """PyPI's `sweeps` is W&B's; it wants an older numpy, so it has an environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    pip = [tmp_path / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "sweeps==0.3.0"], check=True)
    needs = ["jsonschema", "jsonref", "numpy", "scipy", "pyyaml", "pydantic", "scikit-learn"]
    subprocess.run([*pip, *needs], check=True)
    source = random.Random(0)
    made_up = [made_up_sweep(source) for _ in range(20_000)]
    given = json.dumps([[str(path) for path in FILES], made_up])
    command = [tmp_path / "bin" / "python", "-c", ENGINE]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    files, theirs = json.loads(done.stdout)
    assert not any(files)
    assert 0 < sum(theirs) < len(theirs)
    for content, refused in zip(made_up, theirs, strict=True):
        if refused:
            with pytest.raises(ValueError, match="parameters"):
                parameters.check(content["parameters"])


def test_a_published_figure_may_differ_by_a_rounding_and_no_more(tmp_path):
    files = [tmp_path / f"{name}.svg" for name in "ab"]
    for path, text, same in [
        *(("M1 2.1L3 4", "0.8", True), ("M1 2.5L3 4", "0.8", False), ("M1 2L3 4L5 6", "0.8", False)),
        *(("M1 2l3 4", "0.8", False), ("M1 2L3 4", "0.7", False)),
    ]:
        for file, content in zip(files, (("M1 2L3 4", "0.8"), (path, text)), strict=True):
            file.write_text("<path d='{}'/><text>{}</text>".format(*content))
        assert publish.alike(*files) == same
