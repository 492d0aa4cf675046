"""Random numbers that are a pure function of (seed, step, example): no state, the same on every split of a batch."""

import torch
from torch import Tensor

_GOLDEN = -1640531527  # 2^32 / golden ratio, as a signed 32-bit number


def mix(x: Tensor) -> Tensor:
    """Return the "lowbias32" integer hash (Wellons) of int32 numbers: bijective, with wrapping multiplications."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


def example_keys(seed: int, step: int, examples: Tensor) -> Tensor:
    """Return keys int32 [n] of example ids int64 [n] at one step of one seed."""
    words = torch.tensor([seed & 0x7FFFFFFF, step & 0x7FFFFFFF], dtype=torch.int32)
    salt = mix(mix(words[:1] + _GOLDEN) ^ words[1:])
    return mix(mix(examples.to(torch.int32) * _GOLDEN) ^ salt)


def uniform(keys: Tensor, salt: int, count: int) -> Tensor:
    """Return uniform float32 numbers in [0, 1), [n, count], for keys int32 [n]; `salt` separates uses."""
    counter = torch.arange(count, dtype=torch.int32, device=keys.device) * _GOLDEN
    bits = mix(keys[:, None] ^ mix(counter + (salt * 0x3C6EF372 & 0x7FFFFFFF))[None, :])
    return ((bits >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24
