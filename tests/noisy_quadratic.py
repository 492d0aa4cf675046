"""A stochastic noisy quadratic model, whose steps to a loss at the best rate are known without simulation.

Each coordinate follows x <- x - eta (h x + noise), noise ~ N(0, c / B); the loss is sum(h x^2) / 2.
"""

import math
from functools import cache

import numpy as np

from callbacks.hit import crossing
from tasks.report.fits import size_at
from tasks.report.read import Run
from tasks.report.record import Hit
from tasks.sweep.tuning import Score, Search
from tests.fake_runs import bracket, evaluation_steps
from tests.made_up import run

# many coordinates keep the scatter of one run's steps near 5 %; the largest batch still needs more than 20 steps
CURVATURE = 1 / np.arange(1, 1001) ** 0.6
NOISE = 0.28 * CURVATURE  # B2 is 16
START_LOSS = CURVATURE.sum() / 2
GOAL = 0.06 * START_LOSS
SIZES = [2**k for k in range(8)]  # from B2 / 16, where scaling is perfect, to 8 B2, where nothing is gained
TUNING, FRESH = [1], [11, 12, 13, 14, 15]  # seeds
RATIO, REFINEMENTS = 2**0.25, 0  # of the rates: the search begins where a x2 grid, refined twice, would end


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


@cache
def known_b2() -> float:
    """Give the largest batch size that takes at most twice the examples of the smallest studied."""
    near, dense = np.exp(np.arange(-0.04, 0.041, 0.005)), 2.0 ** np.arange(0, 7.01, 0.25)
    fewest = [min(expected_steps(tuned(size)[1] * factor, size) for factor in near) for size in dense]
    return size_at(dense, np.log(fewest), 2.0)


def coarse_rates(size: float, offset: float) -> list[float]:
    """Give three rates a factor RATIO apart, of which the middle one is off the best by `offset` of that."""
    return [tuned(size)[1] * RATIO ** (offset + k) for k in (-1, 0, 1)]


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
    stage = "confirm" if seed in FRESH else "tune"
    changes = {"lr__base": rate, "lr__effective": rate, "plan": {"hash": "h", "stage": stage}}
    changes |= {"study": "quadratic", "data__train_examples": 10**6, "final": {"step": len(losses) - 1}}
    return run([hit], size, seed, **changes)


def study(seed: int, sizes=SIZES) -> list[Run]:
    """Tune the rate at each size as the real sweep does, and confirm the best with fresh seeds."""
    random = np.random.default_rng(seed)
    return [run for size in sizes for run in arm(size, random)]


def arm(size: int, random) -> list[Run]:
    """Search for the rate at one size, then confirm it; the runs of both."""
    last, trials = int(4 * tuned(size)[0]), {}

    def score(rate: float, seed: int) -> Score:
        if (rate, seed) not in trials:
            losses = losses_of(np.array([rate]), size, last, random)[:, 0] if rate < STABLE else None
            trials[rate, seed] = lost(rate, size, seed) if losses is None else placed(losses, rate, size, seed, random)
        steps = middle(trials[rate, seed])
        return Score(steps, 0.0 if math.isfinite(steps) else math.inf)

    search = Search(coarse_rates(size, random.random() - 0.5), TUNING, score, refinements=REFINEMENTS)
    while not search.run():
        pass
    rate = search.best()
    losses = losses_of(np.full(len(FRESH), rate), size, last, random)
    return [*trials.values(), *(placed(losses[:, i], rate, size, seed, random) for i, seed in enumerate(FRESH))]


def lost(rate: float, size: int, seed: int) -> Run:
    """Make a run at a rate beyond stability, which diverges."""
    hit = Hit("trainset/loss", "min", GOAL, "diverged", {})
    changes = {"lr__base": rate, "lr__effective": rate, "plan": {"hash": "h", "stage": "tune"}}
    return run([hit], size, seed, study="quadratic", data__train_examples=10**6, **changes)


def middle(r: Run) -> float:
    """Give a run's steps to the goal."""
    found = r.hits[0].brackets.get("median")
    return math.sqrt(found["steps"][0] * found["steps"][1]) if found else math.inf
