"""One Lightning batch = one optimizer step = one global batch, however it is cut up or spread (contract 1)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn

from tasks.evaluation import EvaluatedTask
from tasks.gradient import FlatGradient
from tasks.networks.ghost import ghost_layers, has_batch_norm, with_ghost_batches
from tasks.networks.keyed import keyed, number_dropouts
from tasks.networks.zoo import network_of
from tasks.optim.groups import check_optimizer, parameter_groups
from tasks.optim.rate import Rate, RateOptions
from tasks.optim.scaling import AverageRule, Duration, scaled_average
from tasks.optim.schedules import Constant
from tasks.overhead import trim
from tasks.protocols import Batch, Gradient, GradientObserver, Part, Plan
from tasks.sharding import ShardedGradient, shard
from tasks.spans import Batching, cut, share


@dataclass(frozen=True)
class Options(Batching, RateOptions):
    """What stands beside network and optimizer in a config's `model`, flat."""

    def __post_init__(self) -> None:
        Batching.__post_init__(self)
        RateOptions.__post_init__(self)


class ExactBatchTask(EvaluatedTask):
    """Trains a network by exact global batches; a subclass says how outputs are scored.

    Args:
        network: called with the data's dimensions, (channels, classes) or (inputs, outputs), returns the network; a
            function of torchvision.models or timm.models gives its network, with random weights.
        optimizer: called with the parameters; its `lr` is the base learning rate.
        decay_norm_bias: whether weight decay holds for norm layers and biases too.
        clip_norm: the largest norm of the global batch's gradient (null: no clipping).
        label_smoothing: of the training loss; evaluation never smooths.
        options: the fields of Batching and RateOptions.
    """

    def __init__(
        self,
        network: Callable[[int, int], nn.Module],
        optimizer: OptimizerCallable,
        decay_norm_bias: bool = True,
        clip_norm: float | None = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.make_network = network
        self.make_optimizer = optimizer
        self.options: Options = Options(**options)
        self.decay_norm_bias = decay_norm_bias
        self.clip_norm = clip_norm
        self.label_smoothing = label_smoothing
        self._check_options()
        self.sharded = self.has_ghosts = False
        self.observers: list[GradientObserver] = []  # of this step's gradient
        self.examples, self.micro = 0, self.options.micro_batch_size or 0  # 0: to be found
        self._loss_sum: Tensor | float = 0.0
        self._loss_steps = 0

    def _check_options(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"model.clip_norm is {self.clip_norm}: give more than 0, or null")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"model.label_smoothing is {self.label_smoothing}: give 0 to less than 1")

    # the network and its optimizer ---------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network for the data, from weights that depend on the seed alone.

        Raises:
            ValueError: if the network has batch normalization and model.ghost_batch_size is not set.
        """
        if hasattr(self, "network"):
            return
        data = self.data
        with torch.random.fork_rng():  # the same weights whatever drew random numbers before
            torch.manual_seed(data.seed)
            network = network_of(self.make_network, data.dimensions)
        if has_batch_norm(network):
            if self.options.ghost_batch_size is None:
                raise ValueError(
                    "the network has batch normalization: set model.ghost_batch_size to the number of examples that "
                    "its statistics see (32 is usual) or to `global`, or choose a network with norm: group"
                )
            network = with_ghost_batches(network, self.options.ghost_batch_size)
        number_dropouts(network)
        if self.options.channels_last and self.device_mesh is None:  # FSDP shards contiguous parameters only
            network.to(memory_format=torch.channels_last)
        self.has_ghosts = bool(ghost_layers(network))
        self.network, self.network_name = network, getattr(network, "name", type(network).__name__)
        if self.device_mesh is not None:  # Lightning's ModelParallelStrategy
            shard(network, self.device_mesh["data_parallel"])
            self.sharded = True
        self.split_metrics = nn.ModuleDict({s: self.make_metric() or nn.Identity() for s in [*data.evaluated, "test"]})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer, its rate and averages scaled to the batch size."""
        self.rate = self._make_rate()
        optimizer = self.make_optimizer(parameter_groups(self.network, self.decay_norm_bias))
        check_optimizer(optimizer)
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
            group["lr"] = group["initial_lr"] = group["lr"] * self.rate.factor
            self._scale_averages(group)
        return optimizer

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the run's optimizer."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _make_rate(self) -> Rate:
        data, options = self.data, self.options
        if data.growth and not isinstance(options.schedule, Constant | None):
            raise ValueError("data.growth takes the place of model.schedule: leave one of them out")
        examples = len(data.splits["train"])
        return Rate(options, data.batch_size, examples, self._total_steps(examples))

    def _total_steps(self, train_examples: int) -> int | None:
        """Return the schedule's horizon in steps: what is set, else the run's own length, None if it has no end."""
        if (horizon := self.options.horizon) is not None:
            return Duration.parse(horizon).steps(self.data.batch_size, train_examples)
        ends = [self.data.steps] if self.data.epochs is not None else []
        ends += [self.trainer.max_steps] if self.trainer.max_steps > 0 else []
        return min(ends, default=None)

    def _scale_averages(self, group: dict[str, Any]) -> None:
        """Set a parameter group's momentum or betas for the batch size."""
        options = self.options
        if options.momentum_scaling == options.beta2_scaling == "none":
            return

        def scaled(beta: float, rule: AverageRule) -> float:
            base = options.base_batch_size  # checked: there is one unless the rule is none
            return beta if rule == "none" or base is None else scaled_average(beta, rule, self.data.batch_size, base)

        has_betas = len(group.get("betas", ())) == 2
        if options.beta2_scaling != "none" and not has_betas:
            raise ValueError("model.beta2_scaling is for Adam, AdamW, LAMB and their kin: leave it out")
        if not has_betas and "momentum" not in group:
            raise ValueError("model.momentum_scaling is for optimizers with a momentum or two betas: leave it out")
        if has_betas:
            beta1, beta2 = group["betas"]
            group["betas"] = (scaled(beta1, options.momentum_scaling), scaled(beta2, options.beta2_scaling))
        if "momentum" in group:  # timm's Muon has both
            group["momentum"] = scaled(group["momentum"], options.momentum_scaling)

    # a step --------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Choose the micro-batch to begin with and the gradient's buffer.

        Raises:
            ValueError: if data and network do not fit, or the micro-batch is to be found with sharded parameters.
        """
        trim(self.trainer)
        self.check_targets()
        self.check_outputs(self.data.batch(0).part(0, 1, self.device))
        if self.sharded and self.options.micro_batch_size is None:
            raise ValueError("model.micro_batch_size: null cannot be found with sharded parameters; give a number")
        self.micro = self.micro or -(-self.data.batch_size // self.trainer.world_size)
        self.gradient: Gradient = ShardedGradient(self) if self.sharded else FlatGradient(self)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Make one optimizer step with a global batch."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        self.update(batch, self.rate_factor())
        progress.increment_completed()
        self.examples += len(batch)
        self._loss_sum = self._loss_sum + self.gradient.loss.double()
        self._loss_steps += 1

    def rate_factor(self) -> float:
        """Return what the effective rate is multiplied by in the coming step: warm-up, schedule and batch growth."""
        step = self.trainer.global_step
        return self.rate.at(step) * self.data.lr_factor(step)

    def update(self, batch: Batch, factor: float) -> None:
        """Move the weights by the gradient of a global batch, at `factor` times the effective rate."""
        optimizer = self.optimizer
        self.compute_gradient(batch)
        for observer in self.observers:
            observer.end(batch)
        if self.clip_norm is not None:
            self.gradient.clip(self.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()

    def compute_gradient(self, batch: Batch) -> None:
        """Leave the gradient of a global batch's mean loss in the parameters.

        Where `micro_batch_size` is null and any rank runs out of memory, all of them halve the micro-batch and repeat.

        Raises:
            Exception: on every rank: this rank's error, or RuntimeError where it was another's.
        """
        micro = min([self.micro, *(observer.largest_micro_batch(len(batch)) for observer in self.observers)])
        while (error := self.gradient.compute(batch, self._plan(batch, micro))) is not None:
            if self.options.micro_batch_size is not None or micro == 1:
                raise error
            del error  # its traceback holds all tensors of the failed pass
            micro = self.micro = -(-micro // 2)

    def _plan(self, batch: Batch, micro: int) -> Plan:
        """Return the micro-batches of every rank's share, cut at the borders of ghost batches."""
        ranks = self.trainer.world_size
        ghost = self.options.ghost_batch_size if self.has_ghosts else None
        unit = ghost if isinstance(ghost, int) else 1
        shares = [share(len(batch), rank, ranks, unit) for rank in range(ranks)]
        size = max(micro // unit, 1) * unit
        spans = [[own] if ghost == "global" else cut(*own, size) for own in shares]
        return Plan(spans, batch.elements())

    def training_loss(self, part: Part) -> Tensor:
        """Return the sum of a micro-batch's losses, a scalar with its graph.

        Dropout's random numbers are those of the examples at this step.
        """
        with keyed(part.draw), self._offload_activations():
            outputs = self.network(self.cast(part.inputs))
        return self.loss_sum(outputs, part.targets, self.label_smoothing)

    def _offload_activations(self) -> AbstractContextManager[object]:
        """Keep activations on the host where batch normalization sees the global batch, which cannot be cut up."""
        if self.options.ghost_batch_size == "global" and self.has_ghosts:
            return torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")
        return nullcontext()

    def no_sync(self) -> AbstractContextManager[None]:
        """Return the context in which backward passes do not synchronize the ranks."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def loss_now(self) -> float:
        """Return the mean training loss of the last step; this waits for the device."""
        return float(self.gradient.loss)

    def position(self) -> dict[str, float]:
        """Return where training is, and the mean training loss since this was last asked."""
        position: dict[str, float] = {
            "step": self.trainer.global_step,
            "examples": self.examples,
            "epoch": self.examples / len(self.data.splits["train"]),
            "seconds": self.seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if self._loss_steps:
            position["train/loss"] = float(self._loss_sum) / self._loss_steps
            self._loss_sum, self._loss_steps = 0.0, 0
        return position

    # what others read and what a checkpoint keeps ------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return what the run's record says of the task, by the names of its fields."""
        group, options = self.optimizer.param_groups[0], self.options
        plain = {k: v for k, v in group.items() if isinstance(v, bool | int | float | str | list | tuple)}
        settings = {k: v for k, v in plain.items() if k not in ("params", "lr", "initial_lr", "base_lr")}
        return {
            "task": type(self).__name__,
            "network": self.network_name,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "optimizer": {
                "name": type(self.optimizer).__name__,
                "settings": settings | {"clip_norm": self.clip_norm},
            },
            "rate": {
                "base": group["base_lr"],
                "effective": group["initial_lr"],
                "scaling_rule": options.lr_scaling,
                "base_batch_size": options.base_batch_size,
                "schedule": repr(self.rate.schedule),
                "warmup": f"{options.warmup} from {options.warmup_from}" if options.warmup else "none",
                "warmup_steps": self.rate.warmup_steps,
                "horizon_steps": self.rate.total_steps,
                "momentum_scaling": options.momentum_scaling,
                "beta2_scaling": options.beta2_scaling,
                "baseline_steps": options.baseline_steps,
            },
            "regularization": {
                "label_smoothing": self.label_smoothing,
                "decay_norm_bias": self.decay_norm_bias,
            },
            "batch": {
                "size": self.data.batch_size,
                "micro": self.micro,
                "ghost": self.options.ghost_batch_size if self.has_ghosts else None,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where training is to a checkpoint."""
        checkpoint["progress"] = {
            "examples": self.examples,
            "seconds": self.seconds,
            "micro": self.micro,
            "loss_sum": float(self._loss_sum),
            "loss_steps": self._loss_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from where a checkpoint's training was."""
        progress = checkpoint["progress"]
        self.examples, self._seconds = progress["examples"], progress["seconds"]
        self.micro = self.options.micro_batch_size or progress["micro"]
        self._loss_sum, self._loss_steps = progress["loss_sum"], progress["loss_steps"]
