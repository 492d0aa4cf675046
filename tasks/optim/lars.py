"""LARS (You, Gitman, Ginsburg 2017, arXiv 1708.03888) in multi-tensor form."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from tasks.optim.layerwise import chunks, gradients, is_adapted, norms, ratio


class LARS(Optimizer):
    """Momentum SGD whose rate is scaled for each layer; the defaults are the paper's Algorithm 1.

    ratio = trust_coefficient |w| / (|g| + wd |w|);  v <- momentum v + lr ratio (g + wd w);  w <- w - v

    Args:
        params: parameters or groups; a group's `layer_adaptation` overrides the one below.
        lr: the global rate; the paper's is some 100 times that of SGD, as the ratio is near 0.001.
        momentum: factor of the buffer v.
        weight_decay: wd, which counts in the direction and in the ratio.
        trust_coefficient: the paper's eta.
        buffer: what v sums up: the `step` lr ratio (g + wd w), as in the paper; the `direction`
            ratio (g + wd w), with lr applied afterwards (lightning-bolts, timm); or the `gradient` g + wd w,
            with both applied afterwards (NUS-HPC-AI-Lab). They differ where lr or the ratio changes.
        joint_norm: divide by |g + wd w| (optax) in place of |g| + wd |w|.
        layer_adaptation: give every parameter its ratio (True, the letter of Algorithm 1), none (False: plain
            momentum SGD), or all but biases and norm layers (None, the usual practice).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        trust_coefficient: float = 0.001,
        buffer: Literal["step", "direction", "gradient"] = "step",
        joint_norm: bool = False,
        layer_adaptation: bool | None = None,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"lr={lr}, weight_decay={weight_decay}, momentum={momentum}: give lr and weight_decay of at "
                "least 0 and a momentum from 0 up to, not including, 1."
            )
        if buffer not in ("step", "direction", "gradient"):
            raise ValueError(f"buffer is {buffer!r}; use 'step', 'direction' or 'gradient'.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "buffer": buffer,
            "joint_norm": joint_norm,
            "layer_adaptation": layer_adaptation,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one update; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in chunks(group):
                self._update(group, weights)
        return loss

    def _update(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        lr = float(group["lr"])
        found = gradients(weights)
        directions = list(torch._foreach_add(found, weights, alpha=group["weight_decay"]))
        ratios = _ratios(group, weights, found, directions)
        if group["buffer"] != "gradient":
            inside = lr if group["buffer"] == "step" else 1.0
            torch._foreach_mul_(directions, [inside * r for r in ratios])
        # v <- d + momentum v is written over d, which becomes the buffer: one pass over memory fewer
        torch._foreach_add_(directions, [self._buffer(p) for p in weights], alpha=group["momentum"])
        for p, buffer in zip(weights, directions, strict=True):
            self.state[p]["momentum_buffer"] = buffer
        if group["buffer"] == "gradient":
            directions = list(torch._foreach_mul(directions, [lr * r for r in ratios]))
        torch._foreach_add_(weights, directions, alpha=-lr if group["buffer"] == "direction" else -1.0)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        buffer: Tensor = state["momentum_buffer"] if state else torch.zeros_like(parameter)
        return buffer


def _ratios(group: dict[str, Any], weights: list[Tensor], raw: list[Tensor], directions: list[Tensor]) -> list[float]:
    """Return the layer-wise factor of every parameter, 1 where it has none."""
    chosen = [i for i, p in enumerate(weights) if is_adapted(p, group["layer_adaptation"])]
    measured = directions if group["joint_norm"] else raw
    found = norms([weights[i] for i in chosen] + [measured[i] for i in chosen])
    ratios = [1.0] * len(weights)
    for i, w, g in zip(chosen, found[: len(chosen)], found[len(chosen) :], strict=True):
        # the gradient alone decides whether there is anything to scale
        below = g if group["joint_norm"] or g == 0 else g + group["weight_decay"] * w
        ratios[i] = ratio(group["trust_coefficient"] * w, below)
    return ratios
