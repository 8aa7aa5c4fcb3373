"""What the agent and its stage host say to each other over a socket pair: one JSON object a line.

The agent owns leases and speaks to the master; the host owns data and user code. Either may die alone: the agent starts another host and
sends it the uncommitted rest of every lease; a host whose agent is gone ends at once. The host is started as
``python -m antinfer.worker.host FD``, where FD is its inherited end of the socket pair; the first line on it is `Setup`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, get_args

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import AtWork, FailureKind, Interruption
from antinfer.core.plan import Piece, Retry, Shard
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.rpc.values import StageStats


@dataclass(frozen=True, slots=True)
class Setup:
    """Agent to host, first of all: what to run. Answered by `Ready`, or by `Failed` without a lease."""

    worker: str
    job: str
    """Job id."""
    document: str
    """The normalised job as JSON, fingerprints included."""
    output: str
    """URI of the output place."""
    isolated: bool = False
    """A host before died of what user code may have done in one of its threads: what can run in processes does, where rows are found."""


def with_base_dir(document: str, base_dir: str) -> str:
    """Return the document of a job for a machine on which its user code lies in the folder `base_dir`."""
    data = json.loads(document)
    data["spec"]["base_dir"] = base_dir
    return json.dumps(data)


@dataclass(frozen=True, slots=True)
class Work:
    """Agent to host: compute these rows and stage their results."""

    lease: LeaseId
    shard: Shard
    rows: Rows
    attempt: int = 1
    quarantine: str = ""
    alone: bool = False
    """With no other rows: they may be what kills processes."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Agent to host: of what is not staged, the lease now covers only `rows`; empty: forget it.

    Staged objects are never deleted by the host (rule 1).
    """

    lease: LeaseId
    rows: Rows


@dataclass(frozen=True, slots=True)
class Regrant:
    """Agent to host: the lease goes on as `new`, rows and progress unchanged; what is staged from now on is named after `new` (rule 18)."""

    old: LeaseId
    new: LeaseId
    attempt: int
    """Of the new lease: its rows were leased once more."""


@dataclass(frozen=True, slots=True)
class YieldRest:
    """Agent to host: stage the finished prefix of the lease, then answer `Released` and forget the rest."""

    lease: LeaseId
    keep: int | None = None
    """Go on with the rows before this one, or with more where more is finished already, and answer `Kept` at once."""


@dataclass(frozen=True, slots=True)
class CommitEvery:
    """Agent to host: stage finished prefixes this often, if the job leaves that to the master."""

    ms: int


@dataclass(frozen=True, slots=True)
class HasResults:
    """Agent to host, before `Work` where it is known by then: rows have come out of the job and are committed, so its code works.

    Not in `Setup`, which a host gets before the agent has been welcomed by a master.
    """


@dataclass(frozen=True, slots=True)
class Stop:
    """Agent to host: tear everything down and exit 0."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Host to agent: pipeline and predictors are set up."""

    setup_seconds: float
    slots: int
    """Leases that keep the pipeline full: one per reader plus read-ahead."""


@dataclass(frozen=True, slots=True)
class Sized:
    """Host to agent: the shard of this lease has `rows` rows."""

    lease: LeaseId
    rows: int


@dataclass(frozen=True, slots=True)
class Staged:
    """Host to agent: the next prefix of the lease is durable under its staged name; ask for its commit. In row order per lease."""

    lease: LeaseId
    record: CommitRecord


@dataclass(frozen=True, slots=True)
class Released:
    """Host to agent: answer to `YieldRest`, after the last `Staged` of the lease."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class Kept:
    """Host to agent: answer to `YieldRest` with rows to keep: the lease now ends at row `stop`."""

    lease: LeaseId
    stop: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Host to agent: the rest of this lease (or, with None, the whole host) cannot be done here."""

    lease: LeaseId | None
    kind: FailureKind
    error: str
    traceback: str = ""
    cause: Cause = Cause.UNKNOWN
    """What is known beyond `kind`."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Host to agent: a process of a stage was interrupted, and all that came of it was mended here."""

    told: Interruption


@dataclass(frozen=True, slots=True)
class Progress:
    """Host to agent, every second and before each `Staged`: counters since the host started, for display."""

    rows: int
    stages: tuple[StageStats, ...] = ()
    """In the order of the pipeline."""
    reached: tuple[tuple[LeaseId, int], ...] = ()
    """For each lease the first row that is not finished."""


ToHost = Setup | Work | Cut | Regrant | YieldRest | CommitEvery | HasResults | Stop
FromHost = Ready | Sized | Staged | Released | Kept | Failed | Interrupted | Progress

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(ToHost), *get_args(FromHost))}


def encode(message: ToHost | FromHost) -> bytes:
    """Return one line of JSON, newline included."""
    data = asdict(message)
    if isinstance(message, Failed):
        data |= {"kind": message.kind.value, "cause": message.cause.value}
    if isinstance(message, Interrupted):
        data["told"]["cause"] = message.told.cause.value
    return json.dumps({"is": type(message).__name__, **data}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> ToHost | FromHost:
    """Read what `encode` wrote. Raises KeyError or TypeError on anything else: both ends are ours and of one version."""
    data = json.loads(line)
    kind = _KINDS[data.pop("is")]
    if data.get("lease") is not None:
        data["lease"] = LeaseId(*data["lease"])
    if kind is Regrant:
        data |= {name: LeaseId(*data[name]) for name in ("old", "new")}
    if kind is Work:
        shard = data["shard"]
        pieces = tuple(Piece(**piece) for piece in shard.pop("pieces"))
        retry = shard.pop("retry")
        retried = None if retry is None else Retry(retry["round"], tuple(retry["runs"]))
        data["shard"] = Shard(index=ShardId(shard.pop("index")), pieces=pieces, retry=retried, **shard)
    if kind is Work or kind is Cut:
        data["rows"] = Rows(*data["rows"])
    if kind is Progress:
        data["reached"] = tuple((LeaseId(*lease), row) for lease, row in data["reached"])
        data["stages"] = tuple(StageStats(**{**stage, "decisions": tuple(stage["decisions"])}) for stage in data["stages"])
    if kind is Staged:
        data["record"] = CommitRecord.from_json(data["record"])
    if kind is Failed:
        data |= {"kind": FailureKind(data["kind"]), "cause": Cause(data["cause"])}
    if kind is Interrupted:
        told = data["told"]
        ranges = tuple(AtWork(LeaseId(*each["lease"]), Rows(*each["rows"])) for each in told["ranges"])
        data["told"] = Interruption(**{**told, "cause": Cause(told["cause"]), "ranges": ranges})
    message: ToHost | FromHost = kind(**data)
    return message
