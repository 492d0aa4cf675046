"""Parameter groups: which parameters weight decay holds for."""

from typing import Any

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
