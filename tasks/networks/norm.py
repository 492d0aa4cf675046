"""Normalization and randomness of a ready-made network made to fit exact splits of the batch."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tasks.networks.keyed import KeyedDropout

Norm = Literal["batch", "group", "none"]


class KeyedDropPath(nn.Module):
    """Drop a residual branch for whole examples with probability `p` (stochastic depth), keyed by example."""

    def __init__(self, p: float):
        super().__init__()
        self.dropout = KeyedDropout(p)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.dropout(x.new_ones(len(x), *[1] * (x.dim() - 1)))


def with_norm(network: nn.Module, norm: Norm = "batch", groups: int = 8, zero_init_residual: bool = False) -> nn.Module:
    """Exchange every batch normalization in place for GroupNorm or for nothing, and return the network.

    A layer whose width `groups` does not divide gets the largest number of groups that divides both.
    `zero_init_residual` starts every residual branch at zero (Goyal et al. 2017: gamma = 0 in the block's
    last normalization). Raises ValueError where there is no normalization or no residual block to do so.
    """
    if norm not in ("batch", "group", "none"):
        raise ValueError(f"norm is {norm!r}; use 'batch', 'group' or 'none'.")
    if zero_init_residual:
        _zero_last_gammas(network)
        if norm == "none":
            raise ValueError("zero_init_residual sets a gamma of normalization; use it with norm: batch or group.")
    return network if norm == "batch" else exchange(network, lambda module: _norm_for(module, norm, groups))


def with_keyed_dropout(network: nn.Module) -> nn.Module:
    """Exchange in place every active dropout for one keyed by example, and return the network.

    Raises ValueError for attention with a dropout of its own, which cannot be keyed.
    """
    for name, module in network.named_modules():
        rate = getattr(module, "attn_drop", None)
        rate = module.dropout if isinstance(module, nn.MultiheadAttention) else getattr(rate, "p", 0.0)
        if rate:
            raise ValueError(f"{name} drops attention weights inside its kernel; set its attention dropout to 0.")
        if isinstance(module, nn.RNNBase) and module.dropout:
            raise ValueError(f"{name} drops inside its kernel; set its dropout to 0 and stack layers instead.")
    return exchange(network, _dropout_for)


def exchange(module: nn.Module, replacement) -> nn.Module:
    """Put `replacement(child)` in the place of every child for which it is not None, all the way down."""
    new = replacement(module)
    if new is not None:
        return new.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, exchange(child, replacement))
    return module


def _norm_for(module: nn.Module, norm: Norm, groups: int) -> nn.Module | None:
    if not isinstance(module, _BatchNorm):
        return None
    layers = []
    if norm == "group":
        groups = math.gcd(groups, module.num_features)
        layers.append(nn.GroupNorm(groups, module.num_features, module.eps, module.affine))
        if module.affine:
            layers[0].load_state_dict({"weight": module.weight, "bias": module.bias})
    return with_its_activation(module, layers)


def with_its_activation(norm: _BatchNorm, layers: list[nn.Module]) -> nn.Module:
    """`layers` in the place of `norm`, with the dropout and the activation that timm's BatchNormAct2d carries."""
    layers = layers + [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers) if layers else nn.Identity()


def _dropout_for(module: nn.Module) -> nn.Module | None:
    kind = type(module).__name__
    if kind == "DropPath" and module.drop_prob:  # timm's
        return KeyedDropPath(module.drop_prob)
    if kind == "StochasticDepth" and module.p:  # torchvision's
        return KeyedDropPath(module.p)
    if not isinstance(module, _DropoutNd) or not module.p:
        return None
    return KeyedDropout(module.p, channels=not isinstance(module, nn.Dropout))


def _zero_last_gammas(network: nn.Module) -> None:
    found = False
    for block in network.modules():
        if getattr(block, "use_res_connect", False):  # torchvision's inverted residual
            last = block.conv[-1]
        elif hasattr(block, "downsample"):  # torchvision's, timm's and this project's residual blocks
            last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
        else:
            continue
        if isinstance(last, _BatchNorm):
            torch.nn.init.zeros_(last.weight)
            found = True
    if not found:
        raise ValueError("zero_init_residual finds no residual block in this network; leave it out.")
