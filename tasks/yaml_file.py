"""YAML that a person wrote, read so that nothing in it is lost in silence or keeps the program for ever."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

Content = Any  # of a YAML document: whoever reads one checks it
DEEPEST = 60  # levels; those of this project have 9
MOST = 1_000_000  # values, those of an alias counted wherever it stands


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """PyYAML's, which refuses a key that stands twice; there the last value would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping. Raises ValueError where it has a key twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ValueError(f"has the key {key.value!r} twice (line {key.start_mark.line + 1}): remove one")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Content:
    """Return a file's content. Raises ValueError, which names the file, where it cannot be read or is not YAML."""
    try:
        return parse_yaml(path.read_bytes().decode())
    except OSError as error:
        raise ValueError(f"{str(path)[:200]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def parse_yaml(text: str) -> Content:
    """Return the content of a YAML document. Raises ValueError where it is none, goes round in a circle or is huge."""
    try:
        content = yaml.load(text, Loader)
        if "*" in text or text.count("[") + text.count("{") > DEEPEST or "\n" + " " * DEEPEST in text:
            _measure(content)
    except RecursionError:
        raise ValueError(f"is nested too deep: give at most {DEEPEST} levels") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise ValueError(f"is not YAML: {getattr(error, 'problem', None) or error}{line}") from None
    return content


def _measure(content: object) -> None:
    """Raise ValueError where content is in a circle, too deep or too large."""
    left: list[tuple[object, tuple[int, ...]]] = [(content, ())]
    count = 0
    while left:
        value, above = left.pop()
        count += 1
        if id(value) in above:
            raise ValueError("holds itself: an alias (*) stands within what it names; write it out")
        if len(above) > DEEPEST:
            raise ValueError(f"is nested too deep: give at most {DEEPEST} levels")
        if count > MOST:
            raise ValueError(f"stands for more than {MOST:,} values: give fewer")
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            left += [(item, (*above, id(value))) for item in inner]
