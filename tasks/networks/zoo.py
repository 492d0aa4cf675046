"""Ready-made networks of torchvision, timm and Hugging Face, from random weights."""

from collections.abc import Callable
from functools import partial
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


class TransformersNetwork(nn.Module):
    """Any network of Hugging Face's transformers by its class, from random weights: images or tokens -> logits.

    `options` goes to its configuration, as image_size or hidden_size. Its dropouts are 0: their masks would depend on
    how a batch is cut up. A causal network shifts nothing here: the data's targets are the next tokens already.

    Raises:
        ValueError: for a name or an option that transformers does not know, and for dropout.
    """

    def __init__(
        self, inputs: int, outputs: int | None = None, name: str = "", options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        try:
            import transformers  # 2 s
        except ImportError as error:
            raise ValueError("TransformersNetwork needs one more package: `pip install transformers`") from error
        kind = getattr(transformers, name, None)
        if kind is None or getattr(kind, "config_class", None) is None:
            raise ValueError(f"transformers has no network {name!r}: give a class such as ViTForImageClassification")
        data = {"vocab_size": inputs} if outputs is None else {"num_channels": inputs, "num_labels": outputs}
        dropouts = [key for key, value in vars(kind.config_class()).items() if "drop" in key and is_share(value)]
        if wrong := [key for key in dropouts if (options or {}).get(key)]:
            raise ValueError(f"{name}: {wrong[0]} would depend on how a batch is cut up: leave it out")
        try:
            self.network = kind(kind.config_class(**data | dict.fromkeys(dropouts, 0.0) | (options or {})))
        except (TypeError, ValueError) as error:
            raise ValueError(f"transformers refuses the network {name}: {error}") from error

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [B, classes] or [B, T, vocabulary]."""
        return self.network(inputs).logits


def is_share(value: object) -> bool:
    """Return whether a value may be a probability."""
    return isinstance(value, float | int) and not isinstance(value, bool)


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

    A function of torchvision or timm and a class of transformers take other arguments: their networks are made by name,
    with random weights.
    Raises ValueError where `make` is a network already, as jsonargparse gives for a function with a class_path.
    """
    if isinstance(make, nn.Module):
        raise ValueError(
            f"model.network: {type(make).__name__} was built before its channels and classes were known: write the "
            "function's name alone, as in `network: torchvision.models.resnet18`"
        )
    given = make.args if isinstance(make, partial) else ()  # jsonargparse's, of a class
    kind = next((arg for arg in given if isinstance(arg, type)), make)
    library = getattr(kind, "__module__", "").split(".")[:2]
    if library == ["torchvision", "models"]:
        return TorchvisionNetwork(dimensions[0], dimensions[1], name=kind.__name__)
    if library == ["timm", "models"]:
        return TimmNetwork(dimensions[0], dimensions[1], name=kind.__name__)
    if library[:1] == ["transformers"]:
        outputs = dimensions[1] if len(dimensions) > 1 else None
        return TransformersNetwork(dimensions[0], outputs, name=kind.__name__)
    return make(*dimensions)
