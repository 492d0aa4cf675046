"""Time of an optimizer's step on ResNet-50's parameters: python -m tasks.optim.benchmark [device]."""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tasks.optim.lamb import LAMB
from tasks.optim.lars import LARS


def seconds(optimizer: torch.optim.Optimizer, device: str) -> float:
    """The time of one step."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(device: str = "cpu", rounds: int = 10) -> None:
    """Print the median step of each optimizer and its ratio to torch's foreach AdamW."""
    from timm.optim import Lamb, Lars
    from torchvision.models import resnet50

    def parameters() -> list[Tensor]:
        weights = [p.detach().to(device).requires_grad_() for p in resnet50().parameters()]
        for p in weights:
            p.grad = torch.randn_like(p)
        return weights

    makers: dict[str, Callable] = {
        "torch AdamW, foreach": lambda ps: torch.optim.AdamW(ps, foreach=True),
        "LARS": lambda ps: LARS(ps, lr=1.0),
        "timm Lars, loop": lambda ps: Lars(ps, lr=1.0, momentum=0.9, weight_decay=5e-4, foreach=False),
        "timm Lars, foreach": lambda ps: Lars(ps, lr=1.0, momentum=0.9, weight_decay=5e-4, foreach=True),
        "LAMB": lambda ps: LAMB(ps),
        "timm Lamb, loop": lambda ps: Lamb(ps, max_grad_norm=None, foreach=False),
        "timm Lamb, foreach": lambda ps: Lamb(ps, max_grad_norm=None, foreach=True),
    }
    optimizers = {name: make(parameters()) for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(rounds + 2):  # in turns, so that a slow moment of the machine is shared by all
        for name, optimizer in optimizers.items():
            taken = seconds(optimizer, device)
            if turn >= 2:
                times[name].append(taken)
    reference = times["torch AdamW, foreach"]
    for name, values in times.items():
        paired = statistics.median(v / r for v, r in zip(values, reference, strict=True))
        print(f"{name:22s} {1e3 * statistics.median(values):8.2f} ms   {paired:5.2f} x AdamW")


if __name__ == "__main__":
    main(*sys.argv[1:])
