"""How far the weights have moved: what Hoffer et al. 2017 call ultra-slow diffusion grows as log t."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from callbacks.loss_surface import refuse_shards
from tasks.protocols import Task


class WeightDistance(Callback):
    """Adds ||w_t - w_0|| over all trained weights, and `distance/<layer>` for each layer, to every evaluation.

    The initial weights stay in the host's memory and go with the checkpoint.

    Args:
        layers: false gives `distance/total` alone.
    """

    def __init__(self, layers: bool = True) -> None:
        self.layers = layers
        self.initial: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Keep the initial weights, unless they came with a checkpoint."""
        refuse_shards(task)
        if not self.initial:
            named = task.network.named_parameters()
            self.initial = {name: p.detach().cpu().clone() for name, p in named if p.requires_grad}

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Add the distances to the evaluation."""
        if trainer.state.fn != "fit":
            return
        squares: dict[str, float] = {}
        for name, p in task.network.named_parameters():
            if p.requires_grad:
                layer = name.rpartition(".")[0] or name
                moved = p.detach().cpu().double() - self.initial[name].double()
                squares[layer] = squares.get(layer, 0.0) + float(moved.square().sum())
        task.evaluation["distance/total"] = math.sqrt(sum(squares.values()))
        if self.layers:
            task.evaluation |= {f"distance/{layer}": math.sqrt(s) for layer, s in squares.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the initial weights."""
        return {"initial": self.initial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the initial weights of the run that is resumed."""
        self.initial = state["initial"]
