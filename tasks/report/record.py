"""record.json as the report understands it: every field checked before any of them is used (contract 3)."""

import math
from dataclasses import dataclass

RECORD_VERSION = 1
STATUSES = ("reached", "budget", "diverged", "failed", "running")
UNITS = ("steps", "examples", "epochs", "seconds")
NUMBER = (int, float)
LARGEST, LONGEST = 10**18, 2_000

# What every record must hold for its run to be placed on a curve, as dotted names, with the types allowed.
REQUIRED = {
    "status": str,
    "study": str,
    "run": str,
    "task": str,
    "seed": int,
    "data.name": str,
    "network": str,
    "optimizer.name": str,
    "lr.base": NUMBER,
    "lr.effective": NUMBER,
    "lr.scaling_rule": str,
    "batch.global": int,
    "targets": list,
    "final": dict,
}

# What a record may hold besides; of another type it is as useless as a missing one of those above.
OPTIONAL = {
    **dict.fromkeys(("data.hash", "lr.schedule", "batch.epoch_end", "precision", "started", "stopped_by"), str),
    **dict.fromkeys(("data.fraction", "data.label_noise", "data.elements_per_example", "budget.max_steps"), NUMBER),
    **dict.fromkeys(("lr.warmup", "batch.ghost", "batch.sampling"), (str, int, float)),
    **dict.fromkeys(("parameters", "lr.base_batch_size", "world_size", "data.train_examples"), int),
    **dict.fromkeys(("budget", "test", "cost", "plan", "regularization"), dict),
    **{"data.growth": list, "recipe": list, "plan.stage": str, "plan.hash": str, "test.test/accuracy": NUMBER},
}
POSITIVE = ("batch.global", "data.train_examples", "data.fraction", "data.elements_per_example", "world_size")
POSITIVE += ("parameters", "lr.base_batch_size", "budget.max_steps")


class UnusableError(ValueError):
    """A source that cannot be read as a run; its text is the reason given in the report."""


@dataclass(frozen=True, eq=False)
class Redraw:
    """A target that is an outcome, as other seeds of the batch size it comes from would have given it (rule 14)."""

    batch_size: int
    goals: tuple[float, ...]  # one a draw
    used: tuple[frozenset[int], ...]  # the seeds that each came from, which it does not score


@dataclass(frozen=True)
class Hit:
    """One target of one run: what was asked, how it ended, and the brackets by three hit rules, by unit."""

    metric: str
    direction: str
    value: float | None
    status: str
    brackets: dict[str, dict[str, tuple[float, float]]]  # rule -> unit -> (last below, first at or above)
    plateau: dict | None = None
    redraw: Redraw | None = None

    @property
    def label(self) -> str:
        """Name the target as people write it."""
        if self.value is None:
            return f"{self.metric} at its plateau" if self.plateau else self.metric
        return f"{self.metric} {'≥' if self.direction == 'max' else '≤'} {self.value:g}"


def numbers(value):
    """Turn the strings "nan", "inf" and "-inf" of a record back into numbers, and leave out nulls."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value


def look_up(record: dict, name: str):
    """Find a dotted name in nested dictionaries, None where it is absent."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def is_number(value) -> bool:
    """Tell numbers from truth values and everything else."""
    return isinstance(value, NUMBER) and not isinstance(value, bool)


def bracket(found) -> dict[str, tuple[float, float]]:
    """Check one bracket of a target. Raises UnusableError."""
    if not isinstance(found, dict | None):
        raise UnusableError(f"target bracket {found!r} is not one")
    brackets = {}
    for unit, pair in (found or {}).items():
        whole = isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair))
        if unit not in UNITS or not whole or not 0 <= pair[0] <= pair[1] < math.inf:
            raise UnusableError(f"target bracket {unit}: {pair!r} is not [low, high]")
        brackets[unit] = (float(pair[0]), float(pair[1]))
    return brackets


def end_of_target(own: str, run: str) -> str:
    """Say how a target ended: a failed run is never scored; one left undecided ends as its run did."""
    if run == "failed":
        return "failed"
    if own == "running" and run != "running":
        return "diverged" if run == "diverged" else "budget"
    return own


def read_hit(target, run_status: str) -> Hit:
    """Check one target of a record. Raises UnusableError."""
    if not isinstance(target, dict) or not isinstance(target.get("metric"), str):
        raise UnusableError("a target without a metric")
    name = target["metric"]
    if target.get("direction") not in ("min", "max"):
        raise UnusableError(f"target {name} has no direction 'min' or 'max'")
    status = target.get("status", run_status)
    if status not in STATUSES:
        raise UnusableError(f"target status {status!r} is not one of {', '.join(STATUSES)}")
    value, plateau = target.get("value"), target.get("plateau")
    if not (value is None or is_number(value)) or not isinstance(plateau, dict | None):
        raise UnusableError(f"target {name} has the value {value!r}")
    rules = {"median": "bracket", "first": "first", "consecutive": "consecutive"}
    brackets = {rule: bracket(target.get(field)) for rule, field in rules.items()}
    if status == "reached" and "steps" not in brackets["median"]:
        raise UnusableError(f"target {name} is 'reached' but has no bracket in steps")
    brackets = {rule: found for rule, found in brackets.items() if found}
    return Hit(name, target["direction"], value, end_of_target(status, run_status), brackets, plateau)


def check_fields(record: dict) -> None:
    """Check the types and ranges of a record's fields. Raises UnusableError."""
    for name, kind in (REQUIRED | OPTIONAL).items():
        value = look_up(record, name)
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UnusableError(f"{name} is {'missing' if value is None else repr(value)}")
    for name in POSITIVE:
        value = look_up(record, name)
        if value is not None and not 0 < value < math.inf:
            raise UnusableError(f"{name} is {value}, not positive")
    if record["status"] not in STATUSES:
        raise UnusableError(f"status {record['status']!r} is not one of {', '.join(STATUSES)}")
    if not all(math.isfinite(record["lr"][name]) for name in ("base", "effective")):
        raise UnusableError("a learning rate is not finite")
    wrong = [name for name, value in record["final"].items() if not is_number(value)]
    if wrong:
        raise UnusableError(f"final.{wrong[0]} is not a number")
    if not all(isinstance(name, str) for name in record.get("recipe", [])):
        raise UnusableError("recipe is not a list of names")


def check_sizes(value, name: str = "") -> None:
    """Check that no number or text of a record is larger than one that was ever measured. Raises UnusableError."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        check_sizes(item, f"{name}.{str(key)[:100]}".lstrip("."))
        check_sizes(key if isinstance(value, dict) else "", name)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UnusableError(f"{name} is a number of more than 18 digits")
    if isinstance(value, str) and (len(value) > LONGEST or (not value.isascii() and not encodes(value))):
        raise UnusableError(f"{name or 'a name'} is no text of at most {LONGEST:,} characters")


def encodes(text: str) -> bool:
    """Tell text from halves of characters, which JSON can hold and no file."""
    return text.encode(errors="replace").decode() == text


def check_record(record) -> tuple[dict, list[Hit]]:
    """Check a record; give it with its numbers mended, and its targets. Raises UnusableError."""
    if not isinstance(record, dict) or "version" not in record:
        raise UnusableError("not a run record (no version)")
    if record["version"] != RECORD_VERSION:
        raise UnusableError(f"record version {record['version']!r}, this report reads {RECORD_VERSION}")
    check_sizes(record)
    record = numbers(record)
    check_fields(record)
    return record, [read_hit(target, record["status"]) for target in record["targets"]]
