"""What a person brings: the documents' examples, networks and optimizers by class path, a task's own way."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.__main__ import main
from tasks.networks.zoo import network_of

EXAMPLES = sorted(Path("docs/examples").glob("*.yaml"))
WAVES = "docs/examples/waves.yaml"
FEW = ["--data.variant.examples", "64", "--data.val_examples", "32"]  # of Fashion-MNIST
FASHION = ["--config", "configs/image_classification/fashion_mnist.yaml", *FEW]


def fit(root: Path, *flags: str, steps: int = 2) -> int:
    end = ["--trainer.max_steps", str(steps), "--trainer.default_root_dir", str(root), "--progress.show", "false"]
    return main(["fit", *flags, *end, "--trainer.accelerator", "cpu"])


def record(root: Path) -> dict:
    (path,) = root.glob("*/*/record.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_from_any_folder_without_pythonpath(tmp_path, config):
    small = FEW if config.stem == "torchvision" else FEW[:2]
    small = [*small, "--data.batch_size", "32", "--progress.show", "false"]
    command = [sys.executable, "-m", "tasks", "fit", "--config", str(config.resolve()), "--trainer.max_steps", "2"]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}  # of the suite, not of the example
    done = subprocess.run(
        [*command, *small, "--trainer.default_root_dir", "runs"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "runs")["final"]["step"] == 2


def test_a_task_of_ones_own_has_no_constructor_and_predict_gives_what_it_predicts(tmp_path):
    assert fit(tmp_path, "--config", WAVES, steps=200) == 0
    (config,) = tmp_path.glob("*/*/config.yaml")
    assert main(["predict", "--config", WAVES, "--config", str(config)]) == 0
    predicted = np.load(config.parent / "predictions-0.npz")["prediction"]
    assert predicted.shape == (2_000, 1)
    assert predicted.dtype == np.float32
    import waves

    target = waves.Waves().load()["test"].targets.numpy()
    assert np.corrcoef(predicted[:, 0], target[:, 0])[0, 1] > 0.8


def test_regression_measures_the_mean_squared_error_and_r2_of_a_plain_computation(tmp_path):
    assert fit(tmp_path, "--config", "docs/examples/optimizer.yaml", steps=50) == 0
    measured = record(tmp_path)["test"]
    (config,) = tmp_path.glob("*/*/config.yaml")
    assert main(["predict", "--config", "docs/examples/optimizer.yaml", "--config", str(config)]) == 0
    import waves

    target = waves.Waves().load()["test"].targets.numpy().astype(float)
    squares = (np.load(config.parent / "predictions-0.npz")["prediction"].astype(float) - target) ** 2
    assert measured["test/loss"] == pytest.approx(squares.mean(), rel=1e-5)
    assert measured["test/r2"] == pytest.approx(1 - squares.mean() / target.var(), rel=1e-4)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param("torchvision.models.mobilenet_v3_small", marks=pytest.mark.slow),
        "timm.models.resnet.test_resnet",
    ],
)
def test_a_network_of_a_library_has_the_data_s_channels_and_classes_and_random_weights(tmp_path, network, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads weights"))
    flags = ["--model.network", network, "--model.ghost_batch_size", "16", "--data.batch_size", "16"]
    assert fit(tmp_path, *FASHION, *flags, steps=1) == 0
    assert record(tmp_path)["network"] == network.split(".")[-1]


VIT = "{image_size: 28, patch_size: 14, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}"  # noqa: E501


SPEECHES = ["--config", "configs/language_modeling/state_of_the_union.yaml", "--data.variant.examples", "64"]
GPT2 = "{name: GPT2LMHeadModel, options: {n_embd: 32, n_layer: 1, n_head: 2}}"


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (FASHION, f"{{name: ViTForImageClassification, options: {VIT}}}"),
        (FASHION, f"{{name: DeiTForImageClassification, options: {VIT}}}"),
        ([*SPEECHES, "--data.min_freq", "200"], GPT2),
    ],
)
def test_a_network_of_hugging_face_has_the_data_s_shape_and_is_cut_up_exactly(tmp_path, config, settings):
    pytest.importorskip("transformers")
    network = f"{{class_path: TransformersNetwork, init_args: {settings}}}"
    flags = [*config, "--model.network", network, "--trainer.precision", "64-true", "--data.batch_size", "16"]
    ends = []
    for cut in ("16", "4"):
        root = tmp_path / cut
        assert fit(root, *flags, "--model.micro_batch_size", cut, steps=1) == 0
        ends.append(record(root)["final"]["val/loss"])
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)


def test_a_class_of_hugging_face_is_a_network_by_its_name_alone():
    convnext = pytest.importorskip("transformers").ConvNextForImageClassification
    network = network_of(partial(print, convnext), (1, 7))  # as jsonargparse gives a class
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.skipif(find_spec("transformers") is not None, reason="it is installed")
def test_without_transformers_one_sentence_says_what_to_install(tmp_path, capfd):
    network = "{class_path: TransformersNetwork, init_args: {name: ViTForImageClassification}}"
    assert fit(tmp_path, *FASHION, "--model.network", network) == 2
    assert "pip install transformers" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.network", "{class_path: torchvision.models.resnet18}"], "write the function's name alone"),
        (["--model.network", "tests.helpers.bad_networks.Narrow"], "gives outputs [1, 7]"),
        (["--model.network", "tests.helpers.bad_networks.Tuple"], "gives a tuple: it must give one tensor"),
        (["--model.network", "tests.helpers.bad_networks.Deaf"], "does not take the data's inputs [1, 1, 28, 28]"),
        (["--model.optimizer", "torch.optim.LBFGS"], "LBFGS evaluates the loss several times a step"),
        (["--model.optimizer", "torch.optim.SparseAdam"], "SparseAdam takes sparse gradients only"),
        (["--model.optimizer", "timm.optim.Adahessian"], "needs second derivatives"),
        (["--model.optimizer", "torch.optim.Muon"], "only supports 2D parameters"),
        ([], "label_smoothing is for classes"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_the_first_step(tmp_path, capfd, flags, words):
    given = [*FASHION, *flags] if flags else ["--config", "docs/examples/optimizer.yaml", "--model.label_smoothing=0.1"]
    assert fit(tmp_path, *given, "--data.batch_size", "16") == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line


@pytest.mark.parametrize(
    "name",
    ["torch.optim.AdamW", "torch.optim.Adafactor", "torch.optim.Rprop", "timm.optim.Adan", "timm.optim.Muon"],
)
def test_an_optimizer_that_steps_from_a_gradient_works(tmp_path, name):
    assert (
        fit(tmp_path, *FASHION, "--data.batch_size", "16", "--model.optimizer", name, "--model.optimizer.lr", "0.001")
        == 0
    )
    assert record(tmp_path)["optimizer"]["name"] == name.split(".")[-1]


def test_torch_s_muon_trains_the_matrices_of_a_network_without_others(tmp_path):
    flags = ["--model.network", "tests.helpers.bad_networks.Matrix", "--model.optimizer", "torch.optim.Muon"]
    assert fit(tmp_path, *FASHION, "--data.batch_size", "16", *flags, "--model.optimizer.lr", "0.001") == 0
