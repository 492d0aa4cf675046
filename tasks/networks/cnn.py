"""Small convolutional networks without batch normalization, for small images of any size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.networks.keyed import KeyedDropout


class SmallCNN(nn.Sequential):
    """A stride-2 convolution per entry of `channels`, then a linear head: [B, C, H, W] -> [B, classes].

    The head sees an adaptively averaged map of `grid` x `grid`, the identity for 28 x 28 images and 2 layers.
    `groups` > 0 puts GroupNorm after every convolution.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (16, 32),
        groups: int = 0,
        grid: int = 7,
    ) -> None:
        layers: list[nn.Module] = []
        for width in channels:
            layers.append(nn.Conv2d(in_channels, width, 3, stride=2, padding=1))
            if groups:
                layers.append(nn.GroupNorm(groups, width))
            layers.append(nn.ReLU())
            in_channels = width
        super().__init__(*layers, *_head(in_channels, num_classes, (), grid))


class SimpleCNN(nn.Sequential):
    """5x5 convolutions, each with a maximum pool, then fully connected layers: [B, C, H, W] -> [B, classes].

    With `dropout=0.4` the defaults are the MNIST network of You's repository (fastalgo/mnist_tpu):
    conv5x5-32, pool, conv5x5-64, pool, FC1024, dropout, FC10. The fully connected layers see an adaptively
    averaged map of `grid` x `grid`, the identity for 28 x 28 images and 2 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (1024,),
        dropout: float = 0.0,
        grid: int = 7,
    ) -> None:
        layers: list[nn.Module] = []
        for width in channels:
            layers += [nn.Conv2d(in_channels, width, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
            in_channels = width
        super().__init__(*layers, *_head(in_channels, num_classes, hidden, grid, dropout))


class LeNet(nn.Sequential):
    """LeNet-5 with rectifiers and maximum pools: [B, C, H, W] -> [B, classes].

    28 x 28 images are padded to 32; the fully connected layers see an adaptively averaged map of 5 x 5.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(
            *[nn.Conv2d(in_channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)],
            *_head(16, num_classes, (120, 84), 5),
        )


def _head(channels: int, num_classes: int, hidden: Sequence[int], grid: int, dropout: float = 0.0) -> list[nn.Module]:
    """Return the layers from a feature map of any size to the logits."""
    layers: list[nn.Module] = [_Grid(grid), nn.Flatten()]
    width = channels * grid * grid
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return [*layers, KeyedDropout(dropout), nn.Linear(width, num_classes)]


class _Grid(nn.AdaptiveAvgPool2d):
    """Average to `output_size` x `output_size`; a map of that size is returned as it is."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
            # Flattening gives the gradient another order of memory than the map has, in which the rectifier's
            # backward takes 20 times as long.
            x.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
        return x if x.shape[-2:] == (self.output_size, self.output_size) else super().forward(x)
