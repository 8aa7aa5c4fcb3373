"""What workers and the master say to each other, as plain values.

The wire form lives in ``protos/``; `antinfer.rpc.convert` maps between the two. A worker has at most one unanswered `Request`; it repeats
it verbatim, with its number, until it is answered, and gets the first answer however often it asks. Heart-beats are not answered.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, LeaseId, SessionId, ShardId, StagedName, WorkerId
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.core.values import value

_NO_SESSION: Final = SessionId("")
_NO_EPOCH: Final = Epoch(0)


class Verdict(Enum):
    """How the master stands to the one who asked. None of these may be mistaken for another (rule 15)."""

    WORK = "work"
    """Grants may be among the answer; go on."""
    WAIT = "wait"
    """Nothing to lease now, but the job is not over: ask again after `Answer.retry_ms`, or when nudged."""
    DRAIN = "drain"
    """Finish or return what is held; nothing more will be granted to this worker."""
    DONE = "done"
    """Every row is committed; stop."""
    FAILED = "failed"
    """The job was given up (`Answer.reason`); stop."""
    UNKNOWN_SESSION = "unknown_session"
    """The session has ended; join again and name the ranges that are still being worked on (rule 18)."""
    UNKNOWN_JOB = "unknown_job"
    """This master serves another job."""
    NOT_MASTER = "not_master"
    """This master does not rule (any more, or yet); keep everything and try another (rule 15)."""


class Acceptance(Enum):
    """What became of one commit."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """Not yours (any more); what is left of the lease is in `CommitOutcome.left`. Drop the work, do not touch the staged object."""
    RETRY = "retry"
    """An earlier prefix of this lease is missing; keep the object and send the commits again in order."""


@value
class HeldRange:
    """A range that a worker that joins again is still working on."""

    lease: LeaseId
    shard: ShardId
    rows: Rows


@value
class Join:
    """First message of a worker: asks for a session."""

    worker: WorkerId
    job: str
    """Job id the worker was started for; empty: whatever the master serves."""
    held: tuple[HeldRange, ...] = ()
    """Old ranges to be granted again if nobody touched them (rule 18)."""


@value
class Grant:
    """A lease on rows of one shard."""

    lease: LeaseId
    shard: ShardId
    rows: Rows
    """``stop`` is `UNSIZED` while nobody knows how many rows the shard has."""
    attempt: int = 1
    quarantine: str = ""
    """Not empty: these rows kill whoever runs them; write them to quarantine with this reason, unseen by user code."""
    alone: bool = False
    """These rows may be what kills processes: compute them with no others, so that they are blamed for nothing else, and no others for
    them."""


@value
class Welcome:
    """Answer to `Join`."""

    verdict: Verdict
    session: SessionId = _NO_SESSION
    epoch: Epoch = _NO_EPOCH
    heartbeat_ms: int = 0
    """Longest silence the worker should allow itself."""
    regranted: tuple[Grant, ...] = ()
    """One fresh lease for each old range that was still free, in the order of `Join.held` (others are lost to the worker)."""
    reason: str = ""
    commit_ms: int = 0
    """How often prefixes should be committed, where the job leaves that to the master; 0: it does not."""
    has_results: bool = False
    """Rows have come out of the job and are committed: its code works, and rows on which it fails are bad rows."""


@value
class Commit:
    """Ask for the prefix ``[record.start, record.stop)`` of the lease to be committed."""

    lease: LeaseId
    record: CommitRecord


@value
class Return:
    """Give back what is uncommitted of a lease, without blame (drain, yield, unwanted)."""

    lease: LeaseId
    start: int | None = None
    """First row that goes back; the lease goes on with those before it. None: all of it, and the lease ends."""


@value
class Sizing:
    """The shard of this lease turned out to have `rows` rows."""

    lease: LeaseId
    rows: int


class FailureKind(Enum):
    """Whose fault a failed range is; decides which budget pays."""

    RANGE = "range"
    """The range keeps killing or hanging its processes: split it, at last quarantine the row."""
    STORAGE = "storage"
    """Input or output could not be reached: try again later, elsewhere."""
    FATAL = "fatal"
    """User error that every worker will meet (import, schema, changed input): fail the job at once."""


@value
class Failure:
    """A lease that ends without its rows being done."""

    lease: LeaseId | None
    """None when the worker failed before it held anything (start-up)."""
    kind: FailureKind
    error: str
    """One line for the user."""
    traceback: str = ""
    """The user's traceback, whole; empty when there is none."""
    cause: Cause = Cause.UNKNOWN
    """What the worker saw, where it saw more than `kind` says."""


@value
class AtWork:
    """Rows of a lease that were being computed."""

    lease: LeaseId
    rows: Rows


@value
class Interruption:
    """What interrupted a worker's processes and was mended there. It is counted and told; nothing is decided from it."""

    cause: Cause
    times: int = 1
    detail: str = ""
    """For people, in a few words; of the last time."""
    ranges: tuple[AtWork, ...] = ()
    """What was at work then, where that is known."""


@value
class Request:
    """Everything a worker has to tell and ask in one go; applied atomically: `interruptions` first, the others in field order."""

    session: SessionId
    number: int
    """Counts up by one from 1 within the session."""
    sizings: tuple[Sizing, ...] = ()
    commits: tuple[Commit, ...] = ()
    returns: tuple[Return, ...] = ()
    failures: tuple[Failure, ...] = ()
    held: tuple[LeaseId, ...] = ()
    """Leases held after the above."""
    want: int = 0
    """Leases wished for on top of those held."""
    leaving: bool = False
    """The worker stops for good: end the session, whatever it still holds goes back without blame."""
    done: tuple[int, ...] = ()
    """For each of `held`, the first row that is not computed; empty when the worker does not know."""
    cause: Cause = Cause.UNKNOWN
    """Why the worker is `leaving`, or is about to; UNKNOWN: it is not."""
    interruptions: tuple[Interruption, ...] = ()
    """Since the last request; told once, however often the request is repeated."""


@value
class Heartbeat:
    """Sign of life between requests."""

    session: SessionId
    held: tuple[LeaseId, ...]
    answered: int
    """Highest request number whose answer the worker has: leases granted up to it and not held go back (rule 10)."""
    done: tuple[int, ...] = ()
    """As in `Request`."""


@value
class CommitOutcome:
    """What became of the commit of `staged`."""

    staged: StagedName
    acceptance: Acceptance
    left: Rows | None = None
    """What the lease still covers; None when it is over."""


@value
class LeaseCut:
    """A lease shrank because its rows were committed by another copy or its shard was sized; empty rows: it is over."""

    lease: LeaseId
    rows: Rows


@value
class Yield:
    """Directive: commit the finished prefix of this lease and return the rest."""

    lease: LeaseId
    keep: int | None = None
    """The lease goes on with the rows before this one (or with more, when more is computed already); None: it ends."""


@value
class Answer:
    """Answer to the `Request` with the same number."""

    number: int
    verdict: Verdict
    outcomes: tuple[CommitOutcome, ...] = ()
    grants: tuple[Grant, ...] = ()
    retry_ms: int = 0
    """With WAIT: how long to wait before asking again."""
    reason: str = ""


@value
class Push:
    """Message from the master that answers nothing; losing it loses no row."""

    cuts: tuple[LeaseCut, ...] = ()
    yields: tuple[Yield, ...] = ()
    verdict: Verdict | None = None
    """DRAIN, DONE, FAILED, NOT_MASTER or UNKNOWN_SESSION when the master's stand changed; WORK is the nudge "ask again now"."""
    reason: str = ""
    commit_ms: int = 0
    """As in `Welcome`; 0: as before."""


Upward = Join | Request | Heartbeat
Downward = Welcome | Answer | Push

NO_ROWS = Rows(0, 0)
