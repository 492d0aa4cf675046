"""Another `class_path` takes nothing over from the class before it.

By itself jsonargparse keeps every setting that both classes have, in silence: AdamW in place of SGD got SGD's rate and
weight decay. Here the new class has what was given for it, and its own defaults.
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace, _typehints
from jsonargparse._util import import_object


@dataclass
class Changes:
    """The settings of classes that others took the place of.

    Args:
        common: types whose settings are all their classes' own language, as a batch size is: these are taken over.
    """

    common: tuple[type, ...] = ()
    dropped: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def forget(self, _: object, before: Namespace | None, now: Namespace) -> None:
        """Empty the settings of the class before; takes the place of jsonargparse's function that keeps some."""
        if not before or not before.get("init_args") or before["class_path"] == now["class_path"]:
            return
        new = import_object(now["class_path"])
        if inspect.isclass(new) and issubclass(new, self.common):
            return
        settings = dict(before["init_args"].items(branches=True, nested=False))
        self.dropped[now["class_path"]] = (before["class_path"], settings)
        before["init_args"] = Namespace()  # type: ignore[no-untyped-call]

    def told(self, settings: dict[str, Any], path: str = "") -> list[str]:
        """Return a sentence for each class of the finished settings that lost some of the class before it."""
        if not isinstance(settings, dict):
            return []
        names = {key: path if key in ("init_args", "dict_kwargs") else f"{path}.{key}".lstrip(".") for key in settings}
        lines = [line for key, value in settings.items() for line in self.told(value, names[key])]
        before, old = self.dropped.get(settings.get("class_path", ""), ("", {}))
        lost = lost_of(before, old, settings["class_path"], settings.get("init_args") or {}) if before else []
        new = settings.get("class_path", "").rpartition(".")[2]
        return lines + [f"{path}: {new} has nothing of {before.rpartition('.')[2]}'s {', '.join(lost)}"] * bool(lost)


def lost_of(before: str, old: dict[str, Any], now: str, new: dict[str, Any]) -> list[str]:
    """Return the old class's settings that are gone, but for its defaults and what the new class was given anew."""
    lines = []
    for name, value in old.items():
        if name not in new and value != default(before, name):
            lines.append(f"{name} {shown(value)}")
        elif name in new and new[name] != value and new[name] == default(now, name):
            lines.append(f"{name} {shown(value)} (its own is {shown(new[name])})")
    return lines


def shown(value: object) -> object:
    """Return a value as people write it."""
    return f"{value:g}" if isinstance(value, float) else value


def default(path: str, name: str) -> object:
    """Return the default of a parameter, None where it has none."""
    parameter = inspect.signature(import_object(path)).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


@contextlib.contextmanager
def nothing_taken_over(common: tuple[type, ...]) -> Iterator[Changes]:
    """Within this context a changed class takes nothing over; the changes are noted."""
    changes, before = Changes(common), _typehints.discard_init_args_on_class_path_change
    _typehints.discard_init_args_on_class_path_change = changes.forget
    try:
        yield changes
    finally:
        _typehints.discard_init_args_on_class_path_change = before
