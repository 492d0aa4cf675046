"""What would keep a study from answering, said before it is run."""

import math
from collections.abc import Mapping, Sequence

from callbacks.record import TOO_EARLY
from tasks.sweep.files import Cell
from tasks.sweep.ledger import State
from tasks.sweep.plan import Plain, Staged, is_batch_size

LARGEST_FITTED = 4  # sizes above the N-th part of the data, N this, are not fitted (docs/protocol.md, rule 3)
LEAST_SIZES = 5  # batch sizes that an answer needs (rule 18)
LEAST_STEPS = 20  # steps that the largest batch must need (rule 2)
LEAST_SEEDS = 5  # of runs that count (rule 13)
A_CURVE = 3  # batch sizes; with fewer a sweep compares sizes, and nobody expects a critical batch size of it


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
        found.append(f"{seeds} seed{'s' * (seeds != 1)} at a size: {LEAST_SEEDS} are needed to tell them apart")
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


def sizes_of(cells: Plain | Staged) -> list[int]:
    """Return the batch sizes of a sweep, none where they make no curve."""
    swept = [p.get("values", []) for name, p in cells.sweep.content["parameters"].items() if is_batch_size(name)]
    sizes = [size for size in (swept[0] if swept else []) if isinstance(size, int)]
    return sizes if len(sizes) >= A_CURVE and not (cells.plan and cells.plan.smoke) else []


def beforehand(cells: Plain | Staged) -> list[str]:
    """Return what would keep a sweep from a critical batch size, before it is run."""
    sizes, plan = sizes_of(cells), cells.plan
    if not sizes:
        return []
    swept = cells.sweep.content["parameters"].get("seed_everything", {})
    seeds = sum(map(len, plan.batches)) if plan and plan.confirm else len(swept.get("values", [0]))
    return doubts(sizes, None, bool(plan and plan.tune), seeds)


def afterwards(cells: Plain | Staged, states: Mapping[Cell, State]) -> list[str]:
    """Return what the runs of a sweep that have ended say against it."""
    steps: dict[int, float] = {}
    examples = None
    early = set()
    for cell, state in states.items():
        mine = f"{cell.sweep} ".startswith(f"{cells.sweep.name} ")
        if mine and state.record:
            size, examples = state.record.batch.size, state.record.data.train_examples
            if state.status == "reached":
                steps[size] = min(steps.get(size, math.inf), state.record.targets[0].at("steps"))
            if state.record.cut_short and state.record.stage != "tune":
                early.add(size)
    if not examples or not sizes_of(cells):
        return []
    cut = [f"batch {size}: runs were past their target at the end, {TOO_EARLY}" for size in sorted(early)]
    return doubts(sizes_of(cells), examples, steps=steps) + cut
