"""What the report adds to a run's record: how finely a source counts, and targets that are an outcome."""

from dataclasses import dataclass

from callbacks.record import Record, TargetResult, Unusable


class UnusableError(ValueError):
    """A source that cannot be read as a run; its text is the reason given in the report."""


@dataclass(frozen=True, eq=False)
class Redraw:
    """A target that is an outcome, as other seeds of the batch size it comes from would have given it (rule 14)."""

    batch_size: int
    goals: tuple[float, ...]  # one a draw
    used: tuple[frozenset[int], ...]  # the seeds that each came from, which it does not score


@dataclass(frozen=True)
class Hit(TargetResult):
    """A target's result; `resolution` is the ratio of the two values that its source could just tell apart."""

    redraw: Redraw | None = None
    resolution: float = 1.0


def usable(found: Record | Unusable) -> Record:
    """Return the record. Raises UnusableError where there is none."""
    if isinstance(found, Unusable):
        raise UnusableError(found.reason)
    return found


def hits_of(record: Record) -> list[Hit]:
    """Return the record's targets; those of a failed run are failed, whatever they say: it is never scored."""
    status = {"status": "failed"} if record.status == "failed" else {}
    return [Hit(**vars(target) | status) for target in record.targets]
