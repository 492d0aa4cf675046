"""The process that started this one as a part of itself: a sweep's worker, or the first rank of a run."""

import os
import signal
import threading
import time

STARTER = "BATCH_LIMIT_STARTER"  # the environment's name for its number


def end_with_starter(grace: float) -> None:
    """End this process `grace` seconds after the one that started it ends, however that ends; else it may go on."""
    starter = os.environ.pop(STARTER, None)
    if starter is not None:
        threading.Thread(target=_follow, args=(int(starter), grace), daemon=True).start()


def _follow(starter: int, grace: float) -> None:
    while os.getppid() == starter:
        time.sleep(0.5)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)  # to save first would keep the directory locked; the run goes on all the same
