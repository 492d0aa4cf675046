"""A stochastic noisy quadratic model, whose steps to a loss at the best rate are known without simulation.

Each coordinate follows x <- x - eta (h x + noise), noise ~ N(0, c / B); the loss is sum(h x^2) / 2.
"""

import math
from functools import cache

import numpy as np

from callbacks.hit import crossing
from tasks.report.read import Run
from tasks.report.record import Hit
from tests.fake_runs import bracket, evaluation_steps
from tests.made_up import run

CURVATURE = 1 / np.arange(1, 151) ** 0.7
NOISE = 8 * CURVATURE
START_LOSS = CURVATURE.sum() / 2
GOAL = 0.03 * START_LOSS
SIZES = [2**k for k in range(3, 12)]


def expected_steps(rate: float, size: float) -> float:
    """Give the steps at which the expected loss falls to the goal, infinite if it never does."""
    shrink = (1 - rate * CURVATURE) ** 2
    if (shrink >= 1).any():
        return math.inf
    floor = rate**2 * NOISE / size / (1 - shrink)
    if (CURVATURE * floor).sum() / 2 >= GOAL:
        return math.inf

    def above(t: float) -> bool:
        return (CURVATURE * (floor + shrink**t * (1 - floor))).sum() / 2 > GOAL

    low, high = 0.0, 1.0
    while above(high):
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return high


STABLE = 2.0  # the largest curvature is 1
RATES = np.exp(np.arange(math.log(1e-4), math.log(STABLE), 0.04))


@cache
def tuned(size: float) -> tuple[float, float]:
    """Give the fewest expected steps over all constant rates, and the rate."""
    return min((expected_steps(rate, size), rate) for rate in RATES)


def losses_of(rates: np.ndarray, size: int, last: int, random) -> np.ndarray:
    """Train one run per rate; give losses after each step, [steps, runs]."""
    x = np.ones((len(rates), len(CURVATURE)), dtype=np.float32)
    shrink = (1 - rates[:, None] * CURVATURE).astype(np.float32)
    kick = (rates[:, None] * np.sqrt(NOISE / size)).astype(np.float32)
    half = (CURVATURE / 2).astype(np.float32)
    losses = np.empty((last + 1, len(rates)))
    losses[0] = START_LOSS
    for t in range(1, last + 1):
        x = shrink * x + kick * random.standard_normal(x.shape, dtype=np.float32)
        losses[t] = x**2 @ half
    return losses


def placed(losses: np.ndarray, rate: float, size: int, seed: int, random) -> Run:
    """Judge one run's losses as training would."""
    steps = evaluation_steps(len(losses) - 1, random.random())
    rows = [{"step": s, "examples": s * size, "epoch": s * size / 1e6, "seconds": 1.0 * s} for s in steps]
    values = losses[steps].tolist()
    rules = {rule: crossing(values, "min", GOAL, rule) for rule in ("median", "first", "consecutive")}
    brackets = {rule: {u: tuple(p) for u, p in bracket(rows, i).items()} for rule, i in rules.items() if i}
    status = "reached" if "median" in brackets else "budget"
    hit = Hit("trainset/loss", "min", GOAL, status, brackets)
    stage = "confirm" if seed >= 100 else "tune"
    changes = {"lr__base": rate, "lr__effective": rate, "plan": {"hash": "h", "stage": stage}}
    changes |= {"study": "quadratic", "data__train_examples": 10**6, "final": {"step": len(losses) - 1}}
    return run([hit], size, seed, **changes)


def study(seed: int, sizes=SIZES, tuning: int = 3, fresh: int = 5) -> list[Run]:
    """Tune the rate at each size on a grid of x sqrt(2) with some seeds, and confirm the best with fresh ones."""
    random, runs = np.random.default_rng(seed), []
    for size in sizes:
        fewest, best = tuned(size)
        grid = best * 2 ** ((np.arange(-2, 3) + random.random() - 0.5) / 2)
        last = int(4 * fewest)
        able = np.repeat(grid[grid < STABLE], tuning)
        losses = losses_of(able, size, last, random)
        trials = [placed(losses[:, i], rate, size, i % tuning, random) for i, rate in enumerate(able)]
        steps = np.array([middle(r) for r in trials]).reshape(-1, tuning)
        chosen = able[::tuning][np.median(steps, axis=1).argmin()]
        losses = losses_of(np.full(fresh, chosen), size, last, random)
        runs += trials + [placed(losses[:, i], chosen, size, 100 + i, random) for i in range(fresh)]
        runs += [lost(rate, size, i) for rate in grid[grid >= STABLE] for i in range(tuning)]
    return runs


def lost(rate: float, size: int, seed: int) -> Run:
    """Make a run at a rate beyond stability, which diverges."""
    hit = Hit("trainset/loss", "min", GOAL, "diverged", {})
    changes = {"lr__base": rate, "lr__effective": rate, "plan": {"hash": "h", "stage": "tune"}}
    return run([hit], size, seed, study="quadratic", data__train_examples=10**6, **changes)


def middle(r: Run) -> float:
    """Give a run's steps to the goal."""
    found = r.hits[0].brackets.get("median")
    return math.sqrt(found["steps"][0] * found["steps"][1]) if found else math.inf
