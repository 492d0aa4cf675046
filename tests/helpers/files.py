"""Tiny data sets in the real formats, written into a folder."""

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor

COLOURS = {"n01": (200, 30, 30), "n02": (30, 200, 30), "n03": (30, 30, 200)}


def random_images(n: int, *shape: int) -> Tensor:
    """The same uint8 [n, *shape] at every call."""
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)


def idx_bytes(array: Tensor) -> bytes:
    """An IDX file of bytes."""
    header = bytes([0, 0, 8, array.dim()]) + struct.pack(f">{array.dim()}i", *array.shape)
    return header + array.numpy().tobytes()


def mnist(root: Path, train: int = 2_050, test: int = 30) -> None:
    """MNIST's or Fashion-MNIST's four files, the pictures' gzipped."""
    generator = torch.Generator().manual_seed(0)
    for split, n in (("train", train), ("t10k", test)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (n,), generator=generator, dtype=torch.uint8)
        (root / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (root / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def python2_pickle(data: Tensor, key: str, labels: Sequence[int]) -> bytes:
    """{"data": uint8 [n, 3072], key: labels} byte for byte as Python 2 pickled CIFAR's files."""

    def text(b):
        return b"U" + bytes([len(b)]) + b if len(b) < 256 else b"T" + struct.pack("<i", len(b)) + b

    def integer(i):
        return b"J" + struct.pack("<i", i)

    n, width = data.shape
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + integer(n) + integer(width) + b"\x86"
    array += b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    array += b"NNN" + integer(-1) * 2 + b"K\x00tb\x89" + text(data.numpy().tobytes()) + b"tb"
    numbers = b"](" + b"".join(integer(i) for i in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key.encode()) + numbers + b"u."


def cifar(root: Path) -> None:
    """Both archives unpacked, 10 pictures a file of CIFAR-10, 40 and 20 of CIFAR-100."""
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-100-python").mkdir()
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        content = python2_pickle(random_images(10 + i, 3072)[:10], "labels", range(10))
        (root / "cifar-10-batches-py" / name).write_bytes(content)
    for n, name in ((40, "train"), (20, "test")):
        content = python2_pickle(random_images(n, 3072), "fine_labels", range(60, 60 + n))
        (root / "cifar-100-python" / name).write_bytes(content)


def svhn(root: Path) -> None:
    """The three .mat files: 30 pictures for train, 50 extra ones, 20 for test."""
    for n, name in ((30, "train"), (50, "extra"), (20, "test")):
        labels = (torch.arange(n) % 10 + 1).to(torch.uint8)[:, None].numpy()
        images = random_images(n, 3, 32, 32).permute(2, 3, 1, 0).numpy()
        savemat(root / f"{name}_32x32.mat", {"X": images, "y": labels}, do_compression=True)


def wikitext(root: Path) -> None:
    """The files' real look: blank lines, headings, <unk> as a word, a space at each end of a line."""
    (root / "wiki.train.tokens").write_text(" \n = A title = \n \n The cat <unk> the mat . \n the cat sat \n")
    (root / "wiki.valid.tokens").write_text(" \n the dog sat \n")
    (root / "wiki.test.tokens").write_text(" the mat \u2028 . \n")


def penn_treebank(root: Path) -> None:
    """The same two lines in each of the three files."""
    for split in ("train", "valid", "test"):
        (root / f"ptb.{split}.txt").write_text(" no it was n't black <unk> \n mr. n said \n")


def imagenet(root: Path) -> None:
    """Three classes of plain colours; sizes and kinds of file differ, as in the real folders."""
    for split, n in (("train", 8), ("val", 2)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture = Image.new("RGB", (40 + 5 * i, 60 - 4 * i), colour)
                kind = "PNG" if i == 1 else "JPEG"  # ImageNet has a PNG and CMYK pictures under the name of JPEG
                picture.convert("CMYK" if i == 0 and split == "train" else "RGB").save(folder / f"{i}.JPEG", kind)


def cityscapes(root: Path) -> None:
    """The two official folder trees, three pictures a city."""
    draw = np.random.default_rng(0)
    for split, cities in (("train", ("aachen", "bochum", "ulm", "zurich")), ("val", ("frankfurt",))):
        for city in cities:
            for part in ("leftImg8bit", "gtFine"):
                (root / part / split / city).mkdir(parents=True)
            for i in range(3):
                name = f"{city}_00000{i}_000019"
                picture = draw.integers(0, 256, (16, 32, 3), dtype=np.uint8)
                Image.fromarray(picture).save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
                ids = draw.choice([*range(34), 255], (16, 32)).astype(np.uint8)
                ids[: 3 * i] = 0  # pictures differ in how much of them is ignored
                Image.fromarray(ids).save(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png")
