"""WikiText and the Penn Treebank: files of tokens between spaces."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.base import Examples, InMemoryDataModule
from datamodules.text import check_window, read_text, split_windows


@dataclass(frozen=True)
class TokenLines:
    """The tokens of a file, read anew each time, with `<eos>` at the end of each line."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        for line in read_text(self.path).removesuffix("\n").split("\n"):
            yield from line.split()
            yield "<eos>"


class TokenFiles(InMemoryDataModule):
    """Three files of tokens; a subclass names them. Each is one document: windows run on over its lines.

    The state does not run from window to window, so perplexities are above those of stateful evaluation.

    Args:
        root: the folder of the files.
        bptt: tokens a window.
        min_freq: a token seen less often in the training file is `<unk>`; 1 keeps the files' own vocabulary.
    """

    files: dict[str, str]

    def __init__(
        self,
        root: str,
        bptt: int = 35,
        min_freq: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_window(bptt, min_freq)
        self.root, self.bptt, self.min_freq = Path(root), bptt, min_freq

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        documents = {split: [TokenLines(self.root / name)] for split, name in self.files.items()}
        splits, size = split_windows(documents, self.min_freq, self.bptt)
        self.dimensions = (size,)
        return splits


class WikiText2(TokenFiles):
    """WikiText-2 (Merity et al. 2016), word level: 2.1 million training tokens."""

    files = {"train": "wiki.train.tokens", "val": "wiki.valid.tokens", "test": "wiki.test.tokens"}


class WikiText103(WikiText2):
    """WikiText-103 (Merity et al. 2016), word level: 103 million training tokens, 0.9 GB in memory."""


class PennTreebank(TokenFiles):
    """The Penn Treebank as Mikolov et al. (2010) prepared it: 0.93 million training tokens."""

    files = {"train": "ptb.train.txt", "val": "ptb.valid.txt", "test": "ptb.test.txt"}
