"""From a job to the things it names: the document that workers are given, its input, its output place and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from antinfer.errors import InfraError, InternalError, JobFileError
from antinfer.spec.canonical import document_json
from antinfer.spec.normal import normal_job
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace, open_place

if TYPE_CHECKING:
    import pyarrow as pa

    from antinfer.spec.schema import JobSpec
    from antinfer.storage.sources.base import Source

STORAGE_OPTION: Final = "storage"
"""Key among the options of source and sink that holds the options of the file system."""


@dataclass(frozen=True, slots=True)
class RunDocument:
    """Everything that a worker needs to know of a job; travels as JSON in `antinfer.rpc.values.JobDocument.document`."""

    spec: JobSpec
    schema: pa.Schema
    """Schema of the input, frozen when it was listed."""
    code: str
    """Fingerprint of user code and pipeline, for the commit records."""

    def to_json(self) -> str:
        from antinfer.storage.sources import schemas

        return json.dumps({"spec": json.loads(document_json(self.spec)), "schema": schemas.to_text(self.schema), "code": self.code})

    @classmethod
    def from_json(cls, text: str) -> RunDocument:
        """Read what `to_json` wrote. Raises `InternalError` on anything else: both ends are of one version."""
        from antinfer.storage.sources import schemas

        try:
            data = json.loads(text)
            return cls(normal_job(data["spec"]), schemas.from_text(data["schema"]), data["code"])
        except (ValueError, KeyError, TypeError) as error:
            raise InternalError(f"the job document is damaged: {error}") from error


def open_input(spec: JobSpec, schema: pa.Schema | None = None) -> Source:
    """Open the job's source; `schema` is the frozen one where it is known. Raises as `open_source` does."""
    from antinfer.storage.sources import open_source

    source = spec.source
    return open_source(source.type, source.path, columns=source.columns, options=source.options, frozen_schema=schema)


def open_output(spec: JobSpec) -> OutputPlace:
    """Return the job's output place.

    Raises as `open_place` does, and `JobFileError` when ``sink.options.storage`` does not map names to texts, numbers or truth values.
    """
    options = spec.sink.options.get(STORAGE_OPTION, {})
    if not isinstance(options, Mapping):
        raise JobFileError(f"sink.options.{STORAGE_OPTION}: must map names to texts, not {options!r}")
    return open_place(spec.sink.path, {str(key): _scalar(key, value) for key, value in options.items()})


def _scalar(key: str, value: object) -> str | float:
    if not isinstance(value, str | int | float):
        raise JobFileError(f"sink.options.{STORAGE_OPTION}.{key}: must be a text, a number or a truth value, not {value!r}")
    return value


def read_report(spec: JobSpec) -> dict[str, Any]:
    """Return the report of a finished job from its output place. Raises `InfraError` when there is none, and as `open_output` does."""
    data = open_output(spec).read(layout.REPORT)
    if data is None:
        raise InfraError(f"{spec.sink.path} has no report: the job is not finished")
    report: dict[str, Any] = json.loads(data)
    return report


def part_options(spec: JobSpec) -> dict[str, Any]:
    """Return the options of the sink's format, for `antinfer.storage.sinks.open_writer`."""
    return {key: value for key, value in spec.sink.options.items() if key != STORAGE_OPTION}
