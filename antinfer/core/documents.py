"""The durable form of the engine's state: a flat set of documents, key -> JSON text.

=================  =====================================================================================
key                content
=================  =====================================================================================
``meta``           cursor, finished shards, counters, frozen schema, lease numbers known per epoch
``s:<shard>``      an open shard: row count, committed runs, pending ranges, leases
``w:<session>``    a session: worker, last applied request, speed
``r:<staged>``     a committed record that is not yet both published and flushed
=================  =====================================================================================

Times are not stored: they belong to one master's clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from antinfer.core.ids import LeaseId, SessionId, ShardId, WorkerId
from antinfer.core.ledger import Lease, OpenShard, Pending
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord
from antinfer.core.sessions import Session

META: Final = "meta"
SHARD: Final = "s:"
SESSION: Final = "w:"
RECORD: Final = "r:"

Name = TypeVar("Name")
Thing = TypeVar("Thing")


@dataclass(slots=True)
class Changes:
    """What a batch of steps changed; the store applies all of it or nothing."""

    puts: dict[str, str] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    reset: bool = False
    """Drop every other document first."""

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes or self.reset)

    def note(self, kind: str, names: Iterable[Name], find: Callable[[Name], Thing | None], encode: Callable[[Thing], str]) -> None:
        """Put the document of every one of `names`, and delete those of what is not to be found any more.

        Args:
            kind: `SHARD`, `SESSION` or `RECORD`.
            names: what the keys have after their kind.
            find: returns what has a name, None when it is gone.
            encode: makes the text.
        """
        puts, deletes = self.puts, self.deletes
        for name in names:
            found = find(name)
            if found is None:
                deletes.add(f"{kind}{name}")
            else:
                puts[f"{kind}{name}"] = encode(found)


@dataclass(slots=True)
class Totals:
    """Running figures for display and budgets; the proof is in the manifest, these are not."""

    rows_done: int = 0
    rows_out: int = 0
    rows_quarantined: int = 0
    commits: int = 0

    def count(self, record: CommitRecord) -> None:
        if record.round:
            self.rows_quarantined -= record.rows_retried
        else:
            self.rows_done += record.stop - record.start
        self.rows_out += record.rows_out
        self.rows_quarantined += record.rows_quarantined
        self.commits += 1


@dataclass(slots=True)
class Meta:
    """The one document that is not tied to a shard, session or record."""

    cursor: int = 0
    finished: RowSet = field(default_factory=RowSet)
    totals: Totals = field(default_factory=Totals)
    schema: str = ""
    """Fingerprint of the output schema, frozen by the first commit that has a part."""
    next_session: int = 1
    closed_below: dict[int, int] = field(default_factory=dict)
    """Epoch -> first lease number that it never granted. Leases below it that do not stand are closed (rule 5)."""
    round: int = 0
    """The retry round that all of this is about."""
    rows_retried: int = 0
    """Rows of the round that were tried again."""
    causes: Counter[str] = field(default_factory=Counter)
    """How often each `core.causes.Cause` has interrupted the job, by its value."""


@dataclass(slots=True)
class Loaded:
    """Everything that the documents say."""

    meta: Meta
    shards: dict[ShardId, OpenShard]
    sessions: list[Session]
    records: dict[str, CommitRecord]


def has_records(documents: Mapping[str, str]) -> bool:
    """Tell whether the documents hold a commit that is not yet both published and flushed."""
    return any(key.startswith(RECORD) for key in documents)


_quoted: Final = json.encoder.encode_basestring_ascii
# Shards and sessions change with every request, meta with every batch. Documents are put together by hand: that takes a fifth of an
# encoder's time.


def encode_meta(meta: Meta) -> str:
    totals = meta.totals
    causes = ",".join([f"{_quoted(cause)}:{count}" for cause, count in meta.causes.items()])
    return (
        f'{{"cursor":{meta.cursor},"round":{meta.round},"rows_retried":{meta.rows_retried},"finished":[{_pairs_text(meta.finished)}],'
        f'"totals":[{totals.rows_done},{totals.rows_out},{totals.rows_quarantined},{totals.commits}],'
        f'"schema":{_quoted(meta.schema)},"next_session":{meta.next_session},"closed_below":[{_pairs_text(meta.closed_below.items())}],'
        f'"causes":{{{causes}}}}}'
    )


def encode_shard(shard: OpenShard) -> str:
    rows = "null" if shard.rows is None else shard.rows
    committed = _pairs_text(shard.committed) if shard.committed else ""
    pending = ",".join([_pending_text(pending) for pending in shard.pending.values()]) if shard.pending else ""
    leases = ",".join([_lease_text(lease) for lease in shard.leases.values()])
    return f'{{"rows":{rows},"committed":[{committed}],"pending":[{pending}],"leases":[{leases}]}}'


def _pairs_text(pairs: Iterable[tuple[int, int]]) -> str:
    return ",".join([f"[{first},{second}]" for first, second in pairs])


def _pending_text(pending: Pending) -> str:
    start, stop = pending.rows
    return f"[{start},{stop},{pending.attempt},{pending.strikes},{pending.order},{pending.losses},{pending.troubles}]"


def _lease_text(lease: Lease) -> str:
    (epoch, n), (start, stop) = lease.id, lease.rows
    counts = f"{lease.attempt},{lease.strikes},{lease.request},{lease.losses},{lease.troubles}"
    return f"[{epoch},{n},{_quoted(lease.session)},{start},{stop},{counts}]"


def encode_session(session: Session) -> str:
    draining = "true" if session.draining else "false"
    names = f'"worker":{_quoted(session.worker)},"last_request":{session.last_request}'
    return f'{{{names},"draining":{draining},"rate":{session.pace.rate!r}}}'


def decode(documents: Mapping[str, str]) -> Loaded:
    """Read documents back. Raises KeyError, TypeError or ValueError when they are not ours."""
    loaded = Loaded(_decode_meta(documents[META]) if META in documents else Meta(), {}, [], {})
    for key, text in documents.items():
        if key.startswith(SHARD):
            shard_id = ShardId(int(key.removeprefix(SHARD)))
            loaded.shards[shard_id] = _decode_shard(shard_id, json.loads(text))
        elif key.startswith(SESSION):
            data = json.loads(text)
            session = Session(SessionId(key.removeprefix(SESSION)), WorkerId(data["worker"]), data["last_request"])
            session.draining, session.pace.rate = data["draining"], data["rate"]
            loaded.sessions.append(session)
        elif key.startswith(RECORD):
            record = CommitRecord.from_json(json.loads(text))
            loaded.records[record.staged] = record
    return loaded


def _decode_meta(text: str) -> Meta:
    data = json.loads(text)
    return Meta(
        cursor=data["cursor"],
        finished=RowSet(tuple(run) for run in data["finished"]),
        totals=Totals(*data["totals"]),
        schema=data["schema"],
        next_session=data["next_session"],
        round=data["round"],
        rows_retried=data["rows_retried"],
        closed_below=dict(data["closed_below"]),
        causes=Counter(data["causes"]),
    )


def _decode_shard(shard_id: ShardId, data: dict[str, Any]) -> OpenShard:
    shard = OpenShard(data["rows"], RowSet(tuple(run) for run in data["committed"]))
    for start, stop, attempt, strikes, order, losses, troubles in data["pending"]:
        shard.pending[start] = Pending(Rows(start, stop), attempt, strikes, order, losses=losses, troubles=troubles)
    for epoch, n, session, start, stop, attempt, strikes, request, losses, troubles in data["leases"]:
        lease = Lease(LeaseId(epoch, n), SessionId(session), shard_id, Rows(start, stop), attempt, strikes, request)
        lease.losses, lease.troubles = losses, troubles
        shard.leases[lease.id] = lease
    return shard
