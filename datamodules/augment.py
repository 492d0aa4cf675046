"""Random augmentation of batches of images; each example's depends on its own random numbers alone."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.base import Draw

SALT = 1 << 20  # of the numbers drawn here; dropout layers count theirs from 0
IGNORED = 255  # the mask's value where there is no class


@dataclass(frozen=True)
class Augmentation:
    """Changes of training images of one class.

    Args:
        crop_padding: pixels of black border added before a crop of the picture's own size is cut out.
        flip: mirror left and right in half of the cases.
        cutout: side in pixels of a square blanked out around a random pixel (DeVries and Taylor 2017).
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.crop_padding < 0 or self.cutout < 0:
            raise ValueError(f"{self}: crop_padding and cutout are pixels, give 0 (none) or more")

    def move(self, images: Tensor, draw: Draw) -> Tensor:
        """Return bytes [n, C, H, W], cropped and flipped."""
        if not self.crop_padding and not self.flip:
            return images
        random, (height, width) = draw(SALT, 3), images.shape[-2:]
        padded = F.pad(images, [self.crop_padding] * 4)
        top, left = (to_index(random[:, i], 2 * self.crop_padding + 1) for i in (0, 1))
        return cut(padded, top, left, (random[:, 2] < 0.5) & self.flip, (height, width))

    def blank(self, images: Tensor, draw: Draw) -> Tensor:
        """Return standardized images [n, C, H, W], of mean 0, with a square blanked out."""
        if not self.cutout:
            return images
        random, (height, width) = draw(SALT + 1, 2), images.shape[-2:]
        return blank_square(images, to_index(random[:, 0], height), to_index(random[:, 1], width), self.cutout)


@dataclass(frozen=True)
class JointAugmentation:
    """Changes of training images together with their masks; what lies outside a picture is ignored (255).

    Args:
        crop: height and width of the piece trained on (null: the picture's own).
        flip: mirror left and right in half of the cases.
        scale: smallest and largest factor of enlargement, drawn evenly.
    """

    crop: tuple[int, int] | None = None
    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}: give the smallest factor, above 0, then the largest")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop is {self.crop}: give a height and a width of at least 1 pixel")

    def __call__(self, images: Tensor, masks: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return pieces of size `crop` of standardized images [n, C, H, W] and of their masks [n, H, W]."""
        random, (height, width) = draw(SALT + 2, 4), images.shape[-2:]
        size = self.crop or (height, width)
        low, high = self.scale
        scale = low + (high - low) * random[:, 0]
        rows = source_coords(size[0], height, scale, random[:, 1])
        columns = source_coords(size[1], width, scale, random[:, 2])
        columns = torch.where(((random[:, 3] < 0.5) & self.flip)[:, None], columns.flip(1), columns)
        return sample_bilinear(images, rows, columns), sample_nearest(masks, rows, columns)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Pieces of random size and shape, enlarged or shrunk to one size (Szegedy et al. 2015, "Inception").

    Args:
        area: smallest and largest share of the picture's area.
        ratio: largest width over height, and height over width.
        flip: mirror left and right in half of the cases.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: float = 4 / 3
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1 or self.ratio < 1:
            raise ValueError(f"{self}: give 0 < smallest area <= largest <= 1, and a ratio of at least 1")

    def __call__(self, images: Tensor, size: int, draw: Draw) -> Tensor:
        """Return pieces [n, C, size, size] of standardized square images [n, C, S, S]."""
        random, side = draw(SALT + 3, 5), images.shape[-1]
        area = self.area[0] + (self.area[1] - self.area[0]) * random[:, 0]
        stretch = self.ratio ** (random[:, 1] - 0.5)  # the square root of width over height
        height, width = ((area.sqrt() * s).clamp(max=1.0) * side for s in (1 / stretch, stretch))
        rows = source_coords(size, side, size / height, random[:, 2])
        columns = source_coords(size, side, size / width, random[:, 3])
        columns = torch.where(((random[:, 4] < 0.5) & self.flip)[:, None], columns.flip(1), columns)
        return sample_bilinear(images, rows, columns)


def to_index(random: Tensor, n: int) -> Tensor:
    """Return integers from 0 to n - 1 for uniform numbers in [0, 1)."""
    return (random * n).long().clamp(max=n - 1)


def cut(images: Tensor, top: Tensor, left: Tensor, flipped: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pieces [n, C, *size] of images [n, C, H, W] at (top, left) int64 [n], mirrored where `flipped` [n]."""
    rows = top[:, None] + torch.arange(size[0], device=images.device)
    columns = left[:, None] + torch.arange(size[1], device=images.device)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    example = torch.arange(len(images), device=images.device)[:, None, None]
    # channels last: indexing moves whole pixels
    pixels = images.permute(0, 2, 3, 1)[example, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2).contiguous()


def blank_square(images: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Return images with a square of `side` pixels around (row, column) int64 [n] set to 0, where it lies inside."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - (row - side // 2)[:, None]
    columns = torch.arange(width, device=images.device) - (column - side // 2)[:, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images.masked_fill(inside[:, None], 0.0)


def source_coords(size: int, length: int, scale: Tensor, random: Tensor) -> Tensor:
    """Return where each of `size` output pixels lies along `length` pixels enlarged by `scale` [n]: [n, size].

    The piece lies anywhere inside; where it is longer than the input, the input lies anywhere inside it.
    """
    start = random * (scale * length - size)
    centre = torch.arange(size, device=scale.device, dtype=scale.dtype) + 0.5
    return (start[:, None] + centre) / scale[:, None] - 0.5


def sample_bilinear(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images [n, C, H, W] at rows [n, h] x columns [n, w], bilinear between pixels, 0 outside."""
    height, width = images.shape[-2:]
    y = ((2 * rows + 1) / height - 1)[:, :, None].expand(-1, -1, columns.shape[1])
    x = ((2 * columns + 1) / width - 1)[:, None, :].expand(-1, rows.shape[1], -1)
    return F.grid_sample(images, torch.stack([x, y], -1), align_corners=False)


def sample_nearest(masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return masks [n, H, W] at the nearest pixels to rows [n, h] x columns [n, w], 255 outside."""
    height, width = masks.shape[-2:]
    row, column = (rows + 0.5).floor().long(), (columns + 0.5).floor().long()
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    example = torch.arange(len(masks), device=masks.device)[:, None, None]
    found = masks[example, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    return found.masked_fill(~inside, IGNORED)
