"""The command line: the only place that knows tasks, data, callbacks and run directories all together."""

import contextlib
import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import SIGTERMException

# imported so that YAML can name these classes by their short names
import callbacks.cost
import callbacks.critical_batch_probe
import callbacks.gradient_noise_scale
import callbacks.linear_approximation_error
import callbacks.sharpness
import callbacks.weight_distance  # noqa: F401
import datamodules.cifar
import datamodules.cityscapes
import datamodules.fashion_mnist
import datamodules.imagenet
import datamodules.scenes
import datamodules.svhn
import datamodules.text
import datamodules.token_files  # noqa: F401
import tasks.image_classification
import tasks.language_modeling
import tasks.networks.cifar
import tasks.networks.cnn
import tasks.networks.drn
import tasks.networks.language
import tasks.networks.segmentation
import tasks.networks.zoo
import tasks.optim.lamb
import tasks.optim.lars
import tasks.optim.schedules
import tasks.regression
import tasks.segmentation  # noqa: F401
from callbacks.convergence_detector import ConvergenceDetector, Target
from callbacks.evaluation_schedule import EvaluationSchedule
from callbacks.prediction_writer import PredictionWriter
from callbacks.progress import Progress
from callbacks.record import write_atomically
from callbacks.rolling_checkpoint import AtomicCheckpointIO, RollingCheckpoint
from callbacks.run_record import RunRecord, outcome
from datamodules.base import InMemoryDataModule
from tasks.base import ExactBatchTask
from tasks.errors import (
    REFUSED,
    REFUSED_CALLBACKS,
    USER_ERRORS,
    FailedError,
    FinishedError,
    UserError,
    not_finite,
    sentence,
    short,
)
from tasks.process import (
    check_arguments,
    config_first,
    disable_malloc_trim,
    is_first,
    quiet,
    search_beside_configs,
    signals_restored,
)
from tasks.run_directory import claimed, default_name, essence, fingerprint, locate, measured_checkpoint, resume_from
from tasks.wandb_logger import RunWandbLogger

DEFAULTS = {  # of the trainer
    "default_root_dir": "runs",
    "max_epochs": 1,
    "val_check_interval": 1,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": -1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


class PlacedError(Exception):
    """Raised by those who want to know a run's directory alone: nothing is built."""


class FitLoop(_FitLoop):
    """Lightning's, which leaves out the start and the end of a fit whose last step was made before it was cut off."""

    skip = False


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        fit = f"python -m tasks {sys.argv[1]}"
        hint = f"; `{fit} --help` lists the options, `--model.help CLASS` and `--data.help CLASS` those of a class"
        if self_resuming(message):
            hint = ": leave it out, the same command goes on from the run's own newest checkpoint"
        unknown = ("not accepted" in message or "unrecognized" in message) and hint not in message
        raise UserError(sentence(message) + (hint if unknown else "")) from ex


def self_resuming(message: str) -> bool:
    """Return whether a parser complains of the checkpoint to go on from, which `fit` finds by itself."""
    return "unrecognized" in message and "--ckpt_path" in message


class Cli(LightningCLI):
    """LightningCLI with this project's callbacks, run directories and error messages."""

    def __init__(self, verb: str, placed: Callable[["Cli"], None], held: contextlib.ExitStack) -> None:
        self.verb = verb  # only its parser is built: that is most of the start-up
        self.placed = placed  # called when `directory` is known, before anything is built
        self.held = held  # what is given back at the end, whatever that is
        super().__init__(
            ExactBatchTask,
            InMemoryDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults=DEFAULTS | {"callbacks": [PredictionWriter()] if verb == "predict" else []},
        )

    def subcommands(self) -> dict[str, set[str]]:
        skip = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "return_predictions"}
        skip |= {"verbose", "weights_only"} | ({"ckpt_path"} if self.verb == "fit" else set())
        return {self.verb: skip}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EvaluationSchedule, "evaluation")
        parser.add_lightning_class_args(ConvergenceDetector, "convergence")
        parser.add_lightning_class_args(RunRecord, "run")
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(RollingCheckpoint, "checkpoint")

    def _parse_ckpt_path(self) -> None:
        """Leave a checkpoint closed: Lightning's looks for hyperparameters in it, which no run here saves."""

    # before anything is built ---------------------------------------------------------------------------

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        check(config)
        if self.subcommand != "fit":  # a mirror of the run would begin anew
            config.trainer.logger = False
        settings = essence(yaml.safe_load(self._dump(config)))
        for number in not_finite(settings):
            raise UserError(f"{number}: give a finite number")
        if config.run.name is None:
            config.run.name = settings["run"]["name"] = default_name(settings)
        self.settings, self.identity = settings, fingerprint(settings)
        self.directory = locate(Path(config.trainer.default_root_dir), config.run.study, config.run.name)
        self.placed(self)
        if self.subcommand == "fit":
            if is_first():
                self.held.enter_context(claimed(self.directory))
            self.resume_from = resume_from(self.directory, settings)
        else:
            config.ckpt_path = str(measured_checkpoint(config.ckpt_path, self.directory, self.identity))

    def _dump(self, config: Any) -> str:
        parser = self._parser(self.subcommand)  # parsing has validated: to do so again takes most of a dump
        try:
            return parser.dump(config, skip_unset=False, skip_link_targets=False, skip_validation=True)
        except yaml.YAMLError as error:
            raise UserError(f"{error.args[-1]!r} cannot be written into config.yaml: give another class") from error

    # building -------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except USER_ERRORS as error:
            raise UserError(sentence(error)) from error

    def instantiate_trainer(self, **options: Any) -> Trainer:
        trainer = super().instantiate_trainer(**options)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        before, trainer.fit_loop = trainer.fit_loop, FitLoop(trainer, max_epochs=1)
        trainer.fit_loop.epoch_loop = before.epoch_loop
        cluster = trainer._accelerator_connector.cluster_environment
        if isinstance(cluster, SLURMEnvironment):  # its checkpoints of its own would start other runs of the same root
            cluster.auto_requeue = False
        return trainer

    def after_instantiate_classes(self) -> None:
        for callback in self.trainer.callbacks:
            if isinstance(callback, RollingCheckpoint | PredictionWriter):
                callback.directory = self.directory
            if isinstance(callback, RollingCheckpoint):
                callback.identity = self.identity
            if isinstance(callback, RunRecord):
                callback.settings = self.settings

    # running --------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        if self.trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.directory / "config.yaml", self._dump(self.config.fit))
            for logger in self.trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    logger.name_run(self.directory, *self._arm_and_stage())

    def _arm_and_stage(self) -> tuple[str, str | None]:
        """Return the optimizer with its rate, and the stage of the plan, as W&B shows them."""
        chosen = self.settings["model"]["init_args"]["optimizer"]
        rate, plan = chosen.get("init_args", {}).get("lr"), self.settings["run"]["plan"] or {}
        name = chosen["class_path"].rpartition(".")[2]
        return name if rate is None else f"{name} {rate:g}", plan.get("stage")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        options = super()._prepare_subcommand_kwargs(subcommand)
        options["weights_only"] = True  # a checkpoint is data: none may run code
        if subcommand == "fit":
            options["ckpt_path"] = str(self.resume_from) if self.resume_from else None
            if self.resume_from and self.trainer.is_global_zero:
                print(f"resuming from {self.resume_from}", file=sys.stderr)
        if subcommand in ("validate", "test"):
            options["verbose"] = False
        if subcommand == "predict":
            options["return_predictions"] = False
        return options

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except USER_ERRORS as error:
            if self.trainer.global_step:
                raise FailedError(f"{sentence(error)}; the same command goes on in {self.directory}") from error
            raise UserError(sentence(error)) from error
        except (FailedError, MemoryError):
            raise
        except Exception as error:  # what nobody foresaw
            if out_of_memory(error):
                raise
            first = f"{type(error).__name__}: {error}".split("\n")[0]
            raise FailedError(f"{first}{self._keep_traceback()}", 1 if self.trainer.global_step else 2) from error

    def _keep_traceback(self) -> str:
        """Write the traceback into the run's directory; return the words that say so."""
        try:
            write_atomically(self.directory / "traceback.txt", traceback.format_exc())
        except OSError:
            return ""
        return f"; {self.directory / 'traceback.txt'} says where"

    def after_validate(self) -> None:
        """Print what was measured."""
        if self.trainer.is_global_zero:
            for name, value in self.model.evaluation.items():
                print(f"{name:20} {value:.6g}")

    after_test = after_validate

    def after_fit(self) -> None:
        """Read the test split, once, at the stop (protocol rule 4), and say how the run ended."""
        writer = next(c for c in self.trainer.callbacks if isinstance(c, RunRecord))
        if writer.record.status == "failed":
            raise FailedError(writer.record.error)
        if writer.record.status not in ("diverged", "outrun") and "test" in self.datamodule.splits:
            self.trainer.test(self.model, self.datamodule, verbose=False)
        writer.close(self.trainer, self.model)
        for logger in self.trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.summarize(outcome(writer.record))
                logger.close()
        if self.trainer.is_global_zero:
            next(c for c in self.trainer.callbacks if isinstance(c, RollingCheckpoint)).discard()
            if (profile := self.trainer.profiler) and not isinstance(profile, PassThroughProfiler):
                print(profile.summary())  # by itself it only logs, which is silenced
            record = writer.record
            scores = "".join(f", {name} {value:.4g}" for name, value in (record.test or {}).items())
            print(f"{record.status} at step {record.final['step']:,.0f}{scores}: {self.directory}", file=sys.stderr)


def check(config: Any) -> None:
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


def check_devices(accelerator: Any, devices: Any) -> None:
    """Raise UserError where a CPU is asked for far more processes than it has cores: they would start for hours."""
    if not str(devices).isdecimal():
        if isinstance(devices, str) and devices != "auto" and not re.fullmatch(r"-1|[0-9]+(, ?[0-9]+)*,?", devices):
            raise UserError(f"trainer.devices is {short(devices)}: give a number, a list of numbers, or auto")
        return
    cores = os.cpu_count() or 1
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and int(devices) > 8 * cores:
        raise UserError(f"trainer.devices is {short(devices)}, and this machine has {cores} cores: give {cores}")


@cache
def spare_the_imports() -> None:
    """Have garbage collections pass over what was imported, once: the one that ends a run took 0.2 s, a tenth of it."""
    gc.freeze()


def place(args: Sequence[str]) -> Path:
    """The directory of the run that `args` stand for; UserError where they cannot be parsed."""

    def stop(cli: Cli) -> NoReturn:
        found.append(cli.directory)
        raise PlacedError

    found: list[Path] = []
    with contextlib.suppress(PlacedError):
        run(args, stop)
    return found[0]


def run(args: Sequence[str], placed: Callable[[Cli], None] = lambda _: None) -> None:
    """Run `fit`, `validate`, `test` or `predict` with `args`; may be called many times in one process."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    disable_malloc_trim()
    spare_the_imports()
    # Lightning's launcher starts the other ranks by running sys.argv again
    argv, sys.argv = sys.argv, [sys.argv[0], *config_first(args)]
    try:
        with signals_restored(), contextlib.ExitStack() as held:
            check_arguments(sys.argv[1:])
            search_beside_configs(sys.argv[1:])
            Cli(args[0], placed, held)
    except RecursionError as error:
        raise UserError("a value is nested too deep: give fewer levels") from error
    finally:
        sys.argv = argv
        torch.use_deterministic_algorithms(False)
        gc.collect()


def main(args: Sequence[str]) -> int:
    """Run a verb; 0 for a finished run (also a diverged one), 2 for a user's mistake, 130 and 143 after a signal."""
    quiet()
    try:
        run(args)
    except UserError as error:
        return say(error, 2)
    except FailedError as error:
        return say(error, error.status)
    except FinishedError as note:
        print(note, file=sys.stderr)
    except SystemExit as exit_:  # Lightning's answer to Ctrl-C and SIGTERM, after the record is written
        if isinstance(exit_, SIGTERMException):
            return 128 + signal.SIGTERM
        return 130 if exit_.code == 1 else exit_.code
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        memory = "out of memory: give a smaller model.micro_batch_size, or more memory"
        return say(memory if out_of_memory(error) else sentence(error), 1)
    return 0


def say(error: object, status: int) -> int:
    """Print an error as one sentence; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return status


def out_of_memory(error: BaseException) -> bool:
    """Return whether the host or the GPU had no memory left."""
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)
