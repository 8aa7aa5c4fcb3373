"""What the output place proves by itself: mirrors `antinfer.storage.manifest`, on the model of the place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from antinfer.core import records
from antinfer.core.ids import ShardId
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord
from antinfer.core.rounds import RetriedShard, Round
from antinfer.storage import layout, parts
from antinfer.testing.sim.output import Place


def read_all(place: Place) -> list[CommitRecord]:
    """Return the records of the manifest, each once (rule 7)."""
    return records.distinct(record for name in sorted(place.chunks) for record in place.chunks[name])


def is_published(place: Place, record: CommitRecord) -> bool:
    return all(name in place.objects for name in place.final_names(record))


def published(place: Place, known: Sequence[CommitRecord]) -> list[CommitRecord]:
    """Return the records that are published: those of `known` whose objects are there, and those that only the objects hold."""
    complete = [record for record in records.distinct(known) if is_published(place, record)]
    claims = Counter(layout.stem_of(record) for record in complete)
    repeated = Counter(record.key for record in complete)
    decided = [record for record in complete if claims[layout.stem_of(record)] == repeated[record.key]]
    named = {layout.stem_of(record) for record in decided}
    proven = [
        record
        for name in place.objects
        if layout.stem(name) not in named and (record := place.read_record(name)) is not None and is_published(place, record)
    ]
    return sorted([*decided, *parts.unambiguous(proven)], key=lambda record: (record.shard, record.start, record.round))


def without_rivals(place: Place, of: Iterable[CommitRecord]) -> list[CommitRecord]:
    """Return those records of whose rows no object of another commit holds any."""
    return parts.without_rivals(place.objects.keys(), of, place.final_names)


def orphans(place: Place, named_by: Iterable[CommitRecord]) -> list[str]:
    """Return the final names of parts, records and quarantine objects that no record of `named_by` names (rules 12 and 14)."""
    named = {name for record in named_by for name in place.final_names(record)}
    return sorted(place.objects.keys() - named)


def sums(kept: Iterable[CommitRecord]) -> dict[str, int]:
    """Return what a finished job promises in ``_SUCCESS``."""
    counted = records.distinct(kept)
    return {
        "rows": sum(record.rows.size for record in counted if not record.round),
        "rows_out": sum(record.rows_out for record in counted),
        "rows_quarantined": sum(record.rows_quarantined - record.rows_retried for record in counted),
        "round": max((record.round for record in counted), default=0),
    }


def in_quarantine(place: Place) -> Counter[tuple[int, int]]:
    """Return how often each row (shard, offset) is in quarantine, but for what a later round took out."""
    named = {name: records.parse_output_name(layout.stem(name)) for name in place.objects}
    retries = [each for each in named.values() if each[3]]
    found: Counter[tuple[int, int]] = Counter()
    for name, (shard, _, _, round) in named.items():
        blob = place.objects[name]
        if blob.kind == "quarantine" and not blob.is_torn:
            later = [Rows(start, stop) for at, start, stop, number in retries if at == shard and number > round]
            found.update((shard, offset) for offset in blob.rows if not any(start <= offset < stop for start, stop in later))
    return found


def plan_round(place: Place, number: int, sizes: Sequence[int]) -> Round:
    """Return what round `number` of a finished output has to take; `sizes` are the rows of each shard."""
    runs: dict[int, RowSet] = {}
    for shard, offset in sorted(in_quarantine(place)):
        runs.setdefault(shard, RowSet()).add(offset, offset + 1)
    return Round(number, {ShardId(shard): RetriedShard(sizes[shard], taken) for shard, taken in runs.items()})


def accumulated(kept: Iterable[CommitRecord]) -> Counter[tuple[int, int]]:
    """Merge the accumulators of `kept`: how often each row (shard, offset) with a result was counted."""
    counts: Counter[tuple[int, int]] = Counter()
    for record in records.distinct(kept):
        counts.update((record.shard, offset) for offset in json.loads(record.accumulators or "[]"))
    return counts
