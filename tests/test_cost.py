"""What a run cost: operations by hand, energy from made-up counters, money from a table."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.cost import Cost, PackageEnergy, price, read_prices
from tasks.image_classification import ImageClassification
from tasks.language_modeling import LanguageModeling
from tasks.networks.language import LSTM
from tests.tiny import Tiny, fit

TABLE = "date: 2026-01-02\ncurrency: EUR\ndevice_hour: {cpu: 3600, H100: 2, H100 PCIe: 1}\n"


def network(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(4 * 36, classes))


def run(cost, make=None, data="images"):
    make = make or partial(ImageClassification, network)
    task = make(optimizer=partial(torch.optim.SGD, lr=0.1), micro_batch_size=3)
    fit(task, Tiny(data, batch_size=10), 4, callbacks=(cost, ConvergenceDetector()))
    return cost.facts()["cost"]


def test_operations_are_those_counted_by_hand(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE)
    found = run(Cost(tmp_path / "prices.yaml"))
    convolution, head = 36 * 4 * 2 * 9, 144 * 3  # multiplications of one forward pass of one image
    # backward: the weights' gradients, and the inputs' of the head alone
    assert found["flops_per_example"] == 2 * (2 * convolution + 3 * head)
    assert found["flops"] == 40 * found["flops_per_example"]
    assert found["examples_per_second"] == pytest.approx(40 / found["training_seconds"])
    assert found["wall_seconds"] > found["training_seconds"] > 0
    assert found["money"] == pytest.approx(found["wall_seconds"])
    assert (found["currency"], found["prices_of"]) == ("EUR", "2026-01-02")


def test_operations_of_fused_recurrent_layers_are_unknown_not_zero():
    found = run(Cost(), partial(LanguageModeling, partial(LSTM, embedding=4, hidden=4)), "text")
    assert found["flops_per_example"] is None
    assert found["flops"] is None
    assert "money" not in found


def test_package_energy_adds_the_packages_and_survives_the_wrap(tmp_path):
    def write(*values):
        for i, value in enumerate(values):
            directory = tmp_path / f"intel-rapl:{i}"
            directory.mkdir(exist_ok=True)
            (directory / "energy_uj").write_text(f"{value}\n")
            (directory / "max_energy_range_uj").write_text("10000000\n")
        (tmp_path / "intel-rapl:0:0").mkdir(exist_ok=True)  # a part of package 0: not added again

    write(9_000_000, 1_000_000)
    energy = PackageEnergy(tmp_path)
    write(1_000_000, 1_500_000)
    assert energy.joules() == pytest.approx(2.5)
    write(2_000_000, 1_500_000)
    assert energy.joules() == pytest.approx(3.5)
    assert PackageEnergy(tmp_path / "absent").joules() is None


def test_prices_by_the_longest_name_that_fits(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE)
    prices = read_prices(tmp_path / "prices.yaml")[2]
    assert price("NVIDIA H100 PCIe", prices) == 1
    assert price("NVIDIA H100 80GB HBM3", prices) == 2
    assert price("NVIDIA T4", prices) is None


@pytest.mark.parametrize("text", ["date: 2026-01-02", "- 1", "{", "date: 1\ncurrency: EUR\ndevice_hour: {cpu: much}"])
def test_a_file_that_is_no_price_table_is_refused(tmp_path, text):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ValueError, match="is not a price table"):
        Cost(tmp_path / "prices.yaml")


def test_a_device_without_a_price_is_refused_before_the_run(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE.replace("cpu", "abacus"))
    with pytest.raises(ValueError, match="no price for the device cpu"):
        run(Cost(tmp_path / "prices.yaml"))


def test_a_resumed_run_adds_up():
    cost = Cost()
    run(cost)
    state = cost.state_dict()
    again = Cost()
    again.load_state_dict(state | {"seconds": 1000.0})
    assert run(again)["wall_seconds"] > 1000
    assert again.flops == cost.flops
    assert math.isnan(state["joules"]) == (cost.facts()["cost"]["energy_joules"] is None)
