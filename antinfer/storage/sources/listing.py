"""Which files a path means: a file, a folder, or a pattern with ``*``, ``?``, ``[...]`` and ``**``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pyarrow as pa
from pyarrow import fs as pafs

from antinfer.errors import SourceError
from antinfer.storage import filesystems
from antinfer.storage.filesystems import Location
from antinfer.storage.sources.base import InputFile

HIDDEN: Final = ("_", ".")
"""First characters of names that no listing returns, as in Hive and Spark."""

_MAGIC: Final = re.compile(r"[*?\[]")

Locate = Callable[[str], Location]


def list_inputs(paths: Sequence[str], locate: Locate) -> list[InputFile]:
    """List the files behind `paths`, each once, sorted by path.

    A folder stands for all files below it. Names that begin with ``_`` or ``.`` are skipped unless the path or pattern spells that
    character. A path that exists as it is spelt is never taken for a pattern.

    Raises:
        SourceError: A path does not exist, cannot be listed, or nothing matches.
    """
    found: dict[str, InputFile] = {}
    for path in paths:
        location = locate(path)
        try:
            matched = _expand(location)
        except (OSError, pa.ArrowException) as cause:
            raise filesystems.explain(cause, location.uri, "list") from cause
        for file in matched:
            found[file.path] = file
    return [found[path] for path in sorted(found)]


def _expand(location: Location) -> list[InputFile]:
    is_pattern = _MAGIC.search(location.path) is not None
    try:
        [info] = location.filesystem.get_file_info([location.path])
    except PermissionError:
        # Some web servers refuse such characters as they are; what the pattern stands for they may give.
        if not is_pattern:
            raise
        info = pafs.FileInfo(location.path, pafs.FileType.NotFound)
    match info.type:
        case pafs.FileType.NotFound if is_pattern:
            files = _glob(location)
            if not files:
                hint = "Names that begin with '_' or '.' are skipped; '**' takes any depth."
                raise SourceError(f"no file matches {location.uri}", hint=hint)
            return files
        case pafs.FileType.NotFound:
            raise SourceError(f"input does not exist: {location.uri}", hint="Check the path; relative paths count from the job file.")
        case pafs.FileType.Directory:
            files = _folder(location)
            if not files:
                raise SourceError(f"folder holds no input file: {location.uri}", hint="Names that begin with '_' or '.' are skipped.")
            return files
        case _:
            return [_input(location, info)]


def _folder(location: Location) -> list[InputFile]:
    infos = location.filesystem.get_file_info(pafs.FileSelector(location.path, recursive=True))
    start = len(location.path.rstrip("/")) + 1
    return [_input(location, info) for info in _files(infos) if not any(name.startswith(HIDDEN) for name in info.path[start:].split("/"))]


def _glob(location: Location) -> list[InputFile]:
    segments = location.path.split("/")
    first = next(i for i, segment in enumerate(segments) if _MAGIC.search(segment))
    base, rest = "/".join(segments[:first]), segments[first:]
    if not base:
        base = "/" if location.path.startswith("/") else ""
    if not base:
        raise SourceError(f"pattern {location.uri} leaves the bucket open", hint="Name the bucket; patterns work inside it.")
    selector = pafs.FileSelector(base, recursive=len(rest) > 1 or rest[0] == "**", allow_not_found=True)
    matches = re.compile(pattern_regex(rest)).fullmatch
    start = len(base.rstrip("/")) + 1
    return [_input(location, info) for info in _files(location.filesystem.get_file_info(selector)) if matches(info.path[start:])]


def pattern_regex(segments: Sequence[str]) -> str:
    """Translate the segments of a pattern to a regular expression for the path below its base; ``**`` matches any number of folders."""
    parts = []
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "**":
            parts.append(r"(?:(?![_.])[^/]+/)*" + (r"(?![_.])[^/]+" if last else ""))
        else:
            parts.append(_segment_regex(segment) + ("" if last else "/"))
    return "(?s:" + "".join(parts) + ")"


def _segment_regex(segment: str) -> str:
    out = [r"(?![_.])"] if _MAGIC.match(segment) else []
    i = 0
    while i < len(segment):
        char = segment[i]
        close = segment.find("]", i + 2) if char == "[" else -1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif close > 0:
            inner = segment[i + 1 : close].replace("\\", r"\\").replace("[", r"\[")
            out.append(f"(?!/)[^{inner[1:]}]" if inner[0] == "!" else f"(?!/)[{inner}]")
            i = close
        else:
            out.append(re.escape(char))
        i += 1
    return "".join(out)


def _files(infos: Iterable[Any]) -> list[Any]:
    return [info for info in infos if info.type == pafs.FileType.File]


def _input(location: Location, info: Any) -> InputFile:
    # Storage that knows no modification time answers None or 0: then only the size can tell a change.
    version = str(info.mtime_ns) if info.mtime_ns else ""
    return InputFile(path=location.uri_of(info.path), size_bytes=int(info.size or 0), version=version)
