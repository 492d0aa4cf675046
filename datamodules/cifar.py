"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32 x 32 colour pictures of 10 or 100 kinds of things."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from torchvision import datasets

from datamodules.base import Examples
from datamodules.images import ClassImages, check_labels, join


class ArraysAlone(pickle.Unpickler):
    """Unpickles dictionaries, lists, numbers and numpy's arrays: a pickle can call anything else by its name."""

    allowed = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    allowed |= {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Return what a pickle names, if a CIFAR file needs it.

        Raises:
            pickle.UnpicklingError: for anything else.
        """
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return np.ndarray if name == "ndarray" else np.dtype if name == "dtype" else _reconstruct


def read_batch(path: Path, key: str, classes: int) -> Examples:
    """Return the examples of one file of the "python version".

    Args:
        path: of a pickled dictionary: `data` uint8 [n, 3072], and labels.
        key: of the labels.
        classes: how many there are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a whole CIFAR file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: data.root must hold the unpacked archive, or set data.download")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Python 2 wrote these files: in latin1, and with an argument that numpy 2.4 warns of
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            content = ArraysAlone(file, encoding="latin1").load()
        images, labels = content["data"], content[key]
        if type(images) is not np.ndarray or images.dtype != np.uint8 or images.shape[1:] != (3072,):
            raise ValueError("its data are no bytes of 3,072 columns")
        if images.nbytes > path.stat().st_size or type(labels) is not list or {type(i) for i in labels} - {int}:
            raise ValueError(f"its {key} are no list of whole numbers, or its data are not all there")
        pixels, numbers = torch.from_numpy(images).view(-1, 3, 32, 32), torch.tensor(labels, dtype=torch.int64)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path} is not a whole CIFAR file ({error}): unpack the archive again") from error
    check_labels(path, numbers, len(pixels), classes)
    return Examples(pixels, numbers)


class CIFAR10(ClassImages):
    """CIFAR-10 from the folder that holds `cifar-10-batches-py`: 45,000, 5,000 and 10,000 pictures."""

    classes, held_out = 10, 5_000
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    fetch = datasets.CIFAR10

    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`."""
        folder = root / "cifar-10-batches-py"
        train = [read_batch(folder / f"data_batch_{i}", "labels", self.classes) for i in range(1, 6)]
        return {"train": join(train), "test": read_batch(folder / "test_batch", "labels", self.classes)}


class CIFAR100(ClassImages):
    """CIFAR-100 from the folder that holds `cifar-100-python`: 45,000, 5,000 and 10,000 pictures."""

    classes, held_out = 100, 5_000
    mean, std = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    fetch = datasets.CIFAR100

    def read(self, root: Path) -> dict[str, Examples]:
        """Return `train` and `test` of the files in `root`."""
        folder = root / "cifar-100-python"
        return {split: read_batch(folder / split, "fine_labels", self.classes) for split in ("train", "test")}
