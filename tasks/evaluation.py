"""How a task is evaluated: exactly, on any number of ranks, while the clock of training stands still."""

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from tasks.networks.ghost import collect
from tasks.spans import Span, cut, share

BATCH = 256  # examples of one forward pass, which no result depends on


class EvaluatedTask(LightningModule):
    """A network and how its outputs are scored; the subclass that trains it sets these and has a `position()`."""

    metrics: tuple[str, ...] = ("loss",)  # what an evaluation gives for a split
    ignore_index = -100
    class_dimension = 1  # of the outputs
    network: nn.Module | None
    micro_batch_size: int | None
    ghost_batch_size: int | str | None
    sharded: bool  # whether each rank holds a part of the parameters
    has_ghosts: bool  # whether any layer is a GhostBatchNorm

    def __init__(self) -> None:
        super().__init__()
        self.evaluation: dict[str, float] = {}  # the last one, by contract 4's names, exact
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

    def count(self, targets: Tensor) -> Tensor:
        """How many of these targets are not ignored."""
        return (targets != self.ignore_index).sum()

    def cast(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype) if inputs.is_floating_point() else inputs

    # Lightning's road of a batch to the device, which a Batch takes by itself, part by part -------------

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        return batch

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        return batch

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes its hooks here 20 times a step: skip nn.Module's checks
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
        if self.network is not None and self.has_ghosts:
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
        size = max(BATCH // unit, 1) * unit
        with collect(self.network):
            for part in batch.parts(cut(0, len(batch), size), self.device):
                self.network(self.cast(part.inputs))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure(batch, self.trainer.datamodule.evaluated[dataloader_idx])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "test")

    def _measure(self, batch: Any, split: str) -> None:
        metric = self.split_metrics[split]
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses, and elements where they are counted
        for part, counts in self._evaluation_parts(batch):
            outputs = self.network(self.cast(part.inputs))
            if not counts:
                continue
            total[0] += self.loss_sum(outputs, part.targets).double()
            if not batch.exact:
                total[1] += self.count(part.targets)
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
            yield self.loss_sum(self.network(self.cast(part.inputs)), part.targets) * float(counts) / elements

    def _evaluation_parts(self, batch: Any) -> Iterator[tuple[Any, bool]]:
        """This rank's parts of an evaluated split, and whether each counts."""
        size = BATCH if self.micro_batch_size is None else min(BATCH, self.micro_batch_size)
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
        self._publish(scores)
        self.evaluation = self.position() | scores if self.trainer.state.fn == "fit" else scores

    def on_test_epoch_end(self) -> None:
        self.evaluation = self._scores()
        self._publish(self.evaluation)

    def _publish(self, scores: dict[str, float]) -> None:
        """Show Lightning's callbacks the scores, the same on all ranks; log_dict would do so in 20 times the time."""
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scores.items()})

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """This rank's share: example ids `index` int64 [n] and the most likely class of each element."""
        first, last = share(len(batch), self.global_rank, self.trainer.world_size)
        outputs = [(self.network(self.cast(part.inputs)), counts) for part, counts in self._evaluation_parts(batch)]
        best = [o.argmax(self.class_dimension).cpu() for o, counts in outputs if counts]
        return {"index": batch.indices[first:last], "prediction": torch.cat(best)}
