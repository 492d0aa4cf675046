"""Which directory a run has, and whether it may go on there."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from callbacks.rolling_checkpoint import newest_whole
from tasks.errors import FinishedError, UserError, difference

# what a run is does not depend on these, so they may differ when it is resumed
INCIDENTAL = {"trainer": ("logger", "default_root_dir", "devices", "num_nodes"), "progress": ("every", "show")}


def essence(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what makes the run of these settings another run if it is changed."""
    kept = {key: value for key, value in settings.items() if key not in ("config", "ckpt_path", "checkpoint")}
    for part, names in INCIDENTAL.items():
        kept[part] = {k: v for k, v in kept[part].items() if k not in names}
    return kept


def fingerprint(settings: dict[str, Any]) -> str:
    """Return a hash of the settings, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def default_name(settings: dict[str, Any]) -> str:
    """Return the name of a run that was given none: batch size, seed and a hash."""
    return f"b{settings['data']['init_args']['batch_size']}-s{settings['seed_everything']}-{fingerprint(settings)[:8]}"


def whole_checkpoint(directory: Path, identity: str) -> Path | None:
    """Return the run's newest checkpoint that can be read; those that are passed over are named on stderr."""
    path, refused = newest_whole(directory, identity)
    for sentence in refused:
        print(sentence, file=sys.stderr)
    return path


def resume_from(directory: Path, settings: dict[str, Any]) -> Path | None:
    """Return the checkpoint that the run goes on from, None where it begins.

    `settings` are its essence. Raises UserError where the directory is another run's, FinishedError where it is
    this run's and nothing is left to do.
    """
    try:
        record = json.loads((directory / "record.json").read_text())
        saved = essence(yaml.safe_load((directory / "config.yaml").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{directory} holds a damaged record.json or config.yaml: delete that directory, or give another --run.name"
        ) from error
    if saved != settings:
        raise UserError(
            f"{directory} already holds another run, which differs in {difference(saved, settings)}: "
            "give another --run.name, or delete that directory"
        )
    if record["ended"]:
        raise FinishedError(
            f"{directory} holds this run, finished: {record['status']} at step {record['final'].get('step')}; "
            "give another --run.name to run it again"
        )
    return whole_checkpoint(directory, fingerprint(settings))
