"""What a user can get wrong: one sentence that states the problem and the fix."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from lightning_fabric.utilities.exceptions import MisconfigurationException

USER_ERRORS = (ValueError, OSError, MisconfigurationException)


class UserError(Exception):
    """A user's mistake: one sentence that states the problem and the fix; exit status 2."""


class FailedError(Exception):
    """A run that could not go on: one sentence; exit status 1, or 2 if it did not make a single step."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class FinishedError(Exception):
    """Raised where the run directory already holds this very run, finished: there is nothing to do."""

    def __init__(self, message: str, directory: Path) -> None:
        super().__init__(message)
        self.directory = directory


def short(value: object) -> str:
    """Return a value as text for a sentence, without its middle if it is long."""
    text = repr(str(value))
    return text if len(text) <= 100 else f"{text[:60]}...{text[-20:]}"


def not_finite(settings: object, path: str = "") -> Iterator[str]:
    """Yield "NAME is VALUE" for every number of a configuration that is infinite or not a number."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            hidden = key in ("init_args", "dict_kwargs")  # as one writes the option
            yield from not_finite(value, path if hidden else f"{path}.{key}".lstrip("."))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from not_finite(value, path)
    elif isinstance(settings, float) and not math.isfinite(settings):
        yield f"{path} is {settings}"


def sentence(message: object) -> str:
    """Return what a user needs of jsonargparse's many lines: the option's name and the reason."""
    text = str(message)
    if "`tensorboardX` is available" in text:
        return "trainer.logger: TensorBoardLogger needs one more package: `pip install tensorboardX`, or use CSVLogger"
    key = ".".join(re.findall(r'Parser key "([\w.]+)"', text)[:1] + re.findall(r"NestedArg\(key='([\w.]+)'", text)[:1])
    noise = r"(Does not validate|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but)"
    lines = [re.sub(r"^[\s-]+", "", line) for line in re.sub(r'Parser key "[\w.]+":', "", text).splitlines()]
    reasons = list(dict.fromkeys(line for line in lines if line and not re.match(noise, line)))
    reason = " ".join(reasons) or " ".join(text.split())
    reason = reason.split(" Not a valid subclass of Callback")[0]
    reason = reason.removeprefix(key.split(".")[-1] + ": ")
    if "backend found" in reason:
        reason += " Use --trainer.accelerator=cpu, or auto."
    return f"{key}: {reason}" if key and not reason.startswith(key.split(".")[0] + ".") else reason


def difference(a: object, b: object, path: str = "") -> str:
    """Return the dotted name of the first setting in which two configs differ, and both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            if a.get(key) != b.get(key):
                return difference(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} ({a} there, {b} here)"
