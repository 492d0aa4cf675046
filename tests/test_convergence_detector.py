"""The detector's decisions on scripted curves, and in a real run."""

import math

import pytest
import torch

from callbacks.convergence_detector import ConvergenceDetector, Plateau, Rules, Target, judge
from callbacks.evaluation_schedule import next_step
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tests.tiny import Tiny, fit

GOAL = Target("val/accuracy", "max", 0.8)


def rows(values, losses=None, steps=None):
    """Evaluations 10 steps of 4 examples apart, the first before training."""
    steps = steps or [10 * i for i in range(len(values))]
    losses = losses or [1.0] * len(values)
    return [
        {"step": s, "examples": 4 * s, "epoch": s / 10, "seconds": float(s), "trainset/loss": loss, "val/accuracy": v}
        for s, v, loss in zip(steps, values, losses, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "reached", "stopped_by", "bracket"),
    [
        ([0.1, 0.5, 0.7, 0.79], False, None, None),
        ([0.1, 0.5, 0.85, 0.7, 0.7], False, None, None),  # one lucky evaluation is no hit
        ([0.1, 0.5, 0.81, 0.82], True, None, [10, 20]),  # centred on the first of two, but wait for three more
        ([0.1, 0.5, 0.81, 0.82, 0.8, 0.9], True, "targets", [10, 20]),
        ([0.1, 0.5, 0.81, 0.7, 0.82, 0.83, 0.83, 0.84], True, "targets", [20, 30]),  # the median fills one hole
        ([0.1, 0.5, math.nan, 0.82, 0.83, 0.83, 0.84], True, "targets", [20, 30]),  # NaN never meets a goal
    ],
)
def test_hits_by_the_centred_median(values, reached, stopped_by, bracket):
    verdict = judge(rows(values), [GOAL], Rules())
    assert verdict.stopped_by == stopped_by
    assert verdict.targets[0]["status"] == ("reached" if reached else "running")
    assert (verdict.targets[0]["bracket"] or {"steps": None})["steps"] == bracket


def test_first_and_consecutive_stand_beside_the_hit_in_every_unit():
    target = judge(rows([0.1, 0.85, 0.7, 0.7, 0.81, 0.82, 0.83]), [GOAL], Rules(consecutive=3)).targets[0]
    assert target["first"]["steps"] == [0, 10]
    assert target["consecutive"]["steps"] == [30, 40]
    assert target["bracket"] == {"steps": [30, 40], "examples": [120, 160], "epochs": [3, 4], "seconds": [30.0, 40.0]}


def test_smaller_is_better_for_min():
    loss = Target("trainset/loss", "min", 0.5)
    verdict = judge(rows([0] * 5, [2.0, 0.6, 0.5, 0.4, 0.4]), [loss], Rules())
    assert verdict.targets[0]["bracket"]["steps"] == [10, 20]


def test_budget_needs_both_steps_and_examples():
    curve = rows([0.1] * 6)
    assert judge(curve, [GOAL], Rules(steps=50, examples=1_000)).stopped_by is None
    assert judge(curve, [GOAL], Rules(steps=50, examples=200)).stopped_by == "budget"
    assert judge(curve, [GOAL], Rules(steps=51, examples=200)).stopped_by is None
    assert judge(curve, [GOAL], Rules(steps=50, examples=200)).targets[0]["status"] == "budget"


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([1.0, math.inf], True),
        ([1.0, math.nan], True),
        ([1.0, 3.1, 3.1, 3.1], True),
        ([1.0, 3.1, 3.1, 2.9], False),
        ([1.0, 3.1, 3.1], False),
    ],
)
def test_divergence_is_an_outcome_of_its_own(losses, diverged):
    verdict = judge(rows([0.1] * len(losses), losses), [GOAL], Rules())
    assert (verdict.status(ended=True) == "diverged") == diverged
    assert verdict.targets[0]["status"] == ("diverged" if diverged else "running")


def test_a_target_reached_before_divergence_stays_reached():
    curve = rows([0.1, 0.81, 0.82, 0.8, 0.1], [1.0, 0.5, 0.5, 0.5, math.nan])
    targets = judge(curve, [GOAL, Target("val/accuracy", "max", 0.99)], Rules()).targets
    assert [t["status"] for t in targets] == ["reached", "diverged"]


def test_without_targets_nothing_stops_the_run():
    verdict = judge(rows([0.9] * 9), [], Rules())
    assert (verdict.stopped_by, verdict.status(ended=True)) == (None, "budget")


def test_plateau_is_where_improvement_ends():
    target = Target("val/accuracy", "max", plateau=Plateau(window=80, improvement=0.05))
    verdict = judge(rows([0.1, 0.4, 0.6, 0.8, 0.81, 0.82, 0.82]), [target], Rules())
    assert verdict.targets[0]["bracket"]["steps"] == [40, 50]  # 0.82 beats 0.80 of 80 examples before by 2.5 %
    assert verdict.stopped_by == "targets"


def test_a_target_needs_a_value_or_a_plateau():
    with pytest.raises(ValueError, match="either value or plateau"):
        Target("val/loss", "min")


@pytest.mark.parametrize(("ratio", "phase"), [(1.1, 1.0), (1.1, 1.07), (2.0, 1.5), (1.01, 1.003)])
def test_evaluated_steps_are_the_geometric_grid(ratio, phase):
    grid = sorted({int(phase * ratio**j) for j in range(1000) if phase * ratio**j < 10_000})
    step, walked = 0, []
    while (step := next_step(step, ratio, phase)) < 10_000:
        walked.append(step)
    assert walked == [g for g in grid if g > 0]


def task(lr=0.1):
    return ImageClassification(
        network=lambda c, n: SmallCNN(c, n, channels=(4,)), optimizer=lambda p: torch.optim.SGD(p, lr=lr)
    )


def test_a_real_run_stops_when_all_is_decided_and_evaluates_where_told():
    detector = ConvergenceDetector([Target("trainset/loss", "min", 1.05)])
    trainer = fit(task(), Tiny(batch_size=5), steps=200, callbacks=(detector,))
    steps = [row["step"] for row in detector.rows]
    phase = 1.5 ** __import__("random").Random(1).random()
    assert steps == [0, *(s for s in sorted({int(phase * 1.5**j) for j in range(30)}) if 0 < s <= steps[-1])]
    assert detector.verdict.stopped_by == "targets"
    assert trainer.global_step == steps[-1] < 200
    hit = steps.index(detector.verdict.targets[0]["bracket"]["steps"][1])
    assert len(steps) == hit + 4


def test_a_budget_ends_the_run_at_its_very_step():
    detector = ConvergenceDetector([Target("val/accuracy", "max", 2.0)], budget_steps=7, budget_examples=55)
    trainer = fit(task(), Tiny(batch_size=5), steps=200, callbacks=(detector,))
    assert trainer.global_step == 11  # 55 examples in steps of 5
    assert detector.rows[-1]["step"] == 11
    assert detector.verdict.stopped_by == "budget"


def test_told_so_it_runs_on():
    detector = ConvergenceDetector([Target("val/loss", "min", 99.0)], stop=False)
    assert fit(task(), Tiny(batch_size=5), steps=30, callbacks=(detector,)).global_step == 30
    assert detector.verdict.status(ended=True) == "reached"


def test_a_rate_far_too_large_diverges():
    detector = ConvergenceDetector([Target("val/accuracy", "max", 2.0)])
    fit(task(lr=1e30), Tiny(batch_size=5), steps=200, callbacks=(detector,), precision="32-true")
    assert detector.verdict.stopped_by == "diverged"


def test_state_survives():
    one, other = ConvergenceDetector([GOAL]), ConvergenceDetector([GOAL])
    one.rows = rows([0.1, 0.81, 0.82, 0.8, 0.8])
    other.load_state_dict(one.state_dict())
    assert other.verdict == judge(one.rows, [GOAL], Rules())
    assert other.verdict.stopped_by == "targets"
