"""Segmentation networks: images [B, C, H, W] -> logits [B, classes, H, W]."""

import inspect
from typing import Any

from torch import Tensor, nn

from tasks.networks.drn import register_drn_encoder
from tasks.networks.norm import Norm, with_keyed_dropout, with_norm


class SegmentationNetwork(nn.Module):
    """Any network of segmentation-models-pytorch, from random weights unless `encoder_weights` names some.

    `options` goes to the architecture as it is (encoder_depth, decoder_channels, ...). smp's own encoders keep the
    stages beyond `encoder_depth`, unused; timm's ("tu-...") are cut off.

    Raises:
        ValueError: for a name or an option that smp does not know.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        arch: str = "Unet",
        encoder_name: str = "resnet18",
        encoder_weights: str | None = None,
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = f"{arch}-{encoder_name}"
        network = _build(arch, encoder_name, encoder_weights, in_channels, num_classes, options or {})
        self.network = with_keyed_dropout(with_norm(network, norm, groups, zero_init_residual))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes, H, W]."""
        return self.network(images)


def _build(
    arch: str, encoder: str, weights: str | None, channels: int, classes: int, options: dict[str, Any]
) -> nn.Module:
    import segmentation_models_pytorch as smp  # 1.1 s

    register_drn_encoder()
    refusal = f"segmentation-models-pytorch refuses {arch} with {encoder}"
    known = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING.get(arch.lower(), object)).parameters
    for option in options:  # smp drops an option that it does not know, unless timm's encoder sees it
        if option not in known and not encoder.startswith("tu-"):
            raise ValueError(f"{refusal}: it has no option {option}.")
    try:
        return smp.create_model(arch, encoder, weights, channels, classes, **options)
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{refusal}: {error}") from error
