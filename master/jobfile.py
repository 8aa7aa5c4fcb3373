"""The job document beside the output: whose output this is, and whether today's job is still the one that began it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from antinfer.errors import ChangedError, ForeignOutputError, OutputError
from antinfer.spec.canonical import explain_changes, job_fingerprint, public_document
from antinfer.spec.codeprint import code_files, code_fingerprint, explain_code_changes
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_FORMAT = 1
_SHOWN = 5
_OF_RESULTS = (layout.MANIFEST, layout.RECORDS, layout.QUARANTINE)


def job_id(output: str) -> str:
    """Return the id of the job that writes to `output` (a canonical URI): 16 hex digits."""
    return hashlib.sha256(output.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class JobMark:
    """What ``_antinfer/job`` holds."""

    job: str
    """Job id."""
    output: str
    """URI of the output place when the job began."""
    spec: dict[str, Any]
    """The job in canonical form, without the store and without credentials."""
    fingerprints: dict[str, str]
    """By concern; see `antinfer.spec.canonical.job_fingerprint`."""
    code: str
    """Fingerprint of user code and pipeline."""
    files: dict[str, str] = field(default_factory=dict)
    """Digests of the user's source files, to say which one changed."""
    format: int = _FORMAT

    @classmethod
    def of(cls, spec: JobSpec, output: str) -> JobMark:
        """Describe today's job. Raises `UserCodeError` when user code cannot be read."""
        return cls(job_id(output), output, public_document(spec), job_fingerprint(spec), code_fingerprint(spec), code_files(spec))

    @classmethod
    def read(cls, place: OutputPlace) -> JobMark | None:
        """Return the mark in `place`, None when there is none. Raises `OutputError` when it is damaged or of a newer version."""
        data = place.read(layout.JOB)
        if data is None:
            return None
        try:
            values = json.loads(data)
            mark = cls(**values)
        except (ValueError, TypeError) as error:
            raise OutputError(f"{place.uri}/{layout.JOB} is damaged: {error}", hint="Choose another output place.") from error
        if mark.format != _FORMAT:
            raise OutputError(f"{place.uri} was begun by another version of antinfer (format {mark.format})")
        return mark

    def write(self, place: OutputPlace) -> None:
        place.write(layout.JOB, json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False).encode())


class Standing(Enum):
    """What today's job is to an output place."""

    NEW = "new"
    """Nobody has begun anything there."""
    SAME = "same"
    """It is the job that the output was begun with."""
    REPLACES = "replaces"
    """Another job, or this one with other code, was begun there and has published nothing: it may be begun anew."""
    FORCED = "forced"
    """Its pipeline or code has changed, and the user wants to go on all the same."""


def check_mark(place: OutputPlace, today: JobMark, *, force: bool = False) -> Standing:
    """Compare today's job with the one that began this output.

    Args:
        place: the output.
        today: the job of today.
        force: go on with a changed pipeline or changed code; never with another source or sink.

    Raises:
        ForeignOutputError: The place holds another job's output, or parts that no job is known of.
        ChangedError: The job or its user code is not what the output was begun with; says what differs.
    """
    began = JobMark.read(place)
    if began is None:
        if _has_results(place):
            raise ForeignOutputError(
                f"{place.uri} holds results that this program knows nothing of", hint="Choose an empty or a new folder as sink.path."
            )
        return Standing.NEW
    if began.fingerprints["all"] == today.fingerprints["all"] and began.code == today.code:
        return Standing.SAME
    if not _has_results(place):
        return Standing.REPLACES
    concerns = {concern for concern, digest in today.fingerprints.items() if began.fingerprints.get(concern) != digest} - {"all"}
    if force and concerns <= {"pipeline"}:
        return Standing.FORCED
    if {"source", "pipeline"} <= concerns:
        raise ForeignOutputError(
            f"{place.uri} holds the output of another job ({began.spec.get('name', '')}): source and pipeline differ",
            hint="Choose another sink.path for this job.",
        )
    raise changed(place, began, today, can_force=concerns <= {"pipeline"})


def changed(place: OutputPlace, began: JobMark, today: JobMark, *, can_force: bool = False) -> ChangedError:
    """Return (not raise) the error that says in which fields and files `today` differs from `began`."""
    changes = explain_changes(json.dumps(began.spec), json.dumps(today.spec)) + explain_code_changes(began.files, today.files)
    said = "; ".join(changes[:_SHOWN]) + (f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else "")
    insist = ", or go on with --force and mix both" if can_force else ""
    return ChangedError(
        f"the job is not the one that {place.uri} was begun with: {said or 'its fingerprint differs'}",
        hint=f"Results of both would be mixed. Undo the change to resume, choose another sink.path{insist}.",
    )


def begin_anew(place: OutputPlace, today: JobMark, *, has_commits: bool) -> None:
    """Let today's job take over a place that another one was begun in; after the claim, so that the other one does nothing any more.

    Raises `ChangedError` when the store knows of commits (`has_commits`) that are not published yet: they were promised to be kept.
    """
    began = JobMark.read(place)
    if began is not None and has_commits:
        raise changed(place, began, today)
    place.remove(tuple(stored.name for folder in (layout.PLAN, layout.TYPES, layout.EVENTS) for stored in place.list_objects(folder)))
    today.write(place)


def _has_results(place: OutputPlace) -> bool:
    return bool(place.list_parts()) or place.read(layout.SUCCESS) is not None or any(map(place.list_objects, _OF_RESULTS))


def announce(place: OutputPlace, address: str, epoch: int) -> None:
    """Leave beside the output where the master of reign `epoch` listens. Nobody removes it: a master that was killed could not."""
    place.write(layout.MASTER, json.dumps({"address": address, "epoch": epoch}).encode())


def master_address(place: OutputPlace) -> str | None:
    """Return where the last master of this output listened, None when there was none. Raises `OutputError` when that is unreadable."""
    data = place.read(layout.MASTER)
    if data is None:
        return None
    try:
        return str(json.loads(data)["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{place.uri}/{layout.MASTER} is damaged: {error}", hint="Give the master's HOST:PORT instead.") from error
