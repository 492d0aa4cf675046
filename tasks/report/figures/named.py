"""Every figure that can be asked for by name."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.report.curves import Workload
from tasks.report.figures import golmant, instruments, own, you
from tasks.report.figures.drawing import Drawing
from tasks.report.figures.time_and_cost import time_and_cost


@dataclass(frozen=True)
class Named:
    """A figure's title and how it is made: a drawing, or why the runs do not give one."""

    title: str
    make: Callable[[list[Workload]], Drawing | str]


NAMED = {
    "golmant-1": Named("Golmant figure 1: contours of training loss", golmant.figure_1),
    "golmant-2": Named("Golmant figure 2: speed-up by learning-rate rule", golmant.figure_2),
    "golmant-3": Named("Golmant figure 3: architecture and data complexity", golmant.figure_3),
    "golmant-4": Named("Golmant figure 4: size of the data", golmant.figure_4),
    "golmant-5": Named("Golmant figure 5: test performance", golmant.figure_5),
    "you-optimizers": Named("You: optimizers at the largest batch", you.optimizers),
    "you-recipe": Named("You: the recipe, step by step", you.recipe),
    "you-diffusion": Named("You: distance from the initial weights", you.diffusion),
    "time-and-cost": Named("Time to target and cost on P devices, projected", time_and_cost),
    "noise-scale": Named("Noise scale against measured critical batch size", own.noise_scale),
    "noise-along": Named("Noise scale and probe along training", instruments.noise_along),
    "curvature": Named("Linear-approximation error, sharpness and predicted batch", instruments.curvature),
    "cost": Named("What the runs cost", instruments.cost),
    "tuning-budget": Named("How the curve depends on the tuning budget", own.tuning_budget),
}
