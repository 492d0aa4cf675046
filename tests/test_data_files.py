"""Loaders of files in the real formats, tiny, and what a bad file says."""

import gzip
import pickle
from urllib.error import URLError

import pytest
import torch
from scipy.io import savemat

from datamodules import idx
from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.fashion_mnist import MNIST, FashionMNIST
from datamodules.svhn import SVHN
from datamodules.text import StateOfTheUnion
from datamodules.token_files import PennTreebank, WikiText2, WikiText103
from tests.helpers import files
from tests.helpers.files import idx_bytes, random_images


@pytest.fixture
def idx_folder(tmp_path):
    files.mnist(tmp_path)
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
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte: 30 images and 29 labels"):
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


@pytest.fixture
def cifar(tmp_path):
    files.cifar(tmp_path)
    return tmp_path


def test_cifar_files(cifar):
    data = CIFAR10(root=str(cifar), val_examples=15)
    splits = data.load()
    assert {s: tuple(e.inputs.shape) for s, e in splits.items()} == {
        "train": (35, 3, 32, 32),
        "val": (15, 3, 32, 32),
        "test": (10, 3, 32, 32),
    }
    assert data.dimensions == (3, 10)
    assert splits["train"].targets[10:20].tolist() == list(range(10))
    red = random_images(12, 3072)[4, :1024].view(
        32, 32
    )  # of data_batch_3: a row holds the red plane, then green, then blue
    assert torch.equal(splits["train"].inputs[24, 0], red)
    data = CIFAR100(root=str(cifar), val_examples=5)
    splits = data.load()
    assert data.dimensions == (3, 100)
    assert splits["val"].targets.tolist() == [95, 96, 97, 98, 99]


def test_bad_cifar_files_are_named(cifar):
    def load():
        CIFAR10(root=str(cifar), val_examples=5).load()

    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"data_batch_2 is not a whole CIFAR file"):
        load()
    path.write_bytes(pickle.dumps({"data": random_images(3, 3072).numpy(), "labels": [0, 10, 1]}))
    with pytest.raises(ValueError, match=r"data_batch_2 has class 10"):
        load()
    path.write_bytes(pickle.dumps({"data": random_images(3, 3072).numpy(), "labels": [0, 1]}))
    with pytest.raises(ValueError, match=r"data_batch_2: 3 images and 2 labels"):
        load()
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"data_batch_2 is not a whole CIFAR file"):
        load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*data_batch_2"):
        load()


@pytest.fixture
def svhn(tmp_path):
    files.svhn(tmp_path)
    return tmp_path


def test_svhn_files(svhn):
    splits = SVHN(root=str(svhn), val_examples=20).load()
    assert {s: len(e) for s, e in splits.items()} == {"train": 60, "val": 20, "test": 20}
    assert torch.equal(splits["train"].inputs[:50], random_images(50, 3, 32, 32))  # extra first
    assert torch.equal(splits["val"].inputs, random_images(30, 3, 32, 32)[10:])  # validation out of train
    assert splits["test"].targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2  # a 10 is the digit 0
    assert len(SVHN(root=str(svhn), extra=False, val_examples=20).load()["train"]) == 10


def test_bad_svhn_files_are_named(svhn):
    path = svhn / "test_32x32.mat"
    content = path.read_bytes()
    for bad in (content[: len(content) // 2], b"", b"no such format" * 20):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"test_32x32\.mat is not a whole SVHN file"):
            SVHN(root=str(svhn), val_examples=20).load()
    savemat(path, {"X": random_images(2, 3, 32, 32).permute(2, 3, 1, 0).numpy(), "y": [[11], [3]]})
    with pytest.raises(ValueError, match=r"test_32x32\.mat has class 11"):
        SVHN(root=str(svhn), val_examples=20).load()


def test_mnist_files(idx_folder):
    data = MNIST(root=str(idx_folder))
    assert len(data.load()["train"]) == 50
    pixel = torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)
    assert data.prepare(pixel, None, None)[0].unique().item() == pytest.approx((1 - 0.1307) / 0.3081)


def test_download_goes_through_torchvision_and_fails_in_one_sentence(tmp_path, monkeypatch):
    asked = []

    def refuse(root, **options):
        asked.append((root, options))
        raise URLError("no network here")

    for data_set in (CIFAR10, SVHN):
        monkeypatch.setattr(data_set, "fetch", staticmethod(refuse))
        with pytest.raises(ValueError, match=f"could not download {data_set.__name__} into .*no network"):
            data_set(root=str(tmp_path), download=True).prepare_data()
    assert asked == [(tmp_path, {"download": True}), (tmp_path, {"split": "extra", "download": True})]
    CIFAR10(root=str(tmp_path)).prepare_data()  # does not download
    assert len(asked) == 2
    with pytest.raises(ValueError, match=r"needs data.root"):
        MNIST(download=True).prepare_data()
    with pytest.raises(ValueError, match=r"data\.root is not set: give the folder of MNIST"):
        MNIST().load()


def test_validation_must_leave_training_examples(idx_folder):
    with pytest.raises(ValueError, match="cannot hold out 2050 of 2050"):
        MNIST(root=str(idx_folder), val_examples=2_050).load()
    with pytest.raises(ValueError, match="the embedded images have 2000"):
        FashionMNIST(val_examples=2_001).load()
    assert len(FashionMNIST(val_examples=100).load()["val"]) == 100


@pytest.fixture
def wikitext(tmp_path):
    files.wikitext(tmp_path)
    return tmp_path


@pytest.mark.parametrize("data_set", [WikiText2, WikiText103])
def test_token_files(wikitext, data_set):
    data = data_set(root=str(wikitext), bptt=4)
    splits = data.load()
    train = [
        "<eos>",
        "=",
        "A",
        "title",
        "=",
        "<eos>",
        "<eos>",
        "The",
        "cat",
        "<unk>",
        "the",
        "mat",
        ".",
        "<eos>",
        "the",
        "cat",
        "sat",
        "<eos>",
    ]
    assert data.dimensions == (len({*train, "<unk>", "<pad>"}),)
    assert splits["train"].inputs.flatten()[: len(train) - 1].unique().numel() == len(set(train))
    for split, tokens in (("train", len(train)), ("val", 5), ("test", 4)):
        assert int(splits[split].elements.sum()) == tokens - 1
        assert torch.equal((splits[split].targets != -100).sum(1), splits[split].elements)
    stream = splits["train"]
    assert torch.equal(stream.inputs.flatten()[1 : len(train) - 1], stream.targets.flatten()[: len(train) - 2])
    assert splits["val"].targets[0, 1] == 0  # dog was never seen; <unk> of the file has the same number
    assert stream.inputs.flatten()[9] == 0


def test_penn_treebank_files_and_bad_ones(tmp_path):
    files.penn_treebank(tmp_path)
    assert int(PennTreebank(root=str(tmp_path)).load()["train"].elements.sum()) == 10
    (tmp_path / "ptb.valid.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"ptb\.valid\.txt is empty"):
        PennTreebank(root=str(tmp_path)).load()
    (tmp_path / "ptb.valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*ptb\.valid\.txt"):
        PennTreebank(root=str(tmp_path)).load()
