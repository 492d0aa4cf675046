"""Replaces normalization and dropout of a ready-made network, so that every split of a batch gives the same."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tasks.networks.keyed import KeyedDropout

Norm = Literal["batch", "group", "none"]


class KeyedDropPath(nn.Module):
    """Drop a residual branch for whole examples with probability `p` (stochastic depth), keyed by example."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = KeyedDropout(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [n, ...], some examples of it 0 and the others scaled up."""
        return x * self.dropout(x.new_ones(len(x), *[1] * (x.dim() - 1)))


def with_norm(network: nn.Module, norm: Norm = "batch", groups: int = 8, zero_init_residual: bool = False) -> nn.Module:
    """Return the network with every batch normalization replaced, in place, by GroupNorm or by nothing.

    Args:
        network: that is changed.
        norm: `batch` leaves it as it is.
        groups: of GroupNorm; a layer whose width they do not divide gets the largest number that divides both.
        zero_init_residual: start every residual branch at zero (Goyal et al. 2017: gamma = 0 in the block's last
            normalization).

    Raises:
        ValueError: if there is no normalization or no residual block to start at zero.
    """
    if norm not in ("batch", "group", "none"):
        raise ValueError(f"norm is {norm!r}; use 'batch', 'group' or 'none'.")
    if zero_init_residual:
        _zero_last_gammas(network)
        if norm == "none":
            raise ValueError("zero_init_residual sets a gamma of normalization; use it with norm: batch or group.")
    return network if norm == "batch" else exchange(network, lambda module: _norm_for(module, norm, groups))


def with_keyed_dropout(network: nn.Module) -> nn.Module:
    """Return the network with every active dropout replaced, in place, by one keyed by example.

    Raises:
        ValueError: if attention or a recurrent layer has a dropout of its own, which cannot be keyed.
    """
    for name, module in network.named_modules():
        rate = getattr(module, "attn_drop", None)
        rate = module.dropout if isinstance(module, nn.MultiheadAttention) else getattr(rate, "p", 0.0)
        if rate:
            raise ValueError(f"{name} drops attention weights inside its kernel; set its attention dropout to 0.")
        if isinstance(module, nn.RNNBase) and module.dropout:
            raise ValueError(f"{name} drops inside its kernel; set its dropout to 0 and stack layers instead.")
    return exchange(network, _dropout_for)


def exchange(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return `module` with each module in it replaced, in place, by `replacement(module)` where that is not None."""
    new = replacement(module)
    if new is not None:
        return new.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, exchange(child, replacement))
    return module


def _norm_for(module: nn.Module, norm: Norm, groups: int) -> nn.Module | None:
    if not isinstance(module, _BatchNorm):
        return None
    if norm != "group":
        return with_its_activation(module, [])
    layer = nn.GroupNorm(math.gcd(groups, module.num_features), module.num_features, module.eps, module.affine)
    if module.affine:
        layer.load_state_dict({"weight": module.weight, "bias": module.bias})
    return with_its_activation(module, [layer])


def with_its_activation(norm: _BatchNorm, layers: list[nn.Module]) -> nn.Module:
    """Return what replaces `norm`: `layers`, then the dropout and the activation that timm's BatchNormAct2d has."""
    layers = layers + [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers) if layers else nn.Identity()


def _dropout_for(module: nn.Module) -> nn.Module | None:
    kind = type(module).__name__
    path = {"DropPath": "drop_prob", "StochasticDepth": "p"}.get(kind)  # timm's and torchvision's
    if path and (probability := getattr(module, path)):
        return KeyedDropPath(float(probability))
    if not isinstance(module, _DropoutNd) or not module.p:
        return None
    return KeyedDropout(module.p, channels=not isinstance(module, nn.Dropout))


def _zero_last_gammas(network: nn.Module) -> None:
    found = False
    last: nn.Module | None
    for block in network.modules():
        if getattr(block, "use_res_connect", False):  # torchvision's inverted residual
            last = list(block.get_submodule("conv").children())[-1]
        elif hasattr(block, "downsample"):  # torchvision's, timm's and this project's residual blocks
            last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
        else:
            continue
        if isinstance(last, _BatchNorm):
            torch.nn.init.zeros_(last.weight)
            found = True
    if not found:
        raise ValueError("zero_init_residual finds no residual block in this network; leave it out.")
