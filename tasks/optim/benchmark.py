"""Time of an optimizer's step on ResNet-50's parameters: python -m tasks.optim.benchmark [device]."""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tasks.optim.lamb import LAMB
from tasks.optim.lars import LARS

REFERENCE = "torch AdamW, foreach"


def seconds(optimizer: torch.optim.Optimizer, device: str) -> float:
    """Return the time of one step, in seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(device: str = "cpu", rounds: int = 10) -> dict[str, list[float]]:
    """Return the seconds of `rounds` steps of each optimizer, taken in turns so that all share a slow moment."""
    from timm.optim.lamb import Lamb
    from timm.optim.lars import Lars
    from torchvision.models import resnet50

    def parameters() -> list[Tensor]:
        weights = [p.detach().to(device).requires_grad_() for p in resnet50().parameters()]
        for p in weights:
            p.grad = torch.randn_like(p)
        return weights

    timm_lars = {"lr": 1.0, "momentum": 0.9, "weight_decay": 5e-4}
    makers: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
        REFERENCE: lambda ps: torch.optim.AdamW(ps, foreach=True),
        "LARS": lambda ps: LARS(ps, lr=1.0),
        "timm Lars, loop": lambda ps: Lars(ps, **timm_lars, foreach=False),
        "timm Lars, foreach": lambda ps: Lars(ps, **timm_lars, foreach=True),
        "LAMB": lambda ps: LAMB(ps),
        "timm Lamb, loop": lambda ps: Lamb(ps, max_grad_norm=None, foreach=False),
        "timm Lamb, foreach": lambda ps: Lamb(ps, max_grad_norm=None, foreach=True),
    }
    optimizers = {name: make(parameters()) for name, make in makers.items()}
    turns = [{name: seconds(o, device) for name, o in optimizers.items()} for _ in range(rounds + 2)]
    return {name: [turn[name] for turn in turns[2:]] for name in makers}


def ratio(times: list[float], reference: list[float]) -> float:
    """Return the median over the turns of time / reference time."""
    return statistics.median(t / r for t, r in zip(times, reference, strict=True))


def main(device: str = "cpu") -> None:
    """Print each optimizer's median step and its ratio to torch's foreach AdamW."""
    times = measure(device)
    for name, values in times.items():
        median = 1e3 * statistics.median(values)
        print(f"{name:22s} {median:8.2f} ms   {ratio(values, times[REFERENCE]):5.2f} x AdamW")


if __name__ == "__main__":
    main(*sys.argv[1:])
