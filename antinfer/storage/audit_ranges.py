"""Checks of records against the plan and against each other; reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from antinfer.core.plan import PlanIndex
from antinfer.core.records import CommitRecord
from antinfer.storage import layout, rowhash
from antinfer.storage.audit_report import Fault, FaultKind, Gap


def coverage(records: Iterable[CommitRecord], plan: PlanIndex) -> tuple[list[Fault], list[Gap]]:
    """Compare the ranges of the first round with the plan: nothing beyond it, nothing twice; returns also what is not covered yet."""
    by_shard: dict[int, list[CommitRecord]] = defaultdict(list)
    faults: list[Fault] = []
    for record in records:
        known = plan.rows(record.shard) if 0 <= record.shard < len(plan) else None
        if not 0 <= record.start < record.stop:
            faults.append(_fault(FaultKind.RECORD_INVALID, record, f"the range [{record.start}, {record.stop}) is none"))
        elif record.shard >= len(plan) and plan.complete:
            faults.append(_fault(FaultKind.RECORD_INVALID, record, f"the plan has {len(plan)} shards, and no shard {record.shard}"))
        elif known is not None and record.stop > known:
            faults.append(
                _fault(FaultKind.RECORD_INVALID, record, f"shard {record.shard} has {known} rows, the record ends at {record.stop}")
            )
        elif not record.round:
            by_shard[record.shard].append(record)
    gaps: list[Gap] = []
    for shard in range(max(len(plan), max(by_shard, default=-1) + 1)):
        known = plan.rows(shard) if shard < len(plan) else None
        covered = sorted(by_shard.get(shard, ()), key=lambda record: record.start)
        faults.extend(_overlaps(covered))
        gaps.extend(_gaps(shard, covered, known))
    return faults, gaps


def unopened(records: Iterable[CommitRecord], newest: int) -> Iterator[Fault]:
    """Check that no record is of a retry round behind the `newest` that was opened."""
    for record in records:
        if not 0 <= record.round <= newest:
            yield _fault(FaultKind.RECORD_INVALID, record, f"it is of retry round {record.round}, the last one opened is {newest}")


Offsets = npt.NDArray[np.int64]


def retries(records: Iterable[CommitRecord], quarantined: Mapping[tuple[int, int, int, str], Offsets]) -> Iterator[Fault]:
    """Check that every round took rows that were in quarantine, each once, and that its records stand for exactly those.

    Args:
        records: all records.
        quarantined: offsets in the quarantine object of each record that has one, by record key.
    """
    by_shard: dict[int, list[CommitRecord]] = defaultdict(list)
    for record in records:
        by_shard[record.shard].append(record)
    for found in by_shard.values():
        if any(record.round for record in found):
            yield from _retries_of_shard(sorted(found, key=lambda record: (record.round, record.start)), quarantined)


def _retries_of_shard(records: list[CommitRecord], quarantined: Mapping[tuple[int, int, int, str], Offsets]) -> Iterator[Fault]:
    waiting: Offsets = np.empty(0, np.int64)
    for number, group in groupby(records, key=lambda record: record.round):
        again = list(group)
        before = waiting
        if number:
            yield from _overlaps(again)
        for record in again:
            failed = quarantined.get(record.key, np.empty(0, np.int64))
            if number:
                taken = before[(before >= record.start) & (before < record.stop)]
                yield from _retried(record, taken, failed)
                waiting = np.setdiff1d(waiting, taken)
            waiting = np.union1d(waiting, failed)


def _retried(record: CommitRecord, taken: Offsets, failed: Offsets) -> Iterator[Fault]:
    """Check one record of a retry: `taken` were in quarantine before its round, `failed` are so by it."""
    if len(taken) != record.rows_retried:
        reason = f"round {record.round} takes {record.rows_retried} rows of [{record.start}, {record.stop}) of shard {record.shard}"
        yield _fault(FaultKind.ROWS_DOUBLED, record, f"{reason}, of which {len(taken)} were in quarantine")
        return
    foreign = np.setdiff1d(failed, taken)
    if len(foreign):
        yield _fault(FaultKind.QUARANTINE_ROWS, record, f"row {foreign[0]} of shard {record.shard} is not one that it takes")
    elif len(failed) == record.rows_quarantined and (record.row_hash or record.rows_out):
        expected = rowhash.hash_rows(record.shard, np.setdiff1d(taken, failed))
        if expected != record.row_hash:
            reason = f"the rows behind it hash to {record.row_hash}, those that it takes without those that failed again to {expected}"
            yield _fault(FaultKind.ROW_HASH, record, reason)


def balance(record: CommitRecord, *, counts_change: bool) -> Iterator[Fault]:
    """Check that rows in are rows out and quarantined, unless a stage of the job may change the number of rows (`counts_change`)."""
    rows = record.rows_in
    if record.rows_quarantined > rows or record.rows_quarantined < 0 or record.rows_out < 0:
        yield _fault(FaultKind.RECORD_INVALID, record, f"{record.rows_quarantined} of {rows} rows in quarantine, {record.rows_out} out")
    elif not counts_change and record.rows_out + record.rows_quarantined != rows:
        reason = f"{rows} rows in, but {record.rows_out} out and {record.rows_quarantined} in quarantine"
        yield _fault(FaultKind.ROW_BALANCE, record, reason)


def changes_row_counts(job: Any) -> bool:
    """Tell from the job document whether the number of result rows may differ: a filter, or a flat_map that no gather closes."""
    return _changes_row_counts(_stages(job))


def _changes_row_counts(stages: list[dict[str, Any]]) -> bool:
    open_maps = 0
    for stage in stages:
        kinds = {*stage, stage.get("kind")}
        if not open_maps and ("filter" in kinds or any(map(_changes_row_counts, stage.get("parallel", {}).values()))):
            return True
        open_maps += ("flat_map" in kinds) - ("gather" in kinds)
    return open_maps > 0


def _stages(document: Any) -> list[dict[str, Any]]:
    """Find the pipeline in a job document, wherever it holds the specification."""
    if not isinstance(document, dict):
        return []
    pipeline = document.get("pipeline")
    if isinstance(pipeline, list):
        return [stage for stage in pipeline if isinstance(stage, dict)]
    return next((found for value in document.values() if (found := _stages(value))), [])


def _overlaps(covered: list[CommitRecord]) -> Iterator[Fault]:
    """Report each record of a sorted list that begins before all earlier ones end."""
    last: CommitRecord | None = None
    for record in covered:
        if last is not None and record.start < last.stop:
            reason = f"rows [{record.start}, {min(record.stop, last.stop)}) of shard {record.shard} are in {layout.stem_of(last)} too"
            yield _fault(FaultKind.ROWS_DOUBLED, record, reason)
        if last is None or record.stop > last.stop:
            last = record


def _gaps(shard: int, covered: list[CommitRecord], known: int | None) -> Iterator[Gap]:
    at = 0
    for record in covered:
        if record.start > at:
            yield Gap(shard, at, record.start)
        at = max(at, record.stop)
    if known is not None and at < known:
        yield Gap(shard, at, known)
    elif known is None and not covered:
        yield Gap(shard, 0, None)


def _fault(kind: FaultKind, record: CommitRecord, explanation: str) -> Fault:
    return Fault(kind, layout.stem_of(record), explanation)
