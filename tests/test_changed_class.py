"""Another class_path takes nothing over from the class before it, and what is gone is said."""

import json
from pathlib import Path

import pytest

from tasks import cli
from tasks.__main__ import main
from tasks.process import in_order
from tasks.sweep.command import Runner
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import Ledger
from tasks.sweep.plan import source
from tasks.sweep.worker import checked

RESNET = ["--config", "configs/image_classification/cifar10_resnet34.yaml"]  # SGD: lr 0.1, momentum 0.9, decay 5e-4
FASHION = ["--config", "configs/image_classification/fashion_mnist.yaml"]


def optimizer(*flags: str) -> dict:
    """The resolved optimizer's settings; what was said of them."""
    placed = cli.place(["fit", *RESNET, *flags])
    return placed.settings["model"]["init_args"]["optimizer"]["init_args"] | {"said": placed.notes}


def test_another_optimizer_has_its_own_defaults_and_what_is_gone_is_named():
    found = optimizer("--model.optimizer", "torch.optim.AdamW")
    assert (found["lr"], found["weight_decay"]) == (0.001, 0.01)
    assert found["said"] == [
        "model.optimizer: AdamW has nothing of SGD's lr 0.1 (its own is 0.001), momentum 0.9, "
        "weight_decay 0.0005 (its own is 0.01)"
    ]


@pytest.mark.parametrize("first", [True, False])
def test_what_is_given_for_the_new_class_counts_wherever_it_stands(first):
    given = ["--model.optimizer.lr=0.02", "--model.optimizer.init_args.weight_decay", "0.3"]
    new = ["--model.optimizer", "{class_path: torch.optim.RMSprop, init_args: {alpha: 0.9}}"]
    found = optimizer(*(given + new if first else new + given))
    assert (found["lr"], found["weight_decay"], found["alpha"], found["momentum"]) == (0.02, 0.3, 0.9, 0)
    assert found["said"] == ["model.optimizer: RMSprop has nothing of SGD's momentum 0.9 (its own is 0)"]


def test_the_same_class_keeps_what_it_had_and_nothing_is_said():
    found = optimizer("--model.optimizer", "{class_path: torch.optim.SGD, init_args: {nesterov: true}}")
    assert (found["lr"], found["momentum"], found["nesterov"], found["said"]) == (0.1, 0.9, True, [])


def test_a_later_config_s_class_takes_nothing_over_either(tmp_path):
    other = tmp_path / "adam.yaml"
    other.write_text("model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.004}}}}")
    found = optimizer("--config", str(other))
    assert (found["lr"], found["weight_decay"]) == (0.004, 0)
    assert "momentum 0.9, weight_decay 0.0005 (its own is 0)" in found["said"][0]


def test_another_data_set_or_task_keeps_the_batch_and_the_optimizer():
    placed = cli.place(["fit", *RESNET, "--data", "FashionMNIST"])
    was = cli.place(["fit", *RESNET])
    assert placed.settings["data"]["init_args"]["batch_size"] == was.settings["data"]["init_args"]["batch_size"]
    assert placed.settings["model"] == was.settings["model"]


def test_a_fit_says_it_once_and_its_record_has_the_new_class_s_own(tmp_path, capsys):
    small = ["--data.variant.examples=64", "--data.batch_size=16", "--trainer.max_steps=1", "--progress.show=false"]
    assert main(["fit", *FASHION, *small, "--model.optimizer=LAMB", f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert capsys.readouterr().err.count("LAMB has nothing of SGD's lr 0.01 (its own is 0.001), momentum 0.9") == 1
    (path,) = tmp_path.glob("*/*/record.json")
    assert json.loads(path.read_text())["optimizer"]["settings"]["weight_decay"] == 0.01


class Checking:
    """A pool that checks cells in this process."""

    def idle(self) -> list:
        return [self]

    def give(self, order: str, args: tuple[str, ...]) -> None:
        self.answer = checked(cli, args)

    def wait(self, seconds: float) -> list:
        return [(None, "checked", self.answer)]


def test_a_sweep_says_it_once_before_the_first_run(tmp_path, capsys):
    path = tmp_path / "two.yaml"
    path.write_text(
        "program: tasks/__main__.py\nmethod: grid\n"
        f"command: [python, -m, tasks, fit, {', '.join(RESNET)}, '${{args}}']\n"
        "parameters:\n  data.batch_size: {values: [16, 32]}\n"
        "  model.optimizer: {values: [torch.optim.SGD, torch.optim.Adam, LARS]}\n"
        "  model.optimizer.init_args.lr: {value: 0.5}\n"
    )
    Runner([source(read_sweep(path))], Ledger(Path(tmp_path))).check(Checking())
    said = [line for line in capsys.readouterr().err.splitlines() if "has nothing of" in line]
    assert said == [
        "model.optimizer: Adam has nothing of SGD's momentum 0.9, weight_decay 0.0005 (its own is 0)"
    ]  # LARS's own are the same


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["--a.b=1", "--config", "c", "--a=x"], ["--config", "c", "--a=x", "--a.b=1"]),
        (["--a.b", "-1", "--d", "e", "--a.class_path", "x"], ["--d", "e", "--a.class_path", "x", "--a.b", "-1"]),
        (["--t+=A", "--t.x=1", "--t+=B", "--t.x=2"], ["--t+=A", "--t.x=1", "--t+=B", "--t.x=2"]),
        (["--m.o.lr=1", "--m.init_args.o=A", "-c", "f"], ["-c", "f", "--m.init_args.o=A", "--m.o.lr=1"]),
    ],
)
def test_arguments_are_ordered_so_that_none_is_lost(given, ordered):
    assert in_order(["fit", *given]) == ["fit", *ordered]
