"""How the rules of a hit do at the noise of real runs: `python -m tests.helpers.hit_noise` prints the table of rule 1.

A metric that rises with log step, by 1 a log-step at its target and ever less beyond it; independent noise at each
evaluation; the seeds' own scatter of 0.05. The run evaluates where the schedule says and stops where the detector does.
"""

import math
import random
import sys

import numpy as np

from callbacks.convergence_detector import Rules, Target, judge
from callbacks.evaluation_schedule import step_after

TARGET = Target("val/accuracy", "max", 0.0)
CROSSING, SCATTER, LAST = 1_000, 0.05, 8_000
NOISES = (0.05, 0.2, 0.35, 0.6, 1.0)


def metric(step: float, crossing: float) -> float:
    """Return the metric without noise: 0 at the crossing, where its slope in log step is 1."""
    past = math.log(max(step, 1) / crossing)
    return past if past < 0 else (1 - math.exp(-0.7 * past)) / 0.7


def run(noise: float, seed: int) -> tuple[dict[str, float], int]:
    """Return the log errors of each rule in one run, none where it was not reached, and its number of evaluations."""
    draw = np.random.default_rng([seed, round(1000 * noise)])
    crossing = CROSSING * math.exp(SCATTER * draw.standard_normal())
    rows, step = [], 0
    while step <= LAST:
        value = metric(step, crossing) + noise * draw.standard_normal()
        rows.append({"step": step, "examples": step, "epoch": step, "seconds": step, "trainset/loss": 1.0})
        rows[-1]["val/accuracy"] = value
        verdict = judge(rows, [TARGET], Rules())
        if verdict.stopped_by:
            (target,) = verdict.targets
            found = {rule: getattr(target, rule) for rule in ("hit", "line", "first")}
            return {rule: math.log(at.steps / CROSSING) for rule, at in found.items() if at}, len(rows)
        first = round(10 * 1.2 ** random.Random(seed).random())
        step = first if step == 0 else step_after(rows, [TARGET], 1.1, 1.2)
    return {}, len(rows)


def main(runs: int) -> None:
    """Print bias and standard deviation of log S by noise and rule."""
    print("| noise | first | isotonic | local line | never | evaluations |\n|---|---|---|---|---|---|")
    for noise in NOISES:
        found = [run(noise, seed) for seed in range(runs)]
        cells = []
        for rule in ("first", "hit", "line"):
            errors = [errors[rule] for errors, _ in found if rule in errors]
            cells.append(f"{np.mean(errors):+.3f} / {np.std(errors):.3f}")
        never = np.mean([not errors for errors, _ in found])
        print(f"| {noise:.2f} | {' | '.join(cells)} | {never:.1%} | {np.mean([n for _, n in found]):.0f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
