"""Job file to `JobSpec`: reading, overrides, absolute paths."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from antinfer.errors import JobFileError, UsageError
from antinfer.spec import forms
from antinfer.spec.near import did_you_mean
from antinfer.spec.problems import job_file_error, known_keys
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines, Location, read_scalar, read_yaml


def load_job(path: str | os.PathLike[str], overrides: Sequence[str] = (), output: str | None = None) -> JobSpec:
    """Read a job file.

    Args:
        path: The job file, or a folder that holds a ``job.yaml``.
        overrides: ``"key.sub=value"`` each, as from ``--set``: a dotted path with list indexes as numbers (``pipeline.1.batch_size=64``),
            and a YAML value. Applied in order, before validation.
        output: Replaces ``sink.path``; relative to the working directory, unlike paths in the file.

    Raises:
        JobFileError: There is no such file, it is not YAML, an override does not fit, or a field is missing, unknown or has a value that is
            not allowed. One line per problem, with file, line and field.
    """
    file = _find(Path(path))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError(f"cannot read the job file {file}: {error}") from error
    raw, lines = read_yaml(text, os.fspath(file))
    return build_job(raw, lines, os.path.dirname(os.path.abspath(file)), overrides, output)


def build_job(raw: Any, lines: Lines, base_dir: str, overrides: Sequence[str] = (), output: str | None = None) -> JobSpec:
    """Validate a job file's value `raw`; as `load_job`, for those who hold the value already. `base_dir` is absolute."""
    if not isinstance(raw, dict):
        what = "is empty" if raw is None else f"must be a mapping, not {type(raw).__name__}"
        raise JobFileError(f"{lines.file}: a job file {what}; it needs the keys source, pipeline and sink")
    data = copy.deepcopy(raw)
    for text in overrides:
        lines = lines.overridden(_override(data, text), f"--set {text}")
    if "base_dir" in data:
        keys = ", ".join(known_keys(JobSpec))
        raise JobFileError(f"{lines.place(('base_dir',))}: base_dir: unknown key; allowed: {keys}", hint="It is the job file's own folder.")
    _make_absolute(data, base_dir)
    if output is not None:
        sink = data.setdefault("sink", {})
        if isinstance(sink, dict):
            sink["path"] = absolute_path(output, os.getcwd())
            lines = lines.overridden(("sink", "path"), "--output")
    try:
        return JobSpec.model_validate({**data, "base_dir": base_dir})
    except ValidationError as error:
        raise job_file_error(error, lines) from None


def absolute_path(path: str, base_dir: str) -> str:
    """Return `path` in the one form that fingerprints and identities use: absolute or a URI, without a trailing slash."""
    scheme, separator, rest = path.partition("://")
    if separator:
        return f"{scheme}://{rest.rstrip('/') or '/'}"
    return os.path.normpath(os.path.join(base_dir, os.path.expanduser(path)))


def with_store(spec: JobSpec, url: str) -> JobSpec:
    """Return `spec` with the store at `url`. Raises UsageError when that is no URL of a store."""
    try:
        forms.check_store_url(url)
    except ValueError as error:
        raise UsageError(f"the store {error}") from error
    return spec.model_copy(update={"store": spec.store.model_copy(update={"url": url})})


def _find(path: Path) -> Path:
    if path.is_dir():
        inside = path / "job.yaml"
        if inside.is_file():
            return inside
        raise JobFileError(f"the folder {path} holds no job.yaml", hint="Name the job file itself, or write one with `antinfer init`.")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f" (and no folder {path.parent})"
        raise JobFileError(
            f"no job file {path}{where}{did_you_mean(path.name, siblings)}", hint="`antinfer init` writes one to start from."
        )
    return path


def _make_absolute(data: dict[str, Any], base_dir: str) -> None:
    source, sink = data.get("source"), data.get("sink")
    if isinstance(source, dict):
        paths = source.get("path")
        if isinstance(paths, str) and paths:
            source["path"] = absolute_path(paths, base_dir)
        elif isinstance(paths, list):
            source["path"] = [absolute_path(path, base_dir) if isinstance(path, str) and path else path for path in paths]
    if isinstance(sink, dict) and isinstance(sink.get("path"), str) and sink["path"]:
        sink["path"] = absolute_path(sink["path"], base_dir)


def _override(data: dict[str, Any], text: str) -> Location:
    """Apply one ``key.sub=value`` to `data` in place; return where."""
    dotted, separator, value_text = text.partition("=")
    keys = dotted.strip().split(".")
    if not separator or not all(keys):
        raise JobFileError(f"--set {text}: must be key=value, such as pipeline.0.batch_size=64 or workers.max=4")
    value = read_scalar(value_text)
    here: Any = data
    location: list[str | int] = []
    for depth, key in enumerate(keys):
        if isinstance(here, list):
            at: Any = _list_index(here, key, location, text)
        elif isinstance(here, dict):
            at = key
            if here.get(key) is None:
                here[key] = {}
        else:
            raise JobFileError(f"--set {text}: {'.'.join(map(str, location))} is {here!r}, which has no keys")
        location.append(at)
        if depth == len(keys) - 1:
            here[at] = value
        here = here[at]
    return tuple(location)


def _list_index(items: list[Any], key: str, at: list[str | int], text: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        where, last = ".".join(map(str, at)), len(items) - 1
        raise JobFileError(
            f"--set {text}: {where} is a list; {key!r} is not one of its indexes" + (f" 0 to {last}" if items else ": it is empty")
        )
    return int(key)
