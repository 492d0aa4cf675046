"""Every claim's sweeps can decide it: their very cells, with outcomes made up, must bring out the truth."""

import re
from pathlib import Path

import pytest

from tasks.report.analysis.points import PRIMARY
from tasks.report.verdicts.claims import CLAIMS
from tasks.report.verdicts.decide import ALPHA, verdict_of
from tasks.report.verdicts.studies import rows_of, trusted
from tests.made_up import placed
from tests.sweep_world import runs_of

EMBEDDED = Path("configs/sweeps/embedded")
NO_CONTENT = {"you-4", "you-5"}
NEVER_SUPPORTED = {"golmant-4"}  # a scene has 1,024 pixels and a picture one label: no batch is that much larger
HOLM = {"golmant-13": 7}  # five comparisons in one: it outlives the correction if 7 or fewer claims are left to decide
CHEAP = {"golmant-8", "you-6"}  # in every test run; all others are slow
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
@pytest.mark.parametrize(
    "claim", [pytest.param(c, marks=() if c.id in CHEAP else pytest.mark.slow, id=c.id) for c in TESTED]
)
def test_the_claim_s_sweeps_decide_it(claim, holds):
    if holds and claim.id in NEVER_SUPPORTED:
        pytest.skip("beyond these batch sizes")
    runs = [runs_of(EMBEDDED / f"{name}.yaml", claim.id, holds) for name in claim.sweeps.split()]
    usable = trusted(placed(*runs))
    found = verdict_of(lambda view: claim.evidence(usable, view), PRIMARY, rows_of)
    assert found.verdict == ("supported" if holds else "contradicted"), (found.reason, found.parts)
    rivals = HOLM.get(claim.id, sum(c.paper == claim.paper for c in TESTED))
    assert found.p <= ALPHA / rivals  # so that it outlives Holm's correction, whatever becomes of the others
