"""Augmentation against naive loops, and that an example's changes are its own however a batch is cut up."""

import pytest
import torch
import torch.nn.functional as F

from datamodules.augment import (
    Augmentation,
    JointAugmentation,
    RandomResizedCrop,
    blank_square,
    cut,
    sample_bilinear,
    sample_nearest,
    source_coords,
    to_index,
)
from datamodules.base import Batch, Examples
from datamodules.fashion_mnist import FashionMNIST
from datamodules.keyed import example_keys, uniform

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 9, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def draws(n):
    keys = example_keys(0, 5, torch.arange(n))
    return lambda salt, count: uniform(keys, salt, count)


def test_cut_is_a_slice_and_a_mirror(images):
    top, left = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([2, 1, 0, 2, 1, 0])
    flipped = torch.tensor([True, False] * 3)
    made = cut(images, top, left, flipped, (6, 10))
    for i in range(6):
        naive = images[i, :, top[i] : top[i] + 6, left[i] : left[i] + 10]
        assert torch.equal(made[i], naive.flip(-1) if flipped[i] else naive)


def test_a_padded_crop_shows_the_picture_moved_on_black(images):
    moved = Augmentation(crop_padding=2).move(images, draws(6))
    assert moved.shape == images.shape
    padded = F.pad(images, [2] * 4)
    found = set()
    for i in range(6):
        places = [
            (a, b) for a in range(5) for b in range(5) if torch.equal(moved[i], padded[i, :, a : a + 9, b : b + 12])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 1


def test_all_places_and_both_directions_come_up_equally_often():
    n = 9_000
    one = torch.zeros(n, 1, 3, 3, dtype=torch.uint8)
    one[:, 0, 1, 0] = 1  # moves to one of 9 places, mirrored or not
    random = draws(n)(0, 1)[:, 0]
    assert to_index(random, 3).bincount().tolist() == pytest.approx([n / 3] * 3, abs=4 * (n * 2 / 9) ** 0.5)
    flipped = Augmentation(flip=True).move(one, draws(n))[:, 0, 1, 2].sum().item()
    assert flipped == pytest.approx(n / 2, abs=4 * (n / 4) ** 0.5)
    rows = Augmentation(crop_padding=1).move(one, draws(n))[:, 0].flatten(1).sum(0).view(3, 3)
    # to the right or not at all it stays inside (2 of 3), up and down it always does: 6 places, n / 9 each
    assert rows[:, 2].sum() == 0
    assert rows[:, :2].flatten().tolist() == pytest.approx([n / 9] * 6, abs=5 * (n * 8 / 81) ** 0.5)


def test_cutout_blanks_a_square_clipped_at_the_border():
    made = blank_square(torch.ones(3, 2, 8, 8), torch.tensor([0, 4, 7]), torch.tensor([0, 4, 3]), 4)
    naive = torch.ones(3, 2, 8, 8)
    for i, (y, x) in enumerate([(0, 0), (4, 4), (7, 3)]):
        naive[i, :, max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = 0
    assert torch.equal(made, naive)


def test_no_augmentation_changes_nothing(images):
    assert torch.equal(Augmentation().move(images, draws(6)), images)
    floats = images.float()
    assert Augmentation().blank(floats, draws(6)) is floats
    masks = torch.randint(0, 5, (6, 9, 12), dtype=torch.uint8)
    same, same_masks = JointAugmentation()(floats, masks, draws(6))
    torch.testing.assert_close(same, floats, rtol=0, atol=1e-3)
    assert torch.equal(same_masks, masks)


def test_an_examples_changes_do_not_depend_on_how_the_batch_is_cut():
    data = FashionMNIST(augmentation=Augmentation(crop_padding=3, flip=True, cutout=8))
    examples = Examples(torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8), torch.arange(20))
    order = torch.randperm(20)
    whole_batch = Batch(examples, order, data.prepare, (3, 7)).part(0, 20, CPU).inputs
    parts = [Batch(examples, order, data.prepare, (3, 7)).part(i, i + 3, CPU).inputs for i in range(0, 20, 3)]
    assert torch.equal(whole_batch, torch.cat([p[: 20 - 3 * i] for i, p in enumerate(parts)]))
    again = Batch(examples, order.sort().values, data.prepare, (3, 7)).part(0, 20, CPU).inputs
    assert torch.equal(again[order], whole_batch)
    other_step = Batch(examples, order, data.prepare, (3, 8)).part(0, 20, CPU).inputs
    assert not torch.equal(other_step, whole_batch)
    evaluated = Batch(examples, order, data.prepare, None).part(0, 20, CPU).inputs
    assert torch.equal(evaluated, Batch(examples, order, FashionMNIST().prepare, (3, 7)).part(0, 20, CPU).inputs)


def test_image_and_mask_move_together():
    """A mask that is the picture stays the picture wherever nearest and bilinear agree: at whole steps."""
    picture = torch.randint(0, 20, (8, 16, 24), dtype=torch.uint8)
    made, mask = JointAugmentation(flip=True)(picture[:, None].float(), picture, draws(8))
    torch.testing.assert_close(made[:, 0], mask.float(), rtol=0, atol=1e-3)
    assert not torch.equal(mask, picture)
    rows, columns = torch.arange(3.0, 9.0).expand(8, 6), torch.arange(-2.0, 5.0).expand(8, 7)
    moved, mask = sample_bilinear(picture[:, None].float(), rows, columns)[:, 0], sample_nearest(picture, rows, columns)
    assert (mask[:, :, :2] == 255).all()
    assert torch.equal(mask[:, :, 2:], picture[:, 3:9, :5])
    torch.testing.assert_close(moved[:, :, 2:], picture[:, 3:9, :5].float(), rtol=0, atol=1e-3)
    assert moved[:, :, :2].abs().max() < 1e-3


def test_enlarging_keeps_smooth_pictures_and_blocks_in_register():
    """On a ramp the enlarged picture's value is the source position, and a mask of blocks follows it."""
    height, width = 32, 48
    ramp = torch.arange(width, dtype=torch.float32).expand(4, 1, height, width)
    mask = (torch.arange(width) // 8).to(torch.uint8).expand(4, height, width)
    made, moved = JointAugmentation(crop=(16, 20), scale=(1.5, 2.0), flip=True)(ramp, mask, draws(4))
    assert made.shape == (4, 1, 16, 20)
    assert moved.shape == (4, 16, 20)
    assert (moved != 255).all()  # an enlarged picture fills the piece
    inner = (made[:, 0] > 0.5) & (made[:, 0] < width - 1.5)
    assert torch.equal(((made[:, 0] + 0.5).floor() // 8)[inner].to(torch.uint8), moved[inner])


def test_a_shrunken_picture_lies_inside_the_piece():
    rows = source_coords(10, 8, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
    inside = (rows > -0.5) & (rows < 7.5)
    assert inside.sum(1).tolist() == [4, 4]  # 8 pixels shrunk to 4 of the piece's 10
    assert inside[0, :4].all()
    assert inside[1, 6:].all()


def test_joint_changes_do_not_depend_on_how_the_batch_is_cut():
    joint = JointAugmentation(crop=(8, 8), flip=True, scale=(0.5, 2.0))
    images, masks = torch.randn(7, 1, 12, 12), torch.randint(0, 3, (7, 12, 12), dtype=torch.uint8)
    made, made_masks = joint(images, masks, draws(7))
    keys = example_keys(0, 5, torch.arange(7))
    for i in range(7):
        one = joint(images[i : i + 1], masks[i : i + 1], lambda salt, n, i=i: uniform(keys[i : i + 1], salt, n))
        assert torch.equal(one[0][0], made[i])
        assert torch.equal(one[1][0], made_masks[i])


def test_random_resized_crops_have_the_area_and_shape_asked_for():
    """On ramps down and across, a piece's corner values tell its height and width, so its area and its shape."""
    side, size, n = 64, 16, 2_000
    ramp = torch.arange(side, dtype=torch.float32)
    images = torch.stack([ramp[:, None].expand(side, side), ramp.expand(side, side)]).expand(n, 2, side, side)
    made = RandomResizedCrop(area=(0.2, 0.6), ratio=1.5, flip=False)(images, size, draws(n))
    inner = made[:, :, 1:-1, 1:-1]  # the outermost pixels may touch the border, where a ramp ends
    height = (inner[:, 0, -1, 0] - inner[:, 0, 0, 0]) / (size - 3) * size
    width = (inner[:, 1, 0, -1] - inner[:, 1, 0, 0]) / (size - 3) * size
    area, shape = height * width / side**2, width / height
    assert 0.199 < area.min() < 0.21
    assert 0.59 < area.max() < 0.601
    assert 1 / 1.501 < shape.min() < 0.68
    assert 1.47 < shape.max() < 1.501
    assert shape.log().mean().abs() < 0.02
    mirrored = RandomResizedCrop(flip=True)(images, size, draws(n))[:, 1]
    assert 0.45 < (mirrored[:, 0, -1] < mirrored[:, 0, 0]).float().mean() < 0.55


def test_bad_augmentations_are_refused():
    for bad in ({"crop_padding": -1}, {"cutout": -2}):
        with pytest.raises(ValueError, match="give 0"):
            Augmentation(**bad)
    with pytest.raises(ValueError, match="smallest factor"):
        JointAugmentation(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match="smallest area"):
        RandomResizedCrop(area=(0.0, 1.0))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        JointAugmentation(crop=(0, 4))
