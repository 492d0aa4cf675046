"""The plan beside a sweep: pilot, tuning and confirmation (docs/protocol.md, rules 6 and 11-15)."""

import hashlib
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from scipy import stats

from callbacks.hit import FOLLOW
from callbacks.record import Record
from tasks.sweep.files import Cell, Sweep
from tasks.sweep.ledger import State
from tasks.sweep.tuning import FURTHER, Choice, Score, search
from tasks.yaml_file import read_yaml

ENDING, SHARED = ".plan.yaml", "plan.yaml"  # of one sweep NAME.yaml, and of every other sweep in the folder
SEED = "seed_everything"
Setting = dict[str, Any]  # swept parameters and their values
FIELDS = {"learning_rate", "pilot", "tune", "confirm", "cap", "margins", "smoke", "grows"}
PARTS = {
    "pilot": {"seeds", "batch_sizes"},
    "tune": {"seeds"},
    "confirm": {"seeds", "precision", "batch_sizes"},
    "cap": {"steps", "examples"},
}
BUDGET = 4  # a run stops unreached after this multiple of the steps that should do
NEVER = Score(math.inf, math.inf)


@dataclass(frozen=True)
class Plan:
    """What W&B's format cannot say of a sweep.

    Args:
        learning_rate: the swept parameter that is tuned, for the fewest steps to the first target; null where the
            rates follow a rule.
        pilot: of a plan without `tune`: seeds, and optionally batch_sizes: runs that set the budgets of all others; a
            size at which none arrives sets none.
        tune: seeds that every rate is tried with.
        confirm: seeds of the runs that count, none of them used before; they replace the sweep's. As a list of lists
            they are run one list after another until the 95 % interval of the mean of log steps is no wider than
            +- `precision`. Optionally batch_sizes: only these are confirmed.
        cap: steps and examples that no budget of a pilot exceeds (a declared hard cap).
        margins: what verdicts are judged by, by claim.
        smoke: a study that decides no claim.
        grows: batch sizes and precision are added round by round and are no part of the plan's hash: the runs of one
            round are those of the next.
    """

    learning_rate: str | None = None
    pilot: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, Any] = field(default_factory=dict)
    confirm: dict[str, Any] = field(default_factory=dict)
    cap: dict[str, int] = field(default_factory=dict)
    margins: dict[str, Any] = field(default_factory=dict)
    smoke: bool = False
    grows: bool = False
    hash: str = ""

    @property
    def staged(self) -> bool:
        """Return whether later runs follow from earlier ones."""
        return bool(self.pilot or self.tune or self.confirm)

    @property
    def batches(self) -> list[list[int]]:
        """Return the seeds of the runs that count, batch after batch."""
        seeds = self.confirm.get("seeds", [])
        return seeds if any(isinstance(seed, list) for seed in seeds) else [seeds]

    def fields_of(self, stage: str) -> dict[str, Any]:
        """Return what the record of a run in this stage says of the plan."""
        more = {"margins": self.margins, "smoke": self.smoke}
        return {"hash": self.hash, "stage": stage} | {name: fact for name, fact in more.items() if fact}


def is_plan(path: Path) -> bool:
    """Return whether a file is a plan by its name."""
    return path.name == SHARED or path.name.endswith(ENDING)


def plan_beside(sweep: Path) -> Path:
    """Return where the plan of a sweep file is, if it has one: a plan of its own comes before the folder's."""
    own = sweep.with_name(sweep.stem + ENDING)
    return own if own.exists() else sweep.with_name(SHARED)


def read_plan(sweep: Sweep) -> Plan | None:
    """Return the plan beside a sweep file, None where there is none. Raises ValueError with what is wrong with it."""
    path = plan_beside(sweep.path)
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
    """Return the hash of all that is fixed before the first run: plan, sweep and its configs (with the targets)."""
    configs = [read_yaml(Path(path)) for path in sweep.configs()]
    fixed, asked = content, sweep.content
    if content.get("grows"):
        fixed = content | {"confirm": {k: v for k, v in content.get("confirm", {}).items() if k != "precision"}}
        parameters = {name: p for name, p in asked["parameters"].items() if not is_batch_size(name)}
        asked = asked | {"parameters": parameters}
    text = json.dumps([fixed, asked, configs, *sweep.flags], sort_keys=True)
    return yaml_safe(hashlib.sha256(text.encode()).hexdigest()[:16])


def yaml_safe(hexadecimal: str) -> str:
    """Return a hash that no reader of YAML takes for a number: 994765002e393306 would be infinite, one in 800."""
    return hexadecimal if set(hexadecimal) & set("abcdf") else "x" + hexadecimal[1:]


def check(plan: Plan, sweep: Sweep) -> None:
    """Raise ValueError, beginning with the field's name, where the plan does not fit its sweep."""
    for stage, fields in PARTS.items():
        part = getattr(plan, stage)
        if not isinstance(part, dict) or not set(part) <= fields:
            raise ValueError(f"{stage}: has the fields {', '.join(sorted(fields))}")
        if not isinstance(part.get("seeds", []), list):
            raise ValueError(f"{stage}.seeds: is a list")
    check_confirmation(plan)
    if not isinstance(plan.margins, dict) or not all(isinstance(m, dict) for m in plan.margins.values()):
        raise ValueError("margins: give each claim named numbers, as golmant-7: {ratio: 0.8}")
    first = [seed for stage in (plan.pilot, plan.tune) for seed in stage.get("seeds", [])]
    seeds = [*first, *itertools.chain(*plan.batches)]
    if len(set(seeds)) < len(seeds):
        raise ValueError("confirm.seeds: pilot, tuning and confirmation have no seed in common")
    if plan.pilot and not plan.pilot.get("seeds"):
        raise ValueError("pilot.seeds: are missing")
    swept = sweep.content["parameters"].items()
    sizes = [size for name, p in swept if is_batch_size(name) for size in p.get("values", [p.get("value")])]
    for stage in ("pilot", "confirm"):
        if not set(getattr(plan, stage).get("batch_sizes", [])) <= set(sizes):
            raise ValueError(f"{stage}.batch_sizes: are among the sweep's, {', '.join(map(str, sizes))}")
    if plan.learning_rate is not None:
        check_tuning(plan, sweep.content["parameters"].get(plan.learning_rate, {}).get("values", []))
    elif plan.tune:
        raise ValueError("learning_rate: name the swept parameter that is tuned")
    elif plan.pilot and not plan.confirm:
        raise ValueError("confirm.seeds: are missing")


def check_confirmation(plan: Plan) -> None:
    """Raise ValueError where the seeds of the runs that count come in batches without a rule for the next, or so."""
    lists = [isinstance(batch, list) and bool(batch) for batch in plan.batches]
    precision, several = plan.confirm.get("precision"), len(plan.batches) > 1
    if not all(lists) and plan.confirm.get("seeds"):
        raise ValueError("confirm.seeds: is a list of seeds, or of lists of seeds")
    if several != (isinstance(precision, float | int) and precision > 0):
        raise ValueError("confirm.precision: lists of seeds need a number, such as 0.15, and only they do")


def check_tuning(plan: Plan, rates: list[Any]) -> None:
    """Raise ValueError where the learning rates or seeds do not make a search."""
    if len(rates) < 3 or not all(isinstance(rate, float | int) and rate > 0 for rate in rates):
        raise ValueError(f"learning_rate: the sweep needs at least 3 positive values of {plan.learning_rate}")
    ratios = [high / low for low, high in itertools.pairwise(rates)]
    if min(ratios) <= 1.0 or max(ratios) > 2.05:
        raise ValueError("learning_rate: give values that rise by factors of 2 or less, or the search misses the best")
    if plan.pilot:
        raise ValueError("pilot: is for rates that follow a rule: where they are tuned, budgets follow from tuning")
    for stage in ("tune", "confirm"):
        if not getattr(plan, stage).get("seeds"):
            raise ValueError(f"{stage}.seeds: are missing")


def source(sweep: Sweep) -> "Plain | Staged":
    """Return where a sweep's cells come from. Raises ValueError where its plan does not fit it."""
    plan = read_plan(sweep)
    try:
        return Staged(sweep, plan) if plan and plan.staged else Plain(sweep, plan)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{sweep.path}: a field is of another kind than a sweep's or a plan's ({error})") from error


def rounded_up(number: float) -> int:
    """Return the next number with two digits, so that a budget is easily said."""
    number = max(number, 1)
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


class Plain:
    """A sweep's own cells; with a plan beside it they carry its hash."""

    complete = True  # no more cells will follow

    def __init__(self, sweep: Sweep, plan: Plan | None) -> None:
        self.sweep, self.plan = sweep, plan
        flags = (f"--run.plan={json.dumps(plan.fields_of('confirm'))}",) if plan else ()
        self._cells = [sweep.cell(values, flags=flags) for values in sweep.choices()]

    def cells(self, look: Callable[[Cell], State]) -> list[Cell]:
        """Return all cells, whatever became of the others."""
        return self._cells


class Staged:
    """The cells that a plan asks for, given how the earlier ones ended: the same answer in every process.

    An arm is all that is swept but batch size, rate and seed. With `tune`, the sizes of an arm are walked in the
    sweep's order: the search at the first begins in the lower quarter of the sweep's rates, every other at the rate
    chosen at the next smaller size before it (else the next larger), times 1 to the ratio of the sizes. So a size
    added at the end changes no run of the others. A size is confirmed as soon as its rate is chosen. Without `tune`
    there is one rate, and the pilot sets the budgets.
    """

    complete = False  # until the last stage has begun

    def __init__(self, sweep: Sweep, plan: Plan) -> None:
        self.sweep, self.plan = sweep, plan
        self._look: Callable[[Cell], State]
        self._wanted: dict[Cell, None] = {}  # a set that keeps its order
        self.arms: dict[str, dict[int, Setting]] = {}
        for values in sweep.choices():
            setting = {k: v for k, v in values.items() if k not in (plan.learning_rate, SEED)}
            arm = json.dumps({k: v for k, v in setting.items() if not is_batch_size(k)}, sort_keys=True)
            self.arms.setdefault(arm, {})[sweep.cell(setting).batch_size] = setting
        rates = sweep.content["parameters"].get(plan.learning_rate, {}).get("values", [])
        self.rates = [float(rate) for rate in rates]

    def cells(self, look: Callable[[Cell], State]) -> list[Cell]:
        """Return all cells wanted so far; `look` says where a cell stands."""
        self._look, self._wanted = look, {}
        if self.plan.tune:
            walks = [self._walk(arm) for arm in self.arms.values()]  # a list: every arm is to go on
            self.complete = all(walks)
        else:
            self.complete = self._fixed()
        return list(self._wanted)

    def _walk(self, arm: dict[int, Setting]) -> bool:
        """Ask for the runs of an arm; return whether no other can follow."""
        chosen: dict[int, Choice | None] = {}
        whole = True
        for size in arm:
            before = neighbour(chosen, size)
            known = chosen.get(before)
            chosen[size] = found = self._search(arm[size], size, before, known) if known or not before else None
            if found is None:
                whole = False
                continue
            facts = {"tuned": found.bracketed, "trials": found.trials}
            allowed = budget(FOLLOW * BUDGET * found.steps, size)  # a crossing within the budget is followed up
            whole &= self._confirm(arm[size], size, found.rate, allowed, facts)
        return whole

    def _search(self, setting: Setting, size: int, before: int, known: Choice | None) -> Choice | None:
        """Ask for the runs of a search that starts from what is known of another size; return None while it lasts.

        Where no rate arrives, the steps of the other size stand for its own.
        """
        race, again = partial(self._race, setting, size), partial(self._race_again, setting, size)
        if known is None:
            return search([self.rates[len(self.rates) // 4]], race, coarse=self.rates, again=again)
        factors = [2.0**k for k in range(max(1, round(abs(math.log2(size / before)))) + 1)]
        start = [known.rate * (factor if size > before else 1 / factor) for factor in factors]
        steps = known.steps * max(1.0, before / size)
        found = search(start, race, BUDGET * steps, again=again)
        return found if found is None or math.isfinite(found.steps) else replace(found, steps=steps)

    def _race(self, setting: Setting, size: int, rate: float, bound: float) -> Score | None:
        """Ask for the runs of one rate with every tuning seed; return their median score, None while one runs."""
        scores = self._raced(setting, size, rate, bound, self.plan.tune["seeds"])
        if scores is None:
            return None
        return Score(statistics.median(s.steps for s in scores), statistics.median(s.gap for s in scores))

    def _race_again(self, setting: Setting, size: int, rate: float, bound: float) -> Score | None:
        """Ask for the runs of one rate with further seeds; return the worst score, None while one runs."""
        first = self.plan.tune["seeds"][0]
        scores = self._raced(setting, size, rate, bound, [first + further for further in FURTHER])
        return max(scores) if scores else None

    def _raced(
        self, setting: Setting, size: int, rate: float, bound: float, seeds: Sequence[int]
    ) -> list[Score] | None:
        """Ask for a race's runs with these seeds; return their scores, None while one runs."""
        flags: tuple[str, ...] = ()
        if math.isfinite(bound):  # a target crossed before the bound is followed up, within the budget
            flags = (f"--convergence.outrun_steps={rounded_up(bound)}", *budget(FOLLOW * bound, size))
        asked = [self._score("tune", setting, rate, seed, flags) for seed in seeds]
        scores = [score for score in asked if score is not None]
        return scores if len(scores) == len(asked) else None

    def _fixed(self) -> bool:
        """Ask for the runs of arms without tuning; return whether no other can follow."""
        flags = self._pilot() if self.plan.pilot else ()
        if flags is None:
            return False
        whole = [self._confirm(setting, size, None, flags, {}) for size, setting in self._settings()]
        return all(whole)  # of a list: every arm is to go on

    def _settings(self) -> list[tuple[int, Setting]]:
        """Return every batch size of every arm, with what it is run with."""
        return [(size, setting) for arm in self.arms.values() for size, setting in arm.items()]

    def _pilot(self) -> tuple[str, ...] | None:
        """Return the flags that set the budgets, None while the pilot runs. Raises ValueError if it reached nothing."""
        sizes, needs, running = self.plan.pilot.get("batch_sizes"), [], False
        for size, setting in self._settings():
            if sizes is None or size in sizes:
                asked = [self._score("pilot", setting, None, seed, ()) for seed in self.plan.pilot["seeds"]]
                scores = [score for score in asked if score is not None]
                running |= len(scores) < len(asked)
                needs += [(min(scores).steps, size)] if scores and min(scores).steps < math.inf else []
        if running:
            return None
        if not needs:
            raise ValueError(f"{self.sweep.name}: no pilot run reached its target: ease it, or raise the budget")
        most = {"steps": max(s for s, _ in needs), "examples": max(s * size for s, size in needs)}
        return tuple(
            f"--convergence.budget_{unit}={min(rounded_up(BUDGET * need), self.plan.cap.get(unit, 10**18))}"
            for unit, need in most.items()
        )

    def _confirm(
        self, setting: Setting, size: int, rate: float | None, flags: tuple[str, ...], facts: dict[str, Any]
    ) -> bool:
        """Ask for the runs that count, batch of seeds after batch; return whether no other can follow."""
        sizes = self.plan.confirm.get("batch_sizes")
        if sizes is not None and size not in sizes:
            return True
        scores: list[Score] = []
        for seeds in self.plan.batches:
            if scores and half_width(scores) <= self.plan.confirm["precision"]:
                return True
            asked = [self._score("confirm", setting, rate, seed, flags, **facts) for seed in seeds]
            scores += [score for score in asked if score is not None]
            if None in asked:
                return seeds is self.plan.batches[-1]
        return True

    def _score(
        self, stage: str, setting: Setting, rate: float | None, seed: int, flags: tuple[str, ...], **facts: Any
    ) -> Score | None:
        """Ask for a run; return its score, None while it has not ended."""
        values = dict(setting)
        if rate is not None and self.plan.learning_rate is not None:
            values[self.plan.learning_rate] = float(f"{rate:.4g}")
        name = f"--run.plan={json.dumps(self.plan.fields_of(stage) | facts)}"
        cell = self.sweep.cell(values | {SEED: seed}, stage, (*flags, name))
        self._wanted[cell] = None
        state = self._look(cell)
        if state.record is not None and state.status in ("reached", "budget", "outrun"):
            return score_of(state.record)
        return NEVER if state.status == "diverged" else None


def is_batch_size(name: str) -> bool:
    """Return whether a swept parameter is the batch size."""
    return name.startswith("data.") and name.endswith("batch_size")


def neighbour(sizes: Iterable[int], size: int) -> int:
    """Return the next smaller of `sizes`, else the next larger, 0 where there is none."""
    smaller = [other for other in sizes if other < size]
    return max(smaller) if smaller else min(sizes, default=0)


def budget(steps: float, size: int) -> tuple[str, ...]:
    """Return the flags of a budget in steps at one batch size, none where it is not known."""
    if math.isinf(steps):
        return ()
    whole = rounded_up(steps)
    return (f"--convergence.budget_steps={whole}", f"--convergence.budget_examples={whole * max(size, 1)}")


def half_width(scores: list[Score]) -> float:
    """Return half the width of the 95 % t interval of the mean of log steps, infinite where a run missed."""
    logs = [math.log(score.steps) for score in scores]
    if len(logs) < 2 or not all(map(math.isfinite, logs)):
        return math.inf
    return float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))


def score_of(record: Record) -> Score:
    """Return the steps to the first target, infinite where it was not reached, then how far the end is from it."""
    target = record.targets[0]
    if target.status == "reached":
        return Score(target.at("steps"), 0.0)
    gap = 0.0 if target.value is None else target.gap(record.final.get(target.metric, math.nan))
    return Score(math.inf, gap if math.isfinite(gap) else math.inf)
