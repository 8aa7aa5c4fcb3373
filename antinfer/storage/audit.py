"""The audit behind ``antinfer verify``: is every planned row in the output exactly once? Asked of the output place alone.

An output without ``_SUCCESS`` is unfinished, not faulty: what is missing is listed, and what a resume will clear away is passed over. What
contradicts itself is a fault in both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import RowSet
from antinfer.core.records import CommitRecord, distinct
from antinfer.errors import DataError, OutputError
from antinfer.storage import audit_objects, audit_ranges, layout, manifest, rounds
from antinfer.storage.audit_report import AuditReport, AuditTotals, Fault, FaultKind, Gap
from antinfer.storage.place import OutputPlace
from antinfer.storage.planfile import PlanFile

_READERS: Final = 16

Progress = Callable[[int, int], None]
"""Called with (commits examined, commits in all)."""


def audit(place: OutputPlace, *, deep: bool = True, progress: Progress | None = None) -> AuditReport:
    """Audit the output at `place`; changes nothing.

    Args:
        place: the output place; nothing else is read.
        deep: open every part and quarantine object. Without it, only names, sizes and records are compared.
        progress: called after every commit examined.

    Raises:
        OutputError: the place cannot be read, or is no output of antinfer.
    """
    job = _job(place)
    opened = rounds.newest(place)
    finished = _finished(place, opened)
    plan, faults = _plan(place, finished=finished is not None)
    listing = manifest.Listing.of(place)
    suffix = listing.suffix
    known, damaged = _manifest(place)
    faults += damaged
    records, strays = _records(place, listing, known, suffix)
    covered, gaps = audit_ranges.coverage(records, plan)
    faults += covered
    faults += audit_ranges.unopened(records, opened)
    counts_change = audit_ranges.changes_row_counts(job)
    for record in records:
        faults += audit_ranges.balance(record, counts_change=counts_change)
    faults += _examine(place, listing, records, suffix, deep=deep, counts_change=counts_change, progress=progress)
    if finished is not None:
        # What a damaged chunk named would otherwise be reported once more for every commit in it.
        faults += [fault for fault in strays if not damaged or fault.kind is not FaultKind.MANIFEST_GAP]
        faults += [_missing(gap) for gap in gaps if gap.stop is not None]
        faults += _check_totals(finished, records)
    return AuditReport(
        uri=place.uri,
        finished=finished is not None,
        faults=tuple(faults),
        missing=() if finished is not None else tuple(gaps),
        leftovers=tuple(place.list_staging()) if finished is not None else (),
        totals=_totals(plan, listing, records),
        retrying=opened if finished is None else 0,
        deep=deep,
    )


def _job(place: OutputPlace) -> Any:
    data = place.read(layout.JOB)
    if data is None:
        raise OutputError(f"{place.uri} is no output of antinfer: it has no {layout.JOB}", hint="Name the folder that the job wrote to.")
    try:
        return json.loads(data)
    except ValueError as error:
        raise OutputError(f"{place.uri}: {layout.JOB} is damaged: {error}", hint="Run the job again with the same job file.") from error


def _finished(place: OutputPlace, opened: int) -> bytes | None:
    """Return the content of ``_SUCCESS``; None while the job, or the last retry round that was opened, goes on."""
    promised = place.read(layout.SUCCESS)
    if promised is None or not opened:
        return promised
    try:
        return promised if (rounds.sealed(place) or 0) >= opened else None
    except OutputError:
        return promised


def _plan(place: OutputPlace, *, finished: bool) -> tuple[PlanIndex, list[Fault]]:
    try:
        plan = PlanFile(place).load().index
    except DataError as error:
        return PlanIndex(), [Fault(FaultKind.PLAN_DAMAGED, layout.folder(layout.PLAN), str(error))]
    if finished and not plan.complete:
        return plan, [Fault(FaultKind.PLAN_DAMAGED, layout.folder(layout.PLAN), "the job is finished, but its plan is not complete")]
    return plan, []


def _manifest(place: OutputPlace) -> tuple[list[CommitRecord], list[Fault]]:
    """Read the manifest chunk by chunk: one damaged chunk does not hide the others."""
    known: list[CommitRecord] = []
    faults: list[Fault] = []
    for stored in place.list_objects(layout.MANIFEST):
        try:
            known += manifest.decode(place.read(stored.name) or b"", stored.name)
        except OutputError as error:
            faults.append(Fault(FaultKind.MANIFEST_DAMAGED, stored.name, str(error)))
    return distinct(known), faults


def _records(
    place: OutputPlace, listing: manifest.Listing, known: list[CommitRecord], suffix: str
) -> tuple[list[CommitRecord], list[Fault]]:
    """Return the records of the manifest and those that only objects prove, and faults for objects that stand for nothing.

    A record that objects alone prove counts only where the manifest has nothing for its rows: else the object is an orphan.
    """
    named = {name for record in known for name in layout.final_names(record, suffix)}
    unnamed = manifest.Listing(*({n: stored for n, stored in found.items() if n not in named} for found in _folders(listing)))
    covered: dict[tuple[int, int], RowSet] = defaultdict(RowSet)
    for record in known:
        rows = covered[record.shard, record.round]
        if 0 <= record.start < record.stop and not rows.overlaps(record.start, record.stop):
            rows.add(record.start, record.stop)
    proven: list[CommitRecord] = []
    faults: list[Fault] = []
    for record in manifest.published(place, unnamed, suffix, ()):
        rows = covered[record.shard, record.round]
        if not rows.overlaps(record.start, record.stop):
            proven.append(record)
            rows.add(record.start, record.stop)
            name = layout.final_names(record, suffix)[-1]
            faults.append(Fault(FaultKind.MANIFEST_GAP, name, "it carries its record, but the manifest does not name it"))
    named |= {name for record in proven for name in layout.final_names(record, suffix)}
    orphans = sorted(name for found in _folders(listing) for name in found if name not in named)
    faults += [Fault(FaultKind.ORPHAN, name, "no record names it") for name in orphans]
    return [*known, *proven], faults


def _examine(
    place: OutputPlace,
    listing: manifest.Listing,
    records: list[CommitRecord],
    suffix: str,
    *,
    deep: bool,
    counts_change: bool,
    progress: Progress | None,
) -> list[Fault]:
    faults: list[Fault] = []
    quarantined = {}

    def one(record: CommitRecord) -> audit_objects.Examined:
        return audit_objects.examine(place, listing, record, suffix, deep=deep, counts_change=counts_change)

    with ThreadPoolExecutor(_READERS) as pool:
        for done, found in enumerate(pool.map(one, records), 1):
            faults += found.faults
            if len(found.quarantined):
                quarantined[found.record.key] = found.quarantined
            if progress is not None:
                progress(done, len(records))
    if deep:
        faults += audit_ranges.retries(records, quarantined)
    return faults


def _missing(gap: Gap) -> Fault:
    return Fault(FaultKind.ROWS_MISSING, f"shard {gap.shard}", f"no record covers rows [{gap.start}, {gap.stop}) of shard {gap.shard}")


def _check_totals(sealed: bytes, records: list[CommitRecord]) -> list[Fault]:
    try:
        promised = json.loads(sealed)
    except ValueError:
        promised = None
    if not isinstance(promised, dict):
        return [Fault(FaultKind.TOTALS, layout.SUCCESS, "its content is not what a finished job writes")]
    sums = manifest.sums(records)
    promised.setdefault("round", 0)
    return [
        Fault(FaultKind.TOTALS, layout.SUCCESS, f"the job was finished with {name} = {promised.get(name)}, the records add up to {value}")
        for name, value in sums.items()
        if promised.get(name) != value
    ][:1]


def _totals(plan: PlanIndex, listing: manifest.Listing, records: list[CommitRecord]) -> AuditTotals:
    sums = manifest.totals(records)
    planned = [plan.rows(shard) for shard in range(len(plan))]
    sized = [rows for rows in planned if rows is not None]
    return AuditTotals(
        shards=len(plan),
        commits=sums.commits,
        parts=len(listing.parts),
        rows_planned=sum(sized) if plan.complete and len(sized) == len(planned) else None,
        rows_in=sums.rows,
        rows_out=sums.rows_out,
        rows_quarantined=sums.rows_quarantined,
        rows_fanned_out=sums.rows_out + sums.rows_quarantined - sums.rows,
        size_bytes=sum(stored.size_bytes for stored in listing.parts.values()),
    )


def _folders(listing: manifest.Listing) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return listing.parts, listing.records, listing.quarantine
