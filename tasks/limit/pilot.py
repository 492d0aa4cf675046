"""What is found out before a study is planned: the config, one run at its own batch and rate, and the speed."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from callbacks.convergence_detector import Target
from callbacks.hit import hits
from tasks import cli
from tasks.errors import UserError
from tasks.limit.known import read_columns
from tasks.sweep.forecast import fitted

SEED = 90
UNKNOWN_BUDGET = 5_000  # steps of a pilot whose config sets no budget
SHARES = (0.95, 0.9, 0.8, 0.7, 0.5)  # of the pilot's improvement, for a target that it proposes


@dataclass(frozen=True)
class Resolved:
    """A config as `fit` resolves it."""

    settings: dict[str, Any]
    runs: Path
    directory: Path

    @property
    def model(self) -> dict[str, Any]:
        """Return the task's arguments."""
        return self.settings["model"]["init_args"]

    @property
    def data(self) -> dict[str, Any]:
        """Return the data module's arguments."""
        return self.settings["data"]["init_args"]

    def given(self, name: str) -> object:
        """Return an option's value by its name on the command line."""
        part, field = name.split(".")
        return {**self.settings, "model": self.model, "data": self.data}[part].get(field)

    @property
    def own_name(self) -> str | None:
        """Return the name that the config gives its run, None where the run directory is named after batch and seed."""
        name, made = self.directory.name, f"b{self.batch_size}-s{self.settings['seed_everything']}-"
        return None if name.startswith(made) else name

    @property
    def batch_size(self) -> int:
        """Return the config's own batch size."""
        return self.data["batch_size"]

    @property
    def rate(self) -> float:
        """Return the config's own learning rate."""
        return self.model["optimizer"]["init_args"]["lr"]

    @property
    def targets(self) -> list[Target]:
        """Return the config's own targets."""
        return [Target.parse(target) for target in self.settings["convergence"]["targets"] or []]

    @property
    def budget(self) -> int:
        """Return the steps after which a run at the config's own batch gives up."""
        given = self.settings["convergence"]
        if given["budget_steps"] is None:
            return UNKNOWN_BUDGET
        return max(given["budget_steps"], math.ceil(given["budget_examples"] / self.batch_size))


def resolve(args: Sequence[str]) -> Resolved:
    """Return the config that these options of `fit` stand for. Raises UserError where they cannot be parsed."""
    given = cli.place(["fit", *args])
    found = Resolved(given.settings, Path(given.config.fit.trainer.default_root_dir), given.directory)
    if "lr" not in found.model["optimizer"].get("init_args", {}):
        raise UserError("model.optimizer: give its lr: the rate that the search begins with")
    return found


def pilot(args: Sequence[str], config: Resolved, target: Target | None, study: str) -> tuple[Target, float, str]:
    """Run the config at its own batch and rate; return the target, the steps to it, and what is to be said of it.

    Raises UserError where the target is not reached, or is met before the first step.
    """
    asked = [] if target is None else [{k: v for k, v in asdict(target).items() if v is not None}]
    plan = {"hash": "limit", "stage": "pilot"}
    flags = [f"--run.study={study}", f"--run.plan={json.dumps(plan)}", f"--convergence.targets={json.dumps(asked)}"]
    flags += [f"--convergence.budget_steps={config.budget}", "--convergence.budget_examples=1"]
    flags += [f"--seed_everything={SEED}", "--trainer.logger=false", "--progress.show=false"]
    args = [*args, *flags]
    record, curve = fitted(args), read_columns(resolve(args).directory / "curve.csv")
    if target is None:
        return proposed(curve)
    result = record.targets[0]
    if result.gap(curve[target.metric][0]) <= 0:
        raise UserError(
            f"{result.label} is met before the first step, at {curve[target.metric][0]:.4g}: give a target that "
            "training has to reach (>= is for what rises, <= for what falls)"
        )
    if result.status == "reached":
        return target, result.at("steps"), ""
    end = f"it came to {record.final.get(target.metric, math.nan):.4g} in {record.final['step']:,.0f} steps"
    if record.status == "diverged":
        end = f"it diverged at step {record.final['step']:,.0f}"
    raise UserError(
        f"a run at the config's own batch {config.batch_size} and rate {config.rate:g} does not reach {result.label} "
        f"({end}): ease the target, give another --model.optimizer.lr, or raise --convergence.budget_steps"
    )


def proposed(curve: dict[str, list[float]], metric: str = "val/loss") -> tuple[Target, float, str]:
    """Return the target that a run without one proposes, the steps to it, and how it was chosen.

    Raises UserError where the run did not learn.
    """
    steps, values = curve["step"], curve.get(metric, [])
    finite = [value for value in values if math.isfinite(value)]
    for share in SHARES if finite and min(finite) < finite[0] else ():
        value = float(f"{finite[0] - share * (finite[0] - min(finite)):.3g}")
        found = hits(steps, values, "min", value)
        if found is not None and found.isotonic is not None:
            why = f"{share:.0%} of what the config's own run improved in {steps[-1]:,.0f} steps"
            return Target(metric, "min", value), found.isotonic, f"no target was given: {metric}<={value:g}, {why}"
    raise UserError(f"the config's own run does not learn ({metric} does not fall): give another rate, or --target")
