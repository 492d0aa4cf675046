"""Dropout whose mask belongs to (seed, step, example), so that cutting a batch up does not change it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from tasks.protocols import Draw

_draw: Draw | None = None


@contextmanager
def keyed(draw: Draw | None) -> Iterator[None]:
    """Let every KeyedDropout that runs inside take its numbers from `draw`."""
    global _draw
    before, _draw = _draw, draw
    try:
        yield
    finally:
        _draw = before


class KeyedDropout(nn.Module):
    """Dropout; dimension 0 of the input must be the examples, in the batch's order.

    Args:
        p: the probability with which an element is dropped.
        channels: drop whole channels (dimension 1), as nn.Dropout2d does.
    """

    def __init__(self, p: float = 0.5, channels: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p}: give at least 0 and less than 1")
        self.p, self.channels = p, channels
        self.salt = 0  # set by number_dropouts: no two layers share a mask

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped and the others scaled up; in evaluation x itself.

        Raises:
            RuntimeError: in training outside `keyed`.
        """
        if not self.training or self.p == 0:
            return x
        if _draw is None:
            raise RuntimeError("KeyedDropout ran in training outside `keyed(draw)`")
        count = x.shape[1] if self.channels else x[0].numel()
        keep = (_draw(self.salt, count) >= self.p).to(x.dtype) / (1 - self.p)
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.channels else x.shape
        return x * keep.view(shape)

    def extra_repr(self) -> str:
        """Return what is printed of the layer."""
        return f"p={self.p}" + (", channels=True" if self.channels else "")


def number_dropouts(network: nn.Module) -> None:
    """Set the salt of each KeyedDropout of `network` to its number in the module tree, so that none share one."""
    for salt, module in enumerate(m for m in network.modules() if isinstance(m, KeyedDropout)):
        module.salt = salt
