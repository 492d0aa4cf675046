"""DRN-D-22, the dilated residual network of Yu, Koltun, Funkhouser 2017 (arXiv 1705.09914)."""

from torch import Tensor, nn
from torch.nn import functional as F

from tasks.networks.cifar import init_convolutions, residual_block
from tasks.networks.norm import Norm, with_norm

CHANNELS = (16, 16, 32, 64, 128, 256, 512, 512, 512)  # of the nine levels' outputs


class DRND22(nn.Module):
    """The network for segmentation: [B, C, H, W] -> logits [B, classes, H, W].

    A 1x1 convolution classifies the features at 1/8 of the resolution, and its output is interpolated.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.features = drn_d_22_levels(in_channels)
        self.head = nn.Conv2d(CHANNELS[-1], num_classes, 1)
        init_convolutions(self)
        with_norm(self, norm, groups, zero_init_residual)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes, H, W]."""
        coarse = self.head(self.features(images))
        return F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)


def drn_d_22_levels(in_channels: int) -> nn.Sequential:
    """Return the nine levels: three of plain convolutions, four of two residual blocks, two of plain convolutions.

    Levels 2, 3 and 4 halve the resolution; from there on dilation widens the view, and the last two levels,
    without shortcuts and of falling dilation, take away its gridding.
    """
    return nn.Sequential(
        _plain(in_channels, 16, kernel=7),
        _plain(16, 16),
        _plain(16, 32, stride=2),
        _residual(32, 64, stride=2),
        _residual(64, 128, stride=2),
        _residual(128, 256, dilation=2),
        _residual(256, 512, dilation=4),
        _plain(512, 512, dilation=2),
        _plain(512, 512),
    )


def _plain(channels: int, width: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _residual(channels: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = residual_block(channels, width, stride, dilation)
    return nn.Sequential(first, residual_block(width, width, dilation=dilation))


def register_drn_encoder() -> None:
    """Let segmentation-models-pytorch build its architectures on the encoder `drn_d_22`.

    Those that ask for a resolution below 1/8 (FPN, Linknet, MAnet, UnetPlusPlus) cannot use it.
    """
    from segmentation_models_pytorch import encoders
    from segmentation_models_pytorch.encoders._base import EncoderMixin

    class DRNEncoder(nn.Module, EncoderMixin):  # type: ignore[misc]  # smp has no types
        """Stages at 1/2, 1/4 and, three times, 1/8; with depth 3 the third holds all dilated levels."""

        def __init__(self, depth: int, output_stride: int) -> None:
            super().__init__()
            if depth not in (3, 5) or output_stride not in (8, 32):
                raise ValueError("drn_d_22 has encoder_depth 3 or 5, and its output stride is 8.")
            ends = {3: [3, 4, 9], 5: [3, 4, 5, 7, 9]}[depth]
            self._depth, self._in_channels, self._output_stride = depth, 3, 8
            self._out_channels = [3, *(CHANNELS[end - 1] for end in ends)]
            levels = drn_d_22_levels(3)
            self.stages = nn.ModuleList(levels[a:b] for a, b in zip([0, *ends], ends, strict=False))
            init_convolutions(self)

        def make_dilated(self, output_stride: int) -> None:
            """Nothing to do: the network is dilated by itself."""

        def forward(self, images: Tensor) -> list[Tensor]:
            features = [images]
            for stage in self.stages:
                features.append(stage(features[-1]))
            return features

    encoders.encoders.setdefault("drn_d_22", {"encoder": DRNEncoder, "pretrained_settings": {}, "params": {}})
