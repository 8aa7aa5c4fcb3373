"""Retry rounds beside an output: which one is open, the rows that it takes, and the rows that are in quarantine now.

Round n is opened by the object ``rounds/<n>``, which holds its rows and never changes again. An output is finished when ``_SUCCESS`` names
the last round that was opened; an older ``_SUCCESS`` is one that the opening of a round had no time to remove.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from antinfer.core.ids import ShardId
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.core.rounds import RetriedShard, Round
from antinfer.errors import InternalError, OutputError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_READERS: Final = 16


def newest(place: OutputPlace) -> int:
    """Return the number of the last round that was opened; 0: there was never one."""
    return max((int(stored.name.rpartition("/")[2]) for stored in place.list_objects(layout.ROUNDS)), default=0)


def sealed(place: OutputPlace) -> int | None:
    """Return the last round that ``_SUCCESS`` speaks of, None without one. Raises `OutputError` when it is damaged."""
    data = place.read(layout.SUCCESS)
    if data is None:
        return None
    try:
        return int(json.loads(data).get("round", 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise OutputError(f"output {place.uri}: {layout.SUCCESS} is damaged: {error}", hint="Remove it and resume the job.") from error


def is_finished(place: OutputPlace) -> bool:
    """Tell whether every row is done, and no retry is under way."""
    done = sealed(place)
    return done is not None and done >= newest(place)


def write(place: OutputPlace, opened: Round) -> None:
    """Open a round. Written again it must say the same, which it does: what it is made from does not change."""
    import pyarrow as pa

    shards = list(opened.shards.items())
    edges = [[edge for run in shard for edge in run] for _, shard in shards]
    table = pa.table(
        {
            "shard": pa.array([shard_id for shard_id, _ in shards], pa.int64()),
            "rows": pa.array([shard.rows for _, shard in shards], pa.int64()),
            "edges": pa.array(edges, pa.list_(pa.int64())),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    place.write(layout.round_name(opened.number), bytes(sink.getvalue()))


def read(place: OutputPlace, number: int) -> Round:
    """Return the round that was opened as `number`. Raises `OutputError` when there is none or it is damaged."""
    import pyarrow as pa

    name = layout.round_name(number)
    data = place.read(name)
    try:
        if data is None:
            raise ValueError("it is gone")
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            columns = reader.read_all().to_pydict()
        listed = zip(columns["shard"], columns["rows"], columns["edges"], strict=True)
        shards = {ShardId(shard): RetriedShard(rows, map(Rows, edges[::2], edges[1::2])) for shard, rows, edges in listed}
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"output {place.uri}: {name} is damaged: {error}") from error
    return Round(number, shards)


def standing(place: OutputPlace, records: Sequence[CommitRecord]) -> Iterator[tuple[CommitRecord, pa.Table]]:
    """Yield the rows that are in quarantine now, with the record that put them there: those that no later round took out.

    Args:
        place: the output place.
        records: all of its published records.

    Raises:
        OutputError: A quarantine object is damaged or gone.
    """
    from antinfer.storage import quarantine

    retries = defaultdict(list)
    for record in records:
        if record.round:
            retries[record.shard].append(record)
    holding = sorted((r for r in records if r.rows_quarantined), key=lambda r: (r.shard, r.start, r.round))

    def one(record: CommitRecord) -> pa.Table:
        name = layout.final_name("quarantine", record, "")
        try:
            table = quarantine.read(place, name)
        except FileNotFoundError as error:
            raise OutputError(f"output {place.uri}: {name} is gone", hint="`antinfer verify` tells what else is.") from error
        return table.filter(_untouched(table.column("offset").to_numpy(), record, retries[record.shard]))

    with ThreadPoolExecutor(_READERS) as pool:
        for record, table in zip(holding, pool.map(one, holding), strict=True):
            if table.num_rows:
                yield record, table


def _untouched(offsets: npt.NDArray[np.int64], record: CommitRecord, retries: Iterable[CommitRecord]) -> pa.Array:
    """Tell for each of `offsets`, quarantined by `record`, whether no later round covers it."""
    import numpy as np
    import pyarrow as pa

    kept = np.ones(len(offsets), bool)
    for retry in retries:
        if retry.round > record.round:
            kept &= (offsets < retry.start) | (offsets >= retry.stop)
    return pa.array(kept)


def plan_round(place: OutputPlace, number: int, records: Sequence[CommitRecord], plan: PlanIndex) -> Round:
    """Return what round `number` of a finished output has to take: every row that is in quarantine now.

    Raises:
        OutputError: A quarantine object is damaged or gone.
    """
    import numpy as np

    offsets = defaultdict(list)
    for record, table in standing(place, records):
        offsets[record.shard].append(table.column("offset").to_numpy())
    sizes: dict[int, int] = defaultdict(int)
    for record in records:
        sizes[record.shard] = max(sizes[record.shard], record.stop)
    shards = {}
    for shard, found in offsets.items():
        rows = np.sort(np.concatenate(found))
        if len(np.unique(rows)) != len(rows):
            raise InternalError(f"output {place.uri}: rows of shard {shard} are in quarantine twice")
        # Every row of a finished job is in a record, so the last one ends with the shard.
        size = plan.rows(shard)
        shards[ShardId(shard)] = RetriedShard(sizes[shard] if size is None else size, _runs(rows))
    return Round(number, shards)


def _runs(rows: npt.NDArray[np.int64]) -> Iterator[Rows]:
    """Join neighbours of sorted `rows`."""
    import numpy as np

    borders = np.flatnonzero(np.diff(rows) != 1)
    starts, stops = rows[[0, *(borders + 1)]], rows[[*borders, len(rows) - 1]] + 1
    return map(Rows, starts.tolist(), stops.tolist())
