"""Sharded parameters (FSDP2 under Lightning's ModelParallelStrategy): the same exact step, without a flat buffer."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tasks.protocols import Batch, Differentiable, Plan

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each part of `network` that shares no parameter with another, then the rest."""
    names = [p for _, p in network.named_parameters(remove_duplicate=False)]
    tied = {p for p in names if sum(p is q for q in names) > 1}
    parts = list(network.children())
    parts = [q for p in parts for q in (p.children() if isinstance(p, nn.ModuleList) else [p])]
    for part in parts:
        own = list(part.parameters())
        if own and not tied.intersection(own) and type(part).forward is not nn.Module.forward:
            fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)


class ShardedGradient:
    """The gradient of a global batch over sharded parameters.

    Each backward is a collective, so every rank runs the same number of micro-batches: one that has fewer
    repeats the batch's first example with weight 0, and a file that one rank cannot read ends the step on all of
    them before the next collective. Out of memory cannot be recovered from in the middle of it.
    """

    def __init__(self, task: Differentiable) -> None:
        self.task, self.loss = task, torch.zeros(())

    def compute(self, batch: Batch, plan: Plan) -> None:
        """Leave the gradient of the batch's mean loss in the parameters and the mean loss in `loss`.

        Args:
            batch: the global batch.
            plan: how it is cut up.

        Raises:
            Exception: this rank's error, or RuntimeError for another rank's that could not read its data.
        """
        task, network, ranks = self.task, self.task.network, dist.get_world_size()
        assert isinstance(network, FSDPModule)
        network.zero_grad(set_to_none=True)
        last = max(map(len, plan.spans)) - 1
        sums = torch.zeros(2, dtype=torch.float64, device=task.device)  # losses, elements
        parts = task.parts(batch, plan.spans)
        for i in range(last + 1):
            part, is_real = agreed(task.device, next, parts)
            network.set_requires_gradient_sync(i == last)
            loss = task.training_loss(part) * float(is_real) / plan.total
            (loss * ranks).backward()  # type: ignore[no-untyped-call]  # FSDP takes the mean over the ranks
            sums += torch.stack([loss.detach().double(), is_real * task.count(part.targets).double()])
        dist.all_reduce(sums)
        counted = 1.0 if batch.exact else float(sums[1]) / plan.total
        self.loss = sums[0] / counted
        for parameter in network.parameters():
            if parameter.grad is None:  # unused: weight decay holds for it all the same, as in the flat buffer
                parameter.grad = torch.zeros_like(parameter)
            elif counted not in (0.0, 1.0):
                parameter.grad.div_(counted)

    def clip(self, norm: float) -> None:
        """Scale the gradient down to `norm`."""
        nn.utils.clip_grad_norm_(self.task.network.parameters(), norm)


def agreed(device: torch.device, function: Callable[[Unpack[Arguments]], Result], *args: *Arguments) -> Result:
    """Return what `function(*args)` returns on this rank, once it has succeeded on every rank.

    Raises:
        Exception: on all ranks where it fails on any: this rank's error, or RuntimeError where it was another's.
    """
    failed = torch.zeros((), device=device)
    try:
        result = function(*args)
    except (RuntimeError, ValueError, OSError):
        dist.all_reduce(failed + 1)
        raise
    dist.all_reduce(failed)
    if failed:
        raise RuntimeError("another rank failed in this step")
    return result


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor put together, on every rank; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
