"""What a run cost: time, operations, memory, energy, money."""

import contextlib
import math
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pynvml
import torch
import torch.distributed as dist
import yaml
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tasks.protocols import Batch, Task

POWERCAP = Path("/sys/class/powercap")  # Linux's counters of the processors' packages (RAPL)
HOUR = 3600.0


def read_prices(file: Path) -> tuple[date, str, dict[str, float]]:
    """Return the date and the currency of a price table, and the price of a device-hour by device name.

    Raises:
        ValueError: if the file is not a price table.
    """
    try:
        table = yaml.safe_load(file.read_text())
        prices = {str(k): float(v) for k, v in table["device_hour"].items()}
        if not (isinstance(table["date"], date) and all(0 <= v < math.inf for v in prices.values())):
            raise ValueError("date is a day, as 2026-01-31, and a price a number that is not negative")
        return table["date"], table["currency"], prices
    except (OSError, TypeError, KeyError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{file} is not a price table with date, currency and device_hour: {{device name: price}} ({error!r})"
        ) from None


def price(device: str, prices: dict[str, float]) -> float | None:
    """Return the price of the longest listed name that the device's own name contains, None if there is none."""
    names = [name for name in prices if name.lower() in device.lower()]
    return prices[max(names, key=len)] if names else None


class PackageEnergy:
    """The energy that the machine's processor packages used so far; the counters (microjoules) wrap around."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self.counters = [p for p in sorted(root.glob("intel-rapl:*")) if self._is_package(p)]
        self.used = 0
        self.last = self._read()

    @staticmethod
    def _is_package(zone: Path) -> bool:
        """Return whether a zone is a package: not a part of one (core, dram), nor `psys`, which has packages in it."""
        return zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package-")

    def _read(self) -> list[int] | None:
        try:
            return [int((p / "energy_uj").read_text()) for p in self.counters] or None
        except OSError:  # most systems let only root read them
            return None

    def joules(self) -> float | None:
        """Return the energy in joules, None where the counters are absent or may not be read.

        It must be asked for at least once before a counter wraps around, after about 10 minutes.
        """
        now = self._read()
        if now is None or self.last is None:
            return None
        for path, before, after in zip(self.counters, self.last, now, strict=True):
            wrap = int((path / "max_energy_range_uj").read_text()) if after < before else 0
            self.used += after - before + wrap
        self.last = now
        return self.used / 1e6


class DeviceEnergy:
    """The energy that one NVIDIA device used since this was made, by NVML's own counter."""

    def __init__(self, device: torch.device) -> None:
        self.read: Callable[[], int] | None = None
        with contextlib.suppress(pynvml.NVMLError):  # no driver, or a device without the counter: not known
            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            self.first = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self.read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    def joules(self) -> float | None:
        """Return the energy in joules, None where it is not known."""
        return None if self.read is None else (self.read() - self.first) / 1e3


class Cost(Callback):
    """Puts into the record's `cost`: training seconds, examples a second, floating-point operations, energy, money.

    Operations are those of forward and backward, counted in the first step; null for recurrent layers, whose fused
    kernels torch's counter does not see, and for sharded parameters. Energy is of all ranks' GPUs or of this machine's
    processor packages, whoever used them, over the whole run; null where no counter can be read. Money is for all
    devices and the whole run with its evaluations. A resumed run adds up its parts, up to the checkpoint that each
    ended with: what was spent after it and lost is not in them.

    Args:
        prices: a price table: date, currency, and the price of a device_hour by (a part of) the device's name.
    """

    def __init__(self, prices: Path | None = None) -> None:
        self.table = read_prices(Path(prices)) if prices else None
        self.seconds, self.joules = 0.0, 0.0  # of the parts of the run before this process
        self.flops: float | None = None  # an example

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Look up the device's price and start the counters.

        Raises:
            ValueError: if the price table has no price for the device.
        """
        gpu = task.device.type == "cuda"
        device = torch.cuda.get_device_name(task.device) if gpu else task.device.type
        self.price = price(device, self.table[2]) if self.table else None
        if self.table and self.price is None:
            raise ValueError(f"the price table has no price for the device {device}: add one under device_hour")
        self._energy = DeviceEnergy(task.device) if gpu else PackageEnergy()
        self._counts = gpu or trainer.local_rank == 0  # the ranks of a machine share its packages
        self._since, self._task, self._ranks = time.perf_counter(), task, trainer.world_size
        self._measure_energy()
        recurrent = any(isinstance(m, nn.RNNBase) for m in task.network.modules())
        self._countable = not recurrent and not task.sharded
        self._counter: FlopCounterMode | None = None

    # floating-point operations: as the observer of the first step's gradient ---------------------------

    def on_train_batch_start(self, trainer: Trainer, task: Task, batch: Batch, batch_idx: int) -> None:
        """Count the operations of the first step."""
        if self.flops is None and self._countable:
            task.observers.append(self)

    def on_train_batch_end(self, trainer: Trainer, task: Task, *_: object) -> None:
        """Count no further."""
        if self in task.observers:
            task.observers.remove(self)

    def largest_micro_batch(self, batch_size: int) -> int:
        """Return the whole batch: any micro-batch will do."""
        return batch_size

    def begin(self, gradient: Tensor) -> None:
        """Count from here, anew where the step is repeated."""
        self._stop()
        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()  # type: ignore[no-untyped-call]

    def add(self, weight: float) -> None:
        """Do nothing: the counter runs on."""

    def end(self, batch: Batch) -> None:
        """Divide the batch's operations by its examples."""
        assert self._counter is not None
        self._stop()
        total = torch.tensor(float(self._counter.get_total_flops()), dtype=torch.float64, device=self._task.device)
        if dist.is_initialized():
            dist.all_reduce(total)
        self.flops, self._counter = float(total) / len(batch), None

    def _stop(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    # energy: at every evaluation, more often than the counters wrap around -----------------------------

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Read the counters of energy."""
        if trainer.state.fn == "fit":
            self._measure_energy()

    def _measure_energy(self) -> None:
        """Add up what all ranks used since this process began; nan where one of them cannot read it."""
        used = self._energy.joules() if self._counts else 0.0
        total = torch.tensor(math.nan if used is None else used, dtype=torch.float64, device=self._task.device)
        if dist.is_initialized():
            dist.all_reduce(total)
        self._used = float(total)

    # what the record and a checkpoint keep -------------------------------------------------------------

    def _so_far(self) -> tuple[float, float]:
        return self.seconds + time.perf_counter() - self._since, self.joules + self._used

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what the run's record says, under `cost`."""
        (wall, joules), task = self._so_far(), self._task
        cost: dict[str, Any] = {
            "training_seconds": task.seconds,
            "wall_seconds": wall,
            "examples_per_second": task.examples / task.seconds if task.seconds else None,
            "flops_per_example": self.flops,
            "flops": None if self.flops is None else self.flops * task.examples,
            "energy_joules": joules if math.isfinite(joules) else None,
        }
        if self.table and self.price is not None:
            day, currency, _ = self.table
            money = wall / HOUR * self.price * self._ranks
            cost |= {"money": money, "currency": currency, "device_hour": self.price, "prices_of": str(day)}
        return {"cost": cost}

    def state_dict(self) -> dict[str, Any]:
        """Return what the run has cost so far."""
        self._measure_energy()  # on every rank: all of them save
        seconds, joules = self._so_far()
        return {"seconds": seconds, "joules": joules, "flops": self.flops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Add what the run had cost before it was resumed."""
        self.seconds, self.joules, self.flops = state["seconds"], state["joules"], state["flops"]
