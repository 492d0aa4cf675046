"""Every config: tiny data of its format, two steps of it, and `python -m tests.helpers.workloads` for the table."""

import importlib
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tasks.__main__ import main
from tests.helpers import files

FILES = sorted(Path("configs").glob("*/*.yaml"))  # configs/sweeps lie deeper
CONFIGS = [p for p in FILES if "class_path" in yaml.safe_load(p.read_text()).get("model", {})]  # the others: overlays
HELD_OUT = ["--data.val_examples", "10"]
# class of the data: what writes it, the flags that fit its tiny files, and the real data's (channels, classes), or
# vocabulary with the <pad> that the loader adds
DATA: dict[str, tuple[Callable[[Path], None] | None, list[str], tuple[int, ...]]] = {
    "CIFAR10": (files.cifar, HELD_OUT, (3, 10)),
    "CIFAR100": (files.cifar, HELD_OUT, (3, 100)),
    "SVHN": (files.svhn, HELD_OUT, (3, 10)),
    "MNIST": (lambda root: files.mnist(root, 50, 10), HELD_OUT, (1, 10)),
    "FashionMNIST": (lambda root: files.mnist(root, 50, 10), HELD_OUT, (1, 10)),
    "ImageNet": (files.imagenet, [*HELD_OUT, "--data.resize", "40", "--data.crop", "32"], (3, 1000)),
    "Cityscapes": (files.cityscapes, ["--data.size", "[16,32]"], (3, 19)),
    "WikiText2": (files.wikitext, ["--data.bptt", "2"], (33_279,)),
    "WikiText103": (files.wikitext, ["--data.bptt", "2"], (267_736,)),
    "PennTreebank": (files.penn_treebank, ["--data.bptt", "2"], (10_001,)),
    "ComposedScenes": (None, ["--data.train", "30", "--data.val", "10", "--data.test", "10"], (1, 11)),
    "StateOfTheUnion": (None, ["--data.min_freq", "200"], (5_490,)),
}
# networks of more than a second or two for two steps on one core, made smaller
SMALLER = {
    "resnet34": ["--model.network.width", "8"],
    "resnet18_lamb": ["--model.network.width", "8"],
    "resnet50_lamb": ["--model.network.name", "resnet18"],
    "resnet50_lars": ["--model.network.name", "resnet18"],
    "vgg11": ["--model.network", "SmallCNN"],  # 133 million parameters
    "drn_d_22": ["--data.augmentation.crop", "[16,16]"],
}


def data_name(config: Path) -> str:
    """The class of a config's data."""
    return yaml.safe_load(config.read_text())["data"]["class_path"]


def write_all(root: Path) -> Path:
    """Every format's tiny files, each in a folder named for the data's class."""
    for name, (write, _, _) in DATA.items():
        (root / name).mkdir()
        if write:
            write(root / name)
    return root


def shrunk(config: Path) -> list[str]:
    """The flags that make a config's network affordable for an ordinary test, [] where it is as it is."""
    return next((changes for part, changes in SMALLER.items() if config.stem.endswith(part)), [])


def two_steps(config: Path, data: Path, out: Path, *flags: str, smaller: bool = True) -> dict[str, Any]:
    """Return the record of a fit of two steps of four examples by the real command line, which must succeed."""
    assert fit_two_steps(config, data, out, *flags, smaller=smaller) == 0, config
    (record,) = out.glob("*/*/record.json")
    return json.loads(record.read_text())


def fit_two_steps(config: Path, data: Path, out: Path, *flags: str, smaller: bool = True) -> int:
    """Return the exit status of a fit of two steps of four examples by the real command line."""
    name = data_name(config)
    write, fitting, _ = DATA[name]
    args = ["fit", "--config", str(config), *fitting, "--data.batch_size", "4", "--trainer.max_steps", "2"]
    args += ["--data.root", str(data / name)] if write else []
    args += ["--data.variant.examples", "5"]
    args += shrunk(config) if smaller else []
    args += ["--trainer.default_root_dir", str(out), "--trainer.accelerator", "cpu", "--progress.show", "false"]
    return main([*args, "--evaluation.ratio", "100", *flags])


def parameters(config: Path) -> int:
    """Parameters of a config's network for the real data's dimensions; nothing is allocated."""
    from tasks.cli import PlacedError, run

    def keep(cli: Any) -> None:
        found.append(cli.config.fit)
        raise PlacedError

    found: list[Any] = []
    try:
        run(["fit", "--config", str(config)], keep)
    except PlacedError:
        network = found[0].model.init_args.network
    module, _, name = network.class_path.rpartition(".")
    dimensions = DATA[data_name(config)][2]
    with torch.device("meta"):
        made = getattr(importlib.import_module(module), name)(*dimensions, **network.as_dict().get("init_args", {}))
    return sum(p.numel() for p in made.parameters())


def told(config: Path) -> dict[str, str]:
    """What a config's first comment tells, by its labels: Theirs (with its source), Ours, Cost."""
    comment = re.match(r"(?:# .*\n)+", config.read_text())[0]
    text = " ".join(line.removeprefix("# ") for line in comment.splitlines())
    said: dict[str, str] = {}
    for part in re.split(r"(?<=[.:)]) (?=(?:Theirs|Ours|Targets? and|Cost)\b)", text):
        label = part.split(" ")[0].strip(",:.")
        said[label] = f"{said[label]} {part}" if label in said else part
    return said


def table(root: Path) -> str:
    """The table of all workloads, each with its two steps run here."""
    rows = ["| config | parameters | two steps | theirs | ours | cost |", "|---|---|---|---|---|---|"]
    data = write_all(root)
    for config in CONFIGS:
        (root / config.stem).mkdir()
        ran = "ran" if two_steps(config, data, root / config.stem)["final"]["step"] == 2 else "FAILED"
        if shrunk(config):
            ran += f" with {' '.join(shrunk(config))}"
        said = told(config)
        cells = [f"{config.parent.name}/{config.name}", f"{parameters(config):,}", ran]
        rows.append(f"| {' | '.join(cells + [said.get(k, '-') for k in ('Theirs', 'Ours', 'Cost')])} |")
    return "\n".join(rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(table(Path(folder)), file=sys.stdout)
