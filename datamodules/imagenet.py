"""ImageNet, or any photographs in one folder a class, decoded by worker threads while the run goes on."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.augment import RandomResizedCrop
from datamodules.base import Draw, Examples, InMemoryDataModule
from datamodules.images import hold_out, standardize
from datamodules.stream import Files, Streamed, make_pool, open_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photographs, the usual figures
ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


def decode(path: str, size: int) -> Tensor:
    """Return the middle square of a photograph, resized to uint8 [3, size, size]."""
    image = open_image(path, "RGB", least=size)
    side = min(image.size)
    left, top = ((n - side) / 2 for n in image.size)
    box = (left, top, left + side, top + side)
    return torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BILINEAR, box))).permute(2, 0, 1)


def list_folder(folder: Path, classes: list[str] | None = None) -> tuple[list[str], list[int], list[str]]:
    """Return the paths and class numbers of the pictures in `folder`/<class>/, and the classes in alphabetical order.

    Args:
        folder: that holds one folder for each class.
        classes: the folders that there must be (None: any).

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if its classes are others, or one has no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: data.root must hold train/<class>/ and val/<class>/")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not found:
        raise ValueError(f"{folder} has no folders: one for each class was expected")
    if classes is not None and found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise ValueError(f"{folder} must have the classes of train; one of them alone has {', '.join(odd[:3])}")
    paths, labels = [], []
    for label, name in enumerate(found):
        names = sorted(e.name for e in os.scandir(folder / name) if e.name.lower().endswith(ENDINGS))
        if not names:
            raise ValueError(f"{folder / name} holds no picture ({', '.join(ENDINGS)})")
        paths += [str(folder / name / n) for n in names]
        labels += [label] * len(names)
    return paths, labels, found


class ImageNet(InMemoryDataModule):
    """ILSVRC 2012 as root/train/<class>/*.JPEG and root/val/<class>/*.JPEG, the layout of ImageFolder.

    The official validation pictures are the test split; validation is held out of training, by a fixed draw.
    Pictures are decoded to squares of `resize` pixels; evaluation takes their middle, training random pieces,
    which are therefore less sharp than pieces cut out of the original.

    Args:
        root: the folder that holds train and val.
        resize: side in pixels of a decoded picture.
        crop: side in pixels of what the network gets.
        augmentation: of the training pictures (null: the middle, as in evaluation).
        val_examples: training pictures held out for validation.
        workers: decoding threads (null: one for each core of this process).
    """

    def __init__(
        self,
        root: str,
        resize: int = 256,
        crop: int = 224,
        augmentation: RandomResizedCrop | None = None,
        val_examples: int = 10_000,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 1 <= crop <= resize:
            raise ValueError(f"data.crop is {crop} and data.resize {resize}: give 1 <= crop <= resize pixels")
        self.root, self.resize, self.crop = Path(root), resize, crop
        self.augmentation, self.val_examples, self.workers = augmentation, val_examples, workers

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        pool = make_pool(self.workers)

        def split(name: str, classes: list[str] | None) -> tuple[Streamed, list[str]]:
            paths, labels, found = list_folder(self.root / name, classes)
            files = Files(paths, partial(decode, size=self.resize), pool)
            return Streamed(files, torch.tensor(labels), ahead=2 * pool._max_workers), found

        train, classes = split("train", None)
        test, _ = split("val", classes)
        self.dimensions = (3, len(classes))
        mixed = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        return hold_out({"train": train.at(mixed), "test": test}, self.val_examples)

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """Return standardized images, augmented in training, and their targets."""
        images = standardize(inputs, MEAN, STD)
        if draw is not None and self.augmentation is not None:
            return self.augmentation(images, self.crop, draw), targets
        first = (self.resize - self.crop) // 2
        return images[..., first : first + self.crop, first : first + self.crop], targets
