"""What a record says of how a run was trained, as the report groups by it."""

import re

from tasks.report.record import look_up

WORDS = {"lr.base_batch_size": "m0 =", "lr.base": "base rate", "lr.warmup": "warm-up", "batch.ghost": "ghost batch"}
MOMENTA = ("momentum", "betas", "beta", "alpha")  # vary with the batch size where they are scaled with it
BEFORE = {
    **{"lr.momentum_scaling": "none", "lr.beta2_scaling": "none"},
    **{"regularization.label_smoothing": 0.0, "regularization.decay_norm_bias": True},
}


def optimizer_settings(record: dict) -> dict:
    """Give the optimizer's scalar settings, without its name, its rate and what is scaled with the batch."""
    rules = [record["lr"].get(name, "none") for name in ("momentum_scaling", "beta2_scaling")]
    scaled = MOMENTA if set(rules) != {"none"} else ()
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


def known(record: dict, name: str):
    """Look a field up; one that an older record lacks is as it was before there was a choice."""
    found = look_up(record, name)
    return BEFORE.get(name) if found is None else found


def arm(record: dict) -> tuple:
    """Give what is the same all along a curve, whether tuned or not."""
    names = ("optimizer.name", "lr.scaling_rule", "lr.base_batch_size", "lr.schedule", "lr.momentum_scaling")
    names += ("lr.beta2_scaling", "batch.ghost", "batch.epoch_end", "batch.sampling", "precision")
    names += ("regularization.label_smoothing", "regularization.decay_norm_bias")
    recipe = ", ".join(record["recipe"]) or "baseline" if "recipe" in record else None
    return (*((name, known(record, name)) for name in names), ("recipe", recipe))


def fixed_settings(record: dict) -> tuple:
    """Give what else is the same along a curve that is not tuned."""
    own = tuple(sorted((f"optimizer.{k}", v) for k, v in optimizer_settings(record).items()))
    return (("lr.base", record["lr"]["base"]), ("lr.warmup", look_up(record, "lr.warmup")), *own)


def ingredients(record: dict) -> frozenset[str]:
    """Name what a run adds to plain SGD at one rate: as its `recipe` says, else as its other fields do."""
    if "recipe" in record:
        return frozenset(record["recipe"])
    lr, name = record["lr"], record["optimizer"]["name"]
    found = {
        name: name != "SGD",
        f"{lr['scaling_rule']} scaling": lr["scaling_rule"] != "none",
        "warm-up": warmup_steps(record) > 0,
        "decaying rate": not constant_rate(record),
        "label smoothing": bool(look_up(record, "regularization.label_smoothing")),
        "no decay of norms and biases": look_up(record, "regularization.decay_norm_bias") is False,
        "ghost batch": look_up(record, "batch.ghost") not in (None, "global"),
    }
    return frozenset(word for word, there in found.items() if there)


def told_untuned(records: list[dict]) -> bool | None:
    """Give what the plan says of the search that led to these runs; None where it says nothing."""
    told = [look_up(record, "plan.tuned") for record in records]
    return None if None in told or not told else not all(told)
