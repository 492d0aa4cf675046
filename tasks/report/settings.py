"""What a record says of how a run was trained, as the report groups by it."""

import re

from tasks.report.record import look_up

WORDS = {"lr.base_batch_size": "m0 =", "lr.base": "base rate", "lr.warmup": "warm-up", "batch.ghost": "ghost batch"}
MOMENTA = ("momentum", "betas", "beta", "alpha")  # vary with the batch size where they are scaled with it


def optimizer_settings(record: dict) -> dict:
    """Give the optimizer's scalar settings, without its name, its rate and what is scaled with the batch."""
    scaled = MOMENTA if record["lr"].get("momentum_scaling", "none") != "none" else ()
    settings = {k: v for k, v in record["optimizer"].items() if k not in ("name", "lr", *scaled)}
    return {k: str(v) if isinstance(v, list | dict) else v for k, v in settings.items()}


def constant_rate(record: dict) -> bool:
    """Say whether the rate is held after warm-up."""
    return str(record["lr"].get("schedule", "constant")).lower().startswith("constant")


def horizon(record: dict) -> int | None:
    """Give the steps over which a decaying rate was planned, None where the rate is held."""
    if constant_rate(record):
        return None
    return look_up(record, "lr.horizon_steps") or look_up(record, "budget.max_steps")


def warmup_steps(record: dict) -> float:
    """Give the number of warm-up steps: as recorded, or as its words say, 0 where they do not."""
    steps = look_up(record, "lr.warmup_steps")
    if isinstance(steps, int | float):
        return steps
    found = re.search(r"(\d+)\s*steps?", str(record["lr"].get("warmup")))
    return float(found.group(1)) if found else 0.0


def setting(record: dict) -> tuple:
    """Give what a tuned curve may choose at each batch size: rate, warm-up, optimizer, length of a decay."""
    own = tuple(sorted((k, str(v)) for k, v in optimizer_settings(record).items()))
    return (record["lr"]["effective"], str(record["lr"].get("warmup")), own, horizon(record))


def arm(record: dict) -> tuple:
    """Give what is the same all along a curve, whether tuned or not."""
    names = ("optimizer.name", "lr.scaling_rule", "lr.base_batch_size", "lr.schedule", "lr.momentum_scaling")
    names += ("batch.ghost", "batch.epoch_end", "batch.sampling", "precision")
    recipe = ", ".join(record["recipe"]) or "baseline" if "recipe" in record else None
    return (*((name, look_up(record, name)) for name in names), ("recipe", recipe))


def fixed_settings(record: dict) -> tuple:
    """Give what else is the same along a curve that is not tuned."""
    own = tuple(sorted((f"optimizer.{k}", v) for k, v in optimizer_settings(record).items()))
    return (("lr.base", record["lr"]["base"]), ("lr.warmup", look_up(record, "lr.warmup")), *own)


def told_untuned(records: list[dict]) -> bool | None:
    """Give what the plan says of the search that led to these runs; None where it says nothing."""
    told = [look_up(record, "plan.tuned") for record in records]
    return None if None in told or not told else not all(told)
