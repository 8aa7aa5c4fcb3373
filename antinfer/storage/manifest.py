"""The manifest: commit records in chunks beside the output, and what the output place proves without any other help.

A record may be flushed more than once, and (rarely) flushed without ever being published; so totals are always computed from the distinct
records whose objects lie under their final names, never added up on the way (rule 7).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from antinfer.core.records import CommitRecord, distinct
from antinfer.errors import ForeignOutputError, OutputError
from antinfer.storage import layout, parts
from antinfer.storage.place import OutputPlace, StoredObject

_LOG = logging.getLogger("antinfer.storage")

_READERS: Final = 16
"""Objects read at once: footers and chunks wait for the place, not for the processor."""
_CHUNK_RECORDS: Final = 100_000
"""Records per chunk when the manifest is rewritten."""
_SHOWN: Final = 3

_SCHEMA: Final = pa.schema(
    {
        "shard": pa.int64(),
        "start": pa.int64(),
        "stop": pa.int64(),
        "staged": pa.string(),
        "round": pa.int32(),
        "rows_out": pa.int64(),
        "rows_quarantined": pa.int64(),
        "record": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over distinct records."""

    commits: int
    rows: int
    """Input rows committed; a retried row counts once."""
    rows_out: int
    rows_quarantined: int
    """Rows that are in quarantine now: a retry takes its rows out, and puts those that failed again back."""
    rows_retried: int
    """Rows that retries took out; a row counts once for each of its retries."""
    size_bytes: int
    seconds: float


def append(place: OutputPlace, epoch: int, n: int, records: Sequence[CommitRecord]) -> str:
    """Write `records` durably as the `n`-th chunk of reign `epoch` (`n` is never used twice in a reign); return its name."""
    name = layout.chunk_name(epoch, n)
    place.write(name, encode(records))
    return name


def encode(records: Sequence[CommitRecord]) -> bytes:
    """Return a chunk: an Arrow IPC file, one row per record, the whole record as JSON beside its key and counts."""
    columns: dict[str, list[object]] = {field: [getattr(record, field) for record in records] for field in _SCHEMA.names[:-1]}
    columns["record"] = [json.dumps(record.to_json(), separators=(",", ":")) for record in records]
    table = pa.table(columns, schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def decode(data: bytes, name: str) -> list[CommitRecord]:
    """Read what `encode` wrote. Raises `OutputError` naming the chunk when it is damaged."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            texts = reader.read_all().column("record").to_pylist()
        return [CommitRecord.from_json(json.loads(text)) for text in texts]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        hint = "Remove the chunk and resume: parts and record objects hold the same records."
        raise OutputError(f"the manifest chunk {name} is damaged: {error}", hint=hint) from error


def read_all(place: OutputPlace) -> list[CommitRecord]:
    """Read every chunk, in parallel; returns the distinct records. Raises `OutputError` for a damaged chunk."""
    names = [stored.name for stored in place.list_objects(layout.MANIFEST)]

    def one(name: str) -> list[CommitRecord]:
        data = place.read(name)
        return [] if data is None else decode(data, name)

    with ThreadPoolExecutor(_READERS) as pool:
        return distinct(record for chunk in pool.map(one, names) for record in chunk)


def rewrite(place: OutputPlace, epoch: int, n: int, records: Sequence[CommitRecord]) -> list[str]:
    """Replace the whole manifest by `records`, in chunks from number `n` of reign `epoch`; return their names.

    The new chunks are durable before an old one goes, so a crash in between only leaves repeats.
    """
    old = [stored.name for stored in place.list_objects(layout.MANIFEST)]
    ordered = sorted(distinct(records), key=lambda record: (record.shard, record.start, record.round))
    new = [append(place, epoch, n + i, ordered[at : at + _CHUNK_RECORDS]) for i, at in enumerate(range(0, len(ordered), _CHUNK_RECORDS))]
    place.remove(tuple(sorted(set(old) - set(new))))
    return new


def totals(records: Iterable[CommitRecord]) -> Totals:
    """Add up distinct `records`."""
    kept = distinct(records)
    retried = sum(record.rows_retried for record in kept)
    return Totals(
        commits=len(kept),
        rows=sum(record.rows.size for record in kept if not record.round),
        rows_out=sum(record.rows_out for record in kept),
        rows_quarantined=sum(record.rows_quarantined for record in kept) - retried,
        rows_retried=retried,
        size_bytes=sum(record.size_bytes for record in kept),
        seconds=sum(record.seconds for record in kept),
    )


def sums(records: Iterable[CommitRecord]) -> dict[str, int]:
    """Return what a finished job promises in ``_SUCCESS`` and an audit holds it to: row counts of distinct `records`, the last round."""
    kept = distinct(records)
    added, last = totals(kept), max((record.round for record in kept), default=0)
    return {"rows": added.rows, "rows_out": added.rows_out, "rows_quarantined": added.rows_quarantined, "round": last}


def seal_text(records: Iterable[CommitRecord]) -> bytes:
    """Return the content of ``_SUCCESS``."""
    return json.dumps(sums(records), sort_keys=True).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies under final names, by name."""

    parts: dict[str, StoredObject]
    records: dict[str, StoredObject]
    quarantine: dict[str, StoredObject]

    @classmethod
    def of(cls, place: OutputPlace) -> Listing:
        """List the place. Record objects first and parts last, against publication order: no part is seen whose record is not."""
        found = {}
        for folder in (layout.QUARANTINE, layout.RECORDS):
            found[folder] = {stored.name: stored for stored in place.list_objects(folder)}
        return cls({stored.name: stored for stored in place.list_parts()}, found[layout.RECORDS], found[layout.QUARANTINE])

    @property
    def suffix(self) -> str:
        """The suffix that most parts have: an output has one."""
        suffixes = Counter(name.rpartition(".")[2] for name in self.parts)
        return suffixes.most_common(1)[0][0] if suffixes else "parquet"

    @property
    def names(self) -> set[str]:
        return {*self.parts, *self.records, *self.quarantine}

    def holds_all(self, record: CommitRecord, suffix: str) -> bool:
        """Tell whether every object of `record` has its final name: the commit is published."""
        return all(name in self.parts or name in self.records or name in self.quarantine for name in layout.final_names(record, suffix))

    def without_rivals(self, suffix: str, records: Iterable[CommitRecord]) -> list[CommitRecord]:
        """Return those of `records` of whose rows no object of another commit holds any, as `parts.without_rivals` tells them apart."""
        return parts.without_rivals(self.names, records, lambda record: layout.final_names(record, suffix))


def published(place: OutputPlace, listing: Listing, suffix: str, known: Iterable[CommitRecord]) -> list[CommitRecord]:
    """Return the records that are published: those of `known` whose objects are there, and those that only parts and record objects hold.

    Of several known records with one part (a commit that was flushed but lost before it was published, and its successor), the one that
    the objects themselves name is kept. Reads parts and record objects only where `known` does not decide, in parallel.
    """
    complete = [record for record in distinct(known) if listing.holds_all(record, suffix)]
    claims = Counter(layout.stem_of(record) for record in complete)
    decided = [record for record in complete if claims[layout.stem_of(record)] == 1]
    named = {layout.stem_of(record) for record in decided}
    undecided = [
        name
        for name in (*listing.records, *(name for name in listing.parts if name.endswith(f".{suffix}")))
        if layout.stem(name) not in named
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        found = [record for record in pool.map(lambda name: _proof(place, name), undecided) if record is not None]
    proven = [replace(record, size_bytes=_size(listing, record, suffix)) for record in found if listing.holds_all(record, suffix)]
    return sorted([*decided, *parts.unambiguous(proven)], key=lambda record: (record.shard, record.start, record.round))


def list_output(place: OutputPlace, suffix: str, still_rules: Callable[[], None] = lambda: None) -> list[CommitRecord]:
    """Return the commits that the output place proves by itself, and remove what belongs to none of them (rule 14).

    Removed, and logged, are quarantine and record objects whose commit was not published to its end; their rows will be computed again.
    Call it only when nothing can be published any more but by the caller (rule 11). However late the removal comes, it is of no harm to
    another master: the objects' names belong to attempts that none can finish (rule 19).

    `still_rules` is called before the removal, and raises when somebody else rules by now.

    Raises:
        ForeignOutputError: There is a part that no record is known of. Its name may be given to a commit of another master at any
            time, so a master does not remove it here.
    """
    listing = Listing.of(place)
    records = published(place, listing, suffix, read_all(place))
    named = {name for record in records for name in layout.final_names(record, suffix)}
    if strays := sorted(listing.parts.keys() - named):
        raise ForeignOutputError(
            f"{place.uri} holds {_some(strays)}, damaged or not from this job: no record of a commit is known for it",
            hint="Move it out of the output, then run the same command again: its rows are computed again.",
        )
    orphans = tuple(sorted({*listing.records, *listing.quarantine} - named))
    if orphans:
        _LOG.warning("removed %d objects of unfinished commits", len(orphans), extra={"action": "remove_orphans", "names": orphans[:100]})
        still_rules()
        place.remove(orphans)
    return records


def audit_parts(
    place: OutputPlace, suffix: str, known: Iterable[CommitRecord] = (), still_rules: Callable[[], None] = lambda: None
) -> tuple[str, ...]:
    """Remove the parts, quarantine and record objects that no record names, and return their names (rule 12).

    `known` are published records that are not in the manifest yet; the objects of every manifest record and of `known` stay.
    Call it only when every row is committed, published and flushed: nothing is ever published after that, by whichever master, so no
    name that is removed here can have come to belong to a commit, however late the removal comes (rule 19).
    `still_rules` is that of `list_output`.
    """
    listing = Listing.of(place)
    named = {name for record in (*read_all(place), *known) for name in layout.final_names(record, suffix)}
    orphans = tuple(sorted({*listing.parts, *listing.records, *listing.quarantine} - named))
    if orphans:
        still_rules()
        place.remove(orphans)
    return orphans


def _proof(place: OutputPlace, name: str) -> CommitRecord | None:
    """Return the record that a part or a record object holds, if the object has the name that the record gives it."""
    if layout.is_part(name):
        record = place.read_part_record(name)
    else:
        data = place.read(name)
        record = None if data is None else parts.parse_record(data)
    if record is None or name not in layout.final_names(record, name.rpartition(".")[2]):
        return None
    return record


def _size(listing: Listing, record: CommitRecord, suffix: str) -> int:
    part = listing.parts.get(layout.final_name("part", record, suffix)) if parts.has_part(record) else None
    return part.size_bytes if part else 0


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
