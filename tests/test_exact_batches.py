"""The same global batch gives the same step, however it is cut up (contract 1)."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.order import Order
from tasks.spans import share
from tests.helpers.networks import NETWORKS, OPTIMIZERS
from tests.helpers.tiny import TASKS, Tiny, difference, fit, weights


def run(name: str, micro: int | None, batch_size: int, epoch_end: str, optimizer: str, steps: int = 10, **options):
    kind, network = NETWORKS[name]
    task = TASKS[kind](
        network=network, optimizer=OPTIMIZERS[optimizer], micro_batch_size=micro, clip_norm=1.0, **options
    )
    fit(task, Tiny(kind, side=16 if name == "lenet" else 8, batch_size=batch_size, epoch_end=epoch_end), steps)
    return task


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    batch_size=st.integers(1, 23),
    micro=st.integers(1, 9),
    epoch_end=st.sampled_from(["wrap", "keep"]),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    options=st.fixed_dictionaries({"label_smoothing": st.sampled_from([0.0, 0.1]), "channels_last": st.booleans()}),
)
def test_micro_batches_change_nothing(name, batch_size, micro, epoch_end, optimizer, options):
    one, many = (run(name, m, batch_size, epoch_end, optimizer, **options) for m in (batch_size, micro))
    assert difference(weights(many), weights(one)) < 1e-12
    assert one.evaluation["val/loss"] == pytest.approx(many.evaluation["val/loss"], rel=1e-12)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_step_is_that_of_the_plain_loop(kind, channels_last):
    """The reference: torch alone, the mean over all counted elements of the batch, plain momentum SGD."""
    name = {"images": "small cnn", "masks": "unet", "text": "lstm, dropout"}[kind]
    network = partial(NETWORKS[name][1], **({"dropout": 0.0} if kind == "text" else {}))
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    task = TASKS[kind](network=network, optimizer=optimizer, micro_batch_size=4, channels_last=channels_last)
    data = Tiny(kind, batch_size=9)
    fit(task, data, steps=7)

    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        reference = network(*data.dimensions)
    finally:
        torch.set_default_dtype(torch.float32)
    plain, train = optimizer(reference.parameters()), data.splits["train"]
    for k in range(7):
        at = Order(23, 9, seed=1, wrap=True).batch(k)
        inputs = train.inputs[at].double() if kind != "text" else train.inputs[at]
        outputs = reference(inputs)
        outputs = outputs.movedim(-1, 1) if kind == "text" else outputs
        loss = F.cross_entropy(outputs, train.targets[at].long(), ignore_index=255 if kind == "masks" else -100)
        plain.zero_grad()
        loss.backward()
        plain.step()
    if channels_last and kind != "text":
        kernels = [p for p in task.network.parameters() if p.dim() == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    expected = torch.cat([p.detach().flatten() for p in reference.parameters()])
    assert difference(weights(task), expected) < 1e-12


@given(n=st.integers(1, 60), data=st.data())
@settings(deadline=None)
def test_wrapped_batches_are_distinct_and_every_epoch_is_whole(n, data):
    batch_size = data.draw(st.integers(1, n))
    order = Order(n, batch_size, seed=3, wrap=True)
    batches = [order.batch(k) for k in range(3 * n // batch_size + 1)]
    assert all(len(set(b.tolist())) == batch_size for b in batches)
    stream = torch.cat(batches)
    for epoch in range(len(stream) // n):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    k = data.draw(st.integers(0, len(batches) - 1))
    assert torch.equal(Order(n, batch_size, seed=3, wrap=True).batch(k), batches[k])  # from nowhere, as when resumed


@given(n=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_kept_batches_end_with_the_ragged_rest(n, batch_size):
    batch_size = min(batch_size, n)
    order = Order(n, batch_size, seed=3, wrap=False)
    per_epoch = order.steps(1)
    epoch = torch.cat([order.batch(k) for k in range(per_epoch, 2 * per_epoch)])
    assert sorted(epoch.tolist()) == list(range(n))


@given(n=st.integers(0, 100), ranks=st.integers(1, 9), unit=st.integers(1, 20))
def test_shares_cover_the_batch_once_and_cut_only_between_units(n, ranks, unit):
    shares = [share(n, rank, ranks, unit) for rank in range(ranks)]
    assert [p for start, stop in shares for p in range(start, stop)] == list(range(n))
    assert all(start % unit == 0 or start == n for start, _ in shares)
