"""Which directory a run has, and whether it may go on there."""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from callbacks.record import Record, Unusable, read_record
from callbacks.rolling_checkpoint import FINAL, checkpoints, damage, newest_whole
from tasks.errors import FinishedError, UserError, difference, short

# what a run is does not depend on these, so they may differ when it is resumed
INCIDENTAL = {"trainer": ("logger", "default_root_dir", "devices", "num_nodes"), "progress": ("every", "show")}
LONGEST_NAME = 200  # bytes; file systems allow 255, and files beside a run are named after it
ELSE = "delete that directory, or give another --run.name"
LOCK = ".lock"


def essence(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what makes the run of these settings another run if it is changed."""
    kept = {key: value for key, value in settings.items() if key not in ("config", "ckpt_path", "checkpoint")}
    for part, names in INCIDENTAL.items():
        kept[part] = {k: v for k, v in kept[part].items() if k not in names}
    kept["run"] = {k: v for k, v in kept["run"].items() if k != "begun_from" or v is not None}
    return kept


def fingerprint(settings: dict[str, Any]) -> str:
    """Return a hash of the settings, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def named(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the run's name: where none was given, batch size, seed and a hash."""
    name, size = settings["run"]["name"], settings["data"]["init_args"]["batch_size"]
    if name is None:
        name = f"b{size}-s{settings['seed_everything']}-{fingerprint(settings)[:8]}"
    return settings | {"run": settings["run"] | {"name": name}}


def locate(root: Path, study: str, name: str) -> Path:
    """Return the run's directory. Raises UserError where a name would leave its folder or runs would be nested."""
    for option, value in {"run.study": study, "run.name": name}.items():
        whole = value and not value.startswith(".") and value.isprintable() and not set(value) & {"/", "\\"}
        if not whole or len(os.fsencode(value)) > LONGEST_NAME:
            raise UserError(
                f"{option} is {short(value)}: give the name of one folder, without slashes or a dot in front and of "
                f"at most {LONGEST_NAME} bytes"
            )
    directory = root / study / name
    try:
        outer = [folder for folder in directory.absolute().parents if (folder / "record.json").exists()]
        inner = [record.parent for record in directory.glob("*/record.json")]
    except OSError as error:
        raise UserError(f"trainer.default_root_dir: {short(root)}: {error.strerror}") from error
    if outer or inner:
        raise UserError(f"{directory} and the run {[*outer, *inner][0]} would be one within the other: {ELSE}")
    return directory


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Hold a run's directory: no other process trains there. Raises UserError where one does, or none can be made."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _lock(directory)
    except OSError as error:
        raise UserError(f"trainer.default_root_dir: {short(directory)}: {error.strerror}") from error
    try:
        for part in (*directory.glob("*.part"), *directory.glob("checkpoints/*.part")):
            part.unlink(missing_ok=True)  # what a killed process was writing
        yield
    finally:
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink(missing_ok=True)
            directory.rmdir()  # where nothing was begun
            directory.parent.rmdir()
        os.close(lock)


def _lock(directory: Path) -> int:
    """Return the open file that holds the lock, which ends with this process however that ends."""
    path = directory / LOCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise UserError(
                f"{directory} is being trained by {holder}: wait for it to end, or give another --run.name"
            ) from None
        except OSError as error:
            print(
                f"{directory.parent} has no file locks ({error.strerror}): let no second process train this run",
                file=sys.stderr,
            )
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(file).st_ino:  # else its last holder has deleted it meanwhile
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
        os.close(file)


def whole_checkpoint(directory: Path, identity: str) -> Path | None:
    """Return the run's newest checkpoint that can be read; those that are passed over are named on stderr."""
    path, refused = newest_whole(directory, identity)
    for sentence in refused:
        print(sentence, file=sys.stderr)
    return path


def measured_checkpoint(given: str | None, directory: Path, identity: str) -> Path:
    """Return the checkpoint to measure: the one given, else the run's final one, else its newest.

    Raises UserError where there is none, or where it is damaged.
    """
    final = directory / "checkpoints" / FINAL
    path = Path(given) if given else final if final.is_file() else whole_checkpoint(directory, identity)
    if path is None:
        raise UserError(f"{directory} holds no checkpoint: fit this run first, or give --ckpt_path")
    _check_whole(path)
    return path


def _check_whole(path: Path) -> None:
    """Raise UserError where a checkpoint is damaged."""
    if wrong := damage(path):
        raise UserError(f"{path} is no whole checkpoint ({wrong}): fit its run again, or give another --ckpt_path")


def checkpoint_hash(given: str | None, known: str | None, scratch: Path) -> str | None:
    """Return the hash of the checkpoint that a run begins from, None where it begins from scratch.

    `known` is what its config says of it, `scratch` the directory of the run that has the same settings and begins
    from none. Raises UserError where the checkpoint cannot be begun from.
    """
    if given is None:
        if known is not None:
            raise UserError(f"this run began from the checkpoint with the hash {known}: give it as --ckpt_path")
        return None
    path = Path(given)
    if not path.is_file():
        raise UserError(f"--ckpt_path: there is no file {short(given)}")
    _check_whole(path)
    if path.resolve().is_relative_to(scratch.resolve()):
        raise UserError(f"--ckpt_path {path} is of this very run: leave it out, the same command goes on by itself")
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    if known not in (None, found):
        raise UserError(f"--ckpt_path {path} has the hash {found}, and this run began from {known}: give that one")
    return found


def resume_from(directory: Path, settings: dict[str, Any]) -> Path | None:
    """Return the checkpoint that the run goes on from, None where it begins.

    `settings` are its essence. Raises UserError where the directory is another run's or damaged, FinishedError where
    it is this run's and nothing is left to do.
    """
    record, config = _read_record(directory / "record.json"), _read_config(directory / "config.yaml")
    begun = record is not None or (directory / "checkpoints").exists()
    if begun and config not in (None, settings):
        raise UserError(
            f"{directory} already holds another run, which differs in {difference(config, settings)}: "
            "give another --run.name, or delete that directory"
        )
    if record is None:
        return _resume_unrecorded(directory, fingerprint(settings))
    if config is None:
        raise UserError(f"{directory} holds a record.json without its config.yaml: {ELSE}")
    if record.ended:
        step = record.final.get("step", 0)
        raise FinishedError(
            f"{directory} holds this run, finished: {record.status} at step {step:.0f}; give another --run.name to run "
            "it again",
            directory,
        )
    return whole_checkpoint(directory, fingerprint(settings))


def _resume_unrecorded(directory: Path, identity: str) -> Path | None:
    """Return the checkpoint of a run whose record is not there, None where nothing was trained."""
    found = whole_checkpoint(directory, identity)
    if found is not None:
        print(f"{directory} holds no record.json: it is written anew from {found.name}", file=sys.stderr)
    elif checkpoints(directory) or (directory / "checkpoints" / FINAL).exists():
        raise UserError(f"{directory} holds checkpoints of a run, but no record.json and none to go on from: {ELSE}")
    return found


def _read_record(path: Path) -> Record | None:
    """Return a run's record, None where there is none. Raises UserError where it is damaged."""
    if not path.exists():
        return None
    record = read_record(path)
    if isinstance(record, Unusable):
        raise _damaged(path)
    return record


def _read_config(path: Path) -> dict[str, Any] | None:
    """Return the essence of a run's settings, None where there are none. Raises UserError where they are damaged."""
    try:
        return essence(yaml.safe_load(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path.parent} holds a damaged record.json or config.yaml: {ELSE}")
