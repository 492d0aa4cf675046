"""Data that lets a run end badly, for the sweep's tests."""

import os
import signal
import time
from typing import Any

from datamodules.base import Examples
from tests.tiny import Tiny


class Hostile(Tiny):
    """Tiny data whose loading does what `fate` says: fine, raise, memory, kill, hang or slow."""

    def __init__(self, fate: str = "fine", **options: Any) -> None:
        super().__init__(**options)
        self.fate = fate

    def load(self) -> dict[str, Examples]:
        if self.fate == "raise":
            raise RuntimeError("the disc is on fire")
        if self.fate == "memory":
            raise MemoryError("no more of it")
        if self.fate == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.fate == "hang":
            time.sleep(1)
        if self.fate == "slow":
            time.sleep(3)
        return super().load()
