"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) and MNIST: 28 x 28 grey pictures of clothing, of digits."""

from functools import cache
from pathlib import Path

import torch
from torchvision import datasets

from datamodules import idx
from datamodules.base import Examples
from datamodules.embedded import read
from datamodules.images import ClassImages

CLASSES = 10


@cache
def embedded() -> dict[str, Examples]:
    """Return 10,000 train, 2,000 val and 10,000 test examples: images uint8 [N, 1, 28, 28], labels int64 [N].

    They are read once in a process, of which a sweep's makes many runs; nobody writes to them.
    """
    sizes = {"train": 10_000, "val": 2_000, "test": 10_000}
    shapes: dict[str, tuple[int, ...]] = {f"{split}_images": (n, 28, 28) for split, n in sizes.items()}
    shapes |= {f"{split}_labels": (n,) for split, n in sizes.items()}
    found = {k: torch.from_numpy(v) for k, v in read.arrays(read.FASHION_MNIST, shapes).items()}
    return {s: Examples(found[f"{s}_images"].unsqueeze(1), found[f"{s}_labels"].long()) for s in sizes}


class FashionMNIST(ClassImages):
    """Fashion-MNIST, the embedded part (`root: null`) or all of it from the four IDX files, plain or gzipped.

    Embedded: the first 10,000 training images. From files: the first 58,000. The last 2,000 of them are the
    validation split, the 10,000 test images the test split in both.
    """

    classes, mean, std, held_out = CLASSES, (0.2860,), (0.3530,), 2_000
    fetch = datasets.FashionMNIST

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        if self.root is not None:
            return super().load()
        splits = embedded()
        if self.val_examples > len(splits["val"]):
            raise ValueError(f"data.val_examples is {self.val_examples}: the embedded images have 2000 for it")
        return splits | {"val": splits["val"].at(torch.arange(self.val_examples))}

    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`."""
        return idx.read_folder(root, CLASSES, "FashionMNIST")


class MNIST(ClassImages):
    """MNIST (LeCun, Cortes, Burges) from its four IDX files: 58,000, 2,000 and 10,000 images."""

    classes, mean, std, held_out = CLASSES, (0.1307,), (0.3081,), 2_000
    fetch = datasets.MNIST

    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`."""
        return idx.read_folder(root, CLASSES, "MNIST")
