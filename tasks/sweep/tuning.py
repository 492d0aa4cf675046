"""The search for a learning rate (protocol rule 12), as a function of the scores so far."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Score(NamedTuple):
    """How a run did, better first: steps to the target (infinite for a miss), then its distance at the end."""

    steps: float
    gap: float


class Search:
    """Coarse grid, extended where the best is at its edge, then refined around the best.

    Nothing is remembered: the answer follows from the scores, so any process comes to the same.

    Args:
        rates: the coarse grid, rising.
        seeds: those that each rate is tried with.
        score: gives a run's score and, where there is none yet, None; to ask is to want the run.
        tolerance: refine until the best steps change by less than this part.
        extensions: how often the grid may grow beyond an edge.
        refinements: how often the spacing may be halved, in logarithms.
        halving: try all rates with one seed, the better half with two, a quarter with four, and so on.
    """

    def __init__(
        self,
        rates: Sequence[float],
        seeds: Sequence[int],
        score: Callable[[float, int], Score | None],
        tolerance: float = 0.05,
        extensions: int = 4,
        refinements: int = 2,
        halving: bool = False,
    ) -> None:
        self.rates, self.seeds, self.score = sorted(rates), list(seeds), score
        self.tolerance, self.extensions, self.refinements, self.halving = tolerance, extensions, refinements, halving
        self.ratio = self.rates[-1] / self.rates[-2]
        self.tried = list(self.rates)

    def run(self) -> bool:
        """Try what follows from the scores; whether the search has come to its end. Once per object."""
        extended = level = 0
        while (best := self.best()) is not None:
            if self.at_edge(best) and extended < self.extensions and level == 0:
                extended += 1
                self._try(best * self.ratio if best == max(self.tried) else best / self.ratio)
            elif level < self.refinements and self._still_moves(level):
                level += 1
                step = self.ratio ** (0.5**level)
                self._try(best * step)
                self._try(best / step)
            else:
                return True
        return False

    def _still_moves(self, level: int) -> bool:
        """Whether the last refinement made the steps fewer by the tolerance or more; the first is always made."""
        if level == 0:
            return True
        _, old = self._first([rate for rate in self.tried if self._level(rate) < level])
        _, new = self._first(self.tried)
        return math.isfinite(new.steps) and new.steps < (1 - self.tolerance) * old.steps

    def _level(self, rate: float) -> int:
        """How many halvings of the spacing it takes to come to this rate from the coarse grid."""
        place = math.log(rate / self.rates[0]) / math.log(self.ratio)
        return next(level for level in range(60) if abs(place * 2**level - round(place * 2**level)) < 1e-6)

    def _try(self, rate: float) -> None:
        if not any(math.isclose(rate, old, rel_tol=1e-6) for old in self.tried):
            self.tried.append(rate)

    def best(self) -> float | None:
        """The best of the rates tried, of equals the lowest; None while runs are missing."""
        first = self._first(self.tried)
        return None if first is None else first[0]

    def _first(self, rates: Sequence[float]) -> tuple[float, Score] | None:
        left, count = list(rates), 1 if self.halving else len(self.seeds)
        while True:
            scores = {rate: self._median(rate, self.seeds[:count]) for rate in left}
            if None in scores.values():
                return None
            left = sorted(left, key=lambda rate: (scores[rate], rate))
            if count >= len(self.seeds):
                return left[0], scores[left[0]]
            left, count = left[: math.ceil(len(left) / 2)], min(2 * count, len(self.seeds))

    def _median(self, rate: float, seeds: Sequence[int]) -> Score | None:
        scores = [self.score(rate, seed) for seed in seeds]
        if None in scores:
            return None
        return Score(statistics.median(s.steps for s in scores), statistics.median(s.gap for s in scores))

    def at_edge(self, rate: float) -> bool:
        """Whether no lower, or no higher, rate was tried."""
        return rate in (min(self.tried), max(self.tried))

    def add_trial(self) -> None:
        """Try one more rate: the nearest to the best on the finest grid so far."""
        best, step = self.best(), self.ratio ** (0.5 ** max(map(self._level, self.tried)))
        if best is None:
            return
        count = len(self.tried)
        for i in range(1, 2 * count + 2):
            for rate in (best * step**i, best / step**i):
                if len(self.tried) == count:
                    self._try(rate)


def equal_trials(searches: Sequence[Search]) -> None:
    """Give every arm as many rates as the one that tried most: more trials find a better best by luck alone."""
    most = max(len(search.tried) for search in searches)
    for search in searches:
        while len(search.tried) < most:
            count = len(search.tried)
            search.add_trial()
            if len(search.tried) == count:
                break
