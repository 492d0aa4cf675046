"""A W&B sweep file and the cells, each one run's arguments, that it stands for."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

COMMAND = "command: [${interpreter}, -m, tasks, fit, --config, configs/..., ${args}]"
MACRO = re.compile(r"\$\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: `args` follow `python -m tasks`, `values` are those that the sweep chose."""

    sweep: str
    args: tuple[str, ...]
    values: tuple[tuple[str, Any], ...]

    @cached_property
    def key(self) -> str:
        """Names the cell in the ledger: a hash of its arguments and of the config files that they name."""
        digest = hashlib.sha256(json.dumps(self.args).encode())
        for path in config_files(self.args):
            digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:16]

    @property
    def batch_size(self) -> int:
        """The global batch that the sweep gives, 0 where it leaves that to the config."""
        sizes = [v for k, v in self.values if k.startswith("data.") and k.endswith("batch_size")]
        return sizes[0] if sizes and isinstance(sizes[0], int) else 0

    def __str__(self) -> str:
        return " ".join(f"{name.split('.')[-1]}={value}" for name, value in self.values)


def config_files(args: tuple[str, ...]) -> Iterator[str]:
    """The files that `args` give with --config."""
    for option, value in itertools.pairwise((*args, "")):
        if option in ("--config", "-c"):
            yield value
        elif option.startswith("--config="):
            yield option.removeprefix("--config=")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked."""

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def cells(self) -> list[Cell]:
        """Every combination of the parameters' values, in the file's order."""
        parameters = self.content["parameters"]
        choices = [p["values"] if "values" in p else [p["value"]] for p in parameters.values()]
        return [self.cell(dict(zip(parameters, values, strict=True))) for values in itertools.product(*choices)]

    def cell(self, values: dict[str, Any]) -> Cell:
        """The run with these values, its arguments written as W&B's agent writes them."""
        flags = [f"--{name}={value}" for name, value in values.items()]
        args: list[str] = []
        for item in self.content["command"][self._verb() :]:
            args += flags if item == "${args}" else [MACRO.sub(_environment, str(item))]
        return Cell(self.name, tuple(args), tuple((k, str(v) if isinstance(v, dict) else v) for k, v in values.items()))

    def _verb(self) -> int:
        return self.content["command"].index("fit")


def _environment(match: re.Match[str]) -> str:
    return os.environ.get(match[2], match[2])


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file; ValueError names the file and the field that is wrong."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    sweep = Sweep(path, content)
    try:
        check(content)
        for config in config_files(tuple(str(item) for item in content["command"])):
            if not Path(config).is_file():
                raise ValueError(f"command: there is no file {config}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sweep


def check(content: Any) -> None:
    """Raise ValueError, beginning with the field's name, where W&B or this program would refuse the file."""
    if not isinstance(content, dict) or "parameters" not in content:
        raise ValueError("parameters: is missing, so this is no sweep file")
    if content.get("method") != "grid":
        raise ValueError(f"method: is {content.get('method')!r}; this program runs grid")
    for name, parameter in content["parameters"].items():
        if not isinstance(parameter, dict) or not {"value", "values"} & set(parameter):
            raise ValueError(f"parameters.{name}: give value or values")
    check_command(content.get("command"))


def check_command(command: Any) -> None:
    """Raise ValueError unless `command` is a `python -m tasks fit` that is given the parameters."""
    if not isinstance(command, list) or "fit" not in command or "${args}" not in command:
        raise ValueError(f"command: must run `tasks fit` with the parameters, as in {COMMAND}")
    for item in command[command.index("fit") :]:
        for macro in MACRO.finditer(str(item)):
            if item != "${args}" and macro[1] != "envvar":
                raise ValueError(f"command: {item} cannot be used with `tasks fit`: give ${{args}}, a whole item")
