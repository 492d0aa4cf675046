"""A noisy quadratic model of 150 coordinates, many runs of which are simulated at once, each with its own noise."""

import numpy as np

from tasks.report.sources.runs import Hit, Run
from tests.helpers.fake_runs import evaluation_steps
from tests.helpers.made_up import run
from tests.helpers.quadratic_model import STABLE, Quadratic, middle

MODEL = Quadratic(1 / np.arange(1, 151) ** 0.7, noise=8, share=0.03)
CURVATURE, NOISE, tuned = MODEL.curvature, MODEL.noise, MODEL.tuned
START_LOSS = CURVATURE.sum() / 2
SIZES = [2**k for k in range(3, 12)]


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
    hit = MODEL.hit_of(losses[steps].tolist(), steps, size)
    stage = "confirm" if seed >= 100 else "tune"
    changes = {"rate__base": rate, "rate__effective": rate, "plan": {"hash": "h", "stage": stage}}
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
    hit = Hit("trainset/loss", "min", MODEL.goal, "diverged")
    changes = {"rate__base": rate, "rate__effective": rate, "plan": {"hash": "h", "stage": "tune"}}
    return run([hit], size, seed, study="quadratic", data__train_examples=10**6, **changes)
