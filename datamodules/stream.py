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
    """Files as an indexable: `files[indices]` is the stack of what `decode` makes of each.

    Its only state is what is being decoded, so a run resumes by its indices alone. Threads do, for Pillow lets
    go of Python's lock: measured on a 12-megapixel JPEG and PNG, decoded in 0.4 s, the main thread stood still
    for at most 0.04 s.
    """

    def __init__(self, paths: Sequence[str], decode: Callable[[str], Tensor], pool: ThreadPoolExecutor) -> None:
        self.paths, self.decode, self.pool = paths, decode, pool
        self._under_way: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: Tensor) -> "Files":
        """The files of `indices` int64 [n], not decoded."""
        return Files([self.paths[i] for i in indices.tolist()], self.decode, self.pool)

    def expect(self, indices: Tensor) -> int:
        """Have the files of `indices` decoded soon; gives how many are decoded or under way in all."""
        for i in indices.tolist():
            if i not in self._under_way:
                self._under_way[i] = self.pool.submit(self.decode, self.paths[i])
        return len(self._under_way)

    def forget(self, others_than: set[int]) -> None:
        """Drop what was expected and will not be asked for: a ragged batch is shared out otherwise."""
        for i in self._under_way.keys() - others_than:
            self._under_way.pop(i).cancel()

    def __getitem__(self, indices: Tensor) -> Tensor:
        self.expect(indices)
        return torch.stack([self._under_way.pop(i).result() for i in indices.tolist()])

    def digest(self) -> bytes:
        """A hash of the files' names, not of what they hold."""
        names = ("/".join(Path(path).parts[-2:]) for path in self.paths)  # wherever the folder lies
        return hashlib.sha256("\n".join(names).encode()).digest()


def make_pool(workers: int | None) -> ThreadPoolExecutor:
    """Decoding threads: so many, or (null) one for each core that this process may use."""
    if workers is not None and workers < 1:
        raise ValueError(f"data.workers is {workers}: give at least 1 decoding thread, or null for one a core")
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    return ThreadPoolExecutor(workers or mine, thread_name_prefix="decode")


def open_image(path: str, mode: str, least: int | None = None) -> Image.Image:
    """The picture in Pillow's `mode`, at full size or cheaply shrunk to no less than `least` pixels a side."""
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
    """A split whose inputs, and perhaps targets, are Files.

    `ahead`: how many examples are decoded or under way beyond the part in use, at least one part.
    """

    inputs: Files
    targets: Files | Tensor
    ahead: int = 0

    def at(self, indices: Tensor) -> "Streamed":
        targets = self.targets.at(indices) if isinstance(self.targets, Files) else self.targets[indices]
        elements = None if self.elements is None else self.elements[indices]
        return Streamed(self.inputs.at(indices), targets, elements, self.ahead)

    def expect(self, plan: Sequence[Tensor]) -> None:
        streams = [files for files in (self.inputs, self.targets) if isinstance(files, Files)]
        wanted = set(torch.cat(list(plan)).tolist())
        for files in streams:
            files.forget(others_than=wanted)
        for i, indices in enumerate(plan):
            under_way = max(files.expect(indices) for files in streams)
            if i and under_way >= len(plan[0]) + self.ahead:
                return

    def digest(self) -> bytes:
        if isinstance(self.targets, Files):
            return hashlib.sha256(self.inputs.digest() + self.targets.digest()).digest()
        return hashlib.sha256(self.inputs.digest() + self.targets.numpy().tobytes()).digest()
