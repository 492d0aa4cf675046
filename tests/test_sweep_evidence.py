"""Every claim's sweeps can decide it: their very cells, with outcomes made up, must bring out the truth."""

import re
from pathlib import Path

import pytest

from tasks.report.build import CLAIMS
from tasks.report.claims.studies import verdict_on
from tests.helpers.made_up import placed
from tests.helpers.sweep_world import runs_of

SWEEPS = Path("configs/sweeps")
NO_CONTENT = {"you-4", "you-5"}
TESTED = [c for c in CLAIMS if c.id not in NO_CONTENT]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])


def test_every_claim_with_empirical_content_names_the_command_that_tests_it():
    assert {c.id for c in CLAIMS if not c.sweeps} == NO_CONTENT
    for claim in TESTED:
        files = re.findall(r"configs/\S+\.yaml", claim.rerun)
        assert files
        assert all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("holds", [True, False], ids=["holds", "is false"])
@pytest.mark.parametrize("claim", TESTED, ids=lambda c: c.id)
def test_the_claim_s_sweeps_decide_it_by_their_frozen_plans(claim, holds):
    runs = [runs_of(SWEEPS / name / "embedded.yaml", claim.id, holds) for name in claim.sweeps.split()]
    found = verdict_on(claim, placed(*runs))
    assert found.verdict == ("supported" if holds else "contradicted"), (found.reason, found.evidence)
    assert found.reason == "by a frozen plan"
