"""What LARS and LAMB share: which parameters get a layer-wise rate, and the ratio of norms it is made of."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tasks.sharding import whole

CACHED = 2**18  # elements: a chunk, its moments and its temporaries stay in a CPU's cache


def chunks(group: dict[str, Any]) -> Iterator[list[Tensor]]:
    """Yield the parameters of an optimizer's group that have a gradient, in lists to be updated together.

    An accelerator gets one list, for the fewest launches; a CPU gets short ones, as each pass over a list
    larger than the cache reads it from memory again.
    """
    chunk: list[Tensor] = []
    size = 0
    for p in group["params"]:
        if p.grad is None:
            continue
        if chunk and p.device.type == "cpu" and size + p.numel() > CACHED:
            yield chunk
            chunk, size = [], 0
        chunk.append(p)
        size += p.numel()
    if chunk:
        yield chunk


def gradients(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of a chunk, all of which have one."""
    return [p.grad for p in weights if p.grad is not None]


def is_adapted(parameter: Tensor, layer_adaptation: bool | None) -> bool:
    """Return whether a parameter gets a ratio of its own; None: all but biases and norm layers (1 dimension)."""
    return parameter.ndim > 1 if layer_adaptation is None else layer_adaptation


def norms(tensors: list[Tensor]) -> list[float]:
    """Return the L2 norm of every tensor, of the whole if it is sharded; this waits once for the device."""
    return whole(torch.stack(torch._foreach_norm(tensors))).tolist() if tensors else []


def ratio(numerator: float, denominator: float) -> float:
    """Return numerator / denominator, or 1 where either is 0: such a layer is left to the plain rate."""
    return numerator / denominator if numerator > 0 and denominator > 0 else 1.0
