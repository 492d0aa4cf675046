"""Tiny data and runs for the tests: real classes, made-up numbers."""

import os
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint

from callbacks.convergence_detector import ConvergenceDetector
from callbacks.evaluation_schedule import EvaluationSchedule
from datamodules.base import Examples, InMemoryDataModule
from tasks.image_classification import ImageClassification
from tasks.language_modeling import LanguageModeling
from tasks.segmentation import Segmentation

TASKS = {"images": ImageClassification, "masks": Segmentation, "text": LanguageModeling}


class Tiny(InMemoryDataModule):
    """Learnable random data of one `kind`; masks have ignored pixels and windows unequal lengths.

    `guess`: the masks' counted elements are not known beforehand.
    """

    def __init__(self, kind: str = "images", n: int = 23, side: int = 8, guess: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.kind, self.n, self.side, self.guess = kind, n, side, guess
        self.dimensions = (11,) if kind == "text" else (2, 3)

    def load(self) -> dict[str, Examples]:
        return {"train": self._make(self.n, 0), "val": self._make(7, 1), "test": self._make(5, 2)}

    def _make(self, n: int, seed: int) -> Examples:
        generator = torch.Generator().manual_seed(seed)
        if self.kind == "text":
            tokens = torch.randint(11, (n, 7), generator=generator).sort(1).values
            lengths = torch.randint(1, 7, (n,), generator=generator)
            targets = tokens[:, 1:].where(torch.arange(6) < lengths[:, None], -100)
            return Examples(tokens[:, :-1], targets, lengths)
        images = torch.rand(n, 2, self.side, self.side, generator=generator)
        if self.kind == "images":
            return Examples(images, (images.mean((2, 3)) > 0.5).sum(1))
        masks = (images.sum(1) * 1.5).to(torch.uint8).clamp(max=2)
        masks[torch.rand(masks.shape, generator=generator) < 0.3] = 255
        known = (masks != 255).sum((1, 2))
        return Examples(images, masks, torch.full_like(known, self.side**2) if self.guess else known)

    def exact(self, training: bool) -> bool:
        return not self.guess


def fit(
    task: Any,
    data: InMemoryDataModule,
    steps: int = 10,
    precision: str = "64-true",
    callbacks: tuple[Callback, ...] = (),
    ckpt_path: str | None = None,
    seed: int = 1,
    **trainer: Any,
) -> Trainer:
    """Train `task` for `steps` as the command line does, without a run directory."""
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "val_check_interval": 1} | trainer
    given = any(isinstance(c, EvaluationSchedule) for c in callbacks)
    schedule = [] if given else [EvaluationSchedule(1.5, first=1)]
    made = Trainer(
        max_steps=steps,
        precision=precision,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        use_distributed_sampler=False,
        callbacks=[*schedule, *(callbacks or [ConvergenceDetector()])],
        **settings,
    )
    made.fit(task, data, ckpt_path=ckpt_path)
    return made


def weights(task: Any) -> torch.Tensor:
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in task.network.parameters()])


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest weight."""
    return float((a - b).abs().max() / b.abs().max())
