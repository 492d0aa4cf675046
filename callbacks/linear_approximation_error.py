"""How far a step of the run's own rate leaves the range in which the loss is linear (Golmant et al. 2018, fig. 2)."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.loss_surface import LossSurface


class LinearApproximationError(Callback):
    """Adds |L(w) - L_lin(w)| at the end of training to the record's final numbers, as `linear_error/absolute`.

    L_lin(w) = L(w*) + <g_m, w - w*> at w = w* - rate g_m: w* are the final weights, g_m the gradient of the batch
    that would come next, rate the scaled rate after warm-up and before the schedule; no momentum, no clipping. L is
    the mean loss of the fixed training subset. `linear_error/relative` is the error over <g_m, w* - w>.
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, task: LightningModule) -> None:
        LossSurface(task, trainer.datamodule.whole("trainset"))  # refuses before the run what it cannot measure

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        data = trainer.datamodule
        subset = LossSurface(task, data.whole("trainset"))
        _, gradient = LossSurface(task, data.batch(trainer.global_step)).gradient()
        rate = task.optimizers(use_pl_optimizer=False).param_groups[0]["initial_lr"]
        before, after = subset.loss(), subset.loss(-rate * gradient)
        promised = rate * float(gradient.double().square().sum())
        error = abs(after - (before - promised))
        self.found = {"linear_error/absolute": error, "linear_error/relative": error / promised if promised else 0.0}

    def facts(self) -> dict[str, dict[str, Any]]:
        """What the run's record says, under `final`."""
        return {"final": self.found}
