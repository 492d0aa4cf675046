"""A W&B sweep file and the cells, each one run's arguments, that it stands for."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.sweep import parameters
from tasks.yaml_file import read_yaml

EXAMPLE = "command: ['${interpreter}', -m, tasks, fit, --config, configs/..., '${args}']"
MACRO = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
TEXTS = {"program", "name", "description", "project", "entity", "apiVersion", "kind", "job", "image_uri"}
GOALS = ("minimize", "maximize")
FIELDS = TEXTS | {"method", "parameters", "command", "metric", "run_cap", "early_terminate", "controller"}
ELSEWHERE = {  # what W&B allows and this program does not do
    "random": "only W&B's server draws runs at random: use `wandb agent`, or method: grid",
    "bayes": "only W&B's server proposes runs by bayes: use `wandb agent`, or method: grid",
    "custom": "only W&B's server runs a custom method: use `wandb agent`, or method: grid",
}


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: `args` follow `python -m tasks`, `values` are those that differ from cell to cell."""

    sweep: str
    args: tuple[str, ...]
    values: tuple[tuple[str, Any], ...]

    @cached_property
    def key(self) -> str:
        """Return the cell's name in the ledger: a hash of its arguments and of the config files that they name."""
        digest = hashlib.sha256(json.dumps(self.args).encode())
        for path in config_files(self.args):
            digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:16]

    @property
    def batch_size(self) -> int:
        """Return the global batch that the sweep gives, 0 where it leaves that to the config."""
        sizes = [v for k, v in self.values if k.startswith("data.") and k.endswith("batch_size")]
        return sizes[0] if sizes and isinstance(sizes[0], int) else 0

    @property
    def learning_rate(self) -> float:
        """Return the learning rate that the sweep gives, 1 where it leaves that to the config."""
        rates = [v for k, v in self.values if k.endswith(".lr")]
        return float(rates[0]) if rates and isinstance(rates[0], float | int) and rates[0] > 0 else 1.0

    def __str__(self) -> str:
        return " ".join(f"{name.split('.')[-1]}={value}" for name, value in self.values)


def config_files(args: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that `args` give with --config."""
    for option, value in itertools.pairwise((*args, "")):
        if option in ("--config", "-c"):
            yield value
        elif option.startswith("--config="):
            yield option.removeprefix("--config=")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked; `flags` are options of `fit` that every cell gets, and that win."""

    path: Path
    content: dict[str, Any]
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the study that its runs belong to, else the file's name."""
        study = self.content["parameters"].get("run.study", {}).get("value")
        return study if isinstance(study, str) else self.path.stem

    @property
    def command(self) -> list[str]:
        """Return what follows `python -m tasks`, with ${args} still in it."""
        command = self.content["command"]
        return [MACRO.sub(_environment, str(item)) for item in command[command.index("fit") :]]

    def configs(self) -> list[str]:
        """Return every config file that a cell may read: the command's and, where they are swept, those of `config`."""
        swept = self.content["parameters"].get("config", {})
        given = config_files((*self.command, *self.flags))
        return [*given, *swept.get("values", [swept["value"]] if "value" in swept else [])]

    def choices(self) -> list[dict[str, Any]]:
        """Return the values of every run: all combinations, or as many as `run_cap` allows."""
        return parameters.grid(self.content["parameters"])[: self.content.get("run_cap")]

    def cell(self, values: Mapping[str, Any], stage: str = "", flags: tuple[str, ...] = ()) -> Cell:
        """Return the run with these values, its arguments written as W&B's agent writes them, and then `flags`."""
        chosen = [f"--{name}={value}" for name, value in values.items()]
        args = [arg for item in self.command for arg in (chosen if item == "${args}" else [item])]
        shown = tuple((k, str(v) if isinstance(v, dict | list) else v) for k, v in values.items() if self._tells(k))
        return Cell(f"{self.name} {stage}".strip(), (*args, *self.flags, *flags), shown)

    def _tells(self, name: str) -> bool:
        """Return whether a value is worth showing: what is the same in all cells is not."""
        return name.endswith("batch_size") or "value" not in self.content["parameters"].get(name, {})


def _environment(match: re.Match[str]) -> str:
    return os.environ.get(match[2], match[2]) if match[1] == "envvar" else match[0]


def read_sweep(path: Path, flags: tuple[str, ...] = ()) -> Sweep:
    """Read and check a sweep file; ValueError names the file and the field that is wrong."""
    sweep = Sweep(path, read_yaml(path), flags)
    try:
        check(sweep.content)
        check_flags(sweep)
        names = [given for config in sweep.configs() if (given := given_name(config)) is not None]
        check_names(sweep, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sweep


def given_name(config: object) -> object:
    """Return the run's name that a config file gives, None where it leaves it open. Raises ValueError for no config."""
    try:
        there = isinstance(config, str) and Path(config).is_file()
    except OSError:
        there = False
    if not there or not isinstance(config, str):
        raise ValueError(f"--config: there is no file {str(config)[:200]} (paths are from the folder you are in)")
    content = read_yaml(Path(config))
    if not isinstance(content, dict):
        raise ValueError(f"--config: {config} holds no settings")
    run = content.get("run")
    return run.get("name") if isinstance(run, dict) else None


def check_names(sweep: Sweep, given: list[object]) -> None:
    """Raise ValueError where several cells would have one run's directory."""
    given = given + [arg for arg in (*sweep.command, *sweep.flags) if arg.startswith("--run.name")]
    swept = sweep.content["parameters"].get("run.name")
    if swept is None and not given:
        return
    cells = sweep.content.get("run_cap", parameters.count(sweep.content["parameters"]))
    names = {str(name) for name in swept.get("values", [swept.get("value")])} if swept else {"one"}
    if cells > len(names):
        raise ValueError(
            f"run.name: {cells:,} runs cannot share {len(names)} name{'s' * (len(names) > 1)}: leave it out, and each "
            "run is named after its settings"
        )


def check_flags(sweep: Sweep) -> None:
    """Raise ValueError where an option for all cells is none, or is what the sweep varies."""
    if sweep.flags and not sweep.flags[0].startswith("-"):
        raise ValueError(f"-- {sweep.flags[0]}: after -- come options of `fit`, such as --data.root DIR")
    for name, parameter in sweep.content["parameters"].items():
        if "value" not in parameter and any(f.split("=")[0] == f"--{name}" for f in sweep.flags):
            raise ValueError(f"-- --{name}: the sweep itself varies it: change its values in the file")


def check(content: object) -> None:
    """Raise ValueError, beginning with the field's name, where W&B or this program would refuse the file."""
    if not isinstance(content, dict) or "parameters" not in content:
        raise ValueError("parameters: is missing, so this is no sweep file")
    for name in content:
        if name not in FIELDS:
            raise ValueError(f"{name}: W&B's sweep files have no such field")
        if name in TEXTS and not isinstance(content[name], str):
            raise ValueError(f"{name}: is {content[name]!r}: give text")
    method = content.get("method")
    if method != "grid":
        raise ValueError(f"method: {ELSEWHERE.get(str(method), f'is {method!r}: give grid')}")
    if "program" not in content:
        raise ValueError("program: is missing (`wandb agent` asks for one): write program: tasks/__main__.py")
    if "early_terminate" in content:
        raise ValueError("early_terminate: only W&B's server stops runs by it: use `wandb agent`, or leave it out")
    cap = content.get("run_cap", 1)
    if isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= parameters.MOST_CELLS:
        raise ValueError("run_cap: give the most runs of the grid, at least 1")
    metric = content.get("metric", {"name": ""})
    if not isinstance(metric, dict) or "name" not in metric or metric.get("goal", "minimize") not in GOALS:
        raise ValueError("metric: give a name, and minimize or maximize as its goal")
    parameters.check(content["parameters"])
    if (cells := parameters.count(content["parameters"])) > parameters.MOST_CELLS:
        raise ValueError(f"parameters: stand for {cells:,} runs: give at most {parameters.MOST_CELLS:,}")
    check_command(content.get("command"))


def check_command(command: object) -> None:
    """Raise ValueError unless `command` is a `python -m tasks fit` that is given the parameters."""
    if not isinstance(command, list) or "fit" not in command or "${args}" not in command:
        raise ValueError(f"command: must run `tasks fit` with the parameters, as in {EXAMPLE}")
    for item in command[command.index("fit") :]:
        for macro in MACRO.finditer(str(item)):
            if item != "${args}" and macro[1] != "envvar":
                raise ValueError(f"command: {item} does not work with `tasks fit`: give ${{args}}, alone")
