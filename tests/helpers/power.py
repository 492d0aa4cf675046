"""The simulated power of the programme: `python -m tests.helpers.power` prints the table of docs/programme.md.

Log steps are drawn with the noise that real runs showed and judged by the rules of tasks/report/claims. A claim's
rows are truths: the one expected, one without the effect, one at the margin (where 5 % at most may be supported).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tasks.report.analysis import fits
from tasks.report.analysis.critical import FitData, size_interval
from tasks.report.analysis.intervals import proportion
from tasks.report.build import CLAIMS
from tasks.report.claims import rules
from tasks.report.claims.rules import CONTRADICTED, SUPPORTED, Evidence, Part, Seeds, conjunction
from tasks.sweep.plan import half_width
from tasks.sweep.tuning import Score

MARGINS = {claim.id: claim.margins for claim in CLAIMS}
SCATTER = {4: 0.13, 16: 0.09, 64: 0.09, 256: 0.16, 2048: 0.18}  # of log S over seeds, 82 % on 8 seeds, isotonic hit
CHOICE, BETWEEN = (
    0.04,
    0.05,
)  # between cells: what the choice of the rate leaves; with the curve's departures from its form
PAIRED, PAIRED_BETWEEN = 0.07, 0.03  # of log S(validation)/S(train) of one run, and between sizes
LOST = 0.01  # of the runs do not arrive
CRITICAL, BEND = 93.0, 1.6
POINTS = 0.5  # scatter of a test accuracy over seeds, points
SIZES = [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
Random = np.random.Generator


class Batches(NamedTuple):
    """Seeds of a cell: one batch after another until the interval of the mean of log steps is within `precision`."""

    numbers: tuple[int, ...]
    precision: float = math.inf


# as the plans have them
CURVE, BASE, ARM, RULES = Batches((5, 3), 0.2), Batches((8, 6, 6), 0.1), Batches((6, 6), 0.12), Batches((8,))


def log_steps(size: float, critical: float = CRITICAL) -> float:
    """Return the true log S up to a constant."""
    return math.log1p((critical / size) ** BEND) / BEND


def scatter(size: float) -> float:
    """Return the scatter over seeds at a batch size."""
    return float(np.interp(math.log(size), [math.log(b) for b in SCATTER], list(SCATTER.values())))


def cell(
    random: Random, size: int, seeds: Batches, critical: float = CRITICAL, shift: float = 0.0, noise=1.0, between=CHOICE
) -> Seeds:
    """Return log steps by seed of one tuned cell."""
    centre = log_steps(size, critical) + shift + between * random.standard_normal()
    most = sum(seeds.numbers)
    values = centre + noise * scatter(size) * random.standard_normal(most)
    values = np.where(random.random(most) < LOST, math.inf, values)
    run = seeds.numbers[0]
    for more in seeds.numbers[1:]:
        if half_width([Score(math.exp(value), 0.0) for value in values[:run]]) <= seeds.precision:
            break
        run += more
    return dict(enumerate(values[:run].tolist()))


def pair(random: Random, seeds: Batches, ratio: float = 1.0, sizes=(16, 512), noise: float = 1.0) -> rules.Pair:
    """Return a small and a large cell of an arm whose critical batch is `ratio` times the usual."""
    small, large = (cell(random, b, seeds, CRITICAL * ratio, noise=noise) for b in sizes)
    return small, large


def bent(random: Random, seeds: Batches, gain: float, sizes=(16, 512), noise: float = 1.0) -> rules.Pair:
    """Return the same for an arm whose speed-up is larger by a factor, as at a margin."""
    small, large = sizes
    return cell(random, small, seeds, shift=math.log(gain), noise=noise), cell(random, large, seeds, noise=noise)


def curve(
    random: Random, seeds: Batches, sizes=SIZES, critical: float = CRITICAL, slope: float | None = None
) -> FitData:
    """Return one mean a size of a whole tuned curve; a power law where a slope is given."""
    means, squares, runs = [], [], 0
    for b in sizes:
        values = [v for v in cell(random, b, seeds, critical, between=BETWEEN).values() if math.isfinite(v)]
        if slope is not None:
            values = [v - log_steps(b, critical) - slope * math.log(b) for v in values]
        runs += len(values)
        means.append(float(np.mean(values)))
        squares.append(np.var(values, ddof=1) / len(values))
    return FitData(np.array(sizes, float), np.array(means), float(np.mean(squares)), runs)


def fitted(data: FitData) -> fits.Fit:
    return fits.fit(fits.softened(tuple(data.sizes)), data.log_steps, data.within, data.runs)


@dataclass(frozen=True)
class Truth:
    """One row: what is true, and the parts that a study of it gives."""

    claim: str
    what: str
    parts: Callable[[Random], list[Part] | tuple[Part, list[Part]]]  # with a premise where the claim has one
    right: str = SUPPORTED  # what should come out; at a margin, what should hardly ever


def golmant_1(slope=None, seeds=CURVE):
    def parts(random):
        data = curve(random, seeds, slope=slope)
        return rules.regimes(fitted(data), data.sizes, **MARGINS["golmant-1"])

    return parts


def golmant_2(slope=None, seeds=CURVE, targets=2):
    def parts(random):
        fit = [fitted(curve(random, seeds, slope=slope)) for _ in range(targets)]
        return [rules.flat_top(f, 2048, "target", MARGINS["golmant-2"]["ratio"]) for f in fit]

    return parts


def golmant_3(critical=CRITICAL, seeds=CURVE):
    def parts(random):
        data = curve(random, seeds, critical=critical)
        end = size_interval(data, fitted(data), 1.25).mapped(lambda b: b / 10_000)
        return [Part("end of linear scaling / size of the data", end, below=1 / 16)]

    return parts


def golmant_4(ratio, seeds=CURVE, sizes=(4, 128)):
    def parts(random):
        base = pair(random, seeds, sizes=sizes)
        others = [pair(random, seeds, ratio, sizes) for _ in range(2)]
        return [rules.speed_up_part(base, other, "task", above=MARGINS["golmant-4"]["ratio"]) for other in others]

    return parts


def golmant_5(gain, lost, top_gain=1.0, seeds=RULES):
    """`gain` in the middle, `lost` of the runs at the top; fixed rates, so that nothing is chosen."""

    def parts(random):
        found = []
        for _ in range(2):
            none = {b: cell(random, b, seeds) for b in (128, 2048)}
            rule = {128: cell(random, 128, seeds, shift=-math.log(gain))}
            rule[2048] = cell(random, 2048, seeds, shift=-math.log(top_gain))
            rule[2048] = {k: math.inf if random.random() < lost else v for k, v in rule[2048].items()}
            found += [
                rules.helps_somewhere(none, rule, MARGINS["golmant-5"]["ratio"], "helps"),
                rules.fails_at_the_top(none[2048], rule[2048], MARGINS["golmant-5"]["ratio"], "rule"),
            ]
        return found

    return parts


def golmant_7(change, seeds=5):
    def parts(random):
        x = np.linspace(0, 1, len(SIZES))
        at = 0.25 + change * x + PAIRED_BETWEEN * random.standard_normal(len(SIZES))
        ratios = {
            b: dict(enumerate(m + PAIRED * random.standard_normal(seeds))) for b, m in zip(SIZES, at, strict=True)
        }
        found = rules.paired_trend(ratios).mapped(math.exp)
        return [Part("S(validation)/S(train), largest over smallest", found, above=MARGINS["golmant-7"]["ratio"])]

    return parts


def golmant_9(ratio):
    def parts(random):
        arms = {"a": pair(random, BASE), "b": pair(random, ARM), "c": pair(random, ARM, ratio)}
        _, most = rules.most_different(arms)
        return [Part("largest difference", most.mapped(math.exp), above=MARGINS["golmant-9"]["ratio"])]

    return parts


def one_arm(claim, ratio=None, gain=1.0, seeds=ARM, noise=1.2):
    def parts(random):
        other = (
            bent(random, seeds, 1 / gain, noise=noise) if ratio is None else pair(random, seeds, 1 / ratio, noise=noise)
        )
        return [rules.speed_up_part(pair(random, BASE), other, "simpler over harder", above=MARGINS[claim]["ratio"])]

    return parts


def golmant_11(gain, seeds=BASE, noise=1.2):
    def parts(random):
        base = pair(random, seeds)
        others = [bent(random, seeds, gain, noise=noise), bent(random, seeds, math.sqrt(gain), noise=noise)]
        ratio = MARGINS["golmant-11"]["ratio"]
        return [rules.speed_up_part(o, base, "part", 1 / ratio, ratio) for o in others]

    return parts


def golmant_13(gain, seeds=ARM, arms=5):
    def parts(random):
        base = pair(random, BASE)
        others = [bent(random, seeds, gain if i == 0 else 1.0) for i in range(arms)]
        return [rules.speed_up_part(o, base, "heuristic", below=MARGINS["golmant-13"]["ratio"]) for o in others]

    return parts


def own_2(ratio, gain):
    def parts(random):
        base = pair(random, BASE)
        part = rules.speed_up_difference(bent(random, BASE, gain, noise=1.2), base)
        noisy = rules.speed_up_difference(pair(random, ARM, 1 / ratio, noise=1.2), base)
        _, network = rules.most_different({"a": base, "b": pair(random, ARM), "c": pair(random, ARM, ratio)})
        least = rules.size_of(part)
        return [
            Part(name, rules.minus(rules.size_of(effect), least).mapped(math.exp), above=1.0)
            for name, effect in (("network", network), ("complexity", noisy))
        ]

    return parts


def accuracies(gaps: list[float], seeds: int, sd: float, above=None, below=None):
    """Differences of mean accuracies between neighbouring arms, in points."""

    def parts(random):
        values = [dict(enumerate(g + sd * random.standard_normal(seeds))) for g in np.cumsum([0.0, *gaps])]
        found = [rules.difference(b, a) for a, b in itertools.pairwise(values)]
        return [Part("points", i, above=above, below=below) for i in found]

    return parts


def shares(*arms: tuple[float, int, bool]):
    """Shares of runs: (truth, seeds, whether it should be above a half)."""

    def parts(random):
        drawn = [proportion(int(random.binomial(n, p)), n) for p, n, _ in arms]
        return [
            Part("share", i, **({"above": 0.5} if up else {"below": 0.5}))
            for i, (*_, up) in zip(drawn, arms, strict=True)
        ]

    return parts


def you_9(test, train, seeds=10):
    """Evidence on the deficit of the full batch, in points of test and training accuracy, with its premise."""

    def found(random):
        tests = [dict(enumerate(x + 2 * POINTS * random.standard_normal(seeds))) for x in (0.0, -test)]
        trains = [dict(enumerate(x + 0.1 * random.standard_normal(seeds))) for x in (0.0, -train)]
        shared = [{k: t[k] - MARGINS["you-9"]["share"] * e[k] for k in t} for t, e in zip(trains, tests, strict=True)]
        premise = Part("deficit", rules.difference(*tests), above=MARGINS["you-9"]["points"])
        return premise, [Part("training deficit - share x test deficit", rules.difference(*shared), above=0.0)]

    return found


def golmant_12(ratio, seeds=12, horizons=2):
    """Horizons at the full batch: how many steps the best of the longer ones saves."""

    def parts(random):
        start = scatter(2048) * random.standard_normal(seeds)  # of the initial weights, the same for all horizons
        shifts = CHOICE * random.standard_normal(1 + horizons) - math.log(ratio) * np.array([0, *[1] * horizons])
        base, *longer = (dict(enumerate(start + x + PAIRED * random.standard_normal(seeds))) for x in shifts)
        return [rules.saves_no_steps(base, longer, MARGINS["golmant-12"]["ratio"])]

    return parts


AT = "at the margin"
TRUTHS = [
    Truth("golmant-1", "B_crit 93", golmant_1()),
    Truth("golmant-1", "a power law, slope 0.5", golmant_1(slope=0.5), CONTRADICTED),
    Truth("golmant-2", "B_crit 93, two targets", golmant_2()),
    Truth("golmant-2", "a power law, slope 0.5", golmant_2(slope=0.5), CONTRADICTED),
    Truth("golmant-3", "B_crit 93", golmant_3()),
    Truth("golmant-3", "B_crit 2,000", golmant_3(2000.0), CONTRADICTED),
    Truth("golmant-4", "B_crit a quarter", golmant_4(1 / 4)),
    Truth("golmant-4", "B_crit a half", golmant_4(1 / 2)),
    Truth("golmant-4", "no difference", golmant_4(1.0), CONTRADICTED),
    Truth("golmant-5", "x 2 in the middle, all lost at the top", golmant_5(2.0, 1.0)),
    Truth("golmant-5", "x 2 in the middle, as steps without at the top", golmant_5(2.0, 0.0)),
    Truth("golmant-5", "x 2 in the middle and at the top", golmant_5(2.0, 0.0, 2.0), CONTRADICTED),
    Truth("golmant-6", "the loss is never reached", shares((0.02, 10, False))),
    Truth("golmant-6", "the loss is always reached", shares((0.98, 10, False)), CONTRADICTED),
    Truth("golmant-7", "no change", golmant_7(0.0), CONTRADICTED),
    Truth("golmant-7", "x 1.5", golmant_7(math.log(1.5))),
    Truth("golmant-7", AT, golmant_7(math.log(1.25)), AT),
    Truth("golmant-9", "B_crit x 2", golmant_9(2.0)),
    Truth("golmant-9", "B_crit x 3", golmant_9(3.0)),
    Truth("golmant-9", "no difference", golmant_9(1.0), CONTRADICTED),
    Truth("golmant-10", "noise lowers B_crit by 2", one_arm("golmant-10", ratio=2.0)),
    Truth("golmant-10", "noise raises the speed-up by 1.4 (pilot)", one_arm("golmant-10", gain=1 / 1.4), CONTRADICTED),
    Truth("golmant-10", "no difference", one_arm("golmant-10"), CONTRADICTED),
    Truth("golmant-10", AT, one_arm("golmant-10", gain=1.25), AT),
    Truth("golmant-11", "no difference", golmant_11(1.0)),
    Truth("golmant-11", "x 1.2", golmant_11(1.2)),
    Truth("golmant-11", "x 3", golmant_11(3.0), CONTRADICTED),
    Truth("golmant-11", AT, golmant_11(1.5), AT),
    Truth("golmant-12", "no gain", golmant_12(1.0)),
    Truth("golmant-12", "x 0.95 (pilot)", golmant_12(0.95)),
    Truth("golmant-12", "x 1.6", golmant_12(1.6), CONTRADICTED),
    Truth("golmant-12", AT, golmant_12(1.25, horizons=1), AT),
    Truth("golmant-13", "none helps", golmant_13(1.0)),
    Truth("golmant-13", "one x 3", golmant_13(3.0), CONTRADICTED),
    Truth("golmant-13", AT, golmant_13(1.75), AT),
    Truth("you-1", "1.5 points over the tuned baseline (pilot)", accuracies([1.5], 20, 3.0, above=5.0), CONTRADICTED),
    Truth("you-1", "10 points", accuracies([10.0], 20, 3.0, above=5.0)),
    Truth("you-7", "1 point better", accuracies([1.0], 10, POINTS, above=-0.5)),
    Truth("you-7", "as good", accuracies([0.0], 10, POINTS, above=-0.5)),
    Truth("you-7", "2 points worse", accuracies([-2.0], 10, 2 * POINTS, above=-0.5), CONTRADICTED),
    Truth("you-9", "2.5 points of test, none of training (pilot)", you_9(2.5, 0.0), CONTRADICTED),
    Truth("you-9", "2.5 points of both", you_9(2.5, 2.5)),
    Truth("you-10", "LARS 6 points below momentum (pilot)", accuracies([-6.0, 3.0], 30, 5.0, above=0.5), CONTRADICTED),
    Truth("you-10", "each 5 points above the last", accuracies([5.0, 5.0], 30, 5.0, above=0.5)),
    Truth("you-11", "0 and 98 % arrive", shares((0.02, 10, False), (0.98, 10, True))),
    Truth("you-11", "both arrive", shares((0.98, 10, False), (0.98, 10, True)), CONTRADICTED),
    Truth("you-3, you-6", "power form in 95 % of the runs", shares((0.95, 24, True))),
    Truth("own-2", "networks and noise x 2, size none", own_2(2.0, 1.0)),
    Truth("own-2", "networks and noise x 3, size none", own_2(3.0, 1.0)),
    Truth("own-3", "merging raises B_crit by 2", one_arm("own-3", ratio=2.0)),
    Truth("own-3", "merging halves the speed-up (pilot)", one_arm("own-3", gain=0.5), CONTRADICTED),
]


def evidence(premise: Part | None, parts: list[Part]) -> Evidence:
    return Evidence(parts, "", premise=premise)


def outcomes(truth: Truth, studies: int, seed: int = 0) -> tuple[float, float]:
    """Return the share of studies in which the claim is supported and contradicted."""
    random = np.random.default_rng(seed)
    drawn = [truth.parts(random) for _ in range(studies)]
    found = [
        conjunction(evidence(*made)) if isinstance(made, tuple) else conjunction(evidence(None, made)) for made in drawn
    ]
    return found.count(SUPPORTED) / studies, found.count(CONTRADICTED) / studies


def main(studies: int = 400) -> None:
    """Print the table."""
    print("| claim | truth | supported | contradicted |\n|---|---|---|---|")
    for truth in TRUTHS:
        supported, contradicted = outcomes(truth, studies)
        print(f"| {truth.claim} | {truth.what} | {100 * supported:.0f} % | {100 * contradicted:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
