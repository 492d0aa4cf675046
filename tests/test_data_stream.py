"""Pictures decoded while the run goes on: the same batches as from memory, each file once, and bad files named."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning import Callback
from torch import nn

from callbacks.convergence_detector import ConvergenceDetector
from datamodules.augment import JointAugmentation, RandomResizedCrop
from datamodules.base import Batch, Examples, GlobalBatches
from datamodules.cityscapes import Cityscapes
from datamodules.imagenet import ImageNet, decode
from datamodules.order import Order
from datamodules.stream import Files, Streamed, make_pool
from datamodules.variant import Variant
from tasks.image_classification import ImageClassification
from tasks.segmentation import Segmentation
from tests.helpers import files
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import Tiny, difference, fit, weights

CPU = torch.device("cpu")


@pytest.fixture
def imagenet(tmp_path):
    files.imagenet(tmp_path)
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path):
    files.cityscapes(tmp_path)
    return tmp_path


def test_imagenet_folders(imagenet):
    data = ImageNet(str(imagenet), resize=32, crop=24, val_examples=6, workers=2, batch_size=5)
    data.setup("fit")
    assert data.dimensions == (3, 3)
    assert {s: len(e) for s, e in data.splits.items()} == {"train": 18, "val": 6, "test": 6, "trainset": 18}
    for split in ("train", "val", "test"):
        batch = data.whole(split)
        part = batch.part(0, len(batch), CPU)
        assert part.inputs.shape == (len(batch), 3, 24, 24)
        assert torch.equal(part.inputs.mean((2, 3)).argmax(1), part.targets)  # class 0 is red, 1 green, 2 blue
    names = {s: set(data.splits[s].inputs.paths) for s in ("train", "val", "test")}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 30
    assert data.facts()["elements_per_example"] == 1.0


def test_decoding_takes_the_middle_square(tmp_path):
    ramp = np.broadcast_to(np.arange(90, dtype=np.uint8)[None, :, None], (60, 90, 3))
    Image.fromarray(ramp.copy()).save(tmp_path / "a.png")
    made = decode(str(tmp_path / "a.png"), 60)
    assert torch.equal(made, torch.arange(15, 75, dtype=torch.uint8).expand(3, 60, 60))
    half = decode(str(tmp_path / "a.png"), 30).float()
    expected = torch.arange(15.5, 75, 2).expand(3, 30, 30)  # each the mean of two columns
    assert (half[:, :, 1:-1] - expected[:, :, 1:-1]).abs().max() <= 1  # Pillow rounds


def counted_files(n, pool):
    """Files whose decoding is counted, and what they hold."""
    counts, lock = Counter(), Lock()

    def decode(path):
        with lock:
            counts[path] += 1
        return torch.tensor([int(path), 2 * int(path)])

    return Files([str(i) for i in range(n)], decode, pool), counts


@pytest.mark.parametrize("ahead", [0, 4, 100])
@pytest.mark.parametrize("wrap", [True, False])
def test_streamed_batches_are_those_of_memory_and_each_file_is_decoded_once_a_use(ahead, wrap):
    n, batch_size, steps = 23, 9, 7
    with ThreadPoolExecutor(3) as pool:
        files, counts = counted_files(n, pool)
        masks, _ = counted_files(n, pool)
        memory = Examples(
            torch.arange(n)[:, None] * torch.tensor([1, 2]), torch.arange(n)[:, None] * torch.tensor([1, 2])
        )
        used = Counter()

        def loader(examples, start):
            order = Order(n, batch_size, 3, wrap)
            made = GlobalBatches(
                order, steps, lambda ids, k, following: Batch(examples, ids, lambda *x: x[:2], (3, k), following)
            )
            made.load_state_dict({"k": start})
            return made

        streamed = loader(Streamed(files, masks, ahead=ahead), 2)  # resumed at step 2
        for a, b in zip(loader(memory, 2), streamed, strict=True):
            spans = [(i, min(i + 2, len(a) - 1)) for i in range(1, len(a) - 1, 2)]  # one rank's share, not all
            for p, q in zip(a.parts(spans, CPU), b.parts(spans, CPU), strict=True):
                assert torch.equal(p.inputs, q.inputs)
                assert torch.equal(p.targets, q.targets)
                used.update(str(i) for i in q.inputs[:, 0].tolist())
                assert len(files._under_way) <= ahead + 4  # at most one part beyond
        wasted = counts - used
        assert wasted.total() <= (0 if wrap else ahead + 4)  # where a ragged batch follows, its share is another
        assert not used - counts
        assert not files._under_way


def test_threads_are_at_work_on_the_next_part_while_one_is_used():
    with ThreadPoolExecutor(2) as pool:
        files, counts = counted_files(8, pool)
        following = torch.tensor([6, 7])
        batch = Batch(Streamed(files, torch.arange(8)), torch.arange(4), lambda *x: x[:2], None, following)
        parts = batch.parts([(0, 2), (2, 4)], CPU)
        next(parts)
        assert set(files._under_way) == {2, 3}
        next(parts)
        assert {f.result()[0].item() for f in files._under_way.values()} <= {6, 7}  # the next batch's first part
        assert set(files._under_way) == {6, 7}
        assert counts == {str(i): 1 for i in (0, 1, 2, 3, 6, 7)}


def test_random_pieces_of_pictures_belong_to_the_example(imagenet):
    options = {"resize": 32, "crop": 16, "val_examples": 6, "workers": 2}
    data = ImageNet(str(imagenet), **options, augmentation=RandomResizedCrop(), batch_size=18)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    one = torch.cat([p.inputs for p in batch.parts([(0, 18)], CPU)])
    many = torch.cat([p.inputs for p in batch.parts([(i, i + 3) for i in range(0, 18, 3)], CPU)])
    assert torch.equal(one, many)
    assert one.shape == (18, 3, 16, 16)


def network(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3, stride=4), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, classes))  # fmt: skip


def test_a_run_streams(imagenet):
    def run(micro):
        data = ImageNet(str(imagenet), resize=16, crop=12, val_examples=6, workers=2, batch_size=7)
        task = ImageClassification(network=network, optimizer=partial(torch.optim.SGD, lr=0.1), micro_batch_size=micro)
        fit(task, data, steps=4, precision="32-true")
        return task

    one, many = run(7), run(3)
    assert difference(weights(many), weights(one)) < 1e-5
    assert one.evaluation["val/accuracy"] == many.evaluation["val/accuracy"]


def test_cityscapes_folders_and_train_ids(cityscapes):
    data = Cityscapes(str(cityscapes), size=(16, 32), workers=2, batch_size=2)
    data.setup("fit")
    assert {s: len(e) for s, e in data.splits.items()} == {"train": 6, "val": 6, "test": 3, "trainset": 6}
    assert {p.split("/")[-2] for p in data.splits["val"].inputs.paths} == {"ulm", "zurich"}
    part = data.whole("test").part(1, 2, CPU)
    name = "frankfurt_000001_000019"
    ids = np.array(Image.open(cityscapes / "gtFine" / "val" / "frankfurt" / f"{name}_gtFine_labelIds.png"))
    official = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12}
    official |= {26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    expected = [[official.get(int(i), 255) for i in row] for row in ids]
    assert part.targets[0].tolist() == expected
    picture = np.array(Image.open(cityscapes / "leftImg8bit" / "val" / "frankfurt" / f"{name}_leftImg8bit.png"))
    standard = (picture / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(part.inputs[0].double(), torch.from_numpy(standard).permute(2, 0, 1), rtol=0, atol=1e-5)


class Pixelwise(nn.Conv2d):
    def __init__(self, channels, classes, **options):
        super().__init__(channels, classes, 1, **options)


def segment(cityscapes, micro, **options):
    data = Cityscapes(str(cityscapes), size=(16, 32), workers=2, batch_size=5, **options)
    task = Segmentation(network=Pixelwise, optimizer=partial(torch.optim.SGD, lr=0.1), micro_batch_size=micro)
    fit(task, data, steps=3)
    return task, data


def test_pixels_that_are_not_known_beforehand_are_counted(cityscapes):
    """The reference: plain torch, the mean over all valid pixels of the batch, of which pictures hold unequal many."""
    task, data = segment(cityscapes, 2)
    torch.manual_seed(1)
    plain = Pixelwise(3, 19, dtype=torch.float64)
    whole = data.whole("train").part(0, 6, CPU)
    for k in range(3):
        at = Order(6, 5, seed=1, wrap=True).batch(k)
        loss = F.cross_entropy(plain(whole.inputs[at].double()), whole.targets[at].long(), ignore_index=255)
        plain.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in plain.parameters():
                p -= 0.1 * p.grad
    expected = torch.cat([p.detach().flatten() for p in plain.parameters()])
    assert difference(weights(task), expected) < 1e-12
    val = data.whole("val").part(0, 6, CPU)
    mean = F.cross_entropy(task.network(val.inputs.double()), val.targets.long(), ignore_index=255).item()
    assert task.evaluation["val/loss"] == pytest.approx(mean, rel=1e-12)


def test_augmented_masks_are_counted_the_same_however_the_batch_is_cut(cityscapes):
    options = {"augmentation": JointAugmentation(crop=(12, 12), flip=True, scale=(0.5, 1.5))}
    one, many = segment(cityscapes, 5, **options)[0], segment(cityscapes, 2, **options)[0]
    assert difference(weights(many), weights(one)) < 1e-12


@pytest.mark.parametrize("epoch_end", ["wrap", "keep"])
def test_a_wrong_guess_of_the_elements_changes_nothing(epoch_end):
    def train(guess):
        optimizer = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
        task = Segmentation(network=Pixelwise, optimizer=optimizer, micro_batch_size=4, clip_norm=0.1)
        fit(task, Tiny("masks", guess=guess, batch_size=17, epoch_end=epoch_end))
        return task

    known, guessed = train(False), train(True)
    assert difference(weights(guessed), weights(known)) < 1e-12
    for name in ("train/loss", "val/loss", "val/miou"):
        assert guessed.evaluation[name] == pytest.approx(known.evaluation[name], rel=1e-12)


def test_bad_imagenet_folders_are_named(imagenet):
    def load(**options):
        data = ImageNet(str(imagenet), **({"resize": 16, "crop": 12, "val_examples": 6, "batch_size": 5} | options))
        data.setup("fit")
        return data

    with pytest.raises(ValueError, match="cannot hold out 24 of 24"):
        load(val_examples=24)
    with pytest.raises(ValueError, match="1 <= crop <= resize"):
        load(crop=20)
    with pytest.raises(ValueError, match=r"data\.workers is 0"):
        load(workers=0)
    path = imagenet / "val" / "n02" / "0.JPEG"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"n02/0\.JPEG cannot be read as a picture \(.*[Tt]runcated"):
        load().whole("test").part(0, 6, CPU)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"n02/0\.JPEG cannot be read as a picture"):
        load().whole("test").part(0, 6, CPU)
    for file in (imagenet / "val" / "n02").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"val/n02 holds no picture"):
        load()
    (imagenet / "val" / "n02").rmdir()
    with pytest.raises(ValueError, match=r"val must have the classes of train; one of them alone has n02"):
        load()
    with pytest.raises(FileNotFoundError, match=r"no folder .*/train: data\.root must hold"):
        ImageNet(str(imagenet / "train")).load()


def test_a_corrupt_picture_ends_a_run_in_one_sentence(imagenet):
    for path in (imagenet / "train" / "n03").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    data = ImageNet(str(imagenet), resize=16, crop=12, val_examples=6, batch_size=7)
    task = ImageClassification(network=network, optimizer=partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ValueError, match=r"n03/\d\.JPEG cannot be read as a picture"):
        fit(task, data, steps=4, precision="32-true")


class Damage(Callback):
    """After the first evaluation, one training picture of those that rank 0 is to read is cut off."""

    def on_train_start(self, trainer, task):
        data = trainer.datamodule
        path = Path(data.splits["train"].inputs.paths[data.order.batch(0)[0]])
        if trainer.is_global_zero:
            path.write_bytes(path.read_bytes()[:100])
        trainer.strategy.barrier()


def first_error(root, ranks):
    data = ImageNet(root, resize=16, crop=12, val_examples=6, batch_size=18)
    task = ImageClassification(network=network, optimizer=partial(torch.optim.SGD, lr=0.1))
    try:
        callbacks = (Damage(), ConvergenceDetector())
        fit(task, data, steps=2, precision="32-true", strategy="ddp", devices=ranks, callbacks=callbacks)
    except (ValueError, RuntimeError) as error:
        return str(error)


@pytest.mark.slow
def test_a_corrupt_picture_ends_every_rank(imagenet):
    """One rank meets it; the other must not wait for it for ever."""
    mine, other = on_ranks(2, first_error, str(imagenet), 2)
    assert "cannot be read as a picture" in mine
    assert other == "another rank failed in this step"


def test_label_noise_and_subsets_of_streamed_pictures(imagenet):
    options = {"resize": 16, "crop": 12, "val_examples": 6, "batch_size": 5}
    data = ImageNet(str(imagenet), **options, variant=Variant(label_noise=1.0, fraction=0.5))
    data.setup("fit")
    assert len(data.splits["train"]) == 9
    for split, right in (("train", False), ("trainset", False), ("trainset_clean", True)):
        part = data.whole(split).part(0, 9, CPU)
        assert ((part.inputs.mean((2, 3)).argmax(1) == part.targets) == right).all()


def test_masks_have_no_class_to_balance(cityscapes):
    with pytest.raises(ValueError, match="one class an example"):
        Cityscapes(str(cityscapes), size=(16, 32), variant=Variant(balanced=True)).setup("fit")


def test_bad_cityscapes_folders_are_named(cityscapes):
    def load(**options):
        data = Cityscapes(str(cityscapes), size=(16, 32), **options)
        data.batch_size = 1
        data.setup("fit")
        return data.whole("test").part(0, 3, CPU)

    with pytest.raises(ValueError, match=r"val_cities has paris, which is not in .*leftImg8bit/train"):
        load(val_cities=("paris",))
    with pytest.raises(ValueError, match="at least one city, and not all"):
        load(val_cities=())
    mask = cityscapes / "gtFine" / "val" / "frankfurt" / "frankfurt_000002_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((16, 32), 77, np.uint8)).save(mask)
    with pytest.raises(ValueError, match=r"000002_000019_gtFine_labelIds\.png has class id 77"):
        load()
    mask.write_bytes(mask.read_bytes()[:45])
    with pytest.raises(ValueError, match=r"000002_000019_gtFine_labelIds\.png cannot be read as a picture"):
        load()
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*000002_000019_gtFine_labelIds\.png"):
        load()
    with pytest.raises(FileNotFoundError, match=r"no folder .*leftImg8bit/train: data\.root must hold"):
        Cityscapes(str(cityscapes / "gtFine")).load()
    (cityscapes / "leftImg8bit" / "train").rename(cityscapes / "leftImg8bit" / "elsewhere")
    (cityscapes / "leftImg8bit" / "train").mkdir()
    with pytest.raises(ValueError, match=r"train holds no <city>"):
        load()


def test_one_thread_for_each_core_is_the_default():
    with make_pool(None) as pool:
        assert pool._max_workers >= 1
    with make_pool(3) as pool:
        assert pool._max_workers == 3
