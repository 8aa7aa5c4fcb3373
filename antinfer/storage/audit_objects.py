"""Checks of one commit's objects against its record; reads parts and quarantine objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.core.records import CommitRecord
from antinfer.errors import OutputError
from antinfer.storage import layout, manifest, parts, quarantine, rowhash
from antinfer.storage.audit_report import Fault, FaultKind
from antinfer.storage.place import OutputPlace

ROW_ID_COLUMNS = ("_shard", "_offset")
"""Columns that hold the identity of each row, where the job asked for them."""


@dataclass(slots=True)
class Examined:
    """What was found about one commit."""

    record: CommitRecord
    faults: list[Fault] = field(default_factory=list)
    quarantined: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Offsets in its quarantine object."""


def examine(
    place: OutputPlace, listing: manifest.Listing, record: CommitRecord, suffix: str, *, deep: bool, counts_change: bool
) -> Examined:
    """Check the objects of `record`; without `deep` only that they are there and have the right size."""
    found = Examined(record)
    stem = layout.stem_of(record)
    kinds = {staged.kind for staged in record.objects}
    part = layout.final_name("part", record, suffix)
    if record.rows_out and "part" not in kinds:
        found.faults.append(Fault(FaultKind.RECORD_INVALID, stem, f"{record.rows_out} rows out, but no part"))
    if bool(record.rows_quarantined) != ("quarantine" in kinds):
        reason = f"{record.rows_quarantined} rows in quarantine {'with' if 'quarantine' in kinds else 'without'} a quarantine object"
        found.faults.append(Fault(FaultKind.RECORD_INVALID, stem, reason))
    if "quarantine" in kinds:
        found.faults += _examine_quarantine(place, listing, found, deep=deep)
    if "record" in kinds:
        found.faults += _examine_record(place, listing, record, deep=deep)
    if "part" in kinds:
        found.faults += _examine_part(place, listing, record, part, deep=deep, counts_change=counts_change)
    plausible = counts_change or record.rows_out + record.rows_quarantined == record.rows_in
    # Which rows a retry stands for is known only beside the rounds before it (`audit_ranges.retries`).
    if plausible and not record.round and 0 <= record.start < record.stop and len(found.quarantined) == record.rows_quarantined:
        found.faults += _examine_hash(found, stem)
    return found


def _examine_quarantine(place: OutputPlace, listing: manifest.Listing, found: Examined, *, deep: bool) -> Iterator[Fault]:
    record = found.record
    name = layout.final_name("quarantine", record, "")
    if name not in listing.quarantine:
        yield Fault(FaultKind.QUARANTINE_MISSING, name, f"the errors of {record.rows_quarantined} rows are gone")
        return
    if not deep:
        return
    try:
        table = quarantine.read(place, name)
        shards, offsets = table.column("shard").to_numpy(), table.column("offset").to_numpy()
    except (OutputError, FileNotFoundError, KeyError) as error:
        yield Fault(FaultKind.QUARANTINE_ROWS, name, f"the object cannot be read: {error}")
        return
    inside = (shards == record.shard) & (offsets >= record.start) & (offsets < record.stop)
    if len(offsets) != record.rows_quarantined:
        yield Fault(FaultKind.QUARANTINE_ROWS, name, f"it holds {len(offsets)} rows, the record says {record.rows_quarantined}")
    elif len(np.unique(offsets)) != len(offsets) or not inside.all():
        yield Fault(
            FaultKind.QUARANTINE_ROWS, name, f"it holds rows twice, or rows outside [{record.start}, {record.stop}) of shard {record.shard}"
        )
    else:
        found.quarantined = offsets


def _examine_record(place: OutputPlace, listing: manifest.Listing, record: CommitRecord, *, deep: bool) -> Iterator[Fault]:
    name = layout.final_name("record", record, "")
    if name not in listing.records:
        yield Fault(FaultKind.PART_RECORD, name, "the record object is gone")
    elif deep:
        data = place.read(name)
        yield from _compare(record, None if data is None else parts.parse_record(data), name)


def _examine_part(
    place: OutputPlace, listing: manifest.Listing, record: CommitRecord, name: str, *, deep: bool, counts_change: bool
) -> Iterator[Fault]:
    stored = listing.parts.get(name)
    if stored is None:
        yield Fault(FaultKind.PART_MISSING, name, f"the results of rows [{record.start}, {record.stop}) of shard {record.shard} are gone")
        return
    if record.size_bytes and stored.size_bytes != record.size_bytes:
        yield Fault(FaultKind.PART_DAMAGED, name, f"it has {stored.size_bytes} bytes, the record says {record.size_bytes}")
        return
    if not deep:
        return
    try:
        with place.open(name) as file:
            rows = parts.count_rows(file, name)
        if name.endswith(".parquet"):
            with place.open(name) as file:
                carried = parts.carried_record(file, name)
            yield from _compare(record, carried, name)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Fault(FaultKind.PART_DAMAGED, name, f"it cannot be read: {error}")
        return
    if rows != record.rows_out:
        yield Fault(FaultKind.PART_ROWS, name, f"it holds {rows} rows, the record says {record.rows_out}")
    elif name.endswith(".parquet") and not counts_change:
        yield from _examine_identities(place, record, name)


def _examine_identities(place: OutputPlace, record: CommitRecord, name: str) -> Iterator[Fault]:
    """Hash the identities that the rows carry, where the part has them."""
    with place.open(name) as file:
        reader = pq.ParquetFile(file)
        if not set(ROW_ID_COLUMNS) <= set(reader.schema_arrow.names):
            return
        table = reader.read(columns=list(ROW_ID_COLUMNS))
    shards, offsets = (table.column(column).to_numpy() for column in ROW_ID_COLUMNS)
    if (shards != record.shard).any() or rowhash.hash_rows(record.shard, offsets) != record.row_hash:
        yield Fault(FaultKind.PART_ROWS, name, "the rows in it are not those that its record stands for")


def _examine_hash(found: Examined, stem: str) -> Iterator[Fault]:
    record = found.record
    if not record.row_hash and not record.rows_out:
        return
    expected = rowhash.hash_range(record.shard, record.start, record.stop)
    if len(found.quarantined):
        expected = rowhash.without(expected, rowhash.hash_rows(record.shard, found.quarantined))
    if expected != record.row_hash:
        reason = f"the rows behind it hash to {record.row_hash}, rows [{record.start}, {record.stop}) without quarantine to {expected}"
        yield Fault(FaultKind.ROW_HASH, stem, reason)


def _compare(record: CommitRecord, carried: CommitRecord | None, name: str) -> Iterator[Fault]:
    if carried is None:
        yield Fault(FaultKind.PART_RECORD, name, "it carries no readable record")
        return
    mine, theirs = parts.timeless(record).to_json(), parts.timeless(carried).to_json()
    different = [key for key in mine if mine[key] != theirs.get(key)]
    if different:
        reason = f"{different[0]} is {theirs.get(different[0])!r} in the record it carries, {mine[different[0]]!r} in the manifest"
        yield Fault(FaultKind.PART_RECORD, name, reason)
