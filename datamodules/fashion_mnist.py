"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 28 x 28 grey pictures of 10 kinds of clothing."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from datamodules import idx
from datamodules.base import Draw, Examples, InMemoryDataModule
from datamodules.embedded import read
from datamodules.images import standardize
from datamodules.variant import Variant

CLASSES = 10
MEAN, STD = (0.2860,), (0.3530,)  # of the 60,000 training images
VAL = 2_000


def embedded() -> dict[str, Examples]:
    """10,000 train, 2,000 val and 10,000 test images: uint8 [N, 1, 28, 28], labels int64 [N]."""
    sizes = {"train": 10_000, "val": VAL, "test": 10_000}
    shapes = {f"{split}_images": (n, 28, 28) for split, n in sizes.items()}
    shapes |= {f"{split}_labels": (n,) for split, n in sizes.items()}
    found = {k: torch.from_numpy(v) for k, v in read.arrays(read.FASHION_MNIST, shapes).items()}
    return {s: Examples(found[f"{s}_images"].unsqueeze(1), found[f"{s}_labels"].long()) for s in sizes}


def hold_out(splits: dict[str, Examples], n: int) -> dict[str, Examples]:
    """Make the last n training examples the validation split; their order must be shuffled already."""
    train = splits["train"]
    if not 0 < n < len(train):
        raise ValueError(f"cannot hold out {n} of {len(train)} training examples for validation")
    at = torch.arange(len(train))
    return splits | {"train": train.at(at[:-n]), "val": train.at(at[-n:])}


class FashionMNIST(InMemoryDataModule):
    """Fashion-MNIST, the embedded part or all of it from files.

    Embedded: the first 10,000 training images. From files: the first 58,000. The last 2,000 of them are the
    validation split, the 10,000 test images the test split in both.

    Args:
        root: the folder of the four IDX files, plain or gzipped (null: the embedded images).
    """

    dimensions = (1, CLASSES)

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        epochs: float | None = None,
        epoch_end: Literal["wrap", "keep"] = "wrap",
        variant: Variant | None = None,
    ) -> None:
        super().__init__(batch_size, epochs, epoch_end, variant)
        self.root = root

    def load(self) -> dict[str, Examples]:
        if self.root is None:
            return embedded()
        return hold_out(idx.read_folder(Path(self.root), CLASSES), VAL)

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        return standardize(inputs, MEAN, STD), targets
