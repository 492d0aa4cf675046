"""How a task is evaluated: exactly, on any number of ranks, while the clock of training stands still."""

import time
from collections.abc import Collection, Iterator

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from tasks.networks.ghost import collect
from tasks.protocols import Batch, DataModule, Part, Span
from tasks.spans import Batching, cut, share

BATCH = 256  # examples of one forward pass, which no result depends on


class EvaluatedTask(LightningModule):
    """A network and how its outputs are scored; the subclass that trains it sets these."""

    metrics: tuple[str, ...] = ("loss",)  # the scores of a split, by name
    ignore_index = -100
    class_dimension: int | None = 1  # of the outputs, where they have the data's last dimension; None: nowhere
    network: nn.Module
    split_metrics: nn.ModuleDict  # by split: a Metric, or Identity where there is none
    options: Batching
    sharded: bool  # whether each rank holds a part of the parameters
    has_ghosts: bool  # whether any layer is a GhostBatchNorm

    def __init__(self) -> None:
        super().__init__()
        self.evaluation: dict[str, float] = {}  # the last one, by contract 4's names, exact
        self.measured: Collection[str] | None = None  # the splits of the next evaluation in training; None: all
        self._seconds = 0.0
        self._since: float | None = None  # when the clock of training was started, None while it stands still
        self._was_training = False
        self._totals: dict[str, tuple[Tensor, int | None]] = {}

    @property
    def data(self) -> DataModule:
        """Return the run's data module."""
        data: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # set, but not declared
        return data

    # what a task says of its outputs -------------------------------------------------------------------

    def loss_sum(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the sum of the counted elements' losses.

        Args:
            outputs: of the network, [m, C, ...].
            targets: int [m, ...].
            label_smoothing: of the training loss.

        Returns:
            A scalar.
        """
        return F.cross_entropy(
            outputs, targets.long(), ignore_index=self.ignore_index, reduction="sum", label_smoothing=label_smoothing
        )

    def make_metric(self) -> Metric | None:
        """Return the metric of one split beside its loss, None if the loss is all."""
        return None

    def scores(self, loss: float, metric: Metric | None) -> dict[str, float]:
        """Return a split's scores by name, from its mean loss and its filled metric."""
        return {"loss": loss}

    def count(self, targets: Tensor) -> Tensor:
        """Return how many of these targets are not ignored, a scalar."""
        return (targets != self.ignore_index).sum()

    def prediction(self, outputs: Tensor) -> Tensor:
        """Return what `predict` writes of these outputs: the most likely class of each element."""
        return outputs.argmax(self.class_dimension)

    def check_targets(self) -> None:
        """Raise ValueError where a split in memory has a target that is no class, before anything is trained."""
        classes = self.data.dimensions[-1]
        for name, split in self.data.splits.items():
            targets = split.targets
            if isinstance(targets, Tensor) and not targets.is_floating_point():
                outside = (targets < 0) | (targets >= classes)
                wrong = targets[outside & (targets != self.ignore_index)]
                if len(wrong):
                    raise ValueError(f"{name} has a target of {int(wrong[0])}: the classes are 0 to {classes - 1}")

    @torch.no_grad()
    def check_outputs(self, part: Part) -> None:
        """Raise ValueError where the network's outputs for one example are not what the loss needs."""
        self.network.eval()
        inputs = f"inputs {list(part.inputs.shape)} {str(part.inputs.dtype).removeprefix('torch.')}"
        try:
            outputs = self.network(self.cast(part.inputs))
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"model.network does not take the data's {inputs}: {first_line(error)}") from error
        finally:
            self.network.train()
        if not isinstance(outputs, Tensor):
            raise ValueError(f"model.network gives a {type(outputs).__name__}: it must give one tensor")
        wanted, at = self.data.dimensions[-1], self.class_dimension
        if at is not None and (outputs.ndim <= at or outputs.shape[at] != wanted):
            shape = f"outputs {list(outputs.shape)} for {inputs}"
            raise ValueError(f"model.network gives {shape}: the data need {wanted} in dimension {at}")
        try:
            self.loss_sum(outputs, part.targets)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = f"outputs {list(outputs.shape)} and targets {list(part.targets.shape)}"
            raise ValueError(f"{type(self).__name__}'s loss does not take {shapes}: {first_line(error)}") from error

    def cast(self, inputs: Tensor) -> Tensor:
        """Return inputs in the precision of the network; whole numbers stay as they are."""
        return inputs.to(self.dtype) if inputs.is_floating_point() else inputs

    # Lightning moves a batch to the device; a Batch moves itself, part by part --------------------------

    def _on_before_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        return batch

    def _apply_batch_transfer_handler(
        self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Batch:
        return batch

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        if name == "_current_fx_name":  # Lightning notes its hooks here 20 times a step: skip nn.Module's checks
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # an evaluation -------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Return the training time so far, in seconds, without evaluations."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def on_train_start(self) -> None:
        """Start the clock of training."""
        self._since = time.perf_counter()

    def on_validation_start(self) -> None:
        """Stop the clock of training and set batch normalization's statistics."""
        self._was_training = self._since is not None
        if self._was_training and self.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds, self._since = self.seconds, None
        self._totals = {}
        if self.has_ghosts:
            self._collect_statistics()

    def on_validation_end(self) -> None:
        """Let the clock of training go on."""
        if self._was_training:
            self._since = time.perf_counter()

    on_test_start = on_predict_start = on_validation_start

    def on_train_end(self) -> None:
        """Stop the clock of training."""
        self._seconds, self._since = self.seconds, None

    @torch.no_grad()
    def _collect_statistics(self) -> None:
        """Set batch normalization's running statistics on the fixed training subset (protocol rule 9)."""
        batch = self.data.whole("trainset")
        ghost = self.options.ghost_batch_size
        unit = ghost if isinstance(ghost, int) else len(batch)
        size = max(BATCH // unit, 1) * unit
        with collect(self.network):
            for part in batch.parts(cut(0, len(batch), size), self.device):
                self.network(self.cast(part.inputs))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a whole split, unless nobody asks for it."""
        split = self.data.evaluated[dataloader_idx]
        if self.measured is None or split in self.measured:
            self._measure(batch, split)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the test split."""
        self._measure(batch, "test")

    def _metric(self, split: str) -> Metric | None:
        metric = self.split_metrics[split]
        return metric if isinstance(metric, Metric) else None

    def _measure(self, batch: Batch, split: str) -> None:
        metric = self._metric(split)
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses, and elements where they are counted
        for part, is_real in self._evaluation_parts(batch):
            outputs = self.network(self.cast(part.inputs))
            if not is_real:
                continue
            total[0] += self.loss_sum(outputs, part.targets).double()
            if not batch.exact:
                total[1] += self.count(part.targets)
            if metric is not None:
                metric.update(outputs, part.targets)
        self._totals[split] = (total, batch.elements() if batch.exact else None)

    def loss_parts(self, batch: Batch, span: Span | None = None) -> Iterator[Tensor]:
        """Yield scalars with their graphs whose sum over parts and ranks is the mean loss in evaluation.

        Args:
            batch: whose loss is meant.
            span: positions (start, stop) of its examples (None: all). Of a span each rank yields the whole loss.
        """
        whole = span is None
        start, stop = span or (0, len(batch))
        parts = self._evaluation_parts(batch) if whole else iter([(batch.part(start, stop, self.device), True)])
        for part, is_real in parts:
            loss = self.loss_sum(self.network(self.cast(part.inputs)), part.targets)
            yield loss * float(is_real) / batch.elements(start, stop)

    def _evaluation_parts(self, batch: Batch) -> Iterator[tuple[Part, bool]]:
        """Yield this rank's parts of an evaluated split, and whether each is real."""
        size = BATCH if self.options.micro_batch_size is None else min(BATCH, self.options.micro_batch_size)
        ranks = range(self.trainer.world_size)
        spans = [cut(*share(len(batch), rank, len(ranks)), size) for rank in ranks]
        yield from self.parts(batch, spans)

    def parts(self, batch: Batch, spans: list[list[Span]]) -> Iterator[tuple[Part, bool]]:
        """Yield this rank's parts of a batch, and whether each is real.

        With sharded parameters each pass through the network is a collective: a rank with fewer parts than another
        repeats the first example, which is not real.

        Args:
            batch: that is cut up.
            spans: every rank's positions (start, stop).
        """
        own = spans[self.global_rank]
        missing = max(map(len, spans)) - len(own) if self.sharded else 0
        real = [True] * len(own) + [False] * missing
        yield from zip(batch.parts(own + [(0, 1)] * missing, self.device), real, strict=True)

    def _scores(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        for split, (total, count) in self._totals.items():
            if dist.is_initialized():
                dist.all_reduce(total)
            metric = self._metric(split)
            loss = float(total[0]) / (count or max(float(total[1]), 1.0))
            scores |= {f"{split}/{k}": v for k, v in self.scores(loss, metric).items()}
            if metric is not None:
                metric.reset()
        return scores

    def position(self) -> dict[str, float]:
        """Return where training is, by the names of contract 4; a subclass that trains says it."""
        return {}

    def on_validation_epoch_end(self) -> None:
        """Publish the scores; in training, `evaluation` says where training is, too."""
        scores = self._scores()
        self._publish(scores)
        self.evaluation = self.position() | scores if self.trainer.state.fn == "fit" else scores

    def on_test_epoch_end(self) -> None:
        """Publish the test split's scores."""
        self.evaluation = self._scores()
        self._publish(self.evaluation)

    def _publish(self, scores: dict[str, float]) -> None:
        """Show Lightning's callbacks the scores, the same on all ranks; log_dict would do so in 20 times the time."""
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scores.items()})

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return this rank's share: example ids `index` int64 [n] and `prediction`, what the task predicts of each."""
        first, last = share(len(batch), self.global_rank, self.trainer.world_size)
        outputs = [(self.network(self.cast(part.inputs)), is_real) for part, is_real in self._evaluation_parts(batch)]
        predicted = [self.prediction(o).cpu() for o, is_real in outputs if is_real]
        return {"index": batch.indices[first:last], "prediction": torch.cat(predicted)}


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).split("\n")[0]
