"""The plan beside the output: written once, chunk by chunk, checked by hash whenever it is read.

::

    _antinfer/plan/listing      the input files and the frozen schema
    _antinfer/plan/chunk-<n>    shards of the next files
    _antinfer/plan/complete     totals, and the hash of everything above (JSON)

A planner that was killed goes on after the last chunk that is there. A chunk is bound to the files up to its end: the listing may be
replaced by one that differs behind them. Listing and chunks are Arrow IPC behind one line that holds their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, PlanIndex, Shard
from antinfer.errors import DataError, InternalError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace
from antinfer.storage.planning import PlanChunk
from antinfer.storage.sources import schemas
from antinfer.storage.sources.base import InputFile

CHUNKS_KEPT: Final = 8
"""Decoded chunks that `PlanFile.lookup` keeps; each holds the shards of up to a few thousand files."""

_LISTING: Final = f"{layout.folder(layout.PLAN)}/listing"
_COMPLETE: Final = f"{layout.folder(layout.PLAN)}/complete"
_CHUNK_PREFIX: Final = "chunk-"
_DAMAGED_HINT: Final = "The plan in the output place is damaged; restore it from a backup, or start the job in a new output place."

_FILES_SCHEMA: Final = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string())])
_PIECE: Final = pa.struct([("path", pa.string()), ("start", pa.int64()), ("stop", pa.int64()), ("rows", pa.int64())])
_SHARDS_SCHEMA: Final = pa.schema([("rows", pa.int64()), ("size_bytes", pa.int64()), ("pieces", pa.list_(_PIECE))])


@dataclass(frozen=True, slots=True)
class Listing:
    """The input as it was when the plan was begun."""

    files: list[InputFile]
    schema: pa.Schema
    """Frozen schema of the source."""


@dataclass(slots=True)
class PlanState:
    """What of a plan exists."""

    listing: Listing | None = None
    files_done: int = 0
    """Files of the listing that are planned; hand it to `plan_shards`."""
    index: PlanIndex = field(default_factory=PlanIndex)
    """Row counts of the shards planned so far; complete when the plan is."""


class Fingerprints:
    """The identities of the first so many files of a listing, in rising order: they change with any path, size, version or the schema."""

    def __init__(self, files: Sequence[InputFile], schema: str) -> None:
        """`schema`: as it was written down."""
        self._files = files
        self._at = 0
        self._digest = hashlib.sha256(schema.encode())

    def up_to(self, count: int) -> str:
        """Return the identity of the first `count` files. Raises `InternalError` for fewer than the last time."""
        if count < self._at:
            raise InternalError(f"the identity of {count} files is asked for after that of {self._at}")
        for file in self._files[self._at : count]:
            self._digest.update(json.dumps([file.path, file.size_bytes, file.version]).encode())
        self._at = count
        return self._digest.hexdigest()


def changed_files(old: Sequence[InputFile], new: Sequence[InputFile], *, shown: int = 3) -> str:
    """Explain how `new` differs from `old`: counts and the first few names; empty when it does not."""
    before, after = {file.path: file for file in old}, {file.path: file for file in new}
    added = [path for path in after if path not in before]
    removed = [path for path in before if path not in after]
    changed = [_difference(before[path], file) for path, file in after.items() if path in before and before[path] != file]
    said = []
    for what, items in (("added", added), ("removed", removed), ("changed", changed)):
        if items:
            more = f", and {len(items) - shown} more" if len(items) > shown else ""
            said.append(f"{len(items)} {what}: {', '.join(items[:shown])}{more}")
    return "; ".join(said)


def _difference(old: InputFile, new: InputFile) -> str:
    if old.size_bytes != new.size_bytes:
        return f"{old.path} (size {old.size_bytes} -> {new.size_bytes} bytes)"
    return f"{old.path} (version {old.version or 'unknown'} -> {new.version or 'unknown'})"


@dataclass(slots=True)
class _ChunkHead:
    number: int
    first: int
    count: int
    files_done: int
    fingerprint: str
    """Of the files up to its end."""
    sha256: str


class PlanFile:
    """The durable plan of one output place. One writer; `lookup` may be called from several threads.

    All methods raise `OutputError` when the place cannot be reached, and `DataError` when what lies there is not what was written.
    """

    def __init__(self, place: OutputPlace) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._heads: list[_ChunkHead] = []
        self._firsts: list[int] = []
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()
        self._listing: Listing | None = None
        self._fingerprints: Fingerprints | None = None

    # -- writing ---------------------------------------------------------------------------------------------------------------------
    def save_listing(self, files: Sequence[InputFile], schema: pa.Schema) -> Listing:
        """Begin the plan: make the listing and the frozen schema durable. A plan that was begun goes on if both are as they were up to
        the end of its last chunk."""
        columns = [[file.path for file in files], [file.size_bytes for file in files], [file.version for file in files]]
        table = pa.table([pa.array(values, of.type) for values, of in zip(columns, _FILES_SCHEMA, strict=True)], schema=_FILES_SCHEMA)
        text = schemas.to_text(schema)
        self._write(_LISTING, table, {"schema": text})
        return self._take(Listing(list(files), schema), text)

    def append(self, chunk: PlanChunk) -> None:
        """Make the next chunk durable. Its shards must go on where the last chunk ended."""
        first = self._total()
        if [int(shard.index) for shard in chunk.shards] != list(range(first, first + len(chunk.shards))):
            raise InternalError(f"a plan chunk does not go on at shard {first}")
        number = len(self._heads)
        meta = {"files": self._fingerprint(chunk.files_done), "first": str(first), "files_done": str(chunk.files_done)}
        sha256 = self._write(_chunk_name(number), _encode(chunk.shards), meta)
        self._add(_ChunkHead(number, first, len(chunk.shards), chunk.files_done, meta["files"], sha256))

    def complete(self) -> None:
        """Seal the plan. Raises InternalError when files are left to plan."""
        listing = self._require_listing()
        if self._files_done() != len(listing.files):
            raise InternalError(f"the plan is sealed after {self._files_done()} of {len(listing.files)} files")
        document = {
            "files": len(listing.files),
            "size_bytes": sum(file.size_bytes for file in listing.files),
            "shards": self._total(),
            "listing": self._fingerprint(len(listing.files)),
            "schema": schemas.to_text(listing.schema),
            "chunks": [head.sha256 for head in self._heads],
        }
        self._place.write(_COMPLETE, json.dumps(document, indent=1, sort_keys=True).encode())

    # -- reading ---------------------------------------------------------------------------------------------------------------------
    def load(self) -> PlanState:
        """Read and check what exists. Without a listing there is no plan; without `complete` planning goes on after `files_done`."""
        self._heads, self._firsts = [], []
        self._decoded.clear()
        state = PlanState(listing=self._load_listing())
        if state.listing is None:
            return state
        names = {entry.name.rpartition("/")[2] for entry in self._place.list_objects(layout.PLAN)}
        while f"{_CHUNK_PREFIX}{len(self._heads):08d}" in names:
            head, table = self._load_chunk(len(self._heads))
            if head.fingerprint != self._fingerprint(head.files_done):
                raise DataError(f"{_chunk_name(head.number)} belongs to another listing", hint=_DAMAGED_HINT)
            self._add(head)
            state.index.extend(table.column("rows").to_pylist())
        state.files_done = self._files_done()
        sealed = self._place.read(_COMPLETE)
        if sealed is not None:
            self._check_sealed(sealed, state.listing)
            state.index.complete = True
        return state

    def lookup(self, shard_index: int) -> Shard:
        """Return a shard of the plan. Raises IndexError beyond what was loaded or appended."""
        if not 0 <= shard_index < self._total():
            raise IndexError(f"shard {shard_index} is not in the plan of {self._total()} shards")
        head = self._heads[bisect_right(self._firsts, shard_index) - 1]
        return _decode(self._table(head), shard_index, head.first)

    def _table(self, head: _ChunkHead) -> pa.Table:
        with self._lock:
            table = self._decoded.get(head.number)
            if table is not None:
                self._decoded.move_to_end(head.number)
                return table
        again, table = self._load_chunk(head.number)
        if again.sha256 != head.sha256:
            raise DataError(f"{_chunk_name(head.number)} changed while the job ran", hint=_DAMAGED_HINT)
        with self._lock:
            self._decoded[head.number] = table
            while len(self._decoded) > CHUNKS_KEPT:
                self._decoded.popitem(last=False)
        return table

    def _load_listing(self) -> Listing | None:
        found = self._read(_LISTING)
        if found is None:
            self._listing = self._fingerprints = None
            return None
        table, meta, _ = found
        columns = [table.column(name).to_pylist() for name in _FILES_SCHEMA.names]
        files = [InputFile(path, size, version) for path, size, version in zip(*columns, strict=True)]
        return self._take(Listing(files, schemas.from_text(meta["schema"])), meta["schema"])

    def _take(self, listing: Listing, schema: str) -> Listing:
        self._listing, self._fingerprints = listing, Fingerprints(listing.files, schema)
        return listing

    def _fingerprint(self, files: int) -> str:
        if self._fingerprints is None:
            raise InternalError("a plan chunk is used before the listing is saved or loaded")
        return self._fingerprints.up_to(files)

    def _load_chunk(self, number: int) -> tuple[_ChunkHead, pa.Table]:
        name = _chunk_name(number)
        found = self._read(name)
        if found is None:
            raise DataError(f"{name} is gone", hint=_DAMAGED_HINT)
        table, meta, sha256 = found
        try:
            return _ChunkHead(number, int(meta["first"]), table.num_rows, int(meta["files_done"]), meta["files"], sha256), table
        except KeyError as error:
            raise DataError(f"{name} was written by another version: it has no {error}", hint=_DAMAGED_HINT) from error

    def _check_sealed(self, sealed: bytes, listing: Listing) -> None:
        try:
            document = json.loads(sealed)
            listed = self._fingerprint(len(listing.files))
            same = document["listing"] == listed and document["chunks"] == [head.sha256 for head in self._heads]
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(f"{_COMPLETE} cannot be read", hint=_DAMAGED_HINT) from cause
        if not same:
            raise DataError(f"{_COMPLETE} does not fit the listing and the chunks of the plan", hint=_DAMAGED_HINT)

    # -- objects ---------------------------------------------------------------------------------------------------------------------
    def _write(self, name: str, table: pa.Table, meta: Mapping[str, str]) -> str:
        sink = pa.BufferOutputStream()
        tagged = table.replace_schema_metadata({f"antinfer.{key}": value for key, value in meta.items()})
        with pa.ipc.new_stream(sink, tagged.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(tagged)
        data = sink.getvalue().to_pybytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self._place.write(name, sha256.encode("ascii") + b"\n" + data)
        return sha256

    def _read(self, name: str) -> tuple[pa.Table, dict[str, str], str] | None:
        raw = self._place.read(name)
        if raw is None:
            return None
        head, _, data = raw.partition(b"\n")
        sha256 = hashlib.sha256(data).hexdigest()
        if head.decode("ascii", "replace") != sha256:
            raise DataError(f"{name} is damaged: its content does not fit its hash", hint=_DAMAGED_HINT)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            table = reader.read_all()
        metadata: dict[bytes, bytes] = table.schema.metadata
        return table, {key.decode().removeprefix("antinfer."): value.decode() for key, value in metadata.items()}, sha256

    def _add(self, head: _ChunkHead) -> None:
        if head.first != self._total() or head.files_done < self._files_done():
            raise DataError(f"{_chunk_name(head.number)} does not go on where the chunk before it ended", hint=_DAMAGED_HINT)
        self._heads.append(head)
        self._firsts.append(head.first)

    def _total(self) -> int:
        return self._heads[-1].first + self._heads[-1].count if self._heads else 0

    def _files_done(self) -> int:
        return self._heads[-1].files_done if self._heads else 0

    def _require_listing(self) -> Listing:
        if self._listing is None:
            raise InternalError("a plan chunk is used before the listing is saved or loaded")
        return self._listing


def _chunk_name(number: int) -> str:
    return f"{layout.folder(layout.PLAN)}/{_CHUNK_PREFIX}{number:08d}"


def _encode(shards: Sequence[Shard]) -> pa.Table:
    pieces = [[{"path": p.path, "start": p.start, "stop": p.stop, "rows": p.rows} for p in shard.pieces] for shard in shards]
    columns: list[list[Any]] = [[shard.rows for shard in shards], [shard.size_bytes for shard in shards], pieces]
    return pa.table([pa.array(values, of.type) for values, of in zip(columns, _SHARDS_SCHEMA, strict=True)], schema=_SHARDS_SCHEMA)


def _decode(table: pa.Table, index: int, first: int) -> Shard:
    [row] = table.slice(index - first, 1).to_pylist()
    pieces = tuple(Piece(piece["path"], piece["start"], piece["stop"], piece["rows"]) for piece in row["pieces"])
    return Shard(index=ShardId(index), pieces=pieces, rows=row["rows"], size_bytes=row["size_bytes"])
