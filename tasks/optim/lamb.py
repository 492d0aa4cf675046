"""LAMB (You et al. 2019, arXiv 1904.00962) in multi-tensor form."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from tasks.optim.layerwise import chunks, gradients, is_adapted, norms, ratio


class LAMB(Optimizer):
    """Adam whose update, decay included, is given the length lr phi(|w|) in each layer.

    r = m^ / (sqrt(v^) + eps);  w <- w - lr phi(|w|) / |r + wd w| (r + wd w), with m^ and v^ as in Adam

    Args:
        params: parameters or groups; a group's `layer_adaptation` overrides the one below.
        lr: rate.
        betas: decay of the first and of the second moment.
        eps: added to sqrt(v^).
        weight_decay: wd, inside the normalized direction.
        bias_correction: divide the moments by 1 - beta^t (apex, timm); without it, as in fastalgo's and
            cybertronai's code, early steps differ.
        phi_max: phi(z) = min(z, phi_max), 10 in cybertronai's code; None: the identity.
        layer_adaptation: give every parameter its ratio (True), none (False: Adam with decay in the
            direction), or all but biases and norm layers (None, the usual practice).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        phi_max: float | None = None,
        layer_adaptation: bool | None = None,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"lr={lr}, weight_decay={weight_decay}, betas={tuple(betas)}: give lr and weight_decay of at "
                "least 0 and betas from 0 up to, not including, 1."
            )
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "phi_max": phi_max,
            "layer_adaptation": layer_adaptation,
            "step": 0,
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
            group["step"] += 1
            for weights in chunks(group):
                directions = self._directions(group, weights)
                scales = _scales(group, weights, directions)
                torch._foreach_mul_(directions, scales)
                torch._foreach_add_(weights, directions)
        return loss

    def _directions(self, group: dict[str, Any], weights: list[Tensor]) -> list[Tensor]:
        """Advance the moments and return r + wd w."""
        beta1, beta2 = group["betas"]
        found = gradients(weights)
        for p in weights:
            if not self.state[p]:
                self.state[p].update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        first = [self.state[p]["exp_avg"] for p in weights]
        second = [self.state[p]["exp_avg_sq"] for p in weights]
        torch._foreach_lerp_(first, found, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, found, found, 1 - beta2)
        correction1, correction2 = 1.0, 1.0
        if group["bias_correction"]:
            correction1, correction2 = 1 - beta1 ** group["step"], math.sqrt(1 - beta2 ** group["step"])
        # m/c1 / (sqrt(v)/c2 + eps) = (c2/c1) m / (sqrt(v) + c2 eps): two passes over memory fewer
        below = torch._foreach_sqrt(second)
        torch._foreach_add_(below, correction2 * group["eps"])
        directions = list(torch._foreach_mul(weights, group["weight_decay"]))
        torch._foreach_addcdiv_(directions, first, below, correction2 / correction1)
        return directions


def _scales(group: dict[str, Any], weights: list[Tensor], directions: list[Tensor]) -> list[float]:
    """Return -lr times the layer-wise factor of every parameter, which is 1 where it has none."""
    scales = [-float(group["lr"])] * len(weights)
    chosen = [i for i, p in enumerate(weights) if is_adapted(p, group["layer_adaptation"])]
    found = norms([weights[i] for i in chosen] + [directions[i] for i in chosen])
    phi_max = math.inf if group["phi_max"] is None else group["phi_max"]
    for i, w, u in zip(chosen, found[: len(chosen)], found[len(chosen) :], strict=True):
        scales[i] *= ratio(min(w, phi_max), u)
    return scales
