"""Settings of Lightning's that contradict exact batches, and what to use instead."""

import os
import re

import torch
from jsonargparse import Namespace

from callbacks.convergence_detector import Target
from tasks.errors import UserError, short

REFUSED = {  # trainer flag: (allowed values, what to use instead)
    "accumulate_grad_batches": ((None, 1), "model.micro_batch_size: data.batch_size is the global batch already"),
    "gradient_clip_val": ((None,), "model.clip_norm"),
    "gradient_clip_algorithm": ((None,), "model.clip_norm"),
    "max_epochs": ((1,), "data.epochs"),
    "min_epochs": ((None,), "convergence.stop=false"),
    "min_steps": ((None,), "convergence.stop=false"),
    "val_check_interval": ((1,), "evaluation.ratio: evaluations are at geometric steps"),
    "check_val_every_n_epoch": ((None,), "evaluation.ratio: evaluations are at geometric steps"),
    "num_sanity_val_steps": ((-1,), "nothing: step 0 is evaluated"),
    "overfit_batches": ((0, 0.0), "data.epochs with a small data set"),
    "limit_train_batches": ((None, 1.0), "data.epochs or trainer.max_steps"),
    "limit_val_batches": ((None, 1.0), "a data set with a smaller validation split"),
    "max_time": (
        (None,),
        "`timeout 8h python -m tasks fit ...`: the same command goes on from its checkpoint",
    ),
    "fast_dev_run": ((False,), "trainer.max_steps=2"),
    "precision": ((None, "32-true", 32, "32", "64-true", 64, "64", "bf16-mixed", "bf16-true"), "bf16-mixed"),
}
STOP = "convergence.targets with a plateau, or convergence.budget_steps and budget_examples: they end a run here"
REFUSED_CALLBACKS = {  # of Lightning: what would change optimizer, rate, batch or the end of a run in silence
    "EarlyStopping": STOP,
    "Timer": REFUSED["max_time"][1],
    "StochasticWeightAveraging": "model.schedule: it would change the rate and the weights that are measured",
    "WeightAveraging": "nothing: the weights that are trained are the ones that are measured",
    "EMAWeightAveraging": "nothing: the weights that are trained are the ones that are measured",
    "GradientAccumulationScheduler": REFUSED["accumulate_grad_batches"][1],
    "BatchSizeFinder": "model.micro_batch_size=null, which finds what fits: data.batch_size is under study",
    "LearningRateFinder": "`python -m tasks limit`, which tunes the rate at each batch size",
    "BackboneFinetuning": "a network that freezes its own parameters",
}


def check(config: Namespace) -> None:
    """Raise UserError where settings contradict what every run here keeps to."""
    for flag, (allowed, instead) in REFUSED.items():
        if config.trainer.get(flag) not in allowed:
            raise UserError(f"trainer.{flag}={config.trainer[flag]} is not supported here: use {instead}")
    if config.trainer.max_steps == 0 or config.trainer.max_steps < -1:
        raise UserError(f"trainer.max_steps is {config.trainer.max_steps}: give at least 1, or -1 for no limit")
    for callback in config.trainer.callbacks or []:
        name = callback.class_path.rpartition(".")[2]
        if name in REFUSED_CALLBACKS:
            raise UserError(f"trainer.callbacks: {name} is not supported here: use {REFUSED_CALLBACKS[name]}")
    check_devices(config.trainer.accelerator, config.trainer.devices)
    try:
        for target in config.convergence.targets or []:
            Target.parse(target)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_devices(accelerator: object, devices: object) -> None:
    """Raise UserError where a CPU is asked for far more processes than it has cores: they would start for hours."""
    if not str(devices).isdecimal():
        if isinstance(devices, str) and devices != "auto" and not re.fullmatch(r"-1|[0-9]+(, ?[0-9]+)*,?", devices):
            raise UserError(f"trainer.devices is {short(devices)}: give a number, a list of numbers, or auto")
        return
    cores = os.cpu_count() or 1
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and int(str(devices)) > 8 * cores:
        raise UserError(f"trainer.devices is {short(devices)}, and this machine has {cores} cores: give {cores}")
