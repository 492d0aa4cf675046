"""Synthetic scenes composed of real images: Fashion-MNIST items pasted onto photographed textures."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from datamodules import fashion_mnist
from datamodules.augment import JointAugmentation
from datamodules.base import Draw, Examples, InMemoryDataModule
from datamodules.embedded import read
from datamodules.images import standardize

TEXTURES = ("brick", "grass", "gravel")
ROWS = {"train": (0, 320), "val": (320, 416), "test": (416, 512)}  # no split sees another's texture
THRESHOLD = 20  # an item's pixels above it are the item, the rest shows the background
MEAN, STD = (0.458,), (0.147,)  # measured on the default training scenes


@dataclass(frozen=True)
class Recipe:
    """How a scene is composed: a square canvas of so many pixels, between so many items (both included)."""

    canvas: int = 64
    min_items: int = 2
    max_items: int = 5


def _integers(generator: torch.Generator, low: int, high: int, n: int) -> Tensor:
    """Return n integers in [low, high), int64 [n]."""
    return torch.randint(low, high, (n,), generator=generator)


def backgrounds(textures: Tensor, n: int, canvas: int, generator: torch.Generator) -> Tensor:
    """Return crops float [n, canvas, canvas] of textures [T, H, W], each at a contrast of 0.7 to 1 about its mean."""
    _, height, width = textures.shape
    which = _integers(generator, 0, len(textures), n)
    top = _integers(generator, 0, height - canvas + 1, n)
    left = _integers(generator, 0, width - canvas + 1, n)
    side = torch.arange(canvas)
    corner = which * height * width + top * width + left
    crops = textures.reshape(-1)[corner[:, None, None] + (side[:, None] * width + side)].float()
    contrast = 0.7 + 0.3 * torch.rand((n, 1, 1), generator=generator)
    mean = crops.mean((1, 2), keepdim=True)
    return mean + (crops - mean) * contrast


def compose(items: Examples, textures: Tensor, n: int, recipe: Recipe, seed: int) -> Examples:
    """Return n scenes uint8 [n, 1, S, S] and masks uint8 [n, S, S]: 0 is background, class + 1 an item's pixel.

    Each item is mirrored or not, made fainter by a factor of 0.4 to 1, and pasted over what lies there.
    """
    generator = torch.Generator().manual_seed(seed)
    canvas, height, width = recipe.canvas, *items.inputs.shape[-2:]
    scenes = backgrounds(textures, n, canvas, generator)
    masks = torch.zeros((n, canvas, canvas), dtype=torch.uint8)
    count = _integers(generator, recipe.min_items, recipe.max_items + 1, n)
    labels = (items.targets + 1).to(torch.uint8)
    for i in range(recipe.max_items):  # the i-th item of every scene at once
        which = _integers(generator, 0, len(items), n)
        top = _integers(generator, 0, canvas - height + 1, n)
        left = _integers(generator, 0, canvas - width + 1, n)
        mirrored = torch.rand((n, 1, 1), generator=generator) < 0.5
        contrast = 0.4 + 0.6 * torch.rand(n, generator=generator)
        pixels = items.inputs[which, 0]
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        pasted = (pixels > THRESHOLD) & (i < count)[:, None, None]
        scene, row, column = pasted.nonzero(as_tuple=True)
        places = (scene * canvas + top[scene] + row) * canvas + left[scene] + column
        scenes.view(-1)[places] = pixels[scene, row, column] * contrast[scene]  # overwriting, as in the mask
        masks.view(-1)[places] = labels[which[scene]]
    elements = torch.full((n,), canvas * canvas)
    return Examples(scenes.round().clamp(0, 255).to(torch.uint8).unsqueeze(1), masks, elements)


@lru_cache(maxsize=2)
def composed(recipe: Recipe, **sizes: int) -> dict[str, Examples]:
    """Return so many scenes of each split, composed once in a process, of which a sweep's makes many runs."""
    items = fashion_mnist.embedded()
    found = read.arrays(read.TEXTURES, dict.fromkeys(TEXTURES, (512, 512)))
    textures = torch.stack([torch.from_numpy(found[name]) for name in TEXTURES])
    return {  # the scenes are the same for every run: seeds 0, 1 and 2
        split: compose(items[split], textures[:, slice(*ROWS[split])], n, recipe, seed)
        for seed, (split, n) in enumerate(sizes.items())
    }


class ComposedScenes(InMemoryDataModule):
    """Segmentation of composed scenes, each split's made of its own items and its own strip of the textures.

    Three quarters of the pixels are background, so judge by mean IoU, not by pixel accuracy.

    Args:
        train: training scenes.
        val: validation scenes.
        test: test scenes.
        canvas: side of a scene in pixels, 28 to 96; many networks want a multiple of 32.
        min_items: fewest items in a scene.
        max_items: most items in a scene.
        augmentation: of the training scenes (null: none).
    """

    dimensions = (1, fashion_mnist.CLASSES + 1)

    def __init__(
        self,
        train: int = 2_000,
        val: int = 200,
        test: int = 200,
        canvas: int = 64,
        min_items: int = 2,
        max_items: int = 5,
        augmentation: JointAugmentation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if min(train, val, test) < 1:
            raise ValueError(f"data.train, val and test are {train}, {val} and {test}: give at least 1 scene each")
        if not 28 <= canvas <= 96:
            raise ValueError(f"data.canvas is {canvas}: give 28 (an item) to 96 (a strip of texture) pixels")
        if not 0 <= min_items <= max_items:
            raise ValueError(f"data.min_items {min_items} and max_items {max_items}: give 0 <= min_items <= max_items")
        self.sizes = {"train": train, "val": val, "test": test}
        self.augmentation = augmentation
        self.recipe = Recipe(canvas, min_items, max_items)

    def load(self) -> dict[str, Examples]:
        """Return the splits by name."""
        return dict(composed(self.recipe, **self.sizes))

    def exact(self, training: bool) -> bool:
        """Return whether a batch's valid pixels are known before its masks are read and augmented."""
        return not training or self.augmentation is None  # which may move ignored pixels in

    def prepare(self, inputs: Tensor, targets: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor]:
        """Return standardized images, augmented in training, and their targets."""
        images = standardize(inputs, MEAN, STD)
        if draw is None or self.augmentation is None:
            return images, targets
        return self.augmentation(images, targets, draw)
