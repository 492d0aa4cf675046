"""The embedded data: its facts, its splits, and what a damaged file says."""

import itertools
import lzma

import numpy as np
import pytest
import torch

from datamodules.base import Examples
from datamodules.embedded import read
from datamodules.fashion_mnist import FashionMNIST
from datamodules.scenes import ROWS, THRESHOLD, ComposedScenes, Recipe, compose
from datamodules.text import StateOfTheUnion, every_tenth, split_windows, tokenize


@pytest.fixture(scope="module")
def images():
    return FashionMNIST().load()


@pytest.fixture(scope="module")
def scenes():
    return ComposedScenes(train=60, val=20, test=20).load()


@pytest.fixture(scope="module")
def addresses():
    data = StateOfTheUnion()
    return data, data.load()


def test_fashion_mnist_is_the_known_subset(images):
    assert {s: tuple(e.inputs.shape) for s, e in images.items()} == {
        "train": (10_000, 1, 28, 28),
        "val": (2_000, 1, 28, 28),
        "test": (10_000, 1, 28, 28),
    }
    counts = [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000]  # in the source's own label file
    assert torch.bincount(images["train"].targets).tolist() == counts
    assert torch.bincount(images["test"].targets).tolist() == [1000] * 10
    pixels = images["train"].inputs.double() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=2e-3)  # published for the whole training set
    assert pixels.std().item() == pytest.approx(0.3530, abs=2e-3)


def test_splits_hold_no_image_twice(images):
    seen = {s: {x.numpy().tobytes() for x in e.inputs} for s, e in images.items()}
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    assert not seen["train"] & seen["test"]


def test_standardized_images_have_mean_zero_and_deviation_one(images, scenes):
    for module, train in ((FashionMNIST(), images["train"]), (ComposedScenes(), scenes["train"])):
        inputs, targets = module.prepare(train.inputs, train.targets, None)
        assert inputs.dtype == torch.float32
        assert targets is train.targets
        assert abs(inputs.mean().item()) < 0.1
        assert abs(inputs.std().item() - 1) < 0.1


def test_scenes_are_the_same_every_time(scenes):
    again = ComposedScenes(train=60, val=20, test=20).load()
    assert all(again[s].digest() == scenes[s].digest() for s in scenes)
    assert len({scenes[s].digest() for s in scenes}) == 3


def test_scenes_have_two_to_five_items_of_the_eleven_classes(scenes):
    masks = scenes["train"].targets
    assert masks.dtype == torch.uint8
    assert scenes["train"].inputs.shape == (60, 1, 64, 64)
    assert masks.max() <= 10
    assert scenes["train"].elements.tolist() == [64 * 64] * 60
    classes = [len(m.unique()) - 1 for m in masks]  # background is 0
    assert min(classes) >= 1
    assert max(classes) <= 5
    assert 0.65 < (masks == 0).float().mean().item() < 0.85


def test_pasting_overwrites_as_the_mask_says():
    """On a flat texture each pixel is that of the item that the mask names."""
    pixels = torch.tensor([100, 200], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 28, 28)
    items = Examples(pixels, torch.tensor([0, 1]))
    flat = torch.full((1, 96, 96), 7, dtype=torch.uint8)
    made = compose(items, flat, 50, Recipe(canvas=32, min_items=2, max_items=5), seed=3)
    scene, mask = made.inputs[:, 0].float(), made.targets
    assert (scene[mask == 0] == 7).all()
    for label, value in ((1, 100), (2, 200)):
        assert scene[mask == label].min() >= round(0.4 * value)
        assert scene[mask == label].max() <= value
    overlapping = [m.unique().numel() == 3 or (m > 0).sum() > 28 * 28 for m in mask]
    assert any(overlapping)
    for s, m in zip(scene, mask, strict=True):  # the last item of a scene lies whole on top: 784 pixels of one value
        values, counts = s[m > 0].unique(return_counts=True)
        assert counts.max() >= 28 * 28 or len(values) == 1


def test_scenes_do_not_share_texture_rows():
    spans = sorted(ROWS.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert spans[-1][1] == 512


def test_a_threshold_alone_does_not_find_the_items(scenes):
    inputs, items = scenes["train"].inputs[:, 0], scenes["train"].targets > 0
    best = 0.0
    for t in range(THRESHOLD, 256, 4):
        for found in (inputs > t, inputs < t):
            best = max(best, ((found & items).sum() / (found | items).sum()).item())
    assert best < 0.4


def test_every_tenth_address_is_held_out():
    splits = every_tenth([[str(i)] for i in range(20)])
    assert splits["val"] == [["4"], ["14"]]
    assert splits["test"] == [["9"], ["19"]]
    assert [d[0] for d in splits["train"]] == [str(i) for i in range(20) if i % 10 not in (4, 9)]
    with pytest.raises(ValueError, match="at least 10"):
        every_tenth([["a"]] * 9)


def test_windows_give_each_token_of_an_address_once(addresses):
    data, splits = addresses
    assert data.dimensions == (5490,)
    texts = [tokenize(t) for t in read.texts(read.STATE_OF_THE_UNION).values()]
    for split, documents in every_tenth(texts).items():
        made = splits[split]
        assert int(made.elements.sum()) == sum(len(d) - 1 for d in documents)
        assert torch.equal((made.targets != -100).sum(1), made.elements)
        assert made.inputs.max() < data.dimensions[0]
    assert len(splits["train"].elements.unique()) > 10  # windows differ in their elements


def test_fewer_validation_windows_lie_spread_over_the_addresses(addresses):
    whole, few = addresses[1]["val"], StateOfTheUnion(val_examples=7).load()["val"]
    chosen = [k * len(whole) // 7 for k in range(7)]
    torch.testing.assert_close(few.inputs, whole.inputs[chosen], rtol=0, atol=0)
    torch.testing.assert_close(few.elements, whole.elements[chosen], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"data\.val_examples is 0: give 1 to"):
        StateOfTheUnion(val_examples=0).load()


def test_windows_against_a_hand_written_case():
    documents = [list("aaabbc"), list("b"), list("abca")]
    made, size = split_windows({"train": documents, "val": [list("ad")]}, min_freq=2, bptt=2)
    assert size == 5  # <unk> 0, <pad> 1, a (5 times) 2, b (4) 3, c (2) 4
    assert made["train"].inputs.tolist() == [[2, 2], [2, 3], [3, 1], [2, 3], [4, 1]]
    assert made["train"].targets.tolist() == [[2, 2], [3, 3], [4, -100], [3, 4], [2, -100]]
    assert made["train"].elements.tolist() == [2, 2, 1, 2, 1]
    assert made["val"].targets.tolist() == [[0, -100]]  # d was never seen


def test_notes_of_the_editors_are_not_tokens():
    assert tokenize("Well [Laughter] done—Sir [1815-03-03].") == ["well", "done", "—", "sir", "."]


@pytest.mark.parametrize("name", [read.FASHION_MNIST, read.TEXTURES, read.STATE_OF_THE_UNION])
def test_a_truncated_embedded_file_is_named(tmp_path, name):
    content = (read.FOLDER / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    reader = read.texts if name.endswith("xz") else lambda n, f: read.arrays(n, {}, f)
    with pytest.raises(ValueError, match=f"{name}.*install it again"):
        reader(name, tmp_path)
    with pytest.raises(ValueError, match="missing or damaged"):
        reader(name, tmp_path / "nowhere")


def test_embedded_arrays_of_other_shapes_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", brick=np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"x\.npz holds .*\(4, 4\).*\(512, 512\)"):
        read.arrays("x.npz", {"brick": (512, 512)}, tmp_path)
    (tmp_path / "t.json.xz").write_bytes(lzma.compress(b"not json"))
    with pytest.raises(ValueError, match=r"t\.json\.xz.*damaged"):
        read.texts("t.json.xz", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "at least 1"),
        ({"canvas": 100}, "28 .* to 96"),
        ({"min_items": 4, "max_items": 2}, "min_items"),
    ],
)
def test_scene_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ComposedScenes(**options)
