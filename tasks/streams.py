"""Standard streams that never end a process."""

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Forgiving(io.FileIO):
    """A standard stream whose reader may be gone: what is written then is lost, and nothing fails."""

    def write(self, data: "Buffer") -> int:
        """Return the number of bytes that are written or lost."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def keep_standard_streams() -> None:
    """Let no closed pipe, closed stream or full disk end this process because it printed something."""
    for number in range(3):  # else the first file that is opened would take the place of a closed one
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw: io.RawIOBase = Forgiving(number, "w", closefd=False)
        text = io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", line_buffering=True)
        setattr(sys, name, text)
