"""The job document beside the output: whose output this is, and whether today's job is still the one that began it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from antinfer.errors import ChangedError, ForeignOutputError, OutputError
from antinfer.spec.canonical import document_json, explain_changes, job_fingerprint
from antinfer.spec.codeprint import code_files, code_fingerprint, explain_code_changes
from antinfer.spec.schema import JobSpec
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

_FORMAT = 1
_SHOWN = 5


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
    """The job in canonical form, without the store."""
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
        document = json.loads(document_json(spec))
        return cls(job_id(output), output, document, job_fingerprint(spec), code_fingerprint(spec), code_files(spec))

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


def check_mark(place: OutputPlace, today: JobMark) -> JobMark | None:
    """Return the mark of the job that began this output, None on a fresh place.

    Raises:
        ForeignOutputError: The place holds another job's output, or parts that no job is known of.
        ChangedError: The job or its user code is not what the output was begun with; says what differs.
    """
    began = JobMark.read(place)
    if began is None:
        if place.list_parts() or place.read(layout.SUCCESS) is not None:
            raise ForeignOutputError(
                f"{place.uri} holds results that this program knows nothing of", hint="Choose an empty or a new folder as sink.path."
            )
        return None
    if began.fingerprints["source"] != today.fingerprints["source"] and began.fingerprints["pipeline"] != today.fingerprints["pipeline"]:
        raise ForeignOutputError(
            f"{place.uri} holds the output of another job ({began.spec.get('name', '')}): source and pipeline differ",
            hint="Choose another sink.path for this job.",
        )
    changes = explain_changes(json.dumps(began.spec), json.dumps(today.spec)) + explain_code_changes(began.files, today.files)
    if began.fingerprints["all"] != today.fingerprints["all"] or began.code != today.code:
        said = "; ".join(changes[:_SHOWN]) + (f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else "")
        raise ChangedError(
            f"the job is not the one that {place.uri} was begun with: {said or 'its fingerprint differs'}",
            hint="Results of both would be mixed. Undo the change to resume, or choose another sink.path.",
        )
    return began
