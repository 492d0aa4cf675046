"""The papers' classifiers in their form for CIFAR's 32 x 32 images: [B, C, H, W] -> logits [B, classes]."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from tasks.networks.norm import Norm, with_keyed_dropout, with_norm
from tasks.networks.zoo import set_input_channels


class CifarResNet(nn.Module):
    """A residual network that begins with a 3x3 convolution at full resolution (He et al. 2016).

    `blocks` per stage, each stage at half the resolution and twice the width: (1, 1, 1) of width 16 is
    ResNet-8, (2, 2, 2, 2) of width 64 the usual ResNet-18, (3, 4, 6, 3) ResNet-34; shortcuts that change the
    width are 1x1 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.name = f"CifarResNet-{2 * sum(blocks) + 2}"
        layers = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                layers.append(residual_block(channels, width << stage, 2 if stage and not block else 1))
                channels = width << stage
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)
        init_convolutions(self)
        with_norm(self, norm, groups, zero_init_residual)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.head(self.features(images).mean((-2, -1)))


class CifarVGG(nn.Module):
    """VGG's convolutions (configurations A and D) with normalization, and one linear layer."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depth: Literal[11, 16] = 11,
        norm: Norm = "batch",
        groups: int = 8,
    ) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers  # 1 s

        self.name = f"CifarVGG-{depth}"
        self.features = make_layers(cfgs[{11: "A", 16: "D"}[depth]], batch_norm=True)
        _keep_last_pixels(self.features)
        set_input_channels(self.features, in_channels)
        self.head = nn.Linear(512, num_classes)
        init_convolutions(self)
        with_norm(self, norm, groups)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.head(self.features(images).mean((-2, -1)))


class CifarAlexNet(nn.Module):
    """AlexNet's five convolutions and one linear layer, in the form of bearpaw/pytorch-classification."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *[nn.Conv2d(in_channels, 64, 11, stride=4, padding=5), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
            *[nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
            *[nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        )
        _keep_last_pixels(self.features)
        self.head = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.head(self.features(images).mean((-2, -1)))


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 with stride 1 in its first convolution and second stage, so that 32 pixels become 4."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float = 0.0,
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v2  # 1 s

        # expansion, width, blocks, stride: Sandler et al. 2018, table 2, but for the second row's stride
        stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2]]
        network = mobilenet_v2(
            num_classes=num_classes, inverted_residual_setting=[*stages, [6, 320, 1, 1]], dropout=dropout
        )
        set_input_channels(network, in_channels)
        network.features[0][0].stride = (1, 1)
        self.network = with_keyed_dropout(with_norm(network, norm, groups, zero_init_residual))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.network(images)


def residual_block(channels: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""
    from torchvision.models.resnet import BasicBlock  # 1 s

    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    block = BasicBlock(channels, width, stride, shortcut)
    for convolution in (block.conv1, block.conv2):  # torchvision refuses to build a dilated basic block
        convolution.dilation = convolution.padding = (dilation, dilation)
    return block


def init_convolutions(network: nn.Module) -> None:
    """Draw every convolution's weights as He et al. 2015, by the number of its outputs."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _keep_last_pixels(features: nn.Sequential) -> None:
    """Let pools round up, which changes nothing at 32 pixels and keeps smaller images from vanishing."""
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
