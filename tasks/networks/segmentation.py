"""Segmentation networks: images [B, C, H, W] -> logits [B, classes, H, W]."""

from typing import Any

from torch import Tensor, nn

from tasks.networks.norm import Norm, with_keyed_dropout, with_norm


class SegmentationNetwork(nn.Module):
    """Any network of segmentation-models-pytorch, from random weights unless `encoder_weights` names some.

    `options` goes to the architecture as it is (encoder_depth, decoder_channels, ...). Encoders of smp's own
    keep the stages beyond `encoder_depth`, unused; those of timm ("tu-...") are cut off.
    Raises ValueError for a name or an option that smp does not know.
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
    ):
        super().__init__()
        self.name = f"{arch}-{encoder_name}"
        import segmentation_models_pytorch as smp  # 1.1 s

        try:
            network = smp.create_model(
                arch, encoder_name, encoder_weights, in_channels, num_classes, **(options or {})
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"segmentation-models-pytorch refuses {arch} with {encoder_name}: {error}"
            ) from error
        self.network = with_keyed_dropout(with_norm(network, norm, groups, zero_init_residual))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)
