"""Ready-made classifiers of torchvision and timm: images [B, C, H, W] -> logits [B, classes]."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tasks.networks.norm import Norm, with_keyed_dropout, with_norm


class TorchvisionNetwork(nn.Module):
    """Any classification network of torchvision by its name, from random weights unless `weights` names some.

    `options` goes to torchvision's builder as it is. With other than 3 channels the first convolution is replaced.

    Raises:
        ValueError: for a name or an option that torchvision does not know, and for auxiliary outputs.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str = "resnet18",
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        from torchvision.models import get_model

        try:
            network = get_model(name, num_classes=num_classes, **(options or {}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"torchvision refuses the network {name}: {error}") from error
        if getattr(network, "aux_logits", False):
            raise ValueError(f"{name} has auxiliary outputs; add options: {{aux_logits: false}}.")
        set_input_channels(network, in_channels)
        self.network = with_keyed_dropout(with_norm(network, norm, groups, zero_init_residual))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.network(images)


class TimmNetwork(nn.Module):
    """Any network of timm by its name, from random weights unless `options` holds `pretrained: true`.

    `options` goes to timm as it is; timm's ResNets zero their last gammas by themselves unless it holds
    `zero_init_last: false`.

    Raises:
        ValueError: for a name or an option that timm does not know.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str = "resnet18",
        norm: Norm = "batch",
        groups: int = 8,
        zero_init_residual: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        import timm  # 1.5 s

        try:
            network = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **(options or {}))
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"timm refuses the network {name}: {error}") from error
        self.network = with_keyed_dropout(with_norm(network, norm, groups, zero_init_residual))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        return self.network(images)


def set_input_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one with `channels` input channels, unless it has them."""
    name, first = next((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    parent, _, child = name.rpartition(".")
    height, width = first.kernel_size
    new = nn.Conv2d(channels, first.out_channels, (height, width), bias=first.bias is not None)
    new.stride, new.padding = first.stride, first.padding
    setattr(network.get_submodule(parent), child, new)


def network_of(make: Callable[..., nn.Module], dimensions: tuple[int, ...]) -> nn.Module:
    """Return the network that `make` gives, called with the dimensions.

    A function of torchvision or timm takes other arguments: its network is made by its name, with random weights.
    Raises ValueError where `make` is a network already, as jsonargparse gives for a function with a class_path.
    """
    if isinstance(make, nn.Module):
        raise ValueError(
            f"model.network: {type(make).__name__} was built before its channels and classes were known: write the "
            "function's name alone, as in `network: torchvision.models.resnet18`"
        )
    library = getattr(make, "__module__", "").split(".")[:2]
    if library == ["torchvision", "models"]:
        return TorchvisionNetwork(dimensions[0], dimensions[1], name=make.__name__)
    if library == ["timm", "models"]:
        return TimmNetwork(dimensions[0], dimensions[1], name=make.__name__)
    return make(*dimensions)
