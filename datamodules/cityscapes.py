"""Cityscapes (Cordts et al. 2016), fine annotations: street scenes of 2048 x 1024 pixels in 19 classes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.augment import IGNORED, JointAugmentation
from datamodules.base import Draw, Examples, InMemoryDataModule
from datamodules.imagenet import MEAN, STD
from datamodules.images import standardize
from datamodules.stream import Files, Streamed, make_pool, open_image

# the label ids that are evaluated, in the order of their train ids 0 to 18 (the official labels.py)
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABELS = 34  # ids 0 to 33; 255 stands for -1, the license plate
TRAIN_IDS = np.full(256, IGNORED, np.uint8)
TRAIN_IDS[list(EVALUATED)] = np.arange(len(EVALUATED))

Size = tuple[int, int]


def decode_image(path: str, size: Size) -> Tensor:
    """Return a picture as uint8 [3, height, width], of `size` (height, width)."""
    image = open_image(path, "RGB").resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def decode_mask(path: str, size: Size) -> Tensor:
    """Return a picture of label ids as train ids uint8 [height, width], 255 where a pixel is ignored.

    Raises:
        ValueError: if it has an id that Cityscapes does not have.
    """
    ids = np.array(open_image(path, "L").resize(size[::-1], Image.Resampling.NEAREST))
    wrong = ids[(ids >= LABELS) & (ids != IGNORED)]
    if wrong.size:
        raise ValueError(f"{path} has class id {wrong[0]}: ids are 0 to {LABELS - 1} and 255, is it a labelIds file?")
    return torch.from_numpy(TRAIN_IDS[ids])


def list_pairs(root: Path, split: str) -> dict[str, list[tuple[str, str]]]:
    """Return for each city of a split the paths of its (picture, labelIds) pairs.

    Raises:
        FileNotFoundError: if a folder or the labels of a picture are missing.
        ValueError: if there are no pictures.
    """
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: data.root must hold leftImg8bit and gtFine, each with {split}")
    cities = {}
    for city in sorted(p for p in folder.iterdir() if p.is_dir()):
        pairs = []
        for image in sorted(city.glob("*_leftImg8bit.png")):
            name = image.name.replace("_leftImg8bit", "_gtFine_labelIds")
            mask = root / "gtFine" / split / city.name / name
            if not mask.is_file():
                raise FileNotFoundError(f"no file {mask}, the labels of {image}: unpack gtFine_trainvaltest there")
            pairs.append((str(image), str(mask)))
        if pairs:
            cities[city.name] = pairs
    if not cities:
        raise ValueError(f"{folder} holds no <city>/*_leftImg8bit.png: unpack leftImg8bit_trainvaltest there")
    return cities


class Cityscapes(InMemoryDataModule):
    """Cityscapes from its official folders leftImg8bit and gtFine; 19 classes, all else ignored.

    Its own test labels are secret, so the official validation pictures (500) are the test split, and whole
    cities of the training pictures are held out for validation: 2,758 and, of Ulm and Zurich, 217.

    Args:
        root: the folder that holds leftImg8bit and gtFine.
        size: height and width in pixels that pictures and masks are brought to.
        augmentation: of the training pictures (null: none).
        val_cities: cities of the training pictures that are held out for validation.
        workers: decoding threads (null: one for each core of this process).
    """

    dimensions = (3, len(EVALUATED))

    def __init__(
        self,
        root: str,
        size: Size = (512, 1024),
        augmentation: JointAugmentation | None = None,
        val_cities: tuple[str, ...] = ("ulm", "zurich"),
        workers: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if min(size) < 1:
            raise ValueError(f"data.size is {size}: give a height and a width of at least 1 pixel")
        self.root, self.size, self.workers = Path(root), (size[0], size[1]), workers
        self.augmentation, self.val_cities = augmentation, tuple(val_cities)

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        pool = make_pool(self.workers)
        train, test = list_pairs(self.root, "train"), list_pairs(self.root, "val")
        for city in self.val_cities:
            if city not in train:
                raise ValueError(f"data.val_cities has {city}, which is not in {self.root / 'leftImg8bit' / 'train'}")
        held_out = {city: train.pop(city) for city in self.val_cities}
        if not held_out or not train:
            raise ValueError("data.val_cities: hold out at least one city, and not all")

        def split(cities: dict[str, list[tuple[str, str]]]) -> Streamed:
            images, masks = zip(*(pair for pairs in cities.values() for pair in pairs), strict=True)
            pixels = torch.full((len(images),), self.size[0] * self.size[1])  # at most: see `exact`
            inputs = Files(images, partial(decode_image, size=self.size), pool)
            targets = Files(masks, partial(decode_mask, size=self.size), pool)
            return Streamed(inputs, targets, pixels, ahead=2 * pool._max_workers)

        return {"train": split(train), "val": split(held_out), "test": split(test)}

    def exact(self, training: bool) -> bool:
        """Return whether a batch's valid pixels are known before its masks are read and augmented."""
        return False  # how many pixels are not ignored is known when a mask is decoded

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """Return standardized images, augmented in training, and their targets."""
        images = standardize(inputs, MEAN, STD)
        if draw is None or self.augmentation is None:
            return images, targets
        return self.augmentation(images, targets, draw)
