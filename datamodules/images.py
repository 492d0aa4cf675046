"""What data sets of images of one class share."""

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from datamodules.augment import Augmentation
from datamodules.base import Draw, Examples, InMemoryDataModule


def standardize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return bytes [n, C, H, W] as floats of mean 0 and deviation 1, given each channel's in [0, 1]."""
    floats = images.to(torch.float32, copy=True)
    return floats.sub_(of_bytes(mean, images.device)).div_(of_bytes(std, images.device))


@cache
def of_bytes(shares: tuple[float, ...], device: torch.device) -> Tensor:
    """Return shares of the largest byte as floats [C, 1, 1], made once."""
    return torch.tensor([255 * share for share in shares], device=device).view(-1, 1, 1)


def hold_out(splits: dict[str, Examples], n: int) -> dict[str, Examples]:
    """Return the splits with the last n training examples as `val`; their order must be shuffled already.

    Raises:
        ValueError: if none or all would be held out.
    """
    train = splits["train"]
    if not 0 < n < len(train):
        raise ValueError(f"cannot hold out {n} of {len(train)} training examples for validation")
    at = torch.arange(len(train))
    return splits | {"train": train.at(at[:-n]), "val": train.at(at[-n:])}


def join(parts: list[Examples]) -> Examples:
    """Return the examples of all parts, in order."""
    return Examples(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))


def check_labels(path: Path, labels: Tensor, images: int, classes: int) -> None:
    """Refuse labels that do not fit the images.

    Raises:
        ValueError: naming `path`, unless each of so many images has a label of 0 to classes - 1.
    """
    if not images or len(labels) != images:
        raise ValueError(f"{path}: {images} images and {len(labels)} labels, where as many and some were expected")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{path} has class {wrong}: the classes are 0 to {classes - 1}")


class ClassImages(InMemoryDataModule):
    """Images of one class each, in memory as bytes; the last training images are held out for validation.

    A subclass has the facts below and `read`.

    Args:
        root: the folder of the data set's files, or with `download` the one to put them into.
        download: fetch the files through torchvision where they are missing.
        augmentation: of the training images (null: none).
        val_examples: training images held out for validation (null: the data set's own number).
    """

    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]  # of the training images, each channel's, in [0, 1]
    held_out: int
    fetch: Callable[..., object]  # torchvision's class, which knows the addresses

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        augmentation: Augmentation | None = None,
        val_examples: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.download = root, download
        self.augmentation = augmentation or Augmentation()
        self.val_examples = self.held_out if val_examples is None else val_examples
        self.dimensions = (len(self.mean), self.classes)

    @abstractmethod
    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`: images uint8 [N, C, H, W], labels int64 [N]."""

    def fetch_all(self, root: Path) -> None:
        """Download what `read` needs."""
        self.fetch(root, download=True)

    def prepare_data(self) -> None:
        """Download the files, if that is wanted.

        Raises:
            ValueError: if there is no folder for them, or a file cannot be fetched.
        """
        if not self.download:
            return
        name = type(self).__name__
        if self.root is None:
            raise ValueError(f"data.download needs data.root, the folder to put {name} into")
        try:
            self.fetch_all(Path(self.root))
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: torchvision's, of a damaged file
            raise ValueError(
                f"could not download {name} into {self.root} ({error}): put its files there by hand"
            ) from error

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        if self.root is None:
            raise ValueError(f"data.root is not set: give the folder of {type(self).__name__}'s files")
        return hold_out(self.read(Path(self.root)), self.val_examples)

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """Return standardized images, augmented in training, and their targets."""
        if draw is None:
            return standardize(inputs, self.mean, self.std), targets
        moved = standardize(self.augmentation.move(inputs, draw), self.mean, self.std)
        return self.augmentation.blank(moved, draw), targets
