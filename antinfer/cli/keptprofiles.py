"""Profiles that this machine keeps, for the runs that come after them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from antinfer.errors import OutputError
from antinfer.spec.canonical import job_fingerprint
from antinfer.storage.cache import cache_dir

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec
    from antinfer.worker.profiling.comparison import Comparison
    from antinfer.worker.profiling.model import Profile


def recall(spec: JobSpec, *others: Path | None) -> Profile | None:
    """Return the profile of this job that was kept last, here or in one of `others`; None without one."""
    paths = [path for path in (_place(spec), *others) if path is not None and path.exists()]
    if not paths:
        return None

    from antinfer.worker.profiling.model import Profile

    for path in paths:
        try:
            found = Profile.from_json(json.loads(path.read_text(encoding="utf-8"))["profile"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found.fingerprint == job_fingerprint(spec)["all"]:
            return found
    return None


def remember(spec: JobSpec, data: Mapping[str, Any], save: Path | None) -> None:
    """Keep a profile as JSON data, and write it to `save` too. Raises OutputError."""
    text = json.dumps(data, indent=1)
    place = _place(spec)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        typer.echo(f"the profile is not kept for --compare: {error}", err=True)
    if save is not None:
        try:
            save.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {save}: {error.strerror}") from error


def compared(spec: JobSpec, report: Mapping[str, Any]) -> Comparison | None:
    """Put the report of a run beside the kept profile of its job; None without one."""
    found = recall(spec)
    if found is None:
        return None

    from antinfer.worker.profiling.comparison import compare
    from antinfer.worker.profiling.model import forecast

    return compare(found, forecast(found), report)


def expected_rate(spec: JobSpec) -> float | None:
    """Return the input rows a second that the kept profile of the job expects of one worker; None without one."""
    found = recall(spec)
    if found is None:
        return None

    from antinfer.worker.profiling.model import forecast

    return forecast(found).rate


def _place(spec: JobSpec) -> Path:
    return cache_dir() / "profiles" / f"{job_fingerprint(spec)['all'][:32]}.json"
