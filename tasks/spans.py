"""Which positions of a batch a rank and a micro-batch get."""

from tasks.protocols import Span


def share(n: int, rank: int, ranks: int, unit: int = 1) -> Span:
    """Return the positions (start, stop) of n that belong to `rank`, cut at multiples of `unit`."""
    blocks = -(-n // unit)
    start, stop = (blocks * r // ranks * unit for r in (rank, rank + 1))
    return min(start, n), min(stop, n)


def cut(start: int, stop: int, size: int) -> list[Span]:
    """Return the positions from start to stop in pieces of at most `size`."""
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]
