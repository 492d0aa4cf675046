"""Smaller and noisier training sets: nested, exact in number, the same for every run."""

from itertools import pairwise

import pytest
import torch

from datamodules.base import Examples, InMemoryDataModule
from datamodules.fashion_mnist import FashionMNIST
from datamodules.variant import Variant

N, CLASSES = 3_000, 5


class Numbered(InMemoryDataModule):
    """Examples that are their own ids, of 5 unequal classes."""

    dimensions = (1, CLASSES)

    def load(self):
        ids = torch.arange(N)
        train = Examples(ids[:, None], (ids % 11).clamp(max=CLASSES - 1))
        return {"train": train, "val": train.at(ids[:10]), "test": train.at(ids[:10])}


def made(**variant):
    data = Numbered(batch_size=1, variant=Variant(**variant))
    data.setup("fit")
    return data


def ids(examples):
    return set(examples.inputs[:, 0].tolist())


def test_smaller_subsets_lie_inside_larger_ones():
    sizes = [len(made(fraction=f).splits["train"]) for f in (0.1, 0.25, 0.5, 1.0)]
    assert sizes == [300, 750, 1_500, 3_000]
    kept = [ids(made(fraction=f).splits["train"]) for f in (0.1, 0.25, 0.5, 1.0)]
    assert all(a < b for a, b in pairwise(kept))
    assert ids(made(examples=750).splits["train"]) == kept[1]
    assert ids(made(fraction=0.25, seed=1).splits["train"]) != kept[1]
    assert made(fraction=0.25).facts()["fraction"] == 0.25


def test_the_measured_subset_is_the_same_for_every_size_that_holds_it():
    whole, half = made().splits, made(examples=2_100).splits
    assert torch.equal(whole["trainset"].inputs, half["trainset"].inputs)
    assert len(whole["trainset"]) == 2_000
    assert ids(half["trainset"]) <= ids(half["train"])
    assert ids(made(examples=50).splits["trainset"]) == ids(made(examples=50).splits["train"])


def test_the_whole_training_set_keeps_its_order():
    assert torch.equal(made().splits["train"].inputs[:, 0], torch.arange(N))
    assert made().evaluated == ["val", "trainset"]
    assert [len(loader.batch) for loader in made().val_dataloader()] == [10, 2_000]


def test_balanced_subsets_have_equal_classes_while_they_last():
    counts = made(examples=CLASSES * 200, balanced=True).splits["train"].targets.bincount()
    assert counts.tolist() == [200] * CLASSES
    counts = made(examples=2_000, balanced=True).splits["train"].targets.bincount()
    assert counts.tolist() == [273, 273, 273, 273, 2_000 - 4 * 273]  # 3,000 ids hold each residue of 11 273 times
    assert len(ids(made(examples=2_000, balanced=True).splits["train"])) == 2_000


def test_label_noise_is_exact_nested_and_never_the_true_class():
    clean = made().splits["train"].targets
    changed = {}
    for noise in (0.2, 0.4, 1.0):
        noisy = made(label_noise=noise).splits["train"].targets
        changed[noise] = set((noisy != clean).nonzero().flatten().tolist())
        assert len(changed[noise]) == round(noise * N)
    assert changed[0.2] < changed[0.4]
    wrong = (made(label_noise=1.0).splits["train"].targets - clean) % CLASSES
    counts = wrong.bincount(minlength=CLASSES)
    assert counts[0] == 0
    assert (counts[1:] - N / 4).abs().max() < 5 * (N * 3 / 16) ** 0.5  # each other class equally likely, 5 sigma


def test_under_noise_clean_and_noisy_labels_are_both_measured():
    data = made(label_noise=0.4, fraction=0.8)
    assert data.evaluated == ["val", "trainset", "trainset_clean"]
    noisy, clean = data.splits["trainset"], data.splits["trainset_clean"]
    assert torch.equal(noisy.inputs, clean.inputs)
    assert torch.equal(clean.targets, (clean.inputs[:, 0] % 11).clamp(max=CLASSES - 1))
    assert 0.35 < (noisy.targets != clean.targets).float().mean() < 0.45
    seen = dict(zip(data.splits["train"].inputs[:, 0].tolist(), data.splits["train"].targets.tolist(), strict=True))
    assert all(seen[i] == t for i, t in zip(noisy.inputs[:, 0].tolist(), noisy.targets.tolist(), strict=True))
    assert data.facts()["label_noise"] == 0.4


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"fraction": 0}, "more than 0 and at most 1"),
        ({"fraction": 1.5}, "more than 0 and at most 1"),
        ({"label_noise": -0.1}, "a share, 0 to 1"),
        ({"fraction": 0.5, "examples": 5}, "give one of them"),
        ({"examples": 0}, "at least 1"),
        ({"examples": N + 1}, "the training set has 3000"),
    ],
)
def test_bad_variants_are_refused(variant, message):
    with pytest.raises(ValueError, match=message):
        made(**variant)


def test_masks_have_no_class_to_balance_or_relabel():
    for variant in (Variant(balanced=True), Variant(label_noise=0.1)):
        with pytest.raises(ValueError, match="one class an example"):
            variant.relabel(torch.zeros(4, 2, 2), 3) if variant.label_noise else variant.order(4, torch.zeros(4, 2, 2))


def test_merged_classes_are_those_of_every_split_and_of_the_network():
    whole, merged = (FashionMNIST(variant=Variant(classes=classes)) for classes in (None, 4))
    for data in (whole, merged):
        data.setup("fit")
    assert merged.dimensions == (1, 4)
    for split in ("train", "val", "test", "trainset"):
        assert torch.equal(merged.splits[split].targets, whole.splits[split].targets % 4)
    assert (whole.facts()["classes"], merged.facts()["classes"]) == (None, 4)


@pytest.mark.parametrize(("classes", "message"), [(1, "at least 2"), (11, "but there are 10 classes")])
def test_classes_that_cannot_be_merged_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        FashionMNIST(variant=Variant(classes=classes)).setup("fit")
