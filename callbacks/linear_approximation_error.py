"""How far a step of the run's own rate leaves the range in which the loss is linear (Golmant et al. 2018, fig. 2)."""

from pytorch_lightning import Trainer

from callbacks.loss_surface import AfterTraining, LossSurface
from tasks.protocols import Task


class LinearApproximationError(AfterTraining):
    """Adds |L(w) - L_lin(w)| at the end of training to the record's final numbers, as `linear_error/absolute`.

    L_lin(w) = L(w*) + <g_m, w - w*> at w = w* - rate g_m: w* are the final weights, g_m the gradient of the batch
    that would come next, rate the scaled rate after warm-up and before the schedule; no momentum, no clipping, and for
    every optimizer a step of plain SGD. L is the mean loss of the fixed training subset. `linear_error/relative` is the
    error over <g_m, w* - w>.
    """

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:
        """Refuse before the run what cannot be measured after it."""
        LossSurface(task, task.data.whole("trainset"))

    def measure(self, trainer: Trainer, task: Task) -> dict[str, float]:
        """Return the absolute and the relative error by name."""
        data = task.data
        subset = LossSurface(task, data.whole("trainset"))
        _, gradient = LossSurface(task, data.batch(trainer.global_step)).gradient()
        rate = task.optimizer.param_groups[0]["initial_lr"]
        before, after = subset.loss(), subset.loss(-rate * gradient)
        promised = rate * float(gradient.double().square().sum())
        error = abs(after - (before - promised))
        return {"linear_error/absolute": error, "linear_error/relative": error / promised if promised else 0.0}
