"""One Lightning batch = one optimizer step = one global batch, however it is cut up or spread (contract 1)."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from tasks.networks.ghost import collect, ghost_layers, has_batch_norm, with_ghost_batches
from tasks.networks.keyed import keyed, number_dropouts
from tasks.optim.groups import parameter_groups
from tasks.optim.rate import Rate
from tasks.optim.scaling import AverageRule, Duration, LRRule, scaled_average
from tasks.optim.schedules import Constant, Schedule
from tasks.sharding import ShardedGradient, shard

Span = tuple[int, int]  # positions (start, stop) of a batch
EVALUATION_BATCH = 256  # examples of one forward pass in evaluation, which no result depends on


def share(n: int, rank: int, ranks: int, unit: int = 1) -> Span:
    """The positions (start, stop) of n that belong to `rank`, cut at multiples of `unit`."""
    blocks = -(-n // unit)
    start, stop = (blocks * r // ranks * unit for r in (rank, rank + 1))
    return min(start, n), min(stop, n)


def cut(start: int, stop: int, size: int) -> list[Span]:
    """The span start to stop in pieces of at most `size`."""
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device, or the host, ran out of memory."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


class ExactBatchTask(LightningModule):
    """Trains a network by exact global batches; a subclass says how outputs are scored.

    Args:
        network: called with the data's dimensions, gives the network.
        optimizer: called with the parameters; its `lr` is the base learning rate.
        lr_scaling: what the base rate is multiplied by: 1 (none), k = batch_size / base_batch_size (linear),
            or its square root (sqrt, and legw, whose warm-up has the base batch's number of steps).
        base_batch_size: the batch at which the base rate, momentum and warm-up were chosen.
        warmup: length of the linear warm-up, such as "5 epochs", "300 steps" or "64000 examples" (null: none).
        warmup_from: the rate that the warm-up begins at: zero, or the base rate.
        schedule: what follows, over the horizon.
        horizon: the length of the schedule, written as the warm-up's (null: the run's own).
        momentum_scaling: of momentum or beta1: none; noise (held noise scale); half-life (held in examples).
        beta2_scaling: of Adam's and LAMB's second average: none (held per step), or half-life (held in examples).
        baseline_steps: what the tuned run at the base batch needed; a warm-up in epochs that takes more than 30 %
            of it there is refused (null: not known, or a replication with the warm-up of its paper).
        decay_norm_bias: whether weight decay holds for norm layers and biases too.
        micro_batch_size: examples of one forward and backward pass on one rank; null finds the largest that
            fits, by halving when memory runs out.
        ghost_batch_size: examples that batch normalization sees, or `global`; needed where the network has any.
        clip_norm: the largest norm of the global batch's gradient (null: no clipping).
        label_smoothing: of the training loss; evaluation never smooths.
    """

    metrics: tuple[str, ...] = ("loss",)  # what an evaluation gives for a split
    ignore_index = -100
    class_dimension = 1  # of the outputs

    def __init__(
        self,
        network: Callable[..., nn.Module],
        optimizer: OptimizerCallable,
        lr_scaling: LRRule = "none",
        base_batch_size: int | None = None,
        warmup: str | None = None,
        warmup_from: Literal["zero", "base"] = "zero",
        schedule: Schedule | None = None,
        horizon: str | None = None,
        momentum_scaling: AverageRule = "none",
        beta2_scaling: Literal["none", "half-life"] = "none",
        baseline_steps: int | None = None,
        decay_norm_bias: bool = True,
        micro_batch_size: int | None = None,
        ghost_batch_size: int | Literal["global"] | None = None,
        clip_norm: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        for name, value in (("micro_batch_size", micro_batch_size), ("ghost_batch_size", ghost_batch_size)):
            if isinstance(value, int) and value < 1:
                raise ValueError(f"model.{name} is {value}: give at least 1, or null")
        for duration in (warmup, horizon):
            if duration is not None:
                Duration.parse(duration)
        for name, value in (("momentum", momentum_scaling != "none"), ("beta2", beta2_scaling != "none")):
            if value and not base_batch_size:
                raise ValueError(f"model.{name}_scaling needs model.base_batch_size, the batch of the base {name}")
        self.make_network, self.make_optimizer = network, optimizer
        self.lr_scaling, self.base_batch_size, self.momentum_scaling = lr_scaling, base_batch_size, momentum_scaling
        self.beta2_scaling, self.baseline_steps = beta2_scaling, baseline_steps
        self.warmup, self.warmup_from, self.horizon = warmup, warmup_from, horizon
        self.schedule, self.decay_norm_bias = schedule or Constant(), decay_norm_bias
        self.micro_batch_size, self.ghost_batch_size = micro_batch_size, ghost_batch_size
        self.clip_norm, self.label_smoothing = clip_norm, label_smoothing
        self.network: nn.Module | None = None
        self.sharded: ShardedGradient | None = None
        self.evaluation: dict[str, float] = {}  # the last evaluation, by contract 4's names, exact
        self.observers: list[Any] = []  # instruments of this step's gradient: begin(gradient), add(weight), end(batch)
        self.examples, self.micro = 0, micro_batch_size
        self._loss_sum, self._loss_steps = 0.0, 0
        self._seconds, self._since = 0.0, None

    # what a task says of its outputs -------------------------------------------------------------------

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The sum of the counted elements' losses: outputs [m, C, ...], targets int [m, ...] give a scalar."""
        return F.cross_entropy(
            outputs, targets.long(), ignore_index=self.ignore_index, reduction="sum", label_smoothing=label_smoothing
        )

    def make_metric(self) -> Metric | None:
        """The metric of one split beside its loss, None if the loss is all."""
        return None

    def scores(self, loss: float, metric: nn.Module) -> dict[str, float]:
        """An evaluation's numbers by name, from the mean loss and the filled metric (Identity where there is none)."""
        return {"loss": loss}

    # the network and its optimizer ---------------------------------------------------------------------

    def configure_model(self) -> None:
        if self.network is not None:
            return
        data = self.trainer.datamodule
        with torch.random.fork_rng():  # the same weights whatever drew random numbers before
            torch.manual_seed(data.seed)
            network = self.make_network(*data.dimensions)
        if has_batch_norm(network):
            if self.ghost_batch_size is None:
                raise ValueError(
                    "the network has batch normalization: set model.ghost_batch_size to the number of examples that "
                    "its statistics see (32 is usual) or to `global`, or choose a network with norm: group"
                )
            network = with_ghost_batches(network, self.ghost_batch_size)
        number_dropouts(network)
        self.network = network
        if self.device_mesh is not None:  # Lightning's ModelParallelStrategy
            shard(network, self.device_mesh["data_parallel"])
            self.sharded = ShardedGradient(self)
        self.split_metrics = nn.ModuleDict({s: self.make_metric() or nn.Identity() for s in [*data.evaluated, "test"]})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.rate = self._make_rate()
        optimizer = self.make_optimizer(parameter_groups(self.network, self.decay_norm_bias))
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
            group["lr"] = group["initial_lr"] = group["lr"] * self.rate.factor
            self._scale_averages(group)
        return optimizer

    def _make_rate(self) -> Rate:
        data = self.trainer.datamodule
        if data.growth and not isinstance(self.schedule, Constant):
            raise ValueError("data.growth takes the place of model.schedule: leave one of them out")
        examples = len(data.splits["train"])
        if self.horizon is not None:
            total = Duration.parse(self.horizon).steps(data.batch_size, examples)
        else:
            ends = [data.steps] if data.epochs is not None else []
            total = min([*ends, *([self.trainer.max_steps] if self.trainer.max_steps > 0 else [])], default=None)
        parts = (self.lr_scaling, data.batch_size, self.base_batch_size, examples, self.schedule, total)
        return Rate(*parts, self.warmup, self.warmup_from, self.baseline_steps)

    def _scale_averages(self, group: dict[str, Any]) -> None:
        sizes = (self.trainer.datamodule.batch_size, self.base_batch_size)
        if "betas" in group:
            rules = (self.momentum_scaling, self.beta2_scaling)
            betas = zip(group["betas"], rules, strict=True)
            group["betas"] = tuple(b if rule == "none" else scaled_average(b, rule, *sizes) for b, rule in betas)
        elif self.beta2_scaling != "none":
            raise ValueError("model.beta2_scaling is for Adam, AdamW, LAMB and their kin: leave it out")
        elif self.momentum_scaling != "none":
            group["momentum"] = scaled_average(group["momentum"], self.momentum_scaling, *sizes)

    # a step --------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        if self.sharded:
            return
        self._trained = [p for p in self.network.parameters() if p.requires_grad]
        first = self._trained[0]
        count = sum(p.numel() for p in self._trained)
        # one buffer for all gradients, the step's loss, its elements where they were counted (as a share of the
        # guess) and the count of ranks that failed: one collective a step
        self._flat = torch.zeros(count + 3, dtype=first.dtype, device=first.device)
        views = self._flat[:count].split([p.numel() for p in self._trained])
        self._views = [v.view_as(p) for v, p in zip(views, self._trained, strict=True)]
        if self.micro is None:
            self.micro = -(-self.trainer.datamodule.batch_size // self.trainer.world_size)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Make one optimizer step of the global batch `batch`."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        self.update(batch, self.rate_factor())
        progress.increment_completed()
        self.examples += len(batch)
        self._loss_sum = self._loss_sum + self._step_loss().double()
        self._loss_steps += 1

    def rate_factor(self) -> float:
        """What the effective rate is multiplied by in the coming step: warm-up, schedule and batch growth."""
        step = self.trainer.global_step
        return self.rate.at(step) * self.trainer.datamodule.lr_factor(step)

    def update(self, batch: Any, factor: float) -> None:
        """Move the weights by the gradient of the global batch `batch`, at `factor` times the effective rate."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        if self.sharded:
            self.sharded.compute(batch)
        else:
            self._set_gradient(batch)
        for observer in self.observers:
            observer.end(batch)
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()

    def _clip(self, largest: float) -> None:
        if self.sharded:
            self.sharded.clip(largest)
        else:
            self._flat[:-3] *= (largest / (self._flat[:-3].norm() + 1e-6)).clamp(max=1.0)

    def _step_loss(self) -> Tensor:
        return self.sharded.loss if self.sharded else self._flat[-3]

    def _set_gradient(self, batch: Any) -> None:
        """Leave the gradient of the global batch's mean loss in `_flat`, the loss behind it."""
        while True:
            self._flat.zero_()
            for p, view in zip(self._trained, self._views, strict=True):
                p.grad = view  # at every step: Lightning sets gradients to None before each validation
            error = None
            try:
                self._add_gradients(batch)
            except (RuntimeError, ValueError, OSError) as e:  # the last two: a file that cannot be read
                error = e
            together = dist.is_initialized()
            if error is None and not together:
                break
            fatal = error is not None and not is_out_of_memory(error)
            self._flat[-1] = 1000 if fatal else int(error is not None)  # outside except: its tensors are freed
            if together:
                dist.all_reduce(self._flat)
            failures = int(self._flat[-1])
            if not failures:
                break
            self._recover(failures, error)
        if not batch.exact:  # where every element is ignored, the sum is 0 as well
            self._flat[:-2] /= self._flat[-2].clamp(min=1 / batch.elements())

    def _recover(self, failures: int, error: Exception | None) -> None:
        if failures >= 1000:
            raise error or RuntimeError("another rank failed in this step")
        if self.micro_batch_size is not None or self.micro == 1:
            raise error or RuntimeError("another rank ran out of memory")
        self.micro = -(-self.micro // 2)

    def _add_gradients(self, batch: Any) -> None:
        total, spans = batch.elements(), self._micro_batches(len(batch))
        for observer in self.observers:
            observer.begin(self._flat[:-3])
        with self.trainer.strategy.block_backward_sync() if dist.is_initialized() else nullcontext():
            for span, part in zip(spans, batch.parts(spans, self.device), strict=True):
                with keyed(part.draw), self._kept_on_the_host():
                    outputs = self.network(self._cast(part.inputs))
                loss = self.loss_sum(outputs, part.targets, self.label_smoothing) / total
                loss.backward()
                self._flat[-3] += loss.detach()
                if not batch.exact:
                    self._flat[-2] += self._count(part.targets) / total
                for observer in self.observers:
                    observer.add((batch.elements(*span) if batch.exact else float(self._count(part.targets))) / total)

    def _kept_on_the_host(self) -> AbstractContextManager:
        """Where batch normalization sees the global batch, which cannot be cut up, activations wait on the host."""
        if self.ghost_batch_size == "global" and ghost_layers(self.network):
            return torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")
        return nullcontext()

    def _micro_batches(self, n: int, rank: int | None = None) -> list[Span]:
        """A rank's share of n examples (its own by default), cut into micro-batches at the borders of ghost batches."""
        rank = self.global_rank if rank is None else rank
        ghost = self.ghost_batch_size if ghost_layers(self.network) else None
        if ghost == "global":
            return [share(n, rank, self.trainer.world_size)]
        unit = ghost or 1
        return cut(*share(n, rank, self.trainer.world_size, unit), max(self.micro // unit, 1) * unit)

    def loss_now(self) -> float:
        """The mean training loss of the last step (waits for the device)."""
        return float(self._step_loss())

    def _count(self, targets: Tensor) -> Tensor:
        """How many of these targets are not ignored."""
        return (targets != self.ignore_index).sum()

    def _cast(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype) if inputs.is_floating_point() else inputs

    # an evaluation -------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds, without evaluations."""
        return self._seconds + (time.perf_counter() - self._since if self._since else 0.0)

    def on_train_start(self) -> None:
        self._since = time.perf_counter()

    def on_validation_start(self) -> None:
        if self._since is not None:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self._seconds, self._since = self.seconds, None
            self._was_training = True
        else:
            self._was_training = False
        self._totals: dict[str, tuple[Tensor, int | None]] = {}
        if self.network is not None and ghost_layers(self.network):
            self._collect_statistics()

    def on_validation_end(self) -> None:
        if self._was_training:
            self._since = time.perf_counter()

    on_test_start = on_predict_start = on_validation_start

    def on_train_end(self) -> None:
        self._seconds, self._since = self.seconds, None

    @torch.no_grad()
    def _collect_statistics(self) -> None:
        """Set batch normalization's running statistics on the fixed training subset (protocol rule 9)."""
        batch = self.trainer.datamodule.whole("trainset")
        unit = len(batch) if self.ghost_batch_size == "global" else self.ghost_batch_size
        size = max(EVALUATION_BATCH // unit, 1) * unit
        with collect(self.network):
            for part in batch.parts(cut(0, len(batch), size), self.device):
                self.network(self._cast(part.inputs))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure(batch, self.trainer.datamodule.evaluated[dataloader_idx])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "test")

    def _measure(self, batch: Any, split: str) -> None:
        metric = self.split_metrics[split]
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses, and elements where they are counted
        for part, counts in self._evaluation_parts(batch):
            outputs = self.network(self._cast(part.inputs))
            if not counts:
                continue
            total[0] += self.loss_sum(outputs, part.targets).double()
            if not batch.exact:
                total[1] += self._count(part.targets)
            if isinstance(metric, Metric):
                metric.update(outputs, part.targets)
        self._totals[split] = (total, batch.elements() if batch.exact else None)

    def loss_parts(self, batch: Any, span: Span | None = None) -> Iterator[Tensor]:
        """Scalars with their graphs, whose sum over parts and ranks is the mean loss of `batch` in evaluation.

        With a `span` (start, stop): the mean loss of these examples, whole on every rank.
        """
        elements = batch.elements(*(span or (0, None)))
        parts = self._evaluation_parts(batch) if span is None else [(batch.part(*span, self.device), True)]
        for part, counts in parts:
            yield self.loss_sum(self.network(self._cast(part.inputs)), part.targets) * float(counts) / elements

    def _evaluation_parts(self, batch: Any) -> Iterator[tuple[Any, bool]]:
        """This rank's parts of an evaluated split, and whether each counts."""
        size = EVALUATION_BATCH if self.micro_batch_size is None else min(EVALUATION_BATCH, self.micro_batch_size)
        ranks = range(self.trainer.world_size)
        spans = [cut(*share(len(batch), rank, len(ranks)), size) for rank in ranks]
        yield from self.parts(batch, spans)

    def parts(self, batch: Any, spans: list[list[Span]]) -> Iterator[tuple[Any, bool]]:
        """Of every rank's spans this rank's parts; with sharded parameters as many as any rank has, the added ones
        of no account, since each pass through the network is a collective."""
        own = spans[self.global_rank]
        missing = max(map(len, spans)) - len(own) if self.sharded else 0
        real = [True] * len(own) + [False] * missing
        yield from zip(batch.parts(own + [(0, 1)] * missing, self.device), real, strict=True)

    def _scores(self) -> dict[str, float]:
        scores = {}
        for split, (total, count) in self._totals.items():
            if dist.is_initialized():
                dist.all_reduce(total)
            metric = self.split_metrics[split]
            loss = float(total[0]) / (count or max(float(total[1]), 1.0))
            scores |= {f"{split}/{k}": v for k, v in self.scores(loss, metric).items()}
            if isinstance(metric, Metric):
                metric.reset()
        return scores

    def on_validation_epoch_end(self) -> None:
        scores = self._scores()
        self.log_dict(scores, logger=False, sync_dist=True)  # the run record tells the loggers, exactly
        self.evaluation = self._position() | scores if self.trainer.state.fn == "fit" else scores

    def _position(self) -> dict[str, float]:
        position = {
            "step": self.trainer.global_step,
            "examples": self.examples,
            "epoch": self.examples / len(self.trainer.datamodule.splits["train"]),
            "seconds": self.seconds,
            "lr": self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"],
        }
        if self._loss_steps:
            position["train/loss"] = float(self._loss_sum) / self._loss_steps
            self._loss_sum, self._loss_steps = 0.0, 0
        return position

    def on_test_epoch_end(self) -> None:
        self.evaluation = self._scores()
        self.log_dict(self.evaluation, logger=False, sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """This rank's share: example ids `index` int64 [n] and the most likely class of each element."""
        first, last = share(len(batch), self.global_rank, self.trainer.world_size)
        outputs = [(self.network(self._cast(part.inputs)), counts) for part, counts in self._evaluation_parts(batch)]
        best = [o.argmax(self.class_dimension).cpu() for o, counts in outputs if counts]
        return {"index": batch.indices[first:last], "prediction": torch.cat(best)}

    # what others read and what a checkpoint keeps ------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the run's record says of the task."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        group = optimizer.param_groups[0]
        plain = {k: v for k, v in group.items() if isinstance(v, bool | int | float | str | list | tuple)}
        settings = {k: v for k, v in plain.items() if k not in ("params", "lr", "initial_lr", "base_lr")}
        return {
            "task": type(self).__name__,
            "network": getattr(self.network, "name", type(self.network).__name__),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "optimizer": {"name": type(optimizer).__name__, **settings, "clip_norm": self.clip_norm},
            "lr": {
                "base": group["base_lr"],
                "effective": group["initial_lr"],
                "scaling_rule": self.lr_scaling,
                "base_batch_size": self.base_batch_size,
                "schedule": repr(self.schedule),
                "warmup": f"{self.warmup} from {self.warmup_from}" if self.warmup else "none",
                "warmup_steps": self.rate.warmup_steps,
                "horizon_steps": self.rate.total_steps,
                "momentum_scaling": self.momentum_scaling,
                "beta2_scaling": self.beta2_scaling,
                "baseline_steps": self.baseline_steps,
            },
            "regularization": {"label_smoothing": self.label_smoothing, "decay_norm_bias": self.decay_norm_bias},
            "batch": {
                "global": self.trainer.datamodule.batch_size,
                "micro": self.micro,
                "ghost": self.ghost_batch_size if ghost_layers(self.network) else None,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {
            "examples": self.examples,
            "seconds": self.seconds,
            "micro": self.micro,
            "loss_sum": float(self._loss_sum),
            "loss_steps": self._loss_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["progress"]
        self.examples, self._seconds = progress["examples"], progress["seconds"]
        self.micro = self.micro_batch_size or progress["micro"]
        self._loss_sum, self._loss_steps = progress["loss_sum"], progress["loss_steps"]
