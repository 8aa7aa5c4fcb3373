"""Forms of values in a job file: how people write durations, sizes and choices, and what the program gets.

Each form is an `Annotated` type. Its `Form` carries the words that error messages and the reference page both use, so they cannot differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, JsonValue

from antinfer.spec.near import did_you_mean
from antinfer.spec.plain import plain

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DECIMAL_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES = _DECIMAL_BYTES | {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_STORE_SCHEMES = ("redis", "rediss", "unix")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is written, in words for people; found in the metadata of an `Annotated` type."""

    text: str


def parse_duration(value: object) -> float:
    """Read ``30``, ``"30s"``, ``"1h30m"`` or ``"250ms"`` as seconds. Raises ValueError on anything else."""
    if _is_number(value):
        return _positive(float(value))  # type: ignore[arg-type]
    if isinstance(value, str) and value.strip():
        text, seconds, at = value.strip().lower(), 0.0, 0
        while at < len(text):
            part = _DURATION_PART.match(text, at)
            if part is None or part[2] not in _SECONDS:
                break
            seconds, at = seconds + float(part[1]) * _SECONDS[part[2]], part.end()
        else:
            return _positive(seconds)
    raise ValueError(f"must be a duration such as 30s, 10m, 6h or 1h30m (a bare number is seconds), not {value!r}")


def parse_size(value: object, also: str = "") -> int:
    """Read ``1048576``, ``"256MB"`` (10^6) or ``"256MiB"`` (2^20) as bytes. Raises ValueError on anything else.

    `also` begins what the error says is allowed: ``"auto or "`` where the caller takes that.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is not None and match[2].upper() in _BYTES:
            size = int(float(match[1]) * _BYTES[match[2].upper()])
            if size > 0:
                return size
    raise ValueError(f"must be {also}a size such as 64MB, 128MiB or 1GB (a bare number is bytes), not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"must be a duration above zero, not {seconds!r}")
    return seconds


def _duration_or(word: str | None) -> Callable[[object], float | str | None]:
    def parse(value: object) -> float | str | None:
        return word if value == word else parse_duration(value)

    return parse


def _size_or_auto(value: object) -> int | str:
    return "auto" if value == "auto" else parse_size(value, "auto or ")


def _lifetime(value: object) -> int | str:
    if value is False or value == "off":
        # The first is what a reader of YAML 1.1 makes of a bare off.
        return "off"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str):
        # In seconds, since workers read a job without the means of this module.
        return f"{parse_duration(value)!r}s"
    raise ValueError(f"must be off, a number of batches or a duration such as 30m or 6h, not {value!r}")


def _size_or_none(value: object) -> int | None:
    return None if value is None else parse_size(value)


def _count(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"must be auto or a whole number of at least 1, not {value!r}")


def _concurrency(value: object) -> int | str | tuple[int, int]:
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in value) and value[0] <= value[1]:
            return (value[0], value[1])
    elif value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"must be auto, a whole number of at least 1, or [min, max] with 1 <= min <= max, not {value!r}")


def _share(value: object) -> float | str:
    if value == "auto":
        return "auto"
    if _is_number(value) and 0 <= value <= 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ValueError(f"must be auto or a number from 0 to 1, not {value!r}")


def _edges(value: object) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(edge, int) and not isinstance(edge, bool) and edge >= 1 for edge in value):
        edges: tuple[int, ...] = tuple(value)
        if all(one < other for one, other in pairwise(edges)):
            return edges
    raise ValueError(f"must be a list of ascending whole numbers of at least 1, such as [32, 64, 128], not {value!r}")


def _or_off(value: object) -> object:
    # What a reader of YAML 1.1 makes of a bare off.
    return "off" if value is False else value


def _column_list(value: object) -> object:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"must be a list of column names, not {value!r}")
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise ValueError(f"names {', '.join(map(repr, twice))} more than once")
    return tuple(value)


def _columns_or_none(value: object) -> object:
    return None if value is None else _column_list(value)


def _columns_or_star(value: object) -> object:
    return "*" if value in ("*", ["*"], ("*",)) else _column_list(value)


def _paths(value: object) -> object:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(path, str) and path for path in value):
        raise ValueError(f"must be a path or a list of paths, not {value!r}")
    return tuple(value)


def check_store_url(url: str) -> str:
    """Return `url`. Raises ValueError when it is no URL of a store."""
    scheme = url.split("://", 1)[0] if "://" in url else ""
    if url and scheme not in _STORE_SCHEMES:
        # The URL itself stays out of the message: it may hold a password.
        hint = did_you_mean(scheme, _STORE_SCHEMES)
        raise ValueError(f"must start with redis://, rediss:// or unix:// (empty: a server of our own is started){hint}")
    try:
        parts = urlsplit(url)
        is_whole = not url or scheme == "unix" or (bool(parts.hostname) and parts.port != 0)
        database = "" if scheme == "unix" else parts.path.strip("/")
    except ValueError:
        is_whole, database = False, ""
    if not is_whole:
        raise ValueError(f"must name a host, and a port from 1 to 65535 where it names one: {scheme}://HOST:PORT/0")
    if database and not database.isdecimal():
        raise ValueError(f"must end with the number of a database, not with {database!r}: {scheme}://HOST:PORT/0")
    return url


def _json_dict(value: object) -> object:
    return plain(value) if isinstance(value, Mapping) else value


Auto = Literal["auto"]
_DURATION = Form("duration: `30s`, `10m`, `6h`, `1h30m`; a bare number is seconds")
OptionalDuration = Annotated[float | None, _DURATION, BeforeValidator(_duration_or(None))]
Duration = Annotated[float, _DURATION, BeforeValidator(parse_duration)]
AutoDuration = Annotated[float | Auto, Form("`auto` or a duration: `30s`, `10m`, `6h`"), BeforeValidator(_duration_or("auto"))]
AutoSize = Annotated[int | Auto, Form("`auto` or a size: `64MB`, `128MiB`, `1GB`; a bare number is bytes"), BeforeValidator(_size_or_auto)]
OptionalSize = Annotated[int | None, Form("size: `64MB`, `128MiB`, `1GB`; a bare number is bytes"), BeforeValidator(_size_or_none)]
AutoCount = Annotated[int | Auto, Form("`auto` or a whole number of at least 1"), BeforeValidator(_count)]
Lifetime = Annotated[int | str, Form("`off`, a number of batches, or a duration: `30m`, `6h`"), BeforeValidator(_lifetime)]
Concurrency = Annotated[
    int | Auto | tuple[int, int], Form("`auto`, a whole number of at least 1, or `[min, max]`"), BeforeValidator(_concurrency)
]
GpuShare = Annotated[float | Auto, Form("`auto` or a number from 0 to 1"), BeforeValidator(_share)]
Edges = Annotated[tuple[int, ...], Form("list of ascending whole numbers"), BeforeValidator(_edges)]
Tuning = Annotated[Literal["auto", "off"], BeforeValidator(_or_off)]
EventLog = Annotated[Literal["full", "story", "off"], BeforeValidator(_or_off)]
Columns = Annotated[tuple[str, ...], Form("list of column names"), BeforeValidator(_column_list)]
OptionalColumns = Annotated[tuple[str, ...] | None, Form("list of column names"), BeforeValidator(_columns_or_none)]
ColumnsOrStar = Annotated[
    tuple[str, ...] | Literal["*"], Form('list of column names, or `"*"`: all columns of the source'), BeforeValidator(_columns_or_star)
]
Paths = Annotated[tuple[str, ...], Form("path, URI or glob, or a list of them"), BeforeValidator(_paths)]
StoreUrl = Annotated[str, Form("`redis://`, `rediss://` or `unix://` URL"), AfterValidator(check_store_url)]
JsonDict = Annotated[dict[str, JsonValue], Form("mapping of names to JSON values"), BeforeValidator(_json_dict)]
