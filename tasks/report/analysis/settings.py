"""What a record says of how a run was trained, as the report groups by it."""

from typing import Any

from callbacks.record import Record

WORDS = {"rate.base_batch_size": "m0 =", "rate.base": "base rate", "rate.warmup": "warm-up"}
WORDS |= {"batch.ghost": "ghost batch"}
MOMENTA = ("momentum", "betas", "beta", "alpha")  # vary with the batch size where they are scaled with it


def optimizer_settings(record: Record) -> dict[str, Any]:
    """Return the optimizer's scalar settings, without what is scaled with the batch."""
    scaled = MOMENTA if {record.rate.momentum_scaling, record.rate.beta2_scaling} != {"none"} else ()
    settings = {k: v for k, v in record.optimizer.settings.items() if k not in scaled}
    return {k: str(v) if isinstance(v, list | tuple | dict) else v for k, v in settings.items()}


def constant_rate(record: Record) -> bool:
    """Return whether the rate is held after warm-up."""
    return record.rate.schedule.lower().startswith("constant")


def horizon(record: Record) -> int | None:
    """Return the steps over which a decaying rate was planned, None where the rate is held."""
    if constant_rate(record):
        return None
    return record.rate.horizon_steps or record.budget.max_steps


def setting(record: Record) -> tuple:
    """Return what a tuned curve may choose at each batch size: rate, warm-up, optimizer, length of a decay."""
    own = tuple(sorted((k, str(v)) for k, v in optimizer_settings(record).items()))
    return (record.rate.effective, record.rate.warmup, own, horizon(record))


def arm(record: Record) -> tuple:
    """Return what is the same all along a curve, whether tuned or not."""
    rate, batch, regularization = record.rate, record.batch, record.regularization
    return (
        ("optimizer.name", record.optimizer.name),
        ("rate.scaling_rule", rate.scaling_rule),
        ("rate.base_batch_size", rate.base_batch_size),
        ("rate.schedule", rate.schedule),
        ("rate.momentum_scaling", rate.momentum_scaling),
        ("rate.beta2_scaling", rate.beta2_scaling),
        ("batch.ghost", batch.ghost),
        ("batch.epoch_end", batch.epoch_end),
        ("batch.sampling", batch.sampling),
        ("precision", record.precision),
        ("callbacks", foreign_callbacks(record)),
        ("label_smoothing", regularization.label_smoothing),
        ("decay_norm_bias", regularization.decay_norm_bias),
        ("recipe", None if record.recipe is None else ", ".join(record.recipe) or "baseline"),
    )


def foreign_callbacks(record: Record) -> str:
    """Return the run's callbacks that are neither this suite's nor Lightning's, which may do anything to it."""
    given = record.settings.get("trainer", {}).get("callbacks") or []
    own = ("callbacks.", "pytorch_lightning.", "lightning.")
    foreign = [c for c in given if isinstance(c, dict) and not str(c.get("class_path")).startswith(own)]
    return ", ".join(sorted(f"{c.get('class_path')} {c.get('init_args') or ''}".strip() for c in foreign))


def fixed_settings(record: Record) -> tuple:
    """Return what else is the same along a curve that is not tuned."""
    own = tuple(sorted((f"optimizer.{k}", v) for k, v in optimizer_settings(record).items()))
    return (("rate.base", record.rate.base), ("rate.warmup", record.rate.warmup), *own)


def ingredients(record: Record) -> frozenset[str]:
    """Return what a run adds to plain SGD at one rate: as its `recipe` says, else as its other fields do."""
    if record.recipe is not None:
        return frozenset(record.recipe)
    rate, name = record.rate, record.optimizer.name
    found = {
        name: name != "SGD",
        f"{rate.scaling_rule} scaling": rate.scaling_rule != "none",
        "warm-up": rate.warmup_steps > 0,
        "decaying rate": not constant_rate(record),
        "label smoothing": bool(record.regularization.label_smoothing),
        "no decay of norms and biases": not record.regularization.decay_norm_bias,
        "ghost batch": record.batch.ghost not in (None, "global"),
    }
    return frozenset(word for word, there in found.items() if there)


def plan_says_untuned(records: list[Record]) -> bool | None:
    """Return what the plan says of the search that led to these runs; None where it says nothing."""
    told = [record.plan.tuned if record.plan else None for record in records]
    return None if None in told or not told else not all(told)
