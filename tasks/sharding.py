"""Sharded parameters (FSDP2 under Lightning's ModelParallelStrategy): the same exact step, without a flat buffer."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


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

    def __init__(self, task: Any) -> None:
        if task.micro_batch_size is None:
            raise ValueError("model.micro_batch_size: null cannot be found with sharded parameters; give a number")
        self.task, self.loss = task, torch.zeros(())

    def compute(self, batch: Any) -> None:
        """Leave the gradient of the batch's mean loss in the parameters and the mean loss in `loss`."""
        task, ranks = self.task, dist.get_world_size()
        task.network.zero_grad(set_to_none=True)
        total = batch.elements()
        spans = [task.micro_batches(len(batch), rank) for rank in range(ranks)]
        last = max(map(len, spans)) - 1
        sums = torch.zeros(2, dtype=torch.float64, device=task.device)  # losses, elements
        parts = task.parts(batch, spans)
        for i in range(last + 1):
            part, counts = agreed(task.device, next, parts)
            task.network.set_requires_gradient_sync(i == last)
            loss = task.training_loss(part) * float(counts) / total
            (loss * ranks).backward()  # FSDP takes the mean over the ranks
            sums += torch.stack([loss.detach().double(), counts * task.count(part.targets).double()])
        dist.all_reduce(sums)
        for parameter in task.network.parameters():
            if parameter.grad is None:  # unused: weight decay holds for it all the same, as in the flat buffer
                parameter.grad = torch.zeros_like(parameter)
        counted = 1.0 if batch.exact else float(sums[1]) / total
        self.loss = sums[0] / counted
        if counted not in (0.0, 1.0):
            for parameter in task.network.parameters():
                parameter.grad.div_(counted)

    def clip(self, norm: float) -> None:
        """Scale the gradient down to `norm`."""
        nn.utils.clip_grad_norm_(self.task.network.parameters(), norm)


def agreed(device: torch.device, function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` on every rank: its result, or on all ranks the error, RuntimeError where it was another's."""
    result, error = None, None
    try:
        result = function(*args)
    except (RuntimeError, ValueError, OSError) as e:
        error = e
    failed = torch.tensor(float(error is not None), device=device)
    dist.all_reduce(failed)
    if failed:
        raise error or RuntimeError("another rank failed in this step")
    return result


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, on every rank."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
