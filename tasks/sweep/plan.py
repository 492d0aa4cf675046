"""The plan beside a sweep (`NAME.plan.yaml`): pilot, tuning and confirmation (protocol rules 6 and 11-15)."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.sweep.files import Cell, Sweep, read_yaml
from tasks.sweep.ledger import State
from tasks.sweep.tuning import Score, Search, equal_trials

ENDING = ".plan.yaml"
SEED = "seed_everything"
FIELDS = {"learning_rate", "target", "pilot", "tune", "confirm", "cap", "margins", "random_seed"}
PARTS = {
    "pilot": {"seeds", "batch_sizes"},
    "tune": {"seeds", "tolerance", "extensions", "refinements", "halving"},
    "confirm": {"seeds"},
    "cap": {"steps", "examples"},
}
NEVER = Score(math.inf, math.inf)


@dataclass(frozen=True)
class Plan:
    """What W&B's format cannot say of a sweep.

    Args:
        learning_rate: the swept parameter that is tuned, the sweep's values being the coarse grid; null where the
            rates follow a rule.
        target: the index of the target whose steps are compared.
        pilot: seeds, and optionally batch_sizes: runs that set the budgets of all others; a size at which none
            arrives sets none.
        tune: seeds, tolerance, extensions, refinements, halving.
        confirm: seeds of the runs that count, none of them used before; they replace the sweep's.
        cap: steps and examples that no budget exceeds (a declared hard cap).
        margins: what verdicts will be judged by; only hashed.
        random_seed: of the draws of method: random.
    """

    learning_rate: str | None = None
    target: int = 0
    pilot: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, Any] = field(default_factory=dict)
    confirm: dict[str, Any] = field(default_factory=dict)
    cap: dict[str, int] = field(default_factory=dict)
    margins: dict[str, Any] = field(default_factory=dict)
    random_seed: int = 0
    hash: str = ""

    @property
    def staged(self) -> bool:
        """Whether later runs follow from earlier ones."""
        return bool(self.pilot or self.tune or self.confirm)


def read_plan(sweep: Sweep) -> Plan | None:
    """The plan beside a sweep file, None where there is none; ValueError names what is wrong with it."""
    path = sweep.path.with_name(sweep.name + ENDING)
    if not path.exists():
        return None
    content = read_yaml(path)
    try:
        if not isinstance(content, dict):
            raise ValueError(f"a plan has the fields {', '.join(sorted(FIELDS))}")
        if unknown := set(content) - FIELDS:
            raise ValueError(f"{', '.join(map(str, unknown))}: a plan has the fields {', '.join(sorted(FIELDS))}")
        plan = Plan(**content, hash=digest(sweep, content))
        check(plan, sweep)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{path}: a field is of another kind than a plan's ({error})") from error
    return plan


def digest(sweep: Sweep, content: dict[str, Any]) -> str:
    """The hash of all that is fixed before the first run: the plan, the sweep and its configs (with the targets)."""
    configs = [read_yaml(Path(path)) for path in sweep.configs()]
    text = json.dumps([content, sweep.content, configs], sort_keys=True)
    return word(hashlib.sha256(text.encode()).hexdigest()[:16])


def word(hexadecimal: str) -> str:
    """A hash that no reader of YAML takes for a number, as 994765002e393306 would be infinite: one plan in 800."""
    return hexadecimal if set(hexadecimal) & set("abcdf") else "x" + hexadecimal[1:]


def check(plan: Plan, sweep: Sweep) -> None:
    """Raise ValueError, beginning with the field's name, where the plan does not fit its sweep."""
    for stage, fields in PARTS.items():
        part = getattr(plan, stage)
        if not isinstance(part, dict) or not set(part) <= fields:
            raise ValueError(f"{stage}: has the fields {', '.join(sorted(fields))}")
        if not isinstance(part.get("seeds", []), list):
            raise ValueError(f"{stage}.seeds: is a list")
    seeds = [seed for stage in (plan.pilot, plan.tune, plan.confirm) for seed in stage.get("seeds", [])]
    if len(set(seeds)) < len(seeds):
        raise ValueError("confirm.seeds: pilot, tuning and confirmation have no seed in common")
    if plan.pilot and not plan.pilot.get("seeds"):
        raise ValueError("pilot.seeds: are missing")
    swept = sweep.content["parameters"].items()
    sizes = [size for name, p in swept if name.endswith("batch_size") for size in p.get("values", [p.get("value")])]
    if not set(plan.pilot.get("batch_sizes", [])) <= set(sizes):
        raise ValueError(f"pilot.batch_sizes: are among the sweep's, {', '.join(map(str, sizes))}")
    if plan.staged and sweep.content["method"] != "grid":
        raise ValueError("method: a sweep with stages is a grid")
    if plan.learning_rate is not None:
        check_tuning(plan, sweep.content["parameters"].get(plan.learning_rate, {}).get("values", []))
    elif plan.tune:
        raise ValueError("learning_rate: name the swept parameter that is tuned")
    elif plan.pilot and not plan.confirm:
        raise ValueError("confirm.seeds: are missing")


def check_tuning(plan: Plan, rates: list[Any]) -> None:
    """Raise ValueError where the learning rates or seeds do not make a search."""
    if len(rates) < 3 or not all(isinstance(rate, float | int) and rate > 0 for rate in rates):
        raise ValueError(f"learning_rate: the sweep needs at least 3 positive values of {plan.learning_rate}")
    ratios = [high / low for low, high in itertools.pairwise(rates)]
    if min(ratios) <= 1.0 or max(ratios) > 2.05:
        raise ValueError("learning_rate: the coarse grid rises by factors of 2 or less (protocol rule 12)")
    for stage in ("tune", "confirm"):
        if not getattr(plan, stage).get("seeds"):
            raise ValueError(f"{stage}.seeds: are missing")


def source(sweep: Sweep) -> "Plain | Staged":
    """Where a sweep's cells come from. Raises ValueError."""
    plan = read_plan(sweep)
    try:
        return Staged(sweep, plan) if plan and plan.staged else Plain(sweep, plan)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{sweep.path}: a field is of another kind than a sweep's or a plan's ({error})") from error


def rounded_up(number: float) -> int:
    """The next number with two digits, so that a budget is easily said."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


class Plain:
    """A sweep's own cells; with a plan beside it they carry its hash."""

    complete = True  # no more cells will follow

    def __init__(self, sweep: Sweep, plan: Plan | None) -> None:
        self.sweep = sweep
        flags = (f"--run.plan={json.dumps({'hash': plan.hash, 'stage': 'confirm'})}",) if plan else ()
        choices = sweep.choices(plan.random_seed if plan else 0)
        self._cells = [sweep.cell(values, flags=flags) for values in choices]

    def cells(self, look: Callable[[Cell], State]) -> list[Cell]:
        """All cells, whatever became of the others."""
        return self._cells


class Staged:
    """The cells that a plan asks for, given how the earlier ones ended: the same answer in every process."""

    complete = False  # until the last stage has begun

    def __init__(self, sweep: Sweep, plan: Plan) -> None:
        self.sweep, self.plan = sweep, plan
        names = (plan.learning_rate, SEED)
        arms = [{k: v for k, v in values.items() if k not in names} for values in sweep.choices()]
        self.arms = list({json.dumps(arm, sort_keys=True): arm for arm in arms}.values())
        rates = sweep.content["parameters"].get(plan.learning_rate, {"values": [math.nan]})["values"]
        self.rates = [float(rate) for rate in rates]

    def cells(self, look: Callable[[Cell], State]) -> list[Cell]:
        """All cells wanted so far; `look` says where a cell stands."""
        self._look, self._wanted = look, {}
        budgets = self._pilot()
        if budgets is not None:
            choices = self._choices(budgets)
            self.complete = bool(choices)
            for arm, (rate, facts) in choices:
                for seed in self.plan.confirm["seeds"]:
                    self._score("confirm", arm, rate, seed, budgets, **facts)
        return list(self._wanted)

    def _choices(self, budgets: tuple[str, ...]) -> list[tuple[dict[str, Any], tuple[float, dict[str, Any]]]]:
        """The rate of every arm and how it was found; empty while the search goes on."""
        if not self.plan.tune:
            return [(arm, (self.rates[0], {})) for arm in self.arms]
        searches = [self._search(arm, budgets) for arm in self.arms]
        ended = [search.run() for search in searches]  # before the question: every arm is to go on
        if not all(ended):
            return []
        equal_trials(searches)
        best = [search.best() for search in searches]
        if None in best:
            return []
        found = [
            (rate, {"tuned": not search.at_edge(rate), "trials": len(search.tried)})
            for rate, search in zip(best, searches, strict=True)
        ]
        return list(zip(self.arms, found, strict=True))

    def _search(self, arm: dict[str, Any], budgets: tuple[str, ...]) -> Search:
        settings = {k: v for k, v in self.plan.tune.items() if k != "seeds"}

        def score(rate: float, seed: int) -> Score | None:
            return self._score("tune", arm, rate, seed, budgets)

        return Search(self.rates, self.plan.tune["seeds"], score, **settings)

    def _pilot(self) -> tuple[str, ...] | None:
        """The flags that set the budgets, None while the pilot runs; ValueError where it reached nothing."""
        if not self.plan.pilot:
            return ()
        sizes, best = self.plan.pilot.get("batch_sizes"), []
        for arm in self.arms:
            size = self.sweep.cell(arm).batch_size
            if sizes is None or size in sizes:
                runs = [(rate, seed) for seed in self.plan.pilot["seeds"] for rate in self.rates]
                best.append((size, [self._score("pilot", arm, rate, seed, ()) for rate, seed in runs]))
        if any(None in scores for _, scores in best):
            return None
        needs = [(min(scores).steps, size) for size, scores in best if min(scores).steps < math.inf]
        if not needs:
            raise ValueError(f"{self.sweep.name}: no pilot run reached its target: ease it, or raise the budget")
        most = {"steps": max(s for s, _ in needs), "examples": max(s * size for s, size in needs)}
        return tuple(
            f"--convergence.budget_{unit}={min(rounded_up(4 * need), self.plan.cap.get(unit, 10**18))}"
            for unit, need in most.items()
        )

    def _score(self, stage: str, arm: dict[str, Any], rate: float, seed: int, flags: Any, **facts: Any) -> Score | None:
        """Ask for a run; what it gave, None while it has not ended."""
        name = {"hash": self.plan.hash, "stage": stage, **facts}
        values = {**arm} | ({self.plan.learning_rate: float(f"{rate:.4g}")} if self.plan.learning_rate else {})
        values[SEED] = seed
        cell = self.sweep.cell(values, stage, (*flags, f"--run.plan={json.dumps(name)}"))
        self._wanted[cell] = None
        state = self._look(cell)
        if state.status in ("reached", "budget"):
            return score_of(state.record, self.plan.target)
        return NEVER if state.status == "diverged" else None


def score_of(record: dict[str, Any], index: int) -> Score:
    """Steps to the target (the middle of its bracket, infinite for a miss), then how far the end is from it."""
    target = record["targets"][index]
    if target["status"] == "reached":
        low, high = target["bracket"]["steps"]
        return Score(math.sqrt(max(low, 1) * high), 0.0)
    end = float(record["final"].get(target["metric"], "nan"))
    gap = (target["value"] - end) * (1 if target["direction"] == "max" else -1) if target["value"] is not None else 0.0
    return Score(math.inf, gap if math.isfinite(gap) else math.inf)
