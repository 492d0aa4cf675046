"""What would keep a study from answering, said before it is run."""

import math
from collections.abc import Mapping, Sequence

LARGEST_FITTED = 4  # sizes above the N-th part of the data, N this, are not fitted (docs/protocol.md, rule 3)
LEAST_SIZES = 5  # batch sizes that an answer needs (rule 18)
LEAST_STEPS = 20  # steps that the largest batch must need (rule 2)
LEAST_SEEDS = 5  # of runs that count (rule 13)


def doubts(
    sizes: Sequence[int],
    examples: int | None = None,
    tuned: bool = True,
    seeds: int = LEAST_SEEDS,
    steps: Mapping[int, float] | None = None,
) -> list[str]:
    """Return a sentence for each reason why these batch sizes will not give a critical batch size.

    Args:
        sizes: the batch sizes of one curve.
        examples: of the training set, where it is known.
        tuned: whether the rate is chosen anew at each size.
        seeds: the most runs that count at a size.
        steps: what a run was seen to need, by batch size, infinite where it did not arrive.
    """
    found = []
    fitted = [size for size in sizes if examples is None or size <= examples / LARGEST_FITTED]
    if len(fitted) < len(sizes):
        found.append(
            f"sizes above a quarter of the {examples:,} training examples are not fitted: {len(fitted)} remain"
            + (f", {LEAST_SIZES} are needed" if len(fitted) < LEAST_SIZES else "")
        )
    elif len(fitted) < LEAST_SIZES:
        found.append(f"{len(fitted)} batch sizes: {LEAST_SIZES} are needed")
    if not tuned:
        found.append(
            "the rate is not tuned at each batch size: this gives the saturation batch of a rule, not a critical one"
        )
    if seeds < LEAST_SEEDS:
        found.append(f"{seeds} seeds at a size: {LEAST_SEEDS} are needed to tell them apart")
    return found + doubts_after(fitted, steps or {})


def doubts_after(sizes: Sequence[int], steps: Mapping[int, float]) -> list[str]:
    """Return what the steps seen so far say against these batch sizes."""
    arrived = {size: count for size, count in steps.items() if math.isfinite(count)}
    missed = sorted(set(steps) - set(arrived))
    found = [f"no run arrived at batch {', '.join(map(str, missed))}: ease the target or raise the budget"] * bool(
        missed
    )
    if not arrived or not sizes:
        return found
    top, largest = max(sizes), max(arrived)
    if arrived[largest] < LEAST_STEPS and largest in sizes:
        found.append(
            f"too short: {arrived[largest]:.0f} steps at batch {largest}, {LEAST_STEPS} are needed: "
            "choose a harder target"
        )
    if largest == top and len(arrived) > 1 and arrived[top] * top < 2 * min(s * size for size, s in arrived.items()):
        found.append(f"batch {top} needs less than twice the fewest examples: the answer lies beyond, add larger sizes")
    return found
