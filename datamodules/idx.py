"""The IDX files of MNIST and its kin: plain or gzipped."""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Examples
from datamodules.images import check_labels

PIECE = 2**20  # bytes
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_file(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 array of one IDX file.

    Raises:
        ValueError: if it is cut off, empty or of another kind.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            shape = check_header(path, header, dimensions)
            content = read_at_most(file, math.prod(shape) + 1)  # no more than that, whatever it would unpack to
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    if len(content) != math.prod(shape):
        found = f"{len(content):,}" if len(content) < math.prod(shape) else "more"
        raise ValueError(
            f"{path} holds {found} bytes where its header tells of {math.prod(shape):,} (shape {shape}): it is cut off "
            "or damaged, fetch it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def check_header(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    """Return the shape that an IDX file's header declares.

    Raises:
        ValueError: if the file is of another kind, or holds nothing.
    """
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:  # 8: unsigned bytes
        raise ValueError(f"{path} is not an IDX file of bytes in {dimensions} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(header, ">i4", dimensions, 4))
    if min(shape) < 1:
        raise ValueError(f"{path} holds nothing: its header declares the shape {shape}, fetch it again")
    return shape


def read_at_most(file: io.BufferedIOBase, most: int) -> bytearray:
    """Return the next bytes of a file, `most` of them or as many as there are; memory grows with what is there."""
    content = bytearray()
    while len(content) < most and (piece := file.read(min(PIECE, most - len(content)))):
        content += piece
    return content


def find(root: Path, name: str, data_set: str) -> Path:
    """Return the file `name` or `name.gz` in `root` or, where torchvision puts it, in `root/<data set>/raw`.

    Raises:
        FileNotFoundError: if it is in neither.
    """
    for folder in (root, root / data_set / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"no {name} or {name}.gz in {root}: data.root must hold the four IDX files")


def read_folder(root: Path, classes: int, data_set: str = "") -> dict[str, Examples]:
    """Return `train` and `test` of a folder of the four files: images uint8 [N, 1, 28, 28], labels int64 [N].

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or images and labels do not fit.
    """
    splits = {}
    for split, (images_name, labels_name) in FILES.items():
        images_path, labels_path = (find(root, name, data_set) for name in (images_name, labels_name))
        images, labels = read_file(images_path, 3), read_file(labels_path, 1).long()
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{images_path} has images of {tuple(images.shape[1:])} pixels: (28, 28) was expected")
        check_labels(labels_path, labels, len(images), classes)
        splits[split] = Examples(images.unsqueeze(1), labels)
    return splits
