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


# What the designs leave open at the noise of real runs: in how many of 20 made-up studies they decide.
LEFT_OPEN = {
    ("golmant-1", True): 17,
    ("golmant-2", True): 17,
    ("golmant-3", False): 15,
    ("golmant-4", False): 14,
    ("golmant-8", True): 14,
    ("golmant-9", False): 0,  # no difference: three intervals at once are never all below the margin
    ("golmant-10", True): 18,
    ("golmant-10", False): 7,  # noise that changes nothing, seen through a scatter 1.2 times as large
    ("golmant-11", True): 13,
    ("golmant-12", True): 18,
    ("golmant-13", True): 17,
    ("you-1", False): 7,
    ("you-10", True): 14,  # three points between momentum and LARS
    ("you-10", False): 3,  # momentum scatters by 9 points: with 1 or 3 tuning seeds 3 of 20 were decided wrongly
    ("own-2", True): 16,
    ("own-4", True): 2,  # four curves of 5 seeds, all flat at the top
    ("own-5", True): 2,  # 5 seeds: the slope at the small end, where runs scatter most
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
    # at least 19 if it is not named, and 3 less: in another release of numpy the draws may differ
    assert found.count(right) >= LEFT_OPEN.get((claim.id, holds), 19) - 3
