"""Commit records: the durable statement "these rows are done, their results are this staged object"."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final, Literal

from antinfer.core.ids import StagedName
from antinfer.core.ranges import Rows
from antinfer.core.values import value

ObjectKind = Literal["part", "quarantine", "record"]


@value
class StagedObject:
    """One object written under a staged name, waiting for its final name."""

    kind: ObjectKind
    """``part``: the results. ``quarantine``: rows with their errors. ``record``: this commit's record, for formats that cannot carry it."""
    token: str = ""
    """What the output place needs to publish it: empty for a rename, upload id and ETags (JSON) for a multipart upload."""


@value
class CommitRecord:
    """Everything known about one committed row range; keyed by (shard, start, stop, staged) (rule 7)."""

    shard: int
    start: int
    stop: int
    staged: StagedName
    objects: tuple[StagedObject, ...]
    """In publication order: record, quarantine, and the part LAST (DESIGN section 4)."""
    rows_out: int
    """Rows in the part. Equals ``rows_in - rows_quarantined`` unless the pipeline changes the number of rows."""
    rows_quarantined: int = 0
    row_hash: str = ""
    """Order-free hash (16 hex digits) over the identities of the input rows whose results are in the part."""
    round: int = 0
    """0, or the number of the quarantine retry that produced this record."""
    rows_retried: int = 0
    """In a later round: rows of the range that were in quarantine and are superseded by this record; it says nothing of the others."""
    attempt: int = 1
    worker: str = ""
    schema: str = ""
    """Fingerprint of the output schema; the first commit freezes it. Empty when there is no part."""
    code: str = ""
    """Fingerprint of user code, model arguments and pipeline."""
    size_bytes: int = 0
    """Bytes of the part as stored."""
    accumulators: str = ""
    """Partial states of all accumulators over this range (JSON), merged exactly at the end."""
    seconds: float = 0.0
    """Busy time spent on the range in the worker, for reports only."""

    @property
    def rows(self) -> Rows:
        return Rows(self.start, self.stop)

    @property
    def rows_in(self) -> int:
        """Input rows that the record stands for."""
        return self.rows_retried if self.round else self.stop - self.start

    @property
    def key(self) -> tuple[int, int, int, str]:
        return (self.shard, self.start, self.stop, self.staged)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; `from_json` is its inverse."""
        data = {name: getattr(self, name) for name in _FIELDS}
        data["objects"] = [{"kind": staged.kind, "token": staged.token} for staged in self.objects]
        return data

    def to_text(self) -> str:
        """Return the JSON text of `to_json`. Put together by hand: a master writes one for every commit, and an encoder takes five times
        as long."""
        objects = ",".join([f'{{"kind":{_quoted(staged.kind)},"token":{_quoted(staged.token)}}}' for staged in self.objects])
        return (
            f'{{"shard":{self.shard},"start":{self.start},"stop":{self.stop},"staged":{_quoted(self.staged)},"objects":[{objects}],'
            f'"rows_out":{self.rows_out},"rows_quarantined":{self.rows_quarantined},"row_hash":{_quoted(self.row_hash)},'
            f'"round":{self.round},"rows_retried":{self.rows_retried},"attempt":{self.attempt},"worker":{_quoted(self.worker)},"schema":{_quoted(self.schema)},'
            f'"code":{_quoted(self.code)},"size_bytes":{self.size_bytes},"accumulators":{_quoted(self.accumulators)},'
            f'"seconds":{float(self.seconds)!r}}}'
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CommitRecord:
        """Read what `to_json` wrote, ignoring unknown keys so that an older reader understands a newer record."""
        values = {name: data[name] for name in _FIELDS if name in data}
        values["objects"] = tuple(StagedObject(**staged) for staged in data["objects"])
        return cls(**values)


_quoted: Final = json.encoder.encode_basestring_ascii
_FIELDS: Final = tuple(field.name for field in fields(CommitRecord))


def output_name(shard: int, start: int, stop: int, round: int = 0) -> str:
    """Return the final name, without suffix, of a range's objects; names sort in input order.

    Start, stop and round are all part of the name, so no two commits that may both exist can meet in one name (protocol trace 16).
    """
    name = f"part-{shard:08d}-{start:012d}-{stop:012d}"
    return f"{name}-r{round}" if round else name


def parse_output_name(name: str) -> tuple[int, int, int, int]:
    """Read (shard, start, stop, round) back from `output_name`, with or without a suffix. Raises ValueError for any other name."""
    stem = name.split(".", 1)[0]
    prefix, shard, start, stop, *rest = stem.split("-")
    if prefix != "part" or len(rest) > 1 or any(not item.startswith("r") for item in rest):
        raise ValueError(f"not an output name: {name!r}")
    return int(shard), int(start), int(stop), int(rest[0][1:]) if rest else 0


def schema_of(records: Iterable[CommitRecord]) -> str:
    """Return the fingerprint of the columns that `records` have; empty while none of them has a part."""
    return next((record.schema for record in records if record.schema), "")


def fitting(records: Iterable[CommitRecord], schema: str) -> list[CommitRecord]:
    """Return those of `records` that may stand beside parts with the columns `schema`: another reign may have frozen others."""
    return [record for record in records if not record.schema or record.schema == (schema or record.schema)]


def distinct(records: Iterable[CommitRecord]) -> list[CommitRecord]:
    """Drop repeats by key, keeping order: a chunk of the manifest may have been flushed twice (rule 7)."""
    return list({record.key: record for record in records}.values())
