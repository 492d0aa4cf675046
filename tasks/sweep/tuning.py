"""The search for a learning rate at one batch size (protocol rule 12), as a function of the scores so far."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RACE = 2.0  # a tuning run is outrun past this multiple of the fewest steps at its batch size: at 1.5 the losers tell
# too little of the valley's shape (docs/protocol.md, rule 7)
NEAR = 4.0  # the parabola goes through the rates within this factor of the best
MOST = 12  # rates tried at a batch size, beside the coarse ones and those next to a cliff
STEEP = 0.3  # a fall of log steps a doubling, above what seeds' noise looks like in a valley: without this condition
# the choice cost up to 0.05 of log S in a valley with divergence at 2.8 x its best, with it 0.024
FURTHER = (10_000, 20_000)  # further seeds, above the tuning seeds by as much: no plan's seeds lie so far apart
FINE = 2**0.25  # the factor between the best rate and a lost one at which halving the gap ends


class Score(NamedTuple):
    """How a run did, better first: steps to the target (infinite for a miss), then its distance at the end."""

    steps: float
    gap: float


@dataclass(frozen=True)
class Choice:
    """What a search found.

    Args:
        rate: the learning rate to confirm.
        steps: the fewest steps to the target among the rates tried, infinite where none arrived.
        bracketed: whether a worse rate was tried on both sides of the best.
        trials: the number of rates tried.
    """

    rate: float
    steps: float
    bracketed: bool
    trials: int


def search(
    start: Sequence[float],
    ask: Callable[[float, float], Score | None],
    bound: float = math.inf,
    coarse: Sequence[float] = (),
    again: Callable[[float, float], Score | None] | None = None,
) -> Choice | None:
    """Return the best learning rate, None while runs are missing: they have been asked for.

    The first wave tries the rates of `start`. While none arrives, the next `coarse` rates outwards follow. Then the
    best is doubled or halved until a worse rate lies on both sides of it, and a parabola gives the choice. Where the
    steps still fall steeply and the next rate up is lost, no parabola describes them: the gap is halved, in log rate,
    until it is `FINE`, and the best rate is the choice. So near to a lost rate one seed may arrive by luck: `again`
    returns the worst score of further seeds, and a rate that they lose counts as lost.
    `ask(rate, bound)` returns the score of a run that is outrun after `bound` steps: a multiple of the fewest in the
    waves before, so that no bound depends on the order in which runs end.
    """
    scores: dict[float, Score] = {}
    sure: set[float] = set()
    wave, cliff = list(start), False
    while True:
        if wave:
            fewest = min((score.steps for score in scores.values()), default=math.inf)
            limit = RACE * fewest if math.isfinite(fewest) else bound
            asked = {rate: ask(rate, limit) for rate in wave}
            known = {rate: score for rate, score in asked.items() if score is not None}
            if len(known) < len(asked):
                return None
            scores |= known
        else:
            best, steps = best_of(scores)
            if not (again and cliff) or best in sure or math.isinf(steps):
                break
            if (more := again(best, RACE * steps)) is None:
                return None
            sure.add(best)
            if math.isinf(more.steps):
                scores[best] = more
        wave = next_wave(scores, coarse)
        if not wave:
            wave = below_cliff(scores)
            cliff = cliff or bool(wave)
    bracketed = min(scores) < best < max(scores)
    return Choice(vertex(scores) if bracketed and not cliff else best, steps, bracketed, len(scores))


def best_of(scores: dict[float, Score]) -> tuple[float, float]:
    """Return the best rate, of equals the lowest, and its steps."""
    best = min(scores, key=lambda rate: (scores[rate], rate))
    return best, scores[best].steps


def next_wave(scores: dict[float, Score], coarse: Sequence[float]) -> list[float]:
    """Return the rates that follow from the scores, none where the search has come to its end."""
    best, steps = best_of(scores)
    low, high = min(scores), max(scores)
    edges = {low: low / 2, high: high * 2}
    if math.isinf(steps):
        outwards = sorted(r for r in coarse if r < low)[-1:] + sorted(r for r in coarse if r > high)[:1]
        if outwards:
            return outwards
    if len(scores) >= MOST + len(coarse):
        return []
    return [best / 2, best * 2] if low == high else [edges[best]] if best in edges else []


def below_cliff(scores: dict[float, Score]) -> list[float]:
    """Return the rate halfway from the best to a lost one towards which the steps fall steeply, none without one."""
    best, steps = best_of(scores)
    below, above = [rate for rate in scores if rate < best], [rate for rate in scores if rate > best]
    if not below or not above or math.isinf(steps) or math.isfinite(scores[min(above)].steps):
        return []
    fall = math.log(scores[max(below)].steps / steps) / math.log2(best / max(below))
    return [math.sqrt(best * min(above))] if fall > STEEP and min(above) > 1.01 * FINE * best else []


def vertex(scores: dict[float, Score]) -> float:
    """Return the lowest rate of a parabola in log rate, at most a factor of 2 from the best of those tried.

    It is fitted to log steps: a run that was outrun, diverged or missed counts as outrun just now. Where no run
    arrived, it is fitted to the distances from the target, if all are known.
    """
    best, steps = best_of(scores)
    near = [rate for rate in scores if max(rate / best, best / rate) < 1.01 * NEAR]
    if math.isfinite(steps):
        heights = [math.log(min(scores[rate].steps / steps, RACE)) for rate in near]
    else:
        heights = [scores[rate].gap for rate in near]
    if not all(map(math.isfinite, heights)):
        return best
    bend, slope, _ = np.polyfit([math.log2(rate / best) for rate in near], heights, 2)
    return best * 2.0 ** float(np.clip(-slope / (2 * bend), -1.0, 1.0)) if bend > 0 else best
