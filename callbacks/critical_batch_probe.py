"""Which batch could this run use from here on without falling behind? Tried out, by short branches of the run."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from scipy.stats import t

from callbacks.loss_surface import refuse_shards
from tasks.protocols import Task

POWERS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}  # of the batch's factor, in the branch's rate
WORST = 2.0  # times its own size's loss: worse counts as this, so that one explosion does not hide the other branches


def bracket(losses: Sequence[tuple[int, Sequence[float]]], tolerance: float) -> tuple[float, float]:
    """Return the largest batch size up to which all surely keep up, and the first that surely falls behind.

    A size falls behind if its loss exceeds that of the run's own batch by more than `tolerance`: surely where the
    one-sided 95 % bound of Student's t over the branches says so, for each size by itself.

    Args:
        losses: (batch size, loss of each branch), the run's own batch first; branch r of every size has the same
            order of the data.
        tolerance: relative to the own batch's loss.

    Returns:
        Batch sizes, in examples; the second is infinite where none surely falls behind.
    """
    (low, own), *others = losses
    if not np.isfinite(own).all():  # nothing to compare with
        return low, math.inf
    kept = True
    for size, found in others:
        excess = np.fmin(np.divide(found, own), WORST) - 1 - tolerance
        margin = t.ppf(0.95, len(own) - 1) * excess.std(ddof=1) / math.sqrt(len(own))
        if excess.mean() > margin:
            return low, size
        kept = kept and bool(excess.mean() <= -margin)
        low = size if kept else low
    return low, math.inf


class CriticalBatchProbe(Callback):
    """Adds `probe/critical_batch_low` and `_high` to the first evaluation at or after each step of `at`.

    Branches the run there (in the manner of Merrill et al. 2025, arXiv 2505.23971; the rule is our choice): from the
    same weights and optimizer state it trains on `examples` examples at its own batch size, at 2, 4, 8, ... times it,
    and so on until one surely falls behind; then everything is put back. A branch's loss is the mean over the later
    half of its examples, which are the same for every size, of the loss of the coming batch (by the trapezoidal rule:
    a large batch's weights are thus not taken earlier than a small one's). `low` is the largest size up to which all
    surely keep up with the run's own, `high` the first that surely falls behind, inf where none did (see `bracket`);
    sizes between them are undecided. It holds for this rate rule and this length of branch: a large batch may yet catch
    up. Its time is not training time.

    Args:
        at: steps of the run.
        examples: of a branch (null: 256 times the batch); no size has less than 4 steps, or more than the training set.
        scaling: how a branch's rate grows with its batch.
        tolerance: by how much of its own size's loss another may be above it.
        repeats: branches of each size; each has another order of the data.
    """

    def __init__(
        self,
        at: list[int],
        examples: int | None = None,
        scaling: Literal["none", "sqrt", "linear"] = "linear",
        tolerance: float = 0.05,
        repeats: int = 4,
    ) -> None:
        if not at or min(at) < 0 or not 0 <= tolerance < WORST - 1 or repeats < 2:
            raise ValueError("probe: at has at least one step of the run; tolerance is 0 to 1, repeats at least 2")
        self.at, self.examples, self.scaling = sorted(at), examples or 0, scaling
        self.tolerance, self.repeats = tolerance, repeats
        self.found: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Choose the sizes that are tried.

        Raises:
            ValueError: if the run's batch grows, or no larger size fits into a branch.
        """
        refuse_shards(task)
        data = task.data
        if data.growth:
            raise ValueError("the probe compares with one batch size of the run: leave out data.growth, or the probe")
        self.examples = self.examples or 256 * data.batch_size
        own, most = data.batch_size, min(len(data.splits["train"]), self.examples // 4)
        self._sizes = [own * 2**k for k in range(64) if own * 2**k <= most]
        if len(self._sizes) < 2:
            raise ValueError(
                f"the probe tries out at least twice data.batch_size {own}, with 4 steps a branch: give it "
                f"{8 * own} examples or more, and a batch of at most half of the training set"
            )

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        """Branch the run where a step of `at` is due, and add the bracket to the evaluation."""
        step = trainer.global_step
        due = [a for a in self.at[len(self.found) :] if a <= step] if trainer.state.fn == "fit" else []
        if not due:
            return
        losses: list[tuple[int, list[float]]] = []
        for size in self._sizes:
            seeds = [1_000_000 * (task.data.seed + 1) + 100 * step + r for r in range(self.repeats)]
            losses.append((size, [self._branch(trainer, task, size, seed) for seed in seeds]))
            low, high = bracket(losses, self.tolerance)
            if high < math.inf:
                break
        task.evaluation |= {"probe/critical_batch_low": low, "probe/critical_batch_high": high}
        self.found += [{"step": step, "low": low, "high": high, "losses": losses}] * len(due)

    def _branch(self, trainer: Trainer, task: Task, size: int, seed: int) -> float:
        """Return the mean loss over the later half of a branch of the run with batches of `size`."""
        data, optimizer, network = task.data, task.optimizer, task.network
        before = copy.deepcopy((network.state_dict(), optimizer.state_dict(), task.micro))
        factor = task.rate_factor() * (size / data.batch_size) ** POWERS[self.scaling]
        training = network.training
        try:
            with torch.inference_mode(False), torch.enable_grad():
                network.train()
                task.micro = min(task.micro, -(-data.batch_size // trainer.world_size))
                losses, batches = [], data.branch(size, seed, self.examples + size)
                for step, batch in enumerate(batches, 1):
                    if step < len(batches):
                        task.update(batch, factor)
                    else:  # the one after the branch shows where it ended
                        task.compute_gradient(batch)
                    losses.append(task.gradient.loss.to(torch.float64, copy=True))
            later = torch.stack(losses[(len(losses) - 1) // 2 :])
            return float(torch.trapezoid(later)) / (len(later) - 1)
        finally:
            with torch.inference_mode(False), torch.no_grad():
                network.load_state_dict(before[0])
                optimizer.load_state_dict(before[1])
            task.micro = before[2]
            network.train(training)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what the run's record says, under `probe`."""
        return {"probe": {"examples": self.examples, "scaling": self.scaling, "branches": self.found}}

    def state_dict(self) -> dict[str, Any]:
        """Return the branches so far."""
        return {"found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the branches of the run that is resumed."""
        self.found = state["found"]
