"""Scaling rules, warm-up and schedules against closed forms and the papers' own numbers."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim.muon import Muon
from torch import nn

from datamodules.growth import first_example, growth_stages, stage_at, step_of
from tasks.image_classification import ImageClassification
from tasks.networks.cnn import SmallCNN
from tasks.optim.groups import parameter_groups
from tasks.optim.lamb import LAMB
from tasks.optim.rate import Rate, RateOptions
from tasks.optim.scaling import (
    Duration,
    lr_factor,
    scaled_average,
    warmup_steps,
)
from tasks.optim.schedules import Constant, Cosine, LinearTo, Polynomial, Schedule, Step, warmed_up
from tests.helpers.tiny import Tiny, fit


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5 epochs", 200),  # 5 x 10,000 / 250
        ("0.5 epochs", 20),
        ("1 epoch", 40),
        ("3000 steps", 3000),
        ("64000 examples", 256),
        ("64001 examples", 257),
        ("1e3 steps", 1000),
        ("0 steps", 0),
    ],
)
def test_durations_become_steps(text, steps):
    assert Duration.parse(text).steps(batch_size=250, train_examples=10_000) == steps


@pytest.mark.parametrize("text", ["5", "epochs", "5 hours", "-1 steps", "1.2.3 epochs", "5epochs x"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="5 epochs"):
        Duration.parse(text)


def test_scaling_rules():
    assert lr_factor("none", 4096, 256) == 1
    assert 0.1 * lr_factor("linear", 8192, 256) == pytest.approx(3.2)  # Goyal et al.: 0.1 at 256 is 3.2 at 8k
    assert lr_factor("sqrt", 1024, 256) == lr_factor("legw", 1024, 256) == 2
    assert lr_factor("linear", 64, 256) == 0.25


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 50), st.integers(1, 100_000))
def test_legw_multiplies_warmup_epochs_by_k(batch, base, epochs, examples):
    legw = warmup_steps(Duration(epochs, "epochs"), "legw", batch, base, examples)
    multiplied = Duration(epochs * batch / base, "epochs").steps(batch, examples)
    assert abs(legw - multiplied) <= 1  # rounding of a product in another order
    assert warmup_steps(Duration(epochs, "epochs"), "sqrt", batch, base, examples) == math.ceil(
        epochs * examples / batch - 1e-9
    )


def test_averages_scale_with_the_batch():
    assert scaled_average(0.9, "none", 512, 128) == 0.9
    held = scaled_average(0.9, "noise", 512, 128)
    assert 1 / (512 * (1 - held)) == pytest.approx(1 / (128 * (1 - 0.9)))  # N lr / (B (1 - m))
    assert scaled_average(0.9, "noise", 4, 128) == 0
    beta = scaled_average(0.999, "half-life", 512, 128)
    assert 512 * math.log(0.5) / math.log(beta) == pytest.approx(128 * math.log(0.5) / math.log(0.999))


def test_schedules_in_closed_form():
    for step in range(101):
        x = step / 100
        assert Constant()(step, 100) == 1
        assert Polynomial(2.0)(step, 100) == pytest.approx((1 - x) ** 2)
        assert Polynomial(1.0, end=0.1)(step, 100) == pytest.approx(1 - 0.9 * x)
        assert Cosine(0.2)(step, 100) == pytest.approx(0.6 + 0.4 * math.cos(math.pi * x))
        assert LinearTo(0.01, 0.5)(step, 100) == pytest.approx(max(0.01, 1 - 0.99 * x / 0.5))


@pytest.mark.parametrize("schedule", [Polynomial(), Cosine(0.1), LinearTo(0.1, 0.7), Step([0.5])])
def test_schedules_start_at_one_and_stay_at_their_end(schedule):
    assert schedule(0, 50) == 1
    assert schedule(50, 50) == pytest.approx(schedule(80, 50))
    values = [schedule(step, 50) for step in range(51)]
    assert values == sorted(values, reverse=True)


def test_steps_of_goyal():
    # ImageNet, 1,281,167 images, batch 8192: drops after epochs 30, 60, 80 of 90 (Goyal et al. 2017)
    def steps(duration):
        return duration.steps(8192, 1_281_167)

    schedule = Step(["30 epochs", "60 epochs", "80 epochs"]).resolved(steps)
    total = steps(Duration(90, "epochs"))
    for epoch, factor in [
        (0, 1),
        (29.9, 1),
        (30.1, 0.1),
        (59.9, 0.1),
        (60.1, 0.01),
        (80.1, 1e-3),
        (90, 1e-3),
    ]:
        assert schedule(int(epoch * 1_281_167 / 8192), total) == pytest.approx(factor)
    by_fraction = Step()
    for step in range(0, total, 97):
        assert by_fraction(step, total) == pytest.approx(schedule(step, total))


def test_a_warm_up_ramps_from_its_start_and_the_schedule_follows():
    # Goyal et al.: from 0.1 to 3.2, here in 10 steps, in even increments
    rates = [3.2 * warmed_up(Constant(), step, 100, 10, start=0.1 / 3.2) for step in range(12)]
    increments = [b - a for a, b in zip([0.1, *rates[:9]], rates[:10], strict=True)]
    assert increments == pytest.approx([0.31] * 10)
    assert rates[9:] == pytest.approx([3.2] * 3)
    factors = [warmed_up(Polynomial(1.0), step, 30, 10, start=0.0) for step in range(31)]
    assert factors[:10] == pytest.approx([(u + 1) / 10 for u in range(10)])
    assert factors[10:] == pytest.approx([1 - t / 20 for t in range(21)])
    stepped = [warmed_up(Step([0.5]), step, 20, 4, start=0.0) for step in (3, 9, 10)]
    assert stepped == pytest.approx([1, 1, 0.1])  # milestones count from the start


def test_without_warm_up_nothing_changes():
    for step in range(20):
        assert warmed_up(Cosine(), step, 20, 0, start=0.0) == Cosine()(step, 20)


def test_schedules_name_their_settings():
    assert repr(Polynomial(2.0)) == "Polynomial(power=2.0, end=0.0)"
    assert repr(Schedule()) == "Schedule()"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="30 epochs"):
        Step([30])
    with pytest.raises(ValueError, match="above 0"):
        LinearTo(decay_fraction=0)


def test_growth_holds_the_noise_scale_until_the_batch_is_at_its_limit():
    drops = [(0, 1.0), (1000, 0.2), (2000, 0.04), (3000, 0.008)]
    stages = growth_stages(drops, batch_size=10, largest_batch_size=200)
    assert [s.batch_size for s in stages] == [10, 50, 200, 200]
    for stage, (_, factor) in zip(stages, drops, strict=True):
        assert stage.lr_factor / stage.batch_size == pytest.approx(factor / 10)  # noise scale ~ lr / B
    assert [s.lr_factor for s in stages] == pytest.approx([1, 1, 0.8, 0.16])


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=4, unique=True),
    st.integers(1, 40),
    st.integers(1, 300),
)
def test_growth_covers_the_stream_without_gap(begins, batch_size, largest):
    drops = [(0, 1.0)] + [(begin, 0.5**i) for i, begin in enumerate(sorted(begins), 1)]
    stages = growth_stages(drops, batch_size, largest)
    place = 0
    for step in range(80):
        stage = stage_at(stages, step)
        assert first_example(stages, step) == place
        assert step_of(stages, place) == step_of(stages, place + stage.batch_size - 1) == step
        wanted = max(i for i, (begin, _) in enumerate(drops) if begin <= place)
        assert stage.batch_size == stages[wanted].batch_size
        place += stage.batch_size


def test_weight_decay_may_leave_norm_and_bias_out():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 2))
    network[0].bias.requires_grad_(False)
    everything = parameter_groups(network)
    assert [id(p) for p in everything[0]["params"]] == [id(p) for p in network.parameters() if p.requires_grad]
    decayed, spared = parameter_groups(network, weight_decay_norm_bias=False)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 1, 3, 3), (2, 4)]
    assert [tuple(p.shape) for p in spared["params"]] == [(4,), (4,), (2,)]
    optimizer = torch.optim.SGD([decayed, spared], lr=1.0, weight_decay=0.5)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for p in network.parameters()]
    optimizer.step()
    for p, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(p, old * (0.5 if p.ndim > 1 else 1.0))


@pytest.mark.parametrize("schedule", [Polynomial(), Cosine(), LinearTo(), Step([0.9]), Step(["1 epochs", 0.9])])
def test_a_schedule_over_an_unknown_horizon_is_refused(schedule):
    with pytest.raises(ValueError, match=r"model\.horizon"):
        Rate(RateOptions(schedule=schedule), 10, 100, total_steps=None)


def test_a_schedule_in_epochs_needs_no_horizon():
    options = RateOptions("linear", 10, warmup="1 epoch", warmup_from="base", schedule=Step(["2 epochs"]))
    rate = Rate(options, 20, 100, total_steps=None)
    assert rate.factor == 2
    assert [rate.at(step) for step in range(12)] == pytest.approx([0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1, 1, 0.1, 0.1])
    assert Rate(RateOptions(), 10, 100, total_steps=None).at(10**6) == 1


def test_a_warm_up_that_fills_the_baseline_s_run_is_refused():
    """5 epochs of 10,000 are 3,125 steps at batch 16 and 5 at the full batch (protocol rule 8)."""

    def rate(warmup, baseline_steps, batch_size=10_000):
        options = RateOptions("linear", 16, warmup, baseline_steps=baseline_steps)
        return Rate(options, batch_size, 10_000, None)

    with pytest.raises(ValueError, match="takes 3125 of the baseline's 500 steps at batch 16: give at most 30%"):
        rate("5 epochs", 500)
    assert rate("5 epochs", 10_417).warmup_steps == 5  # 30.0 % of it
    with pytest.raises(ValueError, match="at most 30%"):
        rate("5 epochs", 10_416)
    assert rate("3125 steps", 500).warmup_steps == 3125  # a length of its own at each batch
    assert rate("5 epochs", None).warmup_steps == 5  # a named replication
    with pytest.raises(ValueError, match=r"needs model\.base_batch_size"):
        Rate(RateOptions(warmup="1 epoch", baseline_steps=500), 20, 100, None)


def test_an_optimizer_with_a_momentum_and_betas_has_both_scaled():
    optimizer = partial(Muon, lr=1e-3, momentum=0.8, betas=(0.9, 0.99))
    options = {"base_batch_size": 4, "momentum_scaling": "half-life"}
    task = ImageClassification(network=partial(SmallCNN, channels=(4,)), optimizer=optimizer, **options)
    fit(task, Tiny(batch_size=12), steps=1)
    for group in task.optimizer.param_groups:
        assert group["momentum"] == pytest.approx(0.8**3)
        assert group["betas"] == pytest.approx((0.9**3, 0.99))


def test_beta2_keeps_its_half_life_in_examples():
    def betas(optimizer, **options):
        network = partial(SmallCNN, channels=(4,))
        task = ImageClassification(network=network, optimizer=optimizer, base_batch_size=4, **options)
        fit(task, Tiny(batch_size=12), steps=1)
        return task.facts()["optimizer"]["settings"].get("betas"), task.facts()["rate"]["beta2_scaling"]

    adam = partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.99))
    assert betas(adam) == ((0.9, 0.99), "none")
    scaled, rule = betas(adam, beta2_scaling="half-life")
    assert scaled[0] == 0.9
    # beta^(n / B) halves after as many examples n at 12 as at 4
    assert 12 / math.log(scaled[1]) == pytest.approx(4 / math.log(0.99))
    assert rule == "half-life"
    both, _ = betas(partial(LAMB, betas=(0.9, 0.99)), beta2_scaling="half-life", momentum_scaling="half-life")
    assert both == pytest.approx((0.9**3, 0.99**3))
    with pytest.raises(ValueError, match="beta2_scaling is for Adam"):
        betas(partial(torch.optim.SGD, lr=0.1), beta2_scaling="half-life")
    with pytest.raises(ValueError, match=r"model\.beta2_scaling needs model\.base_batch_size"):
        ImageClassification(network=SmallCNN, optimizer=adam, beta2_scaling="half-life")
