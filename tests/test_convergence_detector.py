"""The detector's decisions on scripted curves, and in a real run."""

import io
import itertools
import math
import statistics

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint

from callbacks.convergence_detector import ConvergenceDetector, Plateau, Rules, Target, judge, judge_target
from callbacks.evaluation_schedule import EvaluationSchedule, step_after
from callbacks.progress import Progress
from datamodules.growth import Growth
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tests.helpers.tiny import Tiny, fit

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
    ("values", "reached", "stopped_by"),
    [
        ([0.1, 0.5, 0.7, 0.79], False, None),
        ([0.1, 0.5, 0.85, 0.7, 0.7], False, None),  # one lucky evaluation is no hit
        ([0.1, 0.5, 0.81, 0.82], False, None),  # crossed near step 20, followed up by two evaluations only
        ([0.1, 0.5, 0.81, 0.82, 0.83], True, "targets"),
        ([0.1, 0.5, math.nan, 0.82, 0.83, 0.83], True, "targets"),
    ],
)
def test_a_hit_is_followed_up_before_the_run_stops(values, reached, stopped_by):
    verdict = judge(rows(values), [GOAL], Rules())
    assert verdict.stopped_by == stopped_by
    assert verdict.targets[0].status == ("reached" if reached else "running")
    assert (verdict.targets[0].hit is not None) == reached


def test_the_three_rules_stand_beside_each_other_in_every_unit():
    target = judge(rows([0.1, 0.85, 0.7, 0.7, 0.81, 0.82, 0.83]), [GOAL], Rules()).targets[0]
    assert 0 < target.first.steps < 10 < target.hit.steps < 40
    for at in (target.first, target.hit):
        assert (at.examples, at.epochs, at.seconds) == pytest.approx((4 * at.steps, at.steps / 10, at.steps))


def test_smaller_is_better_for_min():
    loss = Target("trainset/loss", "min", 0.5)
    verdict = judge(rows([0] * 6, [2.0, 0.6, 0.5, 0.4, 0.4, 0.4]), [loss], Rules())
    assert verdict.targets[0].hit.steps == pytest.approx(20)


def test_a_race_is_lost_where_its_first_target_is_not_crossed_in_time():
    race, other = Rules(outrun_steps=40), Target("trainset/loss", "min", 0.1)
    slow = judge(rows([0.1, 0.2, 0.3, 0.4, 0.5]), [GOAL, other], race)
    assert (slow.stopped_by, slow.status(ended=True)) == ("outrun", "outrun")
    assert [t.status for t in slow.targets] == ["outrun", "outrun"]
    crossed = judge(rows([0.1, 0.2, 0.3, 0.81, 0.82]), [GOAL, other], race)
    assert crossed.stopped_by is None  # crossed in time: it is followed up
    won = judge(rows([0.1, 0.2, 0.3, 0.81, 0.82, 0.83]), [GOAL, other], race)
    assert (won.stopped_by, won.status(ended=True)) == ("targets", "reached")  # the other target is no part of the race


def test_budget_needs_both_steps_and_examples():
    curve = rows([0.1] * 6)
    assert judge(curve, [GOAL], Rules(steps=50, examples=1_000)).stopped_by is None
    assert judge(curve, [GOAL], Rules(steps=50, examples=200)).stopped_by == "budget"
    assert judge(curve, [GOAL], Rules(steps=51, examples=200)).stopped_by is None
    assert judge(curve, [GOAL], Rules(steps=50, examples=200)).targets[0].status == "budget"


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
    assert verdict.targets[0].status == ("diverged" if diverged else "running")


def test_a_target_reached_before_divergence_stays_reached():
    curve = rows([0.1, 0.81, 0.82, 0.83, 0.8, 0.1], [1.0, 0.5, 0.5, 0.5, 0.5, math.nan])
    targets = judge(curve, [GOAL, Target("val/accuracy", "max", 0.99)], Rules()).targets
    assert [t.status for t in targets] == ["reached", "diverged"]


def test_without_targets_nothing_stops_the_run():
    verdict = judge(rows([0.9] * 9), [], Rules())
    assert (verdict.stopped_by, verdict.status(ended=True)) == (None, "budget")


def test_plateau_is_where_improvement_ends():
    target = Target("val/accuracy", "max", plateau=Plateau(window=80, improvement=0.05))
    verdict = judge(rows([0.1, 0.4, 0.6, 0.8, 0.81, 0.82, 0.82]), [target], Rules())
    assert verdict.targets[0].hit.steps == 50  # 0.82 beats 0.80 of 80 examples before by 2.5 %
    assert verdict.stopped_by == "targets"


def test_a_target_needs_a_value_or_a_plateau():
    with pytest.raises(ValueError, match="either value or plateau"):
        Target("val/loss", "min")


def test_a_goal_that_no_run_can_meet_is_refused():
    with pytest.raises(ValueError, match="finite number"):
        Target("val/loss", "min", math.nan)


def walked(curve, targets, last=6000):
    """The steps that are evaluated, and those left to evaluate when the last target is reached."""
    steps = [0, 10]
    while steps[-1] < last:
        seen = rows([curve(s) for s in steps], steps=steps)
        left = [t for t in targets if judge_target(seen, t).status == "running"]
        if targets and not left:
            break
        steps.append(step_after(seen, left, 1.1, 1.2))
    return steps


def test_evaluations_are_close_together_only_near_a_target():
    steps = walked(lambda s: 0.1 * math.log(1 + s), [GOAL])  # 0.8 at step 2,980
    ratios = [b / a for a, b in itertools.pairwise(steps[1:]) if a > 40]
    near = [r for r, s in zip(ratios, [s for s in steps if s > 40], strict=False) if s > 2980 / 1.5]
    assert 1.19 < statistics.median(ratios) < 1.21
    assert max(near) < 1.11
    assert 1.5 * 2980 <= steps[-1] < 1.5 * 2980 + 3


def test_without_a_target_left_evaluations_grow_by_the_ratio():
    steps = walked(lambda s: 0.5, [])
    assert all(b == max(a + 1, round(1.1 * a)) for a, b in itertools.pairwise(steps[1:]))


def test_the_last_evaluation_is_where_the_hit_has_been_followed_up():
    steps = walked(lambda s: 0.2 * math.log(1 + s), [GOAL])  # 0.8 at step 53.6
    assert 1.5 * 53.6 <= steps[-1] <= 1.5 * 53.6 + 3


def task(lr=0.1):
    return ImageClassification(
        network=lambda c, n: SmallCNN(c, n, channels=(4,)), optimizer=lambda p: torch.optim.SGD(p, lr=lr)
    )


def test_a_real_run_stops_when_all_is_decided_and_evaluates_where_told():
    detector = ConvergenceDetector([Target("trainset/loss", "min", 1.05)])
    trainer = fit(task(), Tiny(batch_size=5), steps=200, callbacks=(detector,))
    steps = [int(row["step"]) for row in detector.rows]
    assert steps[0] == 0
    assert all(step_after(detector.rows[:i], detector.targets, 1.5, 1.5) == steps[i] for i in range(2, len(steps)))
    assert detector.verdict.stopped_by == "targets"
    assert trainer.global_step == steps[-1] < 200
    assert steps[-1] >= 1.5 * detector.verdict.targets[0].hit.steps


@pytest.mark.parametrize("every", [False, True])
def test_only_what_a_target_names_is_measured_before_a_known_end(every):
    detector = ConvergenceDetector([Target("val/accuracy", "max", 2.0)])
    callbacks = (EvaluationSchedule(1.5, first=1, every_split=every), detector)
    fit(task(), Tiny(batch_size=5), steps=30, callbacks=callbacks)
    *before, last = ({"trainset/loss", "val/loss"} & set(row) for row in detector.rows)
    assert last == {"trainset/loss", "val/loss"}
    assert len(before) > 5
    assert all(splits == (last if every else {"val/loss"}) for splits in before)


def test_a_race_measures_what_its_first_target_names():
    detector = ConvergenceDetector(
        [Target("val/accuracy", "max", 2.0), Target("trainset/loss", "min", 0.0)], outrun_steps=30
    )
    fit(task(), Tiny(batch_size=5), steps=60, callbacks=(EvaluationSchedule(1.5, first=1), detector))
    assert len(detector.rows) > 6
    assert not any("trainset/loss" in row for row in detector.rows)


@pytest.mark.parametrize("later", [{"value": 0.5}, {"plateau": Plateau(window=20)}], ids=["value", "plateau"])
def test_a_race_ends_whatever_split_a_later_target_is_on(later):
    detector = ConvergenceDetector(
        [Target("val/accuracy", "max", 2.0), Target("trainset/loss", "min", **later)], outrun_steps=30
    )
    progress = Progress(every=0.0)
    progress.out = io.StringIO()
    fit(task(), Tiny(batch_size=5), steps=60, callbacks=(EvaluationSchedule(1.5, first=1), detector, progress))
    assert detector.verdict.status(ended=True) == "outrun"
    assert [t.status for t in detector.verdict.targets] == ["outrun", "outrun"]  # what is not measured is not reached
    assert "val/accuracy" in progress.out.getvalue()
    assert "trainset/loss" not in progress.out.getvalue()


@pytest.mark.parametrize(("metric", "every"), [("val/loss", False), ("trainset/loss", True)])
def test_another_callback_may_follow_what_is_measured(tmp_path, metric, every):
    detector, keep = (
        ConvergenceDetector([Target("val/accuracy", "max", 2.0)]),
        ModelCheckpoint(tmp_path, monitor=metric),
    )
    fit(task(), Tiny(batch_size=5), 9, callbacks=(EvaluationSchedule(1.5, first=1, every_split=every), detector, keep))
    assert keep.best_model_score is not None


def test_a_callback_that_follows_what_no_target_names_is_refused_before_training(tmp_path):
    detector, keep = ConvergenceDetector([Target("val/accuracy", "max", 2.0)]), ModelCheckpoint(monitor="trainset/loss")
    with pytest.raises(ValueError, match=r"ModelCheckpoint follows trainset/loss.*--evaluation\.every_split true"):
        fit(task(), Tiny(batch_size=5), 9, callbacks=(EvaluationSchedule(), detector, keep))


@pytest.mark.parametrize("targets", [[], [{"metric": "val/accuracy", "direction": "max", "value": 2.0}]])
def test_a_run_without_an_end_says_so(targets):
    progress = Progress()
    progress.out = io.StringIO()

    class Halt(Callback):
        def on_train_batch_start(self, trainer, *_):
            trainer.should_stop = True

    fit(task(), Tiny(batch_size=5), steps=-1, callbacks=(ConvergenceDetector(targets), progress, Halt()))
    assert ("this run has no end" in progress.out.getvalue()) == (not targets)


def test_divergence_is_seen_in_the_loss_that_is_measured_throughout():
    steps, losses = [0, 10, 20, 30, 40, 50], [2.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    seen = rows([0.1] * 6, [2.0] * 6, steps=steps)
    seen = [row | {"val/loss": loss} for row, loss in zip(seen, losses, strict=True)]
    assert judge(seen, [GOAL], Rules()).stopped_by is None  # the training subset's is, and it is sound
    for row in seen[:-1]:
        del row["trainset/loss"]
    assert judge(seen, [GOAL], Rules()).stopped_by == "diverged"
    clean = [{("trainset_clean/loss" if k == "val/loss" else k): v for k, v in row.items()} for row in seen]
    assert judge(clean, [GOAL], Rules()).stopped_by == "diverged"  # a target may name the clean labels alone


def test_a_race_ends_at_its_very_step():
    detector = ConvergenceDetector([Target("val/accuracy", "max", 2.0)], outrun_steps=17)
    assert fit(task(), Tiny(batch_size=5), steps=200, callbacks=(detector,)).global_step == 17
    assert detector.verdict.status(ended=True) == "outrun"


def test_a_budget_ends_the_run_at_its_very_step():
    def end(steps=7, **options):
        detector = ConvergenceDetector([Target("val/accuracy", "max", 2.0)], budget_steps=steps, budget_examples=55)
        trainer = fit(task(), data := Tiny(batch_size=5, **options), steps=200, callbacks=(detector,))
        assert detector.verdict.stopped_by == "budget"
        assert trainer.global_step == detector.rows[-1]["step"] == detector.last_step(data)
        assert {"trainset/loss", "val/loss"} <= set(detector.rows[-1])  # measured whole, since it was known
        return trainer.global_step

    assert end() == 11  # 55 examples in steps of 5
    assert end(epoch_end="keep", n=24) == 12  # 24 + 24 + 7: five steps an epoch, and two
    assert end(growth=Growth([0.5], factor=4)) == 7
    assert end(steps=1, growth=Growth([0.5], factor=4)) == 5  # 15 in steps of 5, 40 in steps of 20


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
    one.rows = rows([0.1, 0.81, 0.82, 0.83, 0.84])
    other.load_state_dict(one.state_dict())
    assert other.verdict == judge(one.rows, [GOAL], Rules())
    assert other.verdict.stopped_by == "targets"
