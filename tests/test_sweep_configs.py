"""Every sweep file that comes with the project: its count, W&B's rules, and its cells through the real parser."""

import math
import re
from pathlib import Path

import pytest

from tasks import cli
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import State
from tasks.sweep.plan import ENDING, source

FILES = sorted(p for p in Path(__file__).parent.parent.glob("configs/sweeps/**/*.yaml") if not p.name.endswith(ENDING))


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
    assert source(read_sweep(path)).cells(lambda cell: State("left", {}, {}))


def test_a_planned_cell_parses():
    path = next(path for path in FILES if path.with_name(path.stem + ENDING).exists())
    cli.place(source(read_sweep(path)).cells(lambda cell: State("left", {}, {}))[0].args)
