"""Weights and optimizer state of another run's checkpoint, before the first step (`fit --ckpt_path`)."""

from pathlib import Path

import torch
from pytorch_lightning import Callback, Trainer

from tasks.protocols import Task


class BeginFrom(Callback):
    """Begins a run from a checkpoint: steps, rate and data order are the run's own, weights and averages are not.

    Args:
        path: of the checkpoint, of this suite or of Lightning's ModelCheckpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Load network and optimizer.

        Raises:
            ValueError: if the checkpoint is of another network or optimizer, or the parameters are sharded.
        """
        if task.sharded:
            raise ValueError("--ckpt_path does not work with sharded parameters: use configs/strategy/ddp.yaml")
        held = torch.load(self.path, map_location="cpu", weights_only=True)
        prefix = "network."
        weights = {name.removeprefix(prefix): w for name, w in held["state_dict"].items() if name.startswith(prefix)}
        try:
            task.network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"--ckpt_path {self.path} is of another network ({_first(error)})") from error
        (state,), own = held["optimizer_states"], task.optimizer.state_dict()
        given, groups = state["param_groups"], own["param_groups"]
        if len(given) != len(groups):
            raise ValueError(
                f"--ckpt_path {self.path} has {len(given)} groups of parameters, this run {len(groups)}: give "
                "model.decay_norm_bias and the like as it was made with"
            )
        if any(set(theirs) != set(ours) for theirs, ours in zip(given, groups, strict=True)):
            raise ValueError(f"--ckpt_path {self.path} is of another optimizer: give the one that it was made with")
        for theirs, ours in zip(given, groups, strict=True):
            if "step" in theirs:  # LAMB counts there the steps that its averages are corrected by
                ours["step"] = theirs["step"]
        task.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _first(error: Exception) -> str:
    """Return the first mismatch of torch's list."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(iter(lines[1:]), lines[0])[:200].rstrip(". ")
