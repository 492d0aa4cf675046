"""What is set in this process before any run."""

import contextlib
import ctypes
import itertools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.errors import UserError
from tasks.yaml_file import parse_yaml, read_yaml


def in_order(args: Sequence[str]) -> list[str]:
    """Return the arguments with configs first, and each option that names a class before those of its settings.

    jsonargparse lets a later file override earlier flags, and a later class takes nothing over from earlier settings.
    """
    options: list[list[str]] = []
    for arg in args[1:]:
        if arg.startswith("--") or not options or arg == "-c":
            options.append([arg])
        else:
            options[-1].append(arg)
    configs = [option for option in options if option[0].split("=")[0] in ("--config", "-c")]
    others = [option for option in options if option not in configs]
    names = [option[0].split("=")[0].replace(".init_args", "").removesuffix(".class_path") for option in others]
    last = {name: i for i, name in enumerate(names)}

    def turn(i: int) -> tuple[int, bool, int]:
        """Right after the last option that names what this one is a setting of."""
        parts = names[i].split(".")
        after = max([i, *(last.get(".".join(parts[:k]), i) for k in range(1, len(parts)))])
        return after, after != i, i

    ordered = configs + [others[i] for i in sorted(range(len(others)), key=turn)]
    return [*args[:1], *itertools.chain(*ordered)]


def check_arguments(args: Sequence[str]) -> None:
    """Refuse a --config file or a value that is not YAML, has a key twice or refers to itself.

    Raises:
        UserError: with the file and the place.
    """
    for before, arg in zip(["", *args], args, strict=False):
        option, _, value = arg.partition("=")
        config = arg if before in ("--config", "-c") else value if option in ("--config", "-c") else None
        try:
            if config and Path(config).is_file():
                if not isinstance(read_yaml(Path(config)), dict):
                    raise ValueError(f"{config} holds no settings: give a YAML file of `name: value`")
            elif "*" in arg and "&" in arg:
                parse_yaml(value or arg)
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error


def search_beside_configs(args: Sequence[str]) -> None:
    """Let configs name classes of Python files that lie beside them, as if their folders were on PYTHONPATH."""
    for before, arg in itertools.pairwise(["", *args]):
        option, _, value = arg.partition("=")
        path = arg if before in ("--config", "-c") else value if option in ("--config", "-c") else ""
        folder = str(Path(path).resolve().parent)
        if path and folder not in sys.path:
            sys.path.append(folder)


def is_first() -> bool:
    """Return whether this is the first process of a run, by the launcher's numbers, before Lightning knows."""
    places = ("NODE_RANK", "GROUP_RANK", "RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in places)


def quiet() -> None:
    """Silence what the libraries print for every run and nobody can use."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="Initializing zero-element tensors.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Leave SIGTERM's and SIGINT's handlers as they were: a sweep's worker runs many fits."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_interrupt() -> None:
    """Let Ctrl-C end this process at once, until training handles it (callbacks/rolling_checkpoint.py).

    While torch connects the processes, for up to 30 minutes, Python raises no KeyboardInterrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a sweep's worker leaves it to its parent
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def disable_malloc_trim() -> None:
    """Make glibc keep freed memory for the next step: by default it returns large pieces to the system.

    Their page faults made the steps of Fashion-MNIST 1.2 to 1.6 times as long on a CPU, as of batch 256.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in {-4: 0, -1: 2**31 - 1}.items():  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
            libc.mallopt(option, value)


def say(error: object, status: int) -> int:
    """Print an error as one sentence; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return status
