"""Reading and writing job files as YAML.

The YAML 1.2 core schema is read, not PyYAML's 1.1: ``no`` and ``on`` are strings (country codes and column names), ``1e-4`` is a number
(learning rates), ``1:30`` is not a number in base 60 and a date stays text, so that every value has a JSON form. A key written twice is an
error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from antinfer.errors import JobFileError

Location = tuple[str | int, ...]
"""Where a value is: keys and list indexes from the top."""

_CORE = (
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", re.compile(r"<<"), "<"),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (a class attribute of PyYAML's)

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)

    def construct_core_float(self, node: yaml.ScalarNode) -> float:
        return float(self.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or our reader would take for something else than text."""

    yaml_implicit_resolvers = {first: list(found) for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks bare into quoted keys and reads them back as blanks; between double quotes it escapes them.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)
for _tag, _pattern, _first in _CORE:
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(_tag, _whole, list(_first))
    _Dumper.add_implicit_resolver(_tag, _whole, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_core_float)


@dataclass(frozen=True, slots=True)
class Lines:
    """Where each value was written, so that a complaint about a value can say where to look."""

    file: str
    places: Mapping[Location, str]
    """``"file:line"`` by location, or the command-line option that set the value; a mapping's entry counts from its key."""

    def place(self, location: Location) -> str:
        """Return the place of `location` or of the nearest value around it."""
        for length in range(len(location), -1, -1):
            place = self.places.get(location[:length])
            if place is not None:
                return place
        return self.file

    def overridden(self, location: Location, place: str) -> Lines:
        """Return the same, but with the value at `location`, and all that is in it, written at `place`."""
        kept = {at: old for at, old in self.places.items() if at[: len(location)] != location}
        return Lines(self.file, {**kept, location: place})


def read_yaml(text: str, file: str) -> tuple[Any, Lines]:
    """Parse one YAML document.

    Args:
        text: The document.
        file: Its name in messages.

    Returns:
        The value (None for an empty document) and where its parts stand.

    Raises:
        JobFileError: The text is not YAML, holds several documents, a key twice, or refers to itself.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise JobFileError(f"{file}: not valid YAML: character {error.position + 1} is {chr(error.character)!r}") from error
    try:
        node = loader.get_single_node()
        places: dict[Location, str] = {}
        if node is not None:
            _walk(node, (), places, file, ())
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{file}:{mark.line + 1}" if mark is not None else file
        raise JobFileError(
            f"{at}: not valid YAML: {error.problem or error.context}", hint="Check the indentation and quotes there."
        ) from error
    finally:
        loader.dispose()
    return value, Lines(file, places)


def read_scalar(text: str) -> Any:
    """Read the right side of ``--set key=value``. Raises JobFileError when it is not YAML."""
    return read_yaml(text, "--set")[0]


def write_yaml(value: Any) -> str:
    """Write plain values (dict, list, str, numbers, bool, None) as YAML, keys in their given order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _walk(node: yaml.Node, at: Location, places: dict[Location, str], file: str, above: tuple[int, ...]) -> None:
    place = f"{file}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise JobFileError(f"{place}: this value contains itself through a YAML alias")
    above = (*above, id(node))
    places.setdefault(at, place)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*at, index), places, file, above)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            place = f"{file}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise JobFileError(f"{place}: a key must be plain text")
            if key.value in seen:
                raise JobFileError(f"{place}: {'.'.join(map(str, (*at, key.value)))} is given twice")
            seen.add(key.value)
            places[(*at, key.value)] = place
            _walk(item, (*at, key.value), places, file, above)
