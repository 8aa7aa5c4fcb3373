"""From files to shards: cut large files, put small ones together, hand over the first shards while the last footers are still unread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from antinfer.core.ids import ShardId
from antinfer.core.plan import Piece, Shard
from antinfer.errors import InternalError
from antinfer.storage.sources.base import InputFile, SizedPiece, Source, Target

MIN_SHARD_BYTES: Final = 1 << 20
MIN_SHARD_ROWS: Final = 10_000
MAX_SHARD_BYTES: Final = 256 << 20
"""A part is never larger than the result of a shard; with 128-512 MB parts read back well and objects stay few."""
ROWS_FLOOR_BYTES: Final = 8 << 20
"""From this size on a shard needs no minimum of rows: its rows are large ones."""
WANTED_SHARDS: Final = 16
"""A small data set is cut into about this many shards, so that several workers find work."""

MAX_CHUNK_FILES: Final = 512
MAX_LISTED_CHUNK_FILES: Final = 16_384
"""Files of a chunk where planning opens none of them."""

LOOK_AHEAD_PER_THREAD: Final = 4


@dataclass(frozen=True, slots=True)
class PlanChunk:
    """Shards of the next files of the listing; made durable as one object."""

    files_done: int
    """How many files of the listing are planned after this chunk."""
    shards: list[Shard]


@dataclass(frozen=True, slots=True)
class PlanProgress:
    files_done: int
    files_total: int
    shards: int


def auto_target(files: Sequence[InputFile]) -> Target:
    """Choose the size of shards for a data set: `WANTED_SHARDS` of them, but none below `MIN_SHARD_BYTES` or above `MAX_SHARD_BYTES`."""
    total = sum(file.size_bytes for file in files)
    return Target(size_bytes=min(max(total // WANTED_SHARDS, MIN_SHARD_BYTES), MAX_SHARD_BYTES), rows=None)


def plan_shards(
    source: Source,
    files: Sequence[InputFile],
    *,
    target_rows: int | None = None,
    target_bytes: int | None = None,
    threads: int,
    files_done: int = 0,
    first_index: int = 0,
    progress: Callable[[PlanProgress], None] | None = None,
) -> Generator[PlanChunk, None, None]:
    """Plan the files of a listing, in order, chunk by chunk.

    The result is a function of the listing and the targets alone: whoever goes on after `files_done` files makes the same chunks.

    Args:
        source: Where the files belong to; its schema is frozen here if it is not yet.
        files: The whole listing.
        target_rows: Rows of a shard; None: bytes decide.
        target_bytes: Stored bytes of a shard; None: `auto_target` (or no limit when `target_rows` is given).
        threads: Files opened at the same time.
        files_done: Where to go on: `PlanChunk.files_done` of the last durable chunk.
        first_index: Index of the first shard to make.
        progress: Called after each chunk.

    Raises:
        SourceError, SchemaMismatchError: A file cannot be planned.
    """
    source.freeze(files)
    target, auto = _target(files, target_rows, target_bytes)
    index = first_index
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="antinfer-plan") as pool:
        cuts = _cut_all(pool, source, files[files_done:], target, max(1, threads) * LOOK_AHEAD_PER_THREAD)
        try:
            for start, stop in chunk_borders(len(files), opens_to_plan=source.opens_to_plan):
                if start < files_done:
                    _require_border(stop <= files_done, files_done)
                    continue
                sized = [piece for pieces in islice(cuts, stop - start) for piece in pieces if piece.piece.rows != 0]
                shards = [_shard(index + i, pieces) for i, pieces in enumerate(_pack(sized, target, auto))]
                index += len(shards)
                yield PlanChunk(files_done=stop, shards=shards)
                if progress is not None:
                    progress(PlanProgress(files_done=stop, files_total=len(files), shards=index))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def chunk_borders(files: int, *, opens_to_plan: bool) -> Iterator[tuple[int, int]]:
    """Yield the (start, stop) of the chunks of a listing: 1, 2, 4, ... files, so that the first shards come at once."""
    start, size = 0, 1
    largest = MAX_CHUNK_FILES if opens_to_plan else MAX_LISTED_CHUNK_FILES
    while start < files:
        stop = min(start + size, files)
        yield start, stop
        start, size = stop, min(size * 2, largest)


def _target(files: Sequence[InputFile], rows: int | None, size_bytes: int | None) -> tuple[Target, bool]:
    if rows is None and size_bytes is None:
        return auto_target(files), True
    return Target(size_bytes=size_bytes if size_bytes is not None else MAX_SHARD_BYTES * WANTED_SHARDS, rows=rows), False


def _cut_all(
    pool: ThreadPoolExecutor, source: Source, files: Sequence[InputFile], target: Target, ahead: int
) -> Iterator[list[SizedPiece]]:
    """Cut all files in parallel, a bounded number ahead of the consumer, and yield the results in the order of the files."""
    if not source.opens_to_plan:
        yield from (source.pieces(file, target) for file in files)
        return
    todo = iter(files)
    running: deque[Future[list[SizedPiece]]] = deque(pool.submit(source.pieces, file, target) for file in islice(todo, ahead))
    while running:
        yield running.popleft().result()
        running.extend(pool.submit(source.pieces, file, target) for file in islice(todo, 1))


def _pack(pieces: Sequence[SizedPiece], target: Target, auto: bool) -> Iterator[list[SizedPiece]]:
    """Put neighbouring pieces together up to the target."""
    held: list[SizedPiece] = []
    size_bytes, rows = 0, 0
    for piece in pieces:
        more = piece.piece.rows or 0
        over = size_bytes + piece.size_bytes > target.size_bytes or (target.rows is not None and rows + more > target.rows)
        if held and over and not (auto and _too_small(held, rows, size_bytes)):
            yield held
            held, size_bytes, rows = [], 0, 0
        held.append(piece)
        size_bytes += piece.size_bytes
        rows += more
    if held:
        yield held


def _too_small(held: Sequence[SizedPiece], rows: int, size_bytes: int) -> bool:
    known = all(piece.piece.rows is not None for piece in held)
    return known and rows < MIN_SHARD_ROWS and size_bytes < ROWS_FLOOR_BYTES


def _shard(index: int, sized: Sequence[SizedPiece]) -> Shard:
    pieces = _joined([one.piece for one in sized])
    counts = [piece.rows for piece in pieces]
    rows = None if None in counts else sum(count for count in counts if count is not None)
    return Shard(index=ShardId(index), pieces=pieces, rows=rows, size_bytes=sum(one.size_bytes for one in sized))


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Make one piece of neighbours in the same file."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.path == piece.path and last.stop == piece.start > 0:
            rows = None if last.rows is None or piece.rows is None else last.rows + piece.rows
            joined[-1] = Piece(piece.path, last.start, piece.stop, rows)
        else:
            joined.append(piece)
    return tuple(joined)


def _require_border(at_border: bool, files_done: int) -> None:
    if not at_border:
        raise InternalError(f"planning cannot go on after {files_done} files: no chunk ends there")
