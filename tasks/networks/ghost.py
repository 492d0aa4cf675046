"""Batch normalization whose statistics see a fixed number of examples, whatever the global or micro-batch is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.networks.norm import exchange, with_its_activation


class GhostBatchNorm(nn.Module):
    """Batch normalization over ghost batches of `size` examples (dimension 0), or over the `global` batch.

    In training each run of `size` consecutive examples is normalized by its own mean and biased variance
    (Hoffer et al. 2017, ghost batch normalization). The running statistics are not a moving average, which
    would depend on the path: they are set by `collect`, so that they depend on the weights alone.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: _BatchNorm, size: int | Literal["global"]) -> None:
        super().__init__()
        self.size, self.eps = size, norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("running_mean", torch.zeros(norm.num_features))
        self.register_buffer("running_var", torch.ones(norm.num_features))
        self.collected: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x [n, C, ...] normalized."""
        if not self.training and self.collected is None:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.size == "global":
            return self._global(x)
        whole = len(x) - len(x) % self.size
        parts = [x[:whole].view(-1, self.size, *x.shape[1:])] if whole else []
        if whole < len(x):
            parts.append(x[None, whole:])
        return torch.cat([self._ghosts(p).flatten(0, 1) for p in parts]) if parts else x

    def _ghosts(self, x: Tensor) -> Tensor:
        """Normalize x [ghosts, size, C, ...], each ghost by itself."""
        over = [d for d in range(x.dim()) if d not in (0, 2)]
        variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
        self._collect(mean.flatten(1), variance.flatten(1), x[0, :, 0].numel())
        return self._scale(x, mean, variance, 2)

    def _global(self, x: Tensor) -> Tensor:
        """Normalize x [n, C, ...] by the statistics of the batch over all ranks, with the true backward."""
        over = [d for d in range(x.dim()) if d != 1]
        count = self._total(x.new_full((1,), x[:, 0].numel()))
        mean = self._total(x.sum(over, keepdim=True)) / count
        variance = self._total((x - mean).square().sum(over, keepdim=True)) / count
        self._collect(mean.flatten()[None], variance.flatten()[None], int(count))
        return self._scale(x, mean, variance, 1)

    def _total(self, share: Tensor) -> Tensor:
        """Return the sum over the ranks; statistics are collected on each rank by itself."""
        if not torch.distributed.is_initialized() or self.collected is not None:
            return share
        return all_reduce(share)  # type: ignore[no-untyped-call]

    def _scale(self, x: Tensor, mean: Tensor, variance: Tensor, channel: int) -> Tensor:
        y = (x - mean) * torch.rsqrt(variance + self.eps)
        if self.weight is None or self.bias is None:
            return y
        shape = [-1 if d == channel else 1 for d in range(x.dim())]
        return y * self.weight.view(shape) + self.bias.view(shape)

    def _collect(self, means: Tensor, variances: Tensor, count: int) -> None:
        if self.collected is not None:
            unbiased = variances * (count / max(count - 1, 1))
            self.collected.extend(zip(means.detach().unbind(), unbiased.detach().unbind(), strict=True))

    def extra_repr(self) -> str:
        """Return what is printed of the layer."""
        return f"{self.running_mean.numel()}, size={self.size}"


def ghost_layers(network: nn.Module) -> list[GhostBatchNorm]:
    """Return every GhostBatchNorm of `network`."""
    return [m for m in network.modules() if isinstance(m, GhostBatchNorm)]


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether any layer's output for one example depends on the others."""
    return any(isinstance(m, _BatchNorm) for m in network.modules())


def with_ghost_batches(network: nn.Module, size: int | Literal["global"]) -> nn.Module:
    """Return `network` with every batch normalization replaced, in place, by one of ghost size `size`."""

    def replacement(module: nn.Module) -> nn.Module | None:
        if isinstance(module, _BatchNorm):
            return with_its_activation(module, [GhostBatchNorm(module, size)])
        return None

    return exchange(network, replacement)


@contextmanager
def collect(network: nn.Module) -> Iterator[None]:
    """Set the running statistics to the mean over all ghost batches that are passed forward inside.

    The same as torch's BatchNorm with momentum=None (a cumulative mean), without dropout.
    """
    layers = ghost_layers(network)
    for layer in layers:
        layer.collected = []
    try:
        yield
        for layer in layers:
            means, variances = zip(*(layer.collected or []), strict=True)
            layer.running_mean.copy_(torch.stack(means).mean(0))
            layer.running_var.copy_(torch.stack(variances).mean(0))
    finally:
        for layer in layers:
            layer.collected = None
