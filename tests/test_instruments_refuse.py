"""An instrument asked of what cannot give it: one sentence and exit status 2 from the real command, before any step."""

import json
from unittest.mock import Mock

import pytest
import torch

from callbacks.loss_surface import LossSurface
from tasks.__main__ import main

FASHION = [
    "--config",
    "configs/image_classification/fashion_mnist.yaml",
    "--data.variant.examples",
    "60",
    "--data.batch_size",
    "8",
]
ONE_PRICE = "date: 2026-01-02\ncurrency: EUR\ndevice_hour: {abacus: 1}\n"
GLOBAL = ["--model.network", "CifarResNet", "--model.network.norm", "batch", "--model.ghost_batch_size"]
SET = "--trainer.callbacks."


def test_a_run_stands_though_an_instrument_at_its_end_fails(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LossSurface, "gradient", Mock(side_effect=torch.OutOfMemoryError("no more memory")))
    overlays = [f"configs/instruments/{name}.yaml" for name in ("sharpness", "linear_approximation_error")]
    where = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    assert main(["fit", *FASHION, "--config", overlays[0], "--config", overlays[1], *where]) == 0
    printed = capsys.readouterr().err
    assert "Sharpness measured nothing: OutOfMemoryError: no more memory" in printed
    assert "LinearApproximationError measured nothing" in printed
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/*/record.json"))
    assert (record["status"], record["final"]["step"]) == ("budget", 2)
    assert record["test"]["test/loss"] > 0
    assert not any(name.startswith(("sharpness", "linear_error")) for name in record["final"])
    assert list(tmp_path.glob("*/*/checkpoints/final.ckpt"))


@pytest.mark.parametrize(
    ("overlay", "flags", "said"),
    [
        ("gradient_noise_scale", ["--data.batch_size", "1"], "data.batch_size 1 has only one: give at least 2"),
        ("gradient_noise_scale", [*GLOBAL, "global"], "give a model.ghost_batch_size of at most half"),
        ("gradient_noise_scale", [*GLOBAL, "6", "--data.batch_size", "8"], "give at least 12"),
        ("gradient_noise_scale", [f"{SET}parts=1"], "parts and window are at least 2"),
        ("gradient_noise_scale", [f"{SET}every=0"], "every is at least 1"),
        ("critical_batch_probe", ["--data.batch_size", "40"], "a batch of at most half of the training set"),
        ("critical_batch_probe", [f"{SET}examples=9"], "with 4 steps a branch: give it 64 examples or more"),
        ("critical_batch_probe", [f"{SET}at=[]"], "at has at least one step of the run"),
        ("critical_batch_probe", ["--config", "configs/growth/instead_of_decay.yaml"], "leave out data.growth"),
        ("sharpness", [f"{SET}dimensions=1000000"], "1000000 dimensions of"),
        ("sharpness", [f"{SET}epsilon=0"], "epsilon is more than 0"),
        ("cost", [f"{SET}prices=nofile.yaml"], "nofile.yaml is not a price table with date, currency"),
        ("cost", [f"{SET}prices=PRICES"], "no price for the device cpu: add one under device_hour"),
        ("weight_distance", [f"{SET}layers=3"], "layers"),
        ("linear_approximation_error", [f"{SET}every=3"], "every"),
    ],
)
def test_what_an_instrument_cannot_give_is_said_before_the_run(tmp_path, capsys, overlay, flags, said):
    (tmp_path / "prices.yaml").write_text(ONE_PRICE)
    flags = [flag.replace("PRICES", str(tmp_path / "prices.yaml")) for flag in flags]
    where = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    where += ["--progress.show", "false"]
    assert main(["fit", *FASHION, "--config", f"configs/instruments/{overlay}.yaml", *where, *flags]) == 2
    printed = capsys.readouterr()
    lines = [line for line in (printed.out + printed.err).splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert not list(tmp_path.glob("*/*/record.json"))
