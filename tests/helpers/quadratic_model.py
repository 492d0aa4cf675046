"""Stochastic noisy quadratic models, whose steps to a loss at the best rate are known by analysis; that of rule 22.

Each coordinate follows x <- x - eta (h x + noise), noise ~ N(0, c / B); the loss is sum(h x^2) / 2.
"""

import math
from functools import cache

import numpy as np

from callbacks.hit import crossing_at, hits
from tasks.report.analysis.fits import size_at
from tasks.report.sources.runs import Hit, Run
from tasks.sweep.plan import BUDGET
from tasks.sweep.tuning import FURTHER, Score, search
from tests.helpers.fake_runs import evaluation_steps
from tests.helpers.made_up import run

STABLE = 2.0  # the largest curvature is 1
RATES = np.exp(np.arange(math.log(1e-4), math.log(STABLE), 0.04))


class Quadratic:
    """The model of these curvatures h, with c = `noise` x h, trained down to a `share` of the loss at the start."""

    def __init__(self, curvature: np.ndarray, noise: float, share: float) -> None:
        self.curvature, self.noise = curvature, noise * curvature
        self.goal = share * curvature.sum() / 2
        self.tuned = cache(self._tuned)

    def expected_steps(self, rate: float, size: float) -> float:
        """Return the steps at which the expected loss falls to the goal, infinite if it never does."""
        shrink = (1 - rate * self.curvature) ** 2
        if (shrink >= 1).any():
            return math.inf
        floor = rate**2 * self.noise / size / (1 - shrink)
        if (self.curvature * floor).sum() / 2 >= self.goal:
            return math.inf

        def above(t: float) -> bool:
            return (self.curvature * (floor + shrink**t * (1 - floor))).sum() / 2 > self.goal

        low, high = 0.0, 1.0
        while above(high):
            low, high = high, 2 * high
        while high - low > 1e-6 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) else (low, middle)
        return high

    def _tuned(self, size: float) -> tuple[float, float]:
        """Return the fewest expected steps over all constant rates, and the rate."""
        return min((self.expected_steps(rate, size), rate) for rate in RATES)

    def hit_of(self, losses: list[float], steps: list[int], size: int) -> Hit:
        """Judge the losses at the evaluated steps as training would."""
        found = hits(steps, losses, "min", self.goal)
        columns = {"step": steps, "examples": [s * size for s in steps], "seconds": steps}
        crossings = [crossing_at(columns, step) for step in found or (None, None, None)]
        return Hit("trainset/loss", "min", self.goal, "reached" if found else "budget", None, *crossings)


# many coordinates keep the scatter of one run's steps near 5 %; the largest batch still needs more than 20 steps
MODEL = Quadratic(1 / np.arange(1, 1001) ** 0.6, noise=0.28, share=0.06)  # B2 is 16
CURVATURE, NOISE, GOAL = MODEL.curvature, MODEL.noise, MODEL.goal
expected_steps, tuned, hit_of = MODEL.expected_steps, MODEL.tuned, MODEL.hit_of
SIZES = [2**k for k in range(8)]  # from B2 / 16, where scaling is perfect, to 8 B2, where nothing is gained
TUNING, FRESH = [1], [11, 12, 13, 14, 15]  # seeds


@cache
def known_b2() -> float:
    """Return the largest batch size that takes at most twice the examples of the smallest studied."""
    near, dense = np.exp(np.arange(-0.04, 0.041, 0.005)), 2.0 ** np.arange(0, 7.01, 0.5)
    fewest = [min(expected_steps(tuned(size)[1] * factor, size) for factor in near) for size in dense]
    return size_at(dense, np.log(fewest), 2.0)


def coarse_rates(offset: float) -> list[float]:
    """Return three rates a factor 2 apart; the lowest is off the best of the smallest size by `offset` of that."""
    return [tuned(SIZES[0])[1] * 2.0 ** (offset + k) for k in range(3)]


def losses_of(rate: float, size: int, last: int, random) -> np.ndarray:
    """Train one run; give the losses after each of `last` steps, and before the first."""
    noise = random.standard_normal((last, len(CURVATURE)), dtype=np.float32) * np.sqrt(NOISE / size, dtype=np.float32)
    x = np.ones((last + 1, len(CURVATURE)), dtype=np.float32)
    for t in range(last):
        x[t + 1] = x[t] - rate * (CURVATURE * x[t] + noise[t])
    return x**2 @ (CURVATURE / 2)


def trained(rate: float, size: int, seed: int, draw: int) -> Run:
    """Train and judge one run of a study; those of one seed share evaluated steps and, at one size, their noise."""
    hit, changes = Hit("trainset/loss", "min", GOAL, "diverged"), {"final": {"step": 0}}
    if rate < 1.1 * STABLE:  # a little above, divergence is slow, and noise may carry a run to the goal before it
        with np.errstate(over="ignore", invalid="ignore"):
            losses = losses_of(rate, size, int(4 * tuned(size)[0]), np.random.default_rng([draw, seed, size]))
        losses = np.nan_to_num(losses, nan=1e30, posinf=1e30)
        steps = evaluation_steps(len(losses) - 1, np.random.default_rng([draw, seed]).random())
        hit, changes = hit_of(losses[steps].tolist(), steps, size), {"final": {"step": len(losses) - 1}}
    changes |= {"study": "quadratic", "data__train_examples": 10**6, "rate__base": rate, "rate__effective": rate}
    return run([hit], size, seed, plan={"hash": "h", "stage": "confirm" if seed in FRESH else "tune"}, **changes)


def study(draw: int) -> list[Run]:
    """Walk the sizes as the real sweep does, and confirm each size's rate with fresh seeds."""
    start, bound, runs = coarse_rates(np.random.default_rng(draw).random() - 0.5)[:1], math.inf, []
    for size in SIZES:
        tried, rate, fewest = arm(size, start, bound, draw)
        runs += [*tried, *(trained(rate, size, seed, draw) for seed in FRESH)]
        start, bound = [rate, 2 * rate], BUDGET * fewest
    return runs


def arm(size: int, start: list[float], bound: float, draw: int) -> tuple[list[Run], float, float]:
    """Search for the rate at one size; the runs, the rate and the fewest steps."""
    trials: dict[tuple[float, int], Run] = {}

    def scored(rate: float, limit: float, seed: int) -> Score:
        trials[rate, seed] = trained(rate, size, seed, draw)
        steps = middle(trials[rate, seed])
        return Score(steps if steps <= limit else math.inf, 0.0 if math.isfinite(steps) else math.inf)

    def score(rate: float, limit: float) -> Score:
        return scored(rate, limit, TUNING[0])

    def again(rate: float, limit: float) -> Score:
        return max(scored(rate, limit, TUNING[0] + further) for further in FURTHER)

    found = search(start, score, bound, again=again)
    return list(trials.values()), found.rate, found.steps


def middle(r: Run) -> float:
    """Return a run's steps to the goal."""
    return r.hits[0].at("steps")
