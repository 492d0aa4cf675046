"""The table of speeds on tiny sizes, and what Lightning's own callbacks see of an evaluation."""

import json
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

import tasks.speed as speed
from callbacks.convergence_detector import ConvergenceDetector
from tasks.image_classification import ImageClassification
from tests.helpers.tiny import Tiny, fit


@pytest.mark.filterwarnings("ignore")  # Lightning's, of its stock loader
def test_every_measurement_gives_positive_ratios(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "TARGET", ["--trainer.max_steps", "4"])
    pictures = torch.zeros(10_000, 1, 28, 28), torch.zeros(10_000, dtype=torch.int64)
    rows = [*speed.training_steps(*pictures, {2_000: 2}, 1), *speed.whole_fits(*pictures, {2_000: 2}, 1)]
    monkeypatch.setattr(speed, "table", lambda: iter(rows))
    speed.speed(str(tmp_path / "table.json"))
    found = json.loads((tmp_path / "table.json").read_text())
    assert [row["batch"] for row in found] == [2_000] * 4
    assert all(row["ratio"] > 0 for row in found)


def test_the_bench_measures_the_loops_that_it_names():
    """The stock and the manual Lightning loop make as many steps as the plain one: stamps at each of them."""
    pictures = torch.zeros(10_000, 1, 28, 28), torch.zeros(10_000, dtype=torch.int64)
    for manual in (True, False):
        speed.lightning(*pictures, size=2_000, steps=2, manual=manual)
        assert len(speed.Stamps.times) == 2 + speed.WARM


def test_callbacks_of_lightning_can_follow_a_score(tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    task = ImageClassification(
        lambda channels, classes: nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes)),
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    trainer = fit(task, Tiny(batch_size=10), 6, callbacks=(ConvergenceDetector(), keep))
    assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(task.evaluation["val/accuracy"])
    assert keep.best_model_score is not None
