"""Loaders of files in the real formats, tiny, and what a bad file says."""

import gzip
import struct

import pytest
import torch

from datamodules import idx
from datamodules.fashion_mnist import FashionMNIST
from datamodules.text import StateOfTheUnion


def idx_bytes(array):
    header = bytes([0, 0, 8, array.dim()]) + struct.pack(f">{array.dim()}i", *array.shape)
    return header + array.numpy().tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for split, n in (("train", 2_050), ("t10k", 30)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (n,), generator=generator, dtype=torch.uint8)
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


def test_fashion_mnist_from_files_holds_out_the_last_2000(idx_folder):
    splits = FashionMNIST(root=str(idx_folder)).load()
    assert {s: len(e) for s, e in splits.items()} == {"train": 50, "val": 2_000, "test": 30}
    whole = idx.read_folder(idx_folder, 10)["train"]
    assert torch.equal(splits["val"].inputs, whole.inputs[50:])
    assert torch.equal(splits["train"].targets, whole.targets[:50])


def test_files_are_found_where_torchvision_puts_them(idx_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "FashionMNIST").mkdir()
    idx_folder.rename(root / "FashionMNIST" / "raw")
    assert len(FashionMNIST(root=str(root)).load()["test"]) == 30


def test_bad_idx_files_are_named(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is not a whole gzip file.*again"):
        FashionMNIST(root=str(idx_folder)).load()
    path.write_bytes(gzip.compress(gzip.decompress(content)[:-5]))
    with pytest.raises(ValueError, match=r"train-images.* cut off"):
        FashionMNIST(root=str(idx_folder)).load()
    path.write_bytes(gzip.compress(b"PK" + gzip.decompress(content)[2:]))
    with pytest.raises(ValueError, match="not an IDX file"):
        FashionMNIST(root=str(idx_folder)).load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no train-images-idx3-ubyte"):
        FashionMNIST(root=str(idx_folder)).load()


def test_labels_must_fit_images_and_classes(idx_folder):
    path = idx_folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(torch.zeros(29, dtype=torch.uint8)))
    with pytest.raises(ValueError, match=r"30 images, .*t10k-labels-idx1-ubyte 29 labels"):
        FashionMNIST(root=str(idx_folder)).load()
    path.write_bytes(idx_bytes(torch.full((30,), 10, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte has class 10"):
        FashionMNIST(root=str(idx_folder)).load()


@pytest.fixture
def speeches(tmp_path):
    (tmp_path / "speeches").mkdir()
    rows = ["fileid,year,is_sotu"]
    for i in range(21):
        text = f"We meet again [Applause]. Number {i} of many words, said we."
        (tmp_path / "speeches" / f"a{i}.txt").write_text(text)
        rows.append(f"a{i},{1800 + i},{i != 20}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    return tmp_path


def test_addresses_from_a_folder(speeches):
    data = StateOfTheUnion(root=str(speeches), bptt=5, min_freq=1)
    splits = data.load()
    tokens = 13  # we meet again . number i of many words , said we .
    assert {s: int(e.elements.sum()) for s, e in splits.items()} == {
        "train": 16 * (tokens - 1),
        "val": 2 * (tokens - 1),
        "test": 2 * (tokens - 1),
    }
    assert data.dimensions == (2 + 10 + 16,)  # the two specials, 10 words and marks, 16 numbers
    assert (splits["val"].inputs == 0).sum() == 2  # a number that training never saw


def test_bad_text_is_named(speeches):
    def load():
        StateOfTheUnion(root=str(speeches)).load()

    path = speeches / "speeches" / "a3.txt"
    path.write_text(" \n")
    with pytest.raises(ValueError, match=r"a3\.txt is empty"):
        load()
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"a3\.txt is not UTF-8"):
        load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*a3\.txt"):
        load()
    (speeches / "metadata.csv").write_text("a,b\n1,2")
    with pytest.raises(ValueError, match=r"metadata\.csv has no rows with the columns fileid"):
        load()


@pytest.mark.parametrize("options", [{"bptt": 0}, {"min_freq": 0}])
def test_window_options_are_checked(options):
    with pytest.raises(ValueError, match="at least 1 for both"):
        StateOfTheUnion(**options)
