"""What a run cost: operations by hand, energy from made-up counters, money from a table."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pynvml
import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

import callbacks.cost
from callbacks.convergence_detector import ConvergenceDetector
from callbacks.cost import Cost, DeviceEnergy, PackageEnergy, price, read_prices
from callbacks.rolling_checkpoint import RollingCheckpoint
from tasks.image_classification import ImageClassification
from tasks.language_modeling import LanguageModeling
from tasks.networks.language import LSTM
from tests.helpers.ranks import on_ranks
from tests.helpers.tiny import Tiny, fit

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


class Powercap:
    """Files as Linux has them for two packages, their parts, the platform's sum, and package 0 by a second road."""

    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    zones |= {"intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl-mmio:0": "package-0"}

    def __init__(self, root):
        self.root, self.microjoules = root, dict.fromkeys(self.zones, 0)
        (root / "intel-rapl").mkdir()  # the control type itself
        (root / "intel-rapl" / "enabled").write_text("1\n")
        for zone, name in self.zones.items():
            (root / zone).mkdir()
            files = {"name": name, "max_energy_range_uj": 10_000_000, "enabled": 1, "constraint_0_name": "long_term"}
            for file, content in files.items():
                (root / zone / file).write_text(f"{content}\n")
        self.use(0)

    def use(self, microjoules):
        """Each package uses so much: the counters run over as the real ones do."""
        for zone in self.zones:
            self.microjoules[zone] = (self.microjoules[zone] + microjoules) % 10_000_000
            (self.root / zone / "energy_uj").write_text(f"{self.microjoules[zone]}\n")


def test_package_energy_adds_the_packages_alone_and_survives_the_wrap(tmp_path):
    machine = Powercap(tmp_path)
    machine.use(9_000_000)
    energy = PackageEnergy(tmp_path)
    for step in range(1, 5):
        machine.use(3_000_000)  # over the end at the first and at the fourth
        assert energy.joules() == pytest.approx(2 * 3 * step)


def test_energy_that_cannot_be_read_is_unknown_not_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.cost, "PackageEnergy", partial(PackageEnergy, tmp_path))
    assert run(Cost())["energy_joules"] is None  # no counters, as on a virtual machine
    Powercap(tmp_path)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:1" / "energy_uj").mkdir()  # raises OSError as a file for root alone does
    assert PackageEnergy(tmp_path).joules() is None
    assert run(Cost())["energy_joules"] is None


class Nvml:
    """One device of NVML's, whose counter in millijoules rises by 1,500 a reading."""

    millijoules = 7_000_000

    def use(self, monkeypatch, uuid="GPU-ab"):
        def handle(name):
            if name != uuid:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
            return "the handle"

        def energy(handle):
            assert handle == "the handle"
            self.millijoules += 1_500
            return self.millijoules

        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab"))
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", energy)


def test_device_energy_is_the_counter_of_this_device(monkeypatch):
    Nvml().use(monkeypatch)
    energy = DeviceEnergy(torch.device("cuda"))
    assert [energy.joules(), energy.joules()] == [1.5, 3.0]
    Nvml().use(monkeypatch, uuid="GPU-cd")
    assert DeviceEnergy(torch.device("cuda")).joules() is None


def test_device_energy_without_a_driver_is_unknown(monkeypatch):
    Nvml().use(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlInit", Mock(side_effect=pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)))
    assert DeviceEnergy(torch.device("cuda")).joules() is None


def test_prices_by_the_longest_name_that_fits(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE)
    prices = read_prices(tmp_path / "prices.yaml")[2]
    assert price("NVIDIA H100 PCIe", prices) == 1
    assert price("NVIDIA H100 80GB HBM3", prices) == 2
    assert price("NVIDIA T4", prices) is None


NO_TABLES = ["date: 2026-01-02", "- 1", "{"]
NO_TABLES += [TABLE.replace("3600", wrong) for wrong in ("much", "-3", ".nan", "[1]")]
NO_TABLES += [TABLE.replace("2026-01-02", "")]


@pytest.mark.parametrize("text", NO_TABLES)
def test_a_file_that_is_no_price_table_is_refused(tmp_path, text):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ValueError, match="is not a price table"):
        Cost(tmp_path / "prices.yaml")


def test_a_device_without_a_price_is_refused_before_the_run(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE.replace("cpu", "abacus"))
    with pytest.raises(ValueError, match="no price for the device cpu"):
        run(Cost(tmp_path / "prices.yaml"))


class Worker(Callback):
    """Uses 1 J of each package a step, once a machine."""

    def __init__(self, machine):
        self.machine = machine

    def on_train_batch_end(self, trainer, *_):
        if trainer.local_rank == 0:
            self.machine.use(1_000_000)


def _on_a_machine(machine, table, ranks):
    callbacks.cost.PackageEnergy = partial(PackageEnergy, machine.root)
    cost = Cost(table)
    task = ImageClassification(network, optimizer=partial(torch.optim.SGD, lr=0.1))
    extra = (Worker(machine), cost, ConvergenceDetector())
    fit(task, Tiny(batch_size=10), 4, callbacks=extra, strategy="ddp", devices=ranks)
    return cost.facts()["cost"]


def test_two_ranks_share_a_machine_and_cost_twice(tmp_path):
    (tmp_path / "prices.yaml").write_text(TABLE)
    for found in on_ranks(2, _on_a_machine, Powercap(tmp_path), tmp_path / "prices.yaml", 2):
        assert found["energy_joules"] == pytest.approx(2 * 4)
        assert found["money"] == pytest.approx(2 * found["wall_seconds"])
        assert found["flops"] == 40 * found["flops_per_example"]


def test_a_run_cut_off_and_resumed_adds_up_to_that_which_went_through(tmp_path, monkeypatch):
    """Cut off after step 7, whose last checkpoint is that of step 4, between evaluations; then again at once."""
    machine = Powercap(tmp_path)
    monkeypatch.setattr(callbacks.cost, "PackageEnergy", partial(PackageEnergy, tmp_path))
    (tmp_path / "prices.yaml").write_text(TABLE)

    def part(steps, name, resume=None):
        rolling, cost = RollingCheckpoint(minutes=0, keep=100), Cost(tmp_path / "prices.yaml")
        rolling.directory = tmp_path / name
        task = ImageClassification(network, optimizer=partial(torch.optim.SGD, lr=0.1), micro_batch_size=3)
        extra = (Worker(machine), cost, ConvergenceDetector(), rolling)
        fit(task, Tiny(batch_size=10), steps, callbacks=extra, ckpt_path=resume)
        return cost.facts()["cost"]

    def checkpoint(name, step):
        return str(tmp_path / name / "checkpoints" / f"step={step}.ckpt")

    through = part(12, "through")
    assert through["energy_joules"] == pytest.approx(2 * 12)
    part(7, "first")
    part(8, "second", checkpoint("first", 4))
    found = part(12, "third", checkpoint("second", 5))
    clock = ("training_seconds", "wall_seconds", "examples_per_second", "money")
    assert {k: v for k, v in found.items() if k not in clock} == {k: v for k, v in through.items() if k not in clock}
    assert found["flops"] == 120 * found["flops_per_example"]
    before = torch.load(checkpoint("second", 5), weights_only=True)["callbacks"]["Cost"]
    assert found["wall_seconds"] > before["seconds"] > 0
    assert found["money"] == pytest.approx(found["wall_seconds"])
