"""The IDX files of MNIST and its kin: plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Examples
from datamodules.images import check_labels

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_file(path: Path, dimensions: int) -> Tensor:
    """The uint8 array of one IDX file; ValueError if it is cut off or of another kind."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    magic = bytes([0, 0, 8, dimensions])  # 8: unsigned bytes
    header = 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        raise ValueError(f"{path} is not an IDX file of bytes in {dimensions} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", dimensions, 4))
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{path} holds {len(content) - header} bytes where its header tells of {math.prod(shape)} "
            f"(shape {shape}): it is cut off or damaged, fetch it again"
        )
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(shape)


def find(root: Path, name: str, data_set: str) -> Path:
    """The file `name` or `name.gz` in `root` or, where torchvision puts it, in `root/<data set>/raw`."""
    for folder in (root, root / data_set / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"no {name} or {name}.gz in {root}: data.root must hold the four IDX files")


def read_folder(root: Path, classes: int, data_set: str = "") -> dict[str, Examples]:
    """`train` and `test` of a folder of the four files: images uint8 [N, 1, 28, 28], labels int64 [N]."""
    splits = {}
    for split, (images_name, labels_name) in FILES.items():
        images_path, labels_path = (find(root, name, data_set) for name in (images_name, labels_name))
        images, labels = read_file(images_path, 3), read_file(labels_path, 1).long()
        if images.shape[1:] != (28, 28):
            raise ValueError(
                f"{images_path} has images of {tuple(images.shape[1:])} pixels: (28, 28) was expected"
            )
        check_labels(labels_path, labels, len(images), classes)
        splits[split] = Examples(images.unsqueeze(1), labels)
    return splits
