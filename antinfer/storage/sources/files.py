"""Whole files as rows: images, audio, documents; columns ``path`` and ``bytes``."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

import pyarrow as pa

from antinfer.core.plan import Piece, Shard
from antinfer.errors import SourceError
from antinfer.storage.sources import schemas
from antinfer.storage.sources.base import InputFile, SizedPiece, Target
from antinfer.storage.sources.common import FileSource, Rows, reading

PATH: Final = "path"
BYTES: Final = "bytes"
BATCH_BYTES: Final = 32 << 20
"""A batch ends when its files exceed this, whatever its number of rows."""

_SCHEMA: Final = pa.schema([(PATH, pa.string()), (BYTES, pa.binary())])
_REMOTE_THREADS: Final = 16
_LARGEST: Final = (1 << 31) - 1


class FilesSource(FileSource):
    """Each file is one row. Many files make one shard."""

    type_name = "files"

    def schema(self, file: InputFile) -> pa.Schema:
        return schemas.prune(_SCHEMA, self._spec.columns, file.path)

    def _empty_schema(self) -> pa.Schema:
        return schemas.prune(_SCHEMA, self._spec.columns, "source")

    def pieces(self, file: InputFile, target: Target) -> list[SizedPiece]:
        return [SizedPiece(Piece(file.path, 0, 0, 1), file.size_bytes)]

    def _shard_rows(self, shard: Shard, skip: int, batch_rows: int) -> Generator[pa.RecordBatch, None, None]:
        paths = [piece.path for piece in shard.pieces[skip:]]
        names = self._empty_schema().names
        held: list[tuple[str, bytes]] = []
        size = 0
        for path, data in self._contents(paths) if BYTES in names else ((path, b"") for path in paths):
            held.append((path, data))
            size += len(data)
            if len(held) >= batch_rows or size >= BATCH_BYTES:
                yield _batch(held, names)
                held, size = [], 0
        if held:
            yield _batch(held, names)

    def _piece_rows(self, piece: Piece, skip: int, batch_rows: int) -> Rows:
        for path, data in self._contents([piece.path][skip:]):
            yield _batch([(path, data)], self._empty_schema().names)
        return max(0, skip - 1)

    def _contents(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        if not paths or self.locate(paths[0]).is_local:
            for path in paths:
                yield path, self._content(path)
            return
        # Each object costs a round trip: some are always on their way.
        with ThreadPoolExecutor(_REMOTE_THREADS, thread_name_prefix="antinfer-files") as pool:
            todo = iter(paths)
            on_way: deque[tuple[str, Future[bytes]]] = deque()
            on_way.extend((path, pool.submit(self._content, path)) for path in islice(todo, _REMOTE_THREADS))
            try:
                while on_way:
                    path, content = on_way.popleft()
                    yield path, content.result()
                    on_way.extend((path, pool.submit(self._content, path)) for path in islice(todo, 1))
            finally:
                pool.shutdown(cancel_futures=True)

    def _content(self, path: str) -> bytes:
        with reading(path), self.open_stream(path, None) as file:
            content: bytes = file.read()
        if len(content) > _LARGEST:
            raise SourceError(f"{path}: {len(content)} bytes are too many for one value", hint="Files must be smaller than 2 GiB.")
        return content


def _batch(held: list[tuple[str, bytes]], names: list[str]) -> pa.RecordBatch:
    columns = {PATH: pa.array([path for path, _ in held], pa.string())}
    if BYTES in names:
        columns[BYTES] = pa.array([data for _, data in held], pa.binary())
    return pa.RecordBatch.from_arrays([columns[name] for name in names], schema=pa.schema([_SCHEMA.field(name) for name in names]))
