"""Street View House Numbers (Netzer et al. 2011), cropped digits: 32 x 32 colour pictures of 10 digits."""

from pathlib import Path
from typing import Any

import torch
from scipy.io import loadmat, whosmat
from torchvision import datasets

from datamodules.base import Examples
from datamodules.images import ClassImages, check_labels, join


def read_mat(path: Path) -> Examples:
    """Return the examples of one .mat file: `X` uint8 [32, 32, 3, n], `y` [n, 1] of 1 to 10, where 10 is the digit 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a whole SVHN file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: data.root must hold the .mat files, or set data.download")
    try:
        kinds = {name: (shape, kind) for name, shape, kind in whosmat(path)}  # from the headers alone
        (shape, kind), (rows, _) = kinds["X"], kinds["y"]
        if shape[:3] != (32, 32, 3) or len(shape) != 4 or kind != "uint8" or rows != (shape[3], 1):
            raise ValueError(f"X is {kind} of {shape} and y of {rows}, not uint8 of (32, 32, 3, n) and (n, 1)")
        content = loadmat(path, variable_names=["X", "y"])
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
        labels = torch.from_numpy(content["y"].astype("int64")).flatten()
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(f"{path} is not a whole SVHN file ({error}): fetch it again") from error
    labels = torch.where(labels == 10, 0, labels)
    check_labels(path, labels, len(images), 10)
    return Examples(images, labels)


class SVHN(ClassImages):
    """SVHN from {train,extra,test}_32x32.mat; the last 6,000 of `train` are the validation split.

    With `extra` 598,388 training pictures, 1.8 GB in memory, without it 67,257; 26,032 for test. The files are for
    non-commercial use only.

    Args:
        root: the folder of the .mat files.
        extra: train on the extra pictures, too; they are easier.
    """

    classes, held_out = 10, 6_000
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    fetch = datasets.SVHN

    def __init__(
        self,
        root: str | None = None,
        extra: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.parts = ("extra", "train") if extra else ("train",)  # validation is cut from the end: from `train`

    def fetch_all(self, root: Path) -> None:
        """Download what `read` needs."""
        for part in (*self.parts, "test"):
            self.fetch(root, split=part, download=True)

    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`."""
        train = join([read_mat(root / f"{part}_32x32.mat") for part in self.parts])
        return {"train": train, "test": read_mat(root / "test_32x32.mat")}
