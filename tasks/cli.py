"""The command line: the only place that knows tasks, data, callbacks and run directories all together."""

import contextlib
import ctypes
import gc
import hashlib
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
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
import tasks.segmentation  # noqa: F401
from callbacks.convergence_detector import ConvergenceDetector, Target
from callbacks.evaluation_schedule import EvaluationSchedule
from callbacks.prediction_writer import PredictionWriter
from callbacks.progress import Progress
from callbacks.rolling_checkpoint import FINAL, AtomicCheckpointIO, RollingCheckpoint, newest_whole
from callbacks.run_record import RunRecord, write_atomically
from datamodules.base import InMemoryDataModule
from tasks.base import ExactBatchTask
from tasks.errors import REFUSED, USER_ERRORS, FinishedError, UserError, difference, sentence
from tasks.wandb_logger import RunWandbLogger

# what a run is does not depend on these, so they may differ when it is resumed
INCIDENTAL = {"trainer": ("logger", "default_root_dir", "devices", "num_nodes"), "progress": ("every", "show")}


class PlacedError(Exception):
    """Not an error: ends the road of a run as soon as its directory is known."""


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        fit = f"python -m tasks {Cli.verb}"
        hint = f"; `{fit} --help` lists the options, `--model.help CLASS` and `--data.help CLASS` those of a class"
        unknown = ("not accepted" in message or "unrecognized" in message) and hint not in message
        raise UserError(sentence(message) + (hint if unknown else "")) from ex


class Cli(LightningCLI):
    """LightningCLI with this project's callbacks, run directories and error messages."""

    verb = "fit"  # only its parser is built: that is most of the start-up
    placed: Callable[["Cli"], None]  # called when `directory` is known, before anything is built

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        skip = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "return_predictions"}
        skip |= {"verbose", "weights_only"} | ({"ckpt_path"} if cls.verb == "fit" else set())
        return {cls.verb: skip}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EvaluationSchedule, "evaluation")
        parser.add_lightning_class_args(ConvergenceDetector, "convergence")
        parser.add_lightning_class_args(RunRecord, "run")
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(RollingCheckpoint, "checkpoint")

    # before anything is built ---------------------------------------------------------------------------

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        for flag, (allowed, instead) in REFUSED.items():
            if config.trainer.get(flag) not in allowed:
                raise UserError(f"trainer.{flag}={config.trainer[flag]} contradicts exact batches: use {instead}")
        if config.trainer.max_steps == 0 or config.trainer.max_steps < -1:
            raise UserError(f"trainer.max_steps is {config.trainer.max_steps}: give at least 1, or -1 for no limit")
        try:
            for target in config.convergence.targets or []:
                Target.parse(target)
        except ValueError as error:
            raise UserError(str(error)) from error
        if self.subcommand != "fit":  # a mirror of the run would begin anew
            config.trainer.logger = False
        dump = self._essence(yaml.safe_load(self._dump(config)))
        if config.run.name is None:
            digest = hashlib.sha256(json.dumps(dump, sort_keys=True).encode()).hexdigest()[:8]
            config.run.name = f"b{dump['data']['init_args']['batch_size']}-s{dump['seed_everything']}-{digest}"
            dump["run"]["name"] = config.run.name
        self.identity = hashlib.sha256(json.dumps(dump, sort_keys=True).encode()).hexdigest()
        self.directory = Path(config.trainer.default_root_dir) / config.run.study / config.run.name
        self.placed(self)
        if self.subcommand == "fit":
            self._look_for_a_run(dump)
        elif config.ckpt_path is None:
            final = self.directory / "checkpoints" / FINAL
            config.ckpt_path = str(final) if final.exists() else self._whole_checkpoint()
            if config.ckpt_path is None:
                raise UserError(f"{self.directory} holds no checkpoint: fit this run first, or give --ckpt_path")

    def _dump(self, config: Any) -> str:
        parser = self._parser(self.subcommand)  # parsing has validated: to do so again takes most of a dump
        return parser.dump(config, skip_unset=False, skip_link_targets=False, skip_validation=True)

    @staticmethod
    def _essence(dump: dict[str, Any]) -> dict[str, Any]:
        for key in ("config", "ckpt_path", "checkpoint"):
            dump.pop(key, None)
        for part, names in INCIDENTAL.items():
            dump[part] = {k: v for k, v in dump[part].items() if k not in names}
        return dump

    def _whole_checkpoint(self) -> str | None:
        path, refused = newest_whole(self.directory, self.identity)
        for sentence_ in refused:
            print(sentence_, file=sys.stderr)
        return str(path) if path else None

    def _look_for_a_run(self, dump: dict[str, Any]) -> None:
        """Resume the run that the directory holds, or refuse another's."""
        self.resume_from = None
        try:
            record = json.loads((self.directory / "record.json").read_text())
            saved = self._essence(yaml.safe_load((self.directory / "config.yaml").read_text()))
        except FileNotFoundError:
            return
        except (ValueError, yaml.YAMLError) as error:
            raise UserError(
                f"{self.directory} holds a damaged record.json or config.yaml: delete that directory, or give another "
                "--run.name"
            ) from error
        if saved != dump:
            raise UserError(
                f"{self.directory} already holds another run, which differs in {difference(saved, dump)}: "
                "give another --run.name, or delete that directory"
            )
        if record["ended"]:
            raise FinishedError(
                f"{self.directory} holds this run, finished: {record['status']} at step {record['final'].get('step')}; "
                "give another --run.name to run it again"
            )
        self.resume_from = self._whole_checkpoint()

    # building -------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except USER_ERRORS as error:
            raise UserError(sentence(error)) from error

    def instantiate_trainer(self, **options: Any) -> Trainer:
        trainer = super().instantiate_trainer(**options)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
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

    # running --------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        if self.trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.directory / "config.yaml", self._dump(self.config.fit))
            for logger in self.trainer.loggers:
                if isinstance(logger, RunWandbLogger):
                    logger.name_run(self.directory)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        options = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "fit":
            options["ckpt_path"] = self.resume_from
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
                raise
            raise UserError(sentence(error)) from error

    def after_validate(self) -> None:
        """Print what was measured."""
        if self.trainer.is_global_zero:
            for name, value in self.model.evaluation.items():
                print(f"{name:20} {value:.6g}")

    after_test = after_validate

    def after_fit(self) -> None:
        """Read the test split, once, at the stop (protocol rule 4), and say how the run ended."""
        record = next(c for c in self.trainer.callbacks if isinstance(c, RunRecord))
        if record.record["status"] != "diverged" and "test" in self.datamodule.splits:
            self.trainer.test(self.model, self.datamodule, verbose=False)
        record.close(self.trainer, self.model)
        for logger in self.trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.close()
        if self.trainer.is_global_zero:
            self.trainer.checkpoint_callback.discard()
            final = record.record["final"]
            test = record.record["test"] or {}
            scores = "".join(f", {name} {value:.4g}" for name, value in test.items())
            print(f"{record.record['status']} at step {final['step']:,}{scores}: {self.directory}", file=sys.stderr)


def config_first(args: Sequence[str]) -> list[str]:
    """Put --config options before all others: jsonargparse lets a later file override earlier flags silently."""
    verb, rest, first, others = args[:1], list(args[1:]), [], []
    while rest:
        option = rest.pop(0)
        if option in ("--config", "-c") and rest:
            first += [option, rest.pop(0)]
        else:
            (first if option.startswith(("--config=", "-c=")) else others).append(option)
    return [*verb, *first, *others]


def quiet() -> None:
    """Silence what the libraries say of every run and nobody can use."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step: by default it gives large pieces back to the system.

    Their page faults made the steps of Fashion-MNIST 1.2 to 1.6 times as long on a CPU, as of batch 256.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in {-4: 0, -1: 2**31 - 1}.items():  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
            libc.mallopt(option, value)


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
    keep_freed_memory()
    spare_the_imports()
    # Lightning's launcher starts the other ranks by running sys.argv again
    argv, sys.argv = sys.argv, [sys.argv[0], *config_first(args)]
    Cli.verb, Cli.placed = args[0], staticmethod(placed)
    try:
        Cli(
            ExactBatchTask,
            InMemoryDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={
                "default_root_dir": "runs",
                "max_epochs": 1,
                "val_check_interval": 1,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": -1,
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "callbacks": [PredictionWriter()] if args[0] == "predict" else [],
            },
        )
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
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FinishedError as note:
        print(note, file=sys.stderr)
    except SystemExit as exit_:  # Lightning's answer to Ctrl-C and SIGTERM, after the record is written
        if isinstance(exit_, SIGTERMException):
            return 128 + signal.SIGTERM
        return 130 if exit_.code == 1 else exit_.code
    return 0
