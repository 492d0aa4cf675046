"""Files that are not as they should be, by the real command line: one sentence that names the file."""

import gzip
import os
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.run_record import peak_memory, reset_peak_memory
from tests.helpers.files import idx_bytes
from tests.helpers.workloads import CONFIGS, DATA, data_name, fit_two_steps


def cut_off(name, root):
    (root / name).write_bytes((root / name).read_bytes()[:200])


def wrong_class(root):
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(torch.full((10,), 10, dtype=torch.uint8)))


def wrong_mask(root):
    (mask,) = (root / "gtFine/train/aachen").glob("*_000001_*")
    Image.fromarray(np.full((16, 32), 77, np.uint8)).save(mask)


def evil_pickle(root):
    """Files that run a command when they are unpickled in full."""

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {root}/evil",)

    (root / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps({"data": Evil(), "labels": [1]}))


def cifar_of(root, data, labels):
    (root / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps({"data": data, "labels": labels}))


def bomb(root):
    """3 MB that unpack to 3.2 GB, of which the header tells 39 kB."""
    path = root / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes() + 100 * gzip.compress(bytes(2**25), 9))


BYTES, NUMBERS = np.zeros((2, 3072), np.uint8), np.full((2, 3072), np.nan, np.float32)
BAD = {  # workload, what is done to its files, what is said
    "no such tree, CIFAR": ("cifar10_resnet8", lambda r: (r / "cifar-10-batches-py").rename(r / "x"), "data_batch_1"),
    "no such tree, ImageNet": ("imagenet_resnet50_lamb", lambda r: (r / "val").rename(r / "x"), "no folder"),
    "a class missing": ("imagenet_resnet50_lamb", lambda r: (r / "val/n02").rename(r / "x"), "has n02"),
    "no such tree, Cityscapes": ("cityscapes_drn_d_22", lambda r: (r / "gtFine").rename(r / "x"), "no file"),
    "class of a digit": ("mnist_simple_cnn", wrong_class, "t10k-labels-idx1-ubyte has class 10"),
    "class of a pixel": ("cityscapes_drn_d_22", wrong_mask, "aachen_000001_000019_gtFine_labelIds.png has class id"),
    "corrupt JPEG": ("imagenet_resnet50_lamb", partial(cut_off, "train/n03/4.JPEG"), "n03/4.JPEG cannot be read"),
    "corrupt CIFAR": ("cifar10_resnet8", partial(cut_off, "cifar-10-batches-py/data_batch_3"), "data_batch_3"),
    "a command in CIFAR": ("cifar10_resnet8", evil_pickle, "it asks for posix.system, which no CIFAR file needs"),
    "CIFAR of nan": ("cifar10_resnet8", lambda r: cifar_of(r, NUMBERS, [0, 1]), "its data are no bytes of 3,072"),
    "labels of nan": ("cifar10_resnet8", lambda r: cifar_of(r, BYTES, [np.nan, 1]), "labels are no list of whole"),
    "3.2 GB in 3 MB": ("mnist_simple_cnn", bomb, "holds more bytes where its header tells of 39,200"),
    "no pictures": (
        "mnist_simple_cnn",
        lambda r: (r / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(torch.empty(0, 28, 28)))),
        "holds nothing: its header declares the shape (0, 28, 28)",
    ),
    "corrupt SVHN": ("svhn_resnet34", partial(cut_off, "extra_32x32.mat"), "extra_32x32.mat"),
    "empty text": ("wikitext2_lstm", lambda r: (r / "wiki.valid.tokens").write_text(" \n"), "wiki.valid.tokens is"),
    "no text": ("penn_treebank_lstm", lambda r: (r / "ptb.train.txt").unlink(), "no file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_end_a_run_in_one_sentence_that_names_them(case, tmp_path, capsys):
    stem, spoil, said = BAD[case]
    config = next(p for p in CONFIGS if p.stem == stem)
    root = tmp_path / data_name(config)
    root.mkdir()
    DATA[data_name(config)][0](root)
    spoil(root)
    reset_peak_memory()
    before = peak_memory(torch.device("cpu")) or 0
    whole = {"imagenet_resnet50_lamb": "14", "cityscapes_drn_d_22": "6"}  # what is left of them after validation
    flags = ["--data.variant.examples", whole[stem]] if stem in whole else []
    assert fit_two_steps(config, tmp_path, tmp_path, *flags) == 2
    printed = capsys.readouterr()
    (line,) = (printed.out + printed.err).strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert str(root) in line
    assert not (root / "evil").exists()
    assert (peak_memory(torch.device("cpu")) or 0) - before < 1e9
