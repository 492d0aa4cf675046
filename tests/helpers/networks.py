"""Small networks and optimizers that the tests of exact batches, ranks and resumption train."""

from functools import partial

import torch
from torch import nn

from tasks.image_classification import ImageClassification
from tasks.networks.cnn import LeNet, SimpleCNN, SmallCNN
from tasks.networks.language import LSTM, Transformer
from tasks.networks.segmentation import SegmentationNetwork
from tasks.optim.lamb import LAMB
from tasks.optim.lars import LARS
from tests.helpers.tiny import Tiny, fit

NETWORKS = {
    "small cnn": ("images", partial(SmallCNN, groups=2, channels=(4, 8))),
    "simple cnn, dropout": ("images", partial(SimpleCNN, channels=(4,), hidden=(8,), dropout=0.4, grid=2)),
    "lenet": ("images", LeNet),
    "unet": (
        "masks",
        partial(
            SegmentationNetwork,
            encoder_name="tu-test_resnet",
            norm="group",
            options={"encoder_depth": 3, "decoder_channels": [8, 8, 4]},
        ),
    ),
    "lstm, dropout": ("text", partial(LSTM, embedding=6, hidden=6, layers=2, dropout=0.3)),
    "transformer, dropout": ("text", partial(Transformer, width=8, layers=1, heads=2, dropout=0.2)),
}
OPTIMIZERS = {
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2),
    # Adam divides by sqrt(v) + eps: rounding of 1e-17 in a gradient that is truly 0 moves a weight by lr / eps times
    # as much, 8e-12 at the usual eps of 1e-8 (measured); an equality of 1e-12 can only be asked of a larger eps
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=1e-1, eps=1e-4),
    "lars": partial(LARS, lr=2.0, weight_decay=1e-2),
    "lamb": partial(LAMB, lr=1e-2, weight_decay=1e-1, eps=1e-4),
}


class Normed(nn.Sequential):
    """Two convolutions with batch normalization, one of them without an affine part."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6, affine=False),
            nn.Flatten(),
            nn.Linear(96, num_classes),
        )


def train_ghost(micro, ghost, batch_size=13, **trainer):
    """Return a task with ghost batch normalization after six steps."""
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    task = ImageClassification(network=Normed, optimizer=optimizer, micro_batch_size=micro, ghost_batch_size=ghost)
    fit(task, Tiny(batch_size=batch_size), steps=6, **trainer)
    return task
