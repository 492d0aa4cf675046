"""How sharp is the minimum, and which batch its curvature says is too large."""

import numpy as np
import torch
from pytorch_lightning import Trainer
from scipy.optimize import minimize
from torch import Tensor

from callbacks.loss_surface import AfterTraining, LossSurface, top_eigenvalue
from tasks.protocols import Task

BLOCK = 2**16  # weights whose directions are held in double precision at once


def sharpness(surface: LossSurface, epsilon: float, dimensions: int, iterations: int, seed: int = 0) -> float:
    """Return phi = 100 (max over the box of f(x + A y) - f(x)) / (1 + f(x)) (Keskar et al. 2016), in per cent.

    The box is |y_i| <= epsilon (|(A+ x)_i| + 1). The maximum is sought by L-BFGS-B from 0, where the gradient does not
    vanish, and is thus a lower bound.

    Args:
        surface: f, at the weights x.
        epsilon: half the width of the box, relative to the weights.
        dimensions: of y; the directions A, standard normal, take size x `dimensions` numbers of memory.
        iterations: of L-BFGS-B.
        seed: of A.
    """
    generator = torch.Generator().manual_seed(seed)
    like = surface.weights[0]
    directions = torch.randn(surface.size, dimensions, generator=generator).to(like.device, like.dtype)
    weights = torch.cat([w.detach().reshape(-1) for w in surface.weights])
    gram, along = (torch.zeros(n, dimensions, dtype=torch.float64, device=like.device) for n in (dimensions, 1))
    for a, w in zip(torch.split(directions, BLOCK), torch.split(weights, BLOCK), strict=True):
        gram += a.double().T @ a.double()
        along += w.double() @ a.double()
    inverse = torch.linalg.solve(gram, along[0])  # A+ x = (A'A)^-1 A'x
    bound = epsilon * (inverse.abs() + 1).cpu().numpy()

    def negative(y: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = surface.gradient(directions @ torch.as_tensor(y).to(like.device, like.dtype))
        return -loss, -_host(directions.T @ gradient)

    start = surface.loss()
    options = {"maxiter": iterations, "maxfun": 3 * iterations}
    found = minimize(
        negative,
        np.zeros(dimensions),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(-bound, bound, strict=True)),
        options=options,
    )
    return 100 * (max(-float(found.fun), start) - start) / (1 + start)


def _host(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


class Sharpness(AfterTraining):
    """Adds to the record's final numbers what the curvature at the final weights says, on the fixed training subset.

    `sharpness/keskar`: the relative rise of the loss in a box of a random subspace, in per cent.
    `sharpness/top_eigenvalue`: of the Hessian, lambda. `sharpness/example_eigenvalue`: the largest of `examples` single
    examples, beta, a lower bound. `sharpness/predicted_batch` = beta / lambda + 1: the batch beyond which Ma, Bassily
    and Belkin 2018 predict that steps stop paying (proved for convex, interpolating models alone).

    Args:
        epsilon: half the width of the box, relative to the weights.
        dimensions: of the random subspace.
        iterations: of L-BFGS-B, and at most of each power iteration.
        examples: single examples whose curvature is measured.
    """

    def __init__(self, epsilon: float = 1e-3, dimensions: int = 100, iterations: int = 10, examples: int = 32) -> None:
        if epsilon <= 0 or min(dimensions, iterations, examples) < 1:
            raise ValueError("sharpness: epsilon is more than 0; dimensions, iterations and examples are at least 1")
        self.epsilon, self.dimensions, self.iterations, self.examples = epsilon, dimensions, iterations, examples
        super().__init__()

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Refuse before the run what cannot be measured after it.

        Raises:
            ValueError: if the subspace has more dimensions than there are weights.
        """
        size = LossSurface(task, task.data.whole("trainset")).size
        if self.dimensions > size:
            raise ValueError(f"sharpness: {self.dimensions} dimensions of {size} weights: give at most {size}")

    def measure(self, trainer: Trainer, task: Task) -> dict[str, float]:
        """Return the four numbers by name, none where the loss is not finite."""
        subset = task.data.whole("trainset")
        surface = LossSurface(task, subset)
        if not np.isfinite(surface.loss()):
            return {}
        spread = np.linspace(0, len(subset) - 1, min(self.examples, len(subset))).astype(int).tolist()
        single = [LossSurface(task, subset, (i, i + 1)) for i in spread if subset.elements(i, i + 1)]
        whole = top_eigenvalue(surface, self.iterations)
        largest = max(top_eigenvalue(s, self.iterations) for s in single)
        return {
            "sharpness/keskar": sharpness(surface, self.epsilon, self.dimensions, self.iterations),
            "sharpness/top_eigenvalue": whole,
            "sharpness/example_eigenvalue": largest,
            "sharpness/predicted_batch": largest / whole + 1 if whole > 0 else float("nan"),
        }
