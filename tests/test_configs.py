"""Every config by the real command line: two real steps on tiny files of its data's format."""

import contextlib
import math
import re

import pytest
import yaml

from tasks.cli import PlacedError, run
from tests.helpers.workloads import CONFIGS, FILES, data_name, parameters, shrunk, told, two_steps, write_all


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_two_steps(config, data, tmp_path):
    record = two_steps(config, data, tmp_path)
    assert record["data"]["name"] == data_name(config)
    assert record["final"]["step"] == 2
    assert record["final"]["examples"] == 8
    assert math.isfinite(record["final"]["val/loss"])
    assert math.isfinite(record["test"]["test/loss"])


@pytest.mark.slow  # VGG-11 alone takes 2 GB
@pytest.mark.parametrize("config", [p for p in CONFIGS if shrunk(p)], ids=lambda p: p.stem)
def test_two_steps_of_the_whole_network(config, data, tmp_path):
    record = two_steps(config, data, tmp_path, smaller=False)
    assert record["final"]["step"] == 2
    assert math.isfinite(record["test"]["test/loss"])
    if data_name(config) != "ImageNet":  # whose tiny files have 3 classes
        assert record["parameters"] == parameters(config)


PUBLISHED = {  # parameters: torchvision's documentation; kuangliu/pytorch-cifar (ResNets); the rest by hand below
    "imagenet_resnet50": 25_557_032,
    "imagenet_vgg11": 132_863_336,
    "cifar10_resnet34": 21_282_122,
    "cifar10_resnet18_lamb": 11_173_962,
    # embedding and decoder's bias, then per layer 4 gates of (input + hidden + 2 biases) each 650 wide
    "wikitext2_lstm": 33_279 * 650 + 33_279 + 2 * 4 * 650 * (650 + 650 + 2),
    # conv 5x5x1-32, conv 5x5x32-64, 7x7x64-1024, 1024-10
    "mnist_cnn_full_batch": 832 + 51_264 + 3_212_288 + 10_250,
}


@pytest.mark.parametrize("config", PUBLISHED)
def test_the_networks_have_the_published_size(config):
    (path,) = (p for p in CONFIGS if p.stem == config)
    assert parameters(path) == PUBLISHED[config]


OWN = {"fashion_mnist", "state_of_the_union", "scenes"}  # after no paper, and run here
NO_SOURCE = {"penn_treebank_lstm"}  # in neither paper, as far as their texts are known


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_the_first_comment_says_whose_what_is_and_what_it_costs(config):
    said = told(config)
    if config.stem in OWN:
        assert said["Ours"].startswith("Ours, not a paper's.")
        assert not {"Theirs", "Cost"} & set(said)
        return
    assert said["Ours"]
    assert re.match(r"Cost, an estimate: .*\d", said["Cost"])
    assert "not run here" in " ".join(said.values()).lower()
    if config.stem in NO_SOURCE:
        assert "Theirs" not in said
    else:
        assert re.match(r"Theirs(, of \S.*?\(| \()\S", said["Theirs"])  # and where it was read


RUNGS = {  # what each overlay of the ladder may change
    "1_scaling": {"lr_scaling"},
    "2_warmup": {"warmup", "warmup_from"},
    "3_layerwise": {"optimizer"},
    "4_polynomial": {"schedule"},
    "5_label_smoothing": {"label_smoothing"},
    "6_weight_decay": {"decay_norm_bias", "optimizer.weight_decay"},
    "7_ghost_batch": {"ghost_batch_size"},
    "8_longer": {"data.epochs"},
}

LARS_ONLY = {f"optimizer.{name}" for name in ("trust_coefficient", "buffer", "joint_norm", "layer_adaptation")}


def resolved(*configs: str) -> dict:
    """The settings of model and data that these files together stand for, flat."""
    found = []

    def keep(cli):
        found.append(cli._dump(cli.config.fit))
        raise PlacedError

    with contextlib.suppress(PlacedError):
        run(["fit", *(word for c in configs for word in ("--config", c)), "--data.batch_size", "300"], keep)
    dump = yaml.safe_load(found[0])
    optimizer = dump["model"]["init_args"].pop("optimizer")
    settings = dump["model"]["init_args"] | {"optimizer": optimizer["class_path"]}
    settings |= {f"optimizer.{k}": v for k, v in optimizer["init_args"].items()}
    return settings | {f"data.{k}": v for k, v in dump["data"]["init_args"].items()}


def test_each_rung_of_the_recipe_adds_one_thing():
    ladder = ["configs/image_classification/fashion_mnist.yaml", "configs/recipe/0_baseline.yaml"]
    before = resolved(*ladder)
    for rung, may in RUNGS.items():
        ladder.append(f"configs/recipe/{rung}.yaml")
        now = resolved(*ladder)
        changed = {k for k in now.keys() & before.keys() if now[k] != before[k]}
        assert changed == may, rung
        if rung == "3_layerwise":
            assert set(now) - set(before) == LARS_ONLY
        before = now
    assert sorted(p.stem for p in FILES if p.parent.name == "recipe") == ["0_baseline", *RUNGS]


# cluster and prices are tables that the report or an instrument reads; the recipe is tested by rung, above,
# strategies in test_launch.py
ELSEWHERE = {"recipe", "cluster", "prices", "strategy", "sweeps"}
OVERLAYS = [p for p in FILES if p not in CONFIGS and not ELSEWHERE & {*p.parts}]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=str)
def test_overlays_compose_with_a_workload(overlay, data, tmp_path):
    cifar = next(p for p in CONFIGS if p.stem == "cifar10_resnet8")
    record = two_steps(cifar, data, tmp_path, "--config", str(overlay), "--data.batch_size", "2")
    assert (record["final"]["step"], record["task"]) == (2, "ImageClassification")


def test_the_whole_ladder_takes_two_steps(data, tmp_path):
    (cifar,) = (p for p in CONFIGS if p.stem == "cifar10_resnet34")
    rungs = [word for rung in ["0_baseline", *RUNGS] for word in ("--config", f"configs/recipe/{rung}.yaml")]
    record = two_steps(cifar, data, tmp_path, *rungs, "--model.optimizer.lr=0.1")
    assert (record["study"], record["optimizer"]["name"], record["batch"]["ghost"]) == ("recipe", "LARS", 32)
    assert record["rate"]["effective"] == pytest.approx(0.1 * 4 / 128)


def test_the_ladder_serves_a_network_without_batch_normalization(data, tmp_path):
    (config,) = (p for p in CONFIGS if p.stem == "fashion_mnist")
    record = two_steps(config, data, tmp_path, "--config", "configs/recipe/0_baseline.yaml")
    assert (record["final"]["step"], record["batch"]["ghost"]) == (2, None)
