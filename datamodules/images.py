"""What image data sets share on the device."""

import torch
from torch import Tensor


def standardize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Bytes [n, C, H, W] to floats of mean 0 and deviation 1, given each channel's in [0, 1]."""
    scale = images.new_tensor([255 * s for s in std], dtype=torch.float32).view(-1, 1, 1)
    shift = images.new_tensor([255 * m for m in mean], dtype=torch.float32).view(-1, 1, 1)
    return (images.float() - shift) / scale
