"""What an audit of an output says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class FaultKind(Enum):
    """What is wrong. Every kind names one thing that a person can look at."""

    PLAN_DAMAGED = "plan_damaged"
    """The plan is not what was written, or is not sealed although the job is."""
    MANIFEST_DAMAGED = "manifest_damaged"
    """A chunk of the manifest cannot be read."""
    MANIFEST_GAP = "manifest_gap"
    """A part of a finished job proves itself, but the manifest does not name it."""
    RECORD_INVALID = "record_invalid"
    """A record contradicts the plan or itself."""
    ROWS_MISSING = "rows_missing"
    """A finished job has planned rows that no record covers."""
    ROWS_DOUBLED = "rows_doubled"
    """Two records cover the same rows."""
    ROW_BALANCE = "row_balance"
    """Rows in are not rows out and quarantined, and no stage of the job changes their number."""
    ROW_HASH = "row_hash"
    """The rows behind a part are not the rows of its range."""
    PART_MISSING = "part_missing"
    PART_DAMAGED = "part_damaged"
    """A part cannot be read to its end, or its size is not that of the record."""
    PART_ROWS = "part_rows"
    """A part holds another number of rows, or other rows, than its record says."""
    PART_RECORD = "part_record"
    """The record that a part carries is not that of the manifest."""
    QUARANTINE_MISSING = "quarantine_missing"
    QUARANTINE_ROWS = "quarantine_rows"
    """A quarantine object is damaged or holds other rows than its record says."""
    ORPHAN = "orphan"
    """An object under a final name that no record names."""
    TOTALS = "totals"
    """The sums of all records are not those that the job was finished with."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    name: str
    """The object or the shard, relative to the output place."""
    explanation: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that no record covers."""

    shard: int
    start: int
    stop: int | None
    """None: to the end of a shard whose size the plan does not know."""


@dataclass(frozen=True, slots=True)
class AuditTotals:
    """Row counts over the whole output."""

    shards: int
    commits: int
    parts: int
    rows_planned: int | None
    """None while the plan is not complete, or when a shard's size is known only to the workers that read it."""
    rows_in: int
    """Input rows committed."""
    rows_out: int
    rows_quarantined: int
    """Rows in quarantine now: those that a retry took out do not count."""
    rows_fanned_out: int
    """Rows out beyond one per row in; negative when a stage drops rows."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The outcome of `audit`."""

    uri: str
    finished: bool
    """The job says that it is done."""
    faults: tuple[Fault, ...]
    missing: tuple[Gap, ...]
    """Rows an unfinished job has still to do (those of a finished one are faults)."""
    leftovers: tuple[str, ...]
    """What lies in staging although the job is finished: a worker woke up late. No fault: nobody will ever publish it."""
    totals: AuditTotals
    deep: bool
    """Parts and quarantine objects were opened."""
    retrying: int = 0
    """Number of the retry round that is under way; 0: none is."""

    @property
    def ok(self) -> bool:
        """True when nothing is wrong; an unfinished output may be."""
        return not self.faults

    @property
    def proven(self) -> bool:
        """True when the output holds every planned row exactly once."""
        return self.ok and self.finished and self.deep

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data = asdict(self)
        for fault in data["faults"]:
            fault["kind"] = fault["kind"].value
        return {**data, "ok": self.ok, "proven": self.proven}
