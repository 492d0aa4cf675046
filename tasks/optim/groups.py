"""Parameter groups: which parameters weight decay holds for."""

import inspect
from typing import Any

import torch
from torch import nn


def parameter_groups(network: nn.Module, weight_decay_norm_bias: bool = True) -> list[dict[str, Any]]:
    """Return the trained parameters in groups for an optimizer; without decay of norm layers and biases, in two.

    Norm layers' parameters and biases are those with at most one dimension.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if weight_decay_norm_bias:
        return [{"params": trained}]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for an optimizer that does not step from a gradient alone."""
    name = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"{name} evaluates the loss several times a step: choose one that steps from a gradient")
    if getattr(optimizer, "is_second_order", False):
        raise ValueError(f"{name} needs second derivatives: choose one that steps from a gradient")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError("SparseAdam takes sparse gradients only: choose torch.optim.Adam")
