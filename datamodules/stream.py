"""Splits too large for memory: files that worker threads decode shortly before they are needed."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from datamodules.base import Examples


class Files:
    """Files as an indexable: `files[indices]` is the stack of what `decode` returns for each, [n, ...].

    Its only state is what is being decoded, so a run resumes by its indices alone. Threads are enough, because Pillow
    releases Python's lock: while a 12-megapixel JPEG and a PNG were decoded in 0.4 s, the main thread was held up for
    at most 0.04 s.
    """

    def __init__(self, paths: Sequence[str], decode: Callable[[str], Tensor], pool: ThreadPoolExecutor) -> None:
        self.paths, self.decode, self.pool = paths, decode, pool
        self._under_way: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: Tensor) -> "Files":
        """Return the files `indices` int64 [n], not decoded."""
        return Files([self.paths[i] for i in indices.tolist()], self.decode, self.pool)

    def prefetch(self, indices: Tensor) -> int:
        """Begin to decode the files `indices`; return how many are decoded or under way in all."""
        for i in indices.tolist():
            if i not in self._under_way:
                self._under_way[i] = self.pool.submit(self.decode, self.paths[i])
        return len(self._under_way)

    def cancel_except(self, wanted: set[int]) -> None:
        """Cancel what will not be asked for after all: a short batch is divided among the ranks differently."""
        for i in self._under_way.keys() - wanted:
            self._under_way.pop(i).cancel()

    def __getitem__(self, indices: Tensor) -> Tensor:
        self.prefetch(indices)
        return torch.stack([self._under_way.pop(i).result() for i in indices.tolist()])

    def digest(self) -> bytes:
        """Return a SHA-256 of the files' names, not of what they hold."""
        names = ("/".join(Path(path).parts[-2:]) for path in self.paths)  # wherever the folder lies
        return hashlib.sha256("\n".join(names).encode()).digest()


def make_pool(workers: int | None) -> ThreadPoolExecutor:
    """Return a pool of decoding threads.

    Args:
        workers: how many (None: one for each core that this process may use).

    Raises:
        ValueError: if there are none.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"data.workers is {workers}: give at least 1 decoding thread, or null for one a core")
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    return ThreadPoolExecutor(workers or mine, thread_name_prefix="decode")


def open_image(path: str, mode: str, least: int | None = None) -> Image.Image:
    """Return a picture.

    Args:
        path: of the file.
        mode: Pillow's, such as RGB.
        least: if given, a JPEG may be shrunk while it is decoded, to no less than so many pixels a side.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no picture, or damaged.
    """
    try:
        with Image.open(path) as image:
            if least is not None:
                image.draft(mode, (least, least))  # JPEG only: skips detail that resizing would average away
            return image.convert(mode)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file {path}: it was there when the run began") from error
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(f"{path} cannot be read as a picture ({error}): fetch it again or take it away") from error


@dataclass(frozen=True)
class Streamed(Examples):
    """A split whose inputs, and perhaps targets, are files.

    Args:
        inputs: one file an example.
        targets: one file an example, or int64 [N].
        elements: counted elements of each example at most, int [N] (None: one each).
        ahead: how many examples are decoded or under way beyond the part in use, at least one part.
    """

    inputs: Files  # type: ignore[assignment]  # indexed only, as the tensors that they stand for would be
    targets: Files | Tensor  # type: ignore[assignment]
    ahead: int = 0

    def at(self, indices: Tensor) -> "Streamed":
        """Return the examples `indices` int64 [n], not decoded, as a split of their own."""
        targets = self.targets.at(indices) if isinstance(self.targets, Files) else self.targets[indices]
        elements = None if self.elements is None else self.elements[indices]
        return Streamed(self.inputs.at(indices), targets, elements, self.ahead)

    def prefetch(self, plan: Sequence[Tensor]) -> None:
        """Begin to decode the next part of the plan, and as many after it as `ahead` allows; cancel all others."""
        streams = [files for files in (self.inputs, self.targets) if isinstance(files, Files)]
        wanted = set(torch.cat(list(plan)).tolist())
        for files in streams:
            files.cancel_except(wanted)
        for i, indices in enumerate(plan):
            under_way = max(files.prefetch(indices) for files in streams)
            if i and under_way >= len(plan[0]) + self.ahead:
                return

    def digest(self) -> bytes:
        """Return a SHA-256 of the files' names and of targets in memory."""
        if isinstance(self.targets, Files):
            return hashlib.sha256(self.inputs.digest() + self.targets.digest()).digest()
        return hashlib.sha256(self.inputs.digest() + self.targets.numpy().tobytes()).digest()
