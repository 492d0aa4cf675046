"""The command line: the only place that knows tasks, data, callbacks and run directories all together."""

import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.profilers import PassThroughProfiler, Profiler
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.begin_from import BeginFrom
from callbacks.convergence_detector import ConvergenceDetector
from callbacks.evaluation_schedule import EvaluationSchedule
from callbacks.prediction_writer import PredictionWriter
from callbacks.progress import Progress
from callbacks.record import TOO_EARLY, write_atomically
from callbacks.rolling_checkpoint import AtomicCheckpointIO, RollingCheckpoint
from callbacks.run_record import RunRecord, outcome
from datamodules.base import InMemoryDataModule
from tasks import short_names  # noqa: F401
from tasks.base import ExactBatchTask
from tasks.changed_class import Changes, nothing_taken_over
from tasks.errors import (
    USER_ERRORS,
    FailedError,
    FinishedError,
    UserError,
    not_finite,
    sentence,
)
from tasks.gradient import is_out_of_memory
from tasks.parser import Parser
from tasks.process import (
    check_arguments,
    disable_malloc_trim,
    end_on_interrupt,
    in_order,
    is_first,
    quiet,
    say,
    search_beside_configs,
    signals_restored,
)
from tasks.refused import check
from tasks.run_directory import (
    checkpoint_hash,
    claimed,
    essence,
    fingerprint,
    locate,
    measured_checkpoint,
    named,
    resume_from,
)
from tasks.starter import STARTER, end_with_starter
from tasks.wandb_logger import RunWandbLogger, arm_and_stage, mirror_again

LAST_WORDS = 30.0  # seconds that another rank has to end after the first one, at the end of every run
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

COMMON = (ExactBatchTask, InMemoryDataModule)  # another task or data set keeps what all of them have


class PlacedError(Exception):
    """Raised by those who want to know a run's directory alone: nothing is built."""


class FitLoop(_FitLoop):
    """Lightning's, which leaves out the start and the end of a fit whose last step was made before it was cut off."""

    skip = False


class Cli(LightningCLI):
    """LightningCLI with this project's callbacks, run directories and error messages."""

    def __init__(
        self, verb: str, placed: Callable[["Cli"], None], held: contextlib.ExitStack, changes: Changes
    ) -> None:
        self.changes = changes  # of classes, whose settings are gone
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

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Return the one verb, and what of its arguments is no option."""
        skip = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "return_predictions"}
        return {self.verb: skip | {"verbose", "weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the callbacks that every run has."""
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
        """Check the settings, and find out which run they are and where it goes on."""
        config = self.config[self.subcommand]
        check(config)
        if self.subcommand != "fit":  # a mirror of the run would begin anew
            config.trainer.logger = False
        self.begin_from = Path(config.ckpt_path) if self.subcommand == "fit" and config.ckpt_path else None
        if self.subcommand == "fit":
            self._name_beginning(config)
        settings = self._essence(config)
        for number in not_finite(settings):
            raise UserError(f"{number}: give a finite number")
        settings = named(settings)
        config.run.name = settings["run"]["name"]
        self.settings, self.identity = settings, fingerprint(settings)
        self.directory = locate(Path(config.trainer.default_root_dir), config.run.study, config.run.name)
        self.notes = self.changes.told(settings)
        self.placed(self)
        for note in self.notes if is_first() else []:
            print(note, file=sys.stderr)
        if self.subcommand == "fit":
            if is_first():
                self.held.enter_context(claimed(self.directory))
            self.resume_from = resume_from(self.directory, settings)
        else:
            config.ckpt_path = str(measured_checkpoint(config.ckpt_path, self.directory, self.identity))

    def _name_beginning(self, config: Namespace) -> None:
        """Let the checkpoint that a run begins from be part of what the run is, by its hash and not its place."""
        given, known = config.ckpt_path, config.run.begun_from
        config.ckpt_path = config.run.begun_from = None
        scratch = named(self._essence(config))["run"]["name"] if given else ""
        folder = Path(config.trainer.default_root_dir) / config.run.study
        config.run.begun_from = checkpoint_hash(given, known, folder / scratch)

    def _essence(self, config: Namespace) -> dict[str, Any]:
        """Return the settings that make the run what it is."""
        return essence(yaml.safe_load(self._dump(config)))

    def _dump(self, config: Namespace) -> str:
        parser = self._parser(self.subcommand)  # parsing has validated: to do so again takes most of a dump
        try:
            return parser.dump(config, skip_unset=False, skip_link_targets=False, skip_validation=True)
        except yaml.YAMLError as error:
            raise UserError(f"{error.args[-1]!r} cannot be written into config.yaml: give another class") from error

    # building -------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Build trainer, task and data. Raises UserError for what they refuse."""
        try:
            super().instantiate_classes()
        except USER_ERRORS as error:
            raise UserError(sentence(error)) from error

    def instantiate_trainer(self, **options: Any) -> Trainer:
        """Return the trainer, with checkpoints, an end, signals and a requeueing of our own."""
        trainer = super().instantiate_trainer(**options)
        connector = (
            trainer._signal_connector
        )  # its handler waits for the other ranks, for ever where they wait for this
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        before, trainer.fit_loop = trainer.fit_loop, FitLoop(trainer, max_epochs=1)
        trainer.fit_loop.epoch_loop = before.epoch_loop
        cluster = trainer._accelerator_connector.cluster_environment
        if isinstance(cluster, SLURMEnvironment):  # its checkpoints of its own would start other runs of the same root
            cluster.auto_requeue = False
        return trainer

    def after_instantiate_classes(self) -> None:
        """Tell the callbacks which run this is."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, RollingCheckpoint | PredictionWriter):
                callback.directory = self.directory
            if isinstance(callback, RollingCheckpoint):
                callback.identity = self.identity
            if isinstance(callback, RunRecord):
                callback.settings = self.settings

    # running --------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Write the run's config.yaml, and name its mirror in W&B."""
        if self.begin_from and not self.resume_from:
            callbacks_of(self.trainer).insert(0, BeginFrom(self.begin_from))
        if self.trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.directory / "config.yaml", self._dump(self.config.fit))
            for logger in self.trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    logger.name_run(self.directory, *arm_and_stage(self.settings))

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
        os.environ[STARTER] = str(os.getpid())  # for the other ranks, which Lightning starts from here
        if self.trainer.world_size > 1:
            end_on_interrupt()
        try:
            super()._run_subcommand(subcommand)
        except USER_ERRORS as error:
            if self.trainer.global_step:
                raise FailedError(f"{sentence(error)}; the same command goes on in {self.directory}") from error
            raise UserError(sentence(error)) from error
        except (FailedError, MemoryError):
            raise
        except Exception as error:  # what nobody foresaw
            if is_out_of_memory(error):
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
        writer = next(c for c in callbacks_of(self.trainer) if isinstance(c, RunRecord))
        if writer.written.status == "failed":
            raise FailedError(writer.written.error or "the run failed")
        if writer.written.status not in ("diverged", "outrun") and "test" in self.datamodule.splits:
            self.trainer.test(self.model, self.datamodule, verbose=False)
        writer.close(self.trainer, self.model)
        for logger in self.trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.summarize(outcome(writer.written), self.directory)
                logger.close()
        if self.trainer.is_global_zero:
            next(c for c in callbacks_of(self.trainer) if isinstance(c, RollingCheckpoint)).discard()
            profile: Profiler | None = self.trainer.profiler  # type: ignore[attr-defined]  # set, but not declared
            if profile and not isinstance(profile, PassThroughProfiler):
                print(profile.summary())  # by itself it only logs, which is silenced
            record = writer.written
            scores = "".join(f", {name} {value:.4g}" for name, value in (record.test or {}).items())
            print(f"{record.status} at step {record.final['step']:,.0f}{scores}: {self.directory}", file=sys.stderr)
            if record.cut_short:
                print(f"past its target in {', '.join(record.cut_short)}, {TOO_EARLY}", file=sys.stderr)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks of a trainer."""
    return trainer.callbacks  # type: ignore[attr-defined]  # set, but not declared


@cache
def spare_the_imports() -> None:
    """Have garbage collections pass over what was imported, once: the one that ends a run took 0.2 s, a tenth of it."""
    gc.freeze()


def place(args: Sequence[str]) -> Cli:
    """Return the run that `args` stand for, before anything is built. Raises UserError where they cannot be parsed."""

    def stop(cli: Cli) -> NoReturn:
        found.append(cli)
        raise PlacedError

    found: list[Cli] = []
    with contextlib.suppress(PlacedError):
        run(args, stop)
    return found[0]


def run(args: Sequence[str], placed: Callable[[Cli], None] = lambda _: None) -> None:
    """Run `fit`, `validate`, `test` or `predict` with `args`; may be called many times in one process."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    end_with_starter(0.0 if is_first() else LAST_WORDS)
    quiet()
    disable_malloc_trim()
    spare_the_imports()
    # Lightning's launcher starts the other ranks by running sys.argv again
    argv, sys.argv = sys.argv, [sys.argv[0], *in_order(args)]
    try:
        with signals_restored(), nothing_taken_over(COMMON) as changes, contextlib.ExitStack() as held:
            check_arguments(sys.argv[1:])
            search_beside_configs(sys.argv[1:])
            Cli(args[0], placed, held, changes)
    except RecursionError as error:
        raise UserError("a value is nested too deep: give fewer levels") from error
    finally:
        sys.argv = argv
        os.environ.pop(STARTER, None)
        torch.use_deterministic_algorithms(False)
        gc.collect()


def main(args: Sequence[str]) -> int:
    """Run a verb; return 0 for a run that ended (or diverged), 2 for a user's mistake, 130 or 143 after a signal."""
    try:
        run(args)
    except UserError as error:
        return say(error, 2)
    except FailedError as error:
        return say(error, error.status)
    except FinishedError as note:
        print(note, file=sys.stderr)
        if "WANDB_SWEEP_ID" in os.environ:  # an agent died between the run's end and W&B's
            mirror_again(note.directory)
    except SystemExit as exit_:  # Lightning's answer to Ctrl-C and SIGTERM, after the record is written
        if isinstance(exit_, SIGTERMException):
            return 128 + signal.SIGTERM
        code = exit_.code if isinstance(exit_.code, int) else 0
        return 130 if code == 1 else code
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        memory = "out of memory: give a smaller model.micro_batch_size, or more memory"
        return say(memory if is_out_of_memory(error) else sentence(error), 1)
    return 0
