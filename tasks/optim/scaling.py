"""What changes with the batch size: learning rate, warm-up and averages; all pure."""

import math
import re
from dataclasses import dataclass
from typing import Literal

LRRule = Literal["none", "linear", "sqrt", "legw"]
AverageRule = Literal["none", "noise", "half-life"]
Unit = Literal["steps", "examples", "epochs"]
UNITS: dict[str, Unit] = {"step": "steps", "example": "examples", "epoch": "epochs"}
NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[0-9]+)?"


@dataclass(frozen=True)
class Duration:
    """A length of training, as "5 epochs", "3000 steps" or "64000 examples"."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Return the duration that a text states.

        Raises:
            ValueError: with the forms that there are.
        """
        found = re.fullmatch(rf"\s*({NUMBER})\s+(step|example|epoch)s?\s*", text)
        if found is None:
            raise ValueError(f"{text!r} is no duration; write '5 epochs', '3000 steps' or '64000 examples'.")
        return cls(float(found[1]), UNITS[found[2]])

    def steps(self, batch_size: int, train_examples: int) -> int:
        """Return the number of optimizer steps, rounded up."""
        examples_in_unit = {"steps": batch_size, "examples": 1, "epochs": train_examples}[self.unit]
        return math.ceil(self.amount * examples_in_unit / batch_size - 1e-9)  # 0.1 + 0.2 is not a step more


def lr_factor(rule: LRRule, batch_size: int, base_batch_size: int) -> float:
    """Return what the base learning rate is multiplied by, where k = batch_size / base_batch_size.

    none: 1; linear: k (Goyal et al. 2017); sqrt: the square root of k; legw: the same, and see `warmup_steps`
    (You et al. 2019).
    """
    k = batch_size / base_batch_size
    return {"none": 1.0, "linear": k, "sqrt": math.sqrt(k), "legw": math.sqrt(k)}[rule]


def warmup_steps(
    duration: Duration, rule: LRRule, batch_size: int, base_batch_size: int | None, train_examples: int
) -> int:
    """Return the steps of the warm-up; under `legw` its duration is that of the base batch.

    LEGW multiplies the warm-up's epochs by k, so that it has the same number of steps at every batch size.
    """
    return duration.steps(base_batch_size if rule == "legw" and base_batch_size else batch_size, train_examples)


def scaled_average(beta: float, rule: AverageRule, batch_size: int, base_batch_size: int) -> float:
    """Return a momentum or beta for another batch size, where k = batch_size / base_batch_size.

    none: as it is. noise: 1 - (1 - beta) / k, at least 0, which holds the noise scale lr N / (B (1 - beta))
    at a held rate (Smith et al. 2018). half-life: beta^k, which averages over as many examples as before.
    """
    k = batch_size / base_batch_size
    return float({"none": beta, "noise": max(0.0, 1 - (1 - beta) / k), "half-life": beta**k}[rule])
