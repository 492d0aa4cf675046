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


# What the designs leave open at the noise of the kept runs: in how many of as many made-up studies they decide.
LEFT_OPEN = {
    ("golmant-9", False): (0, 8),  # no difference: three intervals at once are never all below the margin
    ("golmant-10", True): (6, 7),
    ("golmant-12", True): (5, 7),
    ("you-1", False): (7, 20),
    ("you-10", True): (14, 20),  # three points between momentum and LARS
    ("you-10", False): (3, 20),  # momentum scatters by 9 points: with 1 or 3 tuning seeds 3 of 20 were decided wrongly
    ("own-2", True): (6, 7),
    ("own-4", True): (0, 7),  # four curves of 5 seeds, all flat at the top
    ("own-5", True): (2, 7),  # 5 seeds: the slope at the small end, where runs scatter most
}


def verdict(claim, holds: bool, draw: int):
    """Return what the claim's sweeps say in the made-up world's study of this number."""
    runs = [runs_of(SWEEPS / name / "embedded.yaml", claim.id, holds, draw) for name in claim.sweeps.split()]
    return verdict_on(claim, placed(*runs))


@pytest.mark.parametrize("holds", [True, False], ids=["holds", "is false"])
@pytest.mark.parametrize("claim", TESTED, ids=lambda c: c.id)
def test_the_claim_s_sweeps_decide_it_by_their_frozen_plans(claim, holds):
    found = verdict(claim, holds, draw=0)
    right = "supported" if holds else "contradicted"
    allowed = {right, "inconclusive"} if (claim.id, holds) in LEFT_OPEN else {right}
    assert found.verdict in allowed, (found.reason, found.evidence)
    assert "by a frozen plan" in found.reason


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("holds", [True, False], ids=["holds", "is false"])
@pytest.mark.parametrize("claim", TESTED, ids=lambda c: c.id)
def test_it_is_decided_as_often_as_said_and_hardly_ever_wrongly(claim, holds):
    found = [verdict(claim, holds, draw).verdict for draw in range(20)]
    right, wrong = ("supported", "contradicted") if holds else ("contradicted", "supported")
    print(f"{claim.id} {'holds' if holds else 'is false'}: {right} in {found.count(right)} of 20")
    assert found.count(wrong) <= 2  # 2.5 % on the wrong side: more than 2 of 20 once in 80 times
    decided, studies = LEFT_OPEN.get((claim.id, holds), (1, 1))
    assert found.count(right) >= 20 * decided / studies - 5  # two standard deviations, and more for the few studies
