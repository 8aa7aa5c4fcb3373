"""The one seam between generated messages and the values that the rest of the program speaks.

Pure functions, in pairs ``x_to_pb`` and ``x_from_pb`` that are each other's inverse (`convert_status` has those of the admin service). The
one asymmetry: a grant on the wire carries its shard with pieces, a core `Grant` only the shard's index; so ``downward_to_pb`` looks shards
up and ``downward_from_pb`` returns them beside the message.

Every ``*_from_pb`` raises `InfraError` on a message that this version does not know: the peer runs another version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, TypeVar, assert_never, cast

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, LeaseId, SessionId, ShardId, StagedName, WorkerId
from antinfer.core.messages import (
    Acceptance,
    Answer,
    AtWork,
    Commit,
    CommitOutcome,
    Downward,
    Failure,
    FailureKind,
    Grant,
    Heartbeat,
    HeldRange,
    Interruption,
    Join,
    LeaseCut,
    Push,
    Request,
    Return,
    Sizing,
    Upward,
    Verdict,
    Welcome,
    Yield,
)
from antinfer.core.plan import Piece, Retry, Shard
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import InfraError
from antinfer.rpc.v1 import work_pb2
from antinfer.rpc.values import JobDocument, StageStats, Stats

ShardLookup = Callable[[ShardId], Shard]
"""Finds the planned shard behind a grant."""

_E = TypeVar("_E", bound=Enum)
_K = TypeVar("_K", int, str)


def _codes(kinds: type[_E], prefix: str, wire: Any) -> tuple[dict[_E, int], dict[int, _E]]:
    to_pb = {kind: cast(int, wire.Value(f"{prefix}_{kind.name}")) for kind in kinds}
    return to_pb, {code: kind for kind, code in to_pb.items()}


_VERDICT_TO_PB, _VERDICT_FROM_PB = _codes(Verdict, "VERDICT", work_pb2.Verdict)
_ACCEPTANCE_TO_PB, _ACCEPTANCE_FROM_PB = _codes(Acceptance, "ACCEPTANCE", work_pb2.Acceptance)
_FAILURE_TO_PB, _FAILURE_FROM_PB = _codes(FailureKind, "FAILURE_KIND", work_pb2.FailureKind)
_CAUSES = {cause.value: cause for cause in Cause}
_STAGE_FIELDS = tuple(field.name for field in fields(StageStats))
"""The message has the same."""


def _decode(codes: Mapping[_K, _E], code: _K, what: str) -> _E:
    try:
        return codes[code]
    except KeyError:
        raise _foreign(f"{what} {code}") from None


def _foreign(what: str) -> InfraError:
    return InfraError(f"the peer sent an unknown {what}", hint="run the same antinfer version on the master and on all workers")


def upward_to_pb(message: Upward | Stats) -> work_pb2.UpMessage:
    """Return the wire form of what a worker says."""
    match message:
        case Join():
            held = [
                work_pb2.HeldRange(lease=_lease_to_pb(held.lease), shard=held.shard, rows=_rows_to_pb(held.rows)) for held in message.held
            ]
            return work_pb2.UpMessage(join=work_pb2.Join(worker=message.worker, job=message.job, held=held))
        case Request():
            return work_pb2.UpMessage(request=_request_to_pb(message))
        case Heartbeat():
            leases = [_lease_to_pb(lease) for lease in message.held]
            beat = work_pb2.Heartbeat(session=message.session, held=leases, answered=message.answered, done=message.done)
            return work_pb2.UpMessage(heartbeat=beat)
        case Stats():
            return work_pb2.UpMessage(stats=stats_to_pb(message))
        case _:
            assert_never(message)


def upward_from_pb(pb: work_pb2.UpMessage) -> Upward | Stats:
    """Read what a worker said. Raises InfraError on a message of another version."""
    match pb.WhichOneof("body"):
        case "join":
            held = tuple(HeldRange(_lease_from_pb(one.lease), ShardId(one.shard), _rows_from_pb(one.rows)) for one in pb.join.held)
            return Join(worker=WorkerId(pb.join.worker), job=pb.join.job, held=held)
        case "request":
            return _request_from_pb(pb.request)
        case "heartbeat":
            beat = pb.heartbeat
            return Heartbeat(SessionId(beat.session), _leases_from_pb(beat.held), beat.answered, tuple(beat.done))
        case "stats":
            return stats_from_pb(pb.stats)
        case _:
            raise _foreign("message")


def downward_to_pb(message: Downward, shard_of: ShardLookup) -> work_pb2.DownMessage:
    """Return the wire form of what the master says; `shard_of` finds the pieces of every granted shard."""
    match message:
        case Welcome():
            return work_pb2.DownMessage(
                welcome=work_pb2.Welcome(
                    verdict=_verdict_to_pb(message.verdict),
                    session=message.session,
                    epoch=message.epoch,
                    heartbeat_ms=message.heartbeat_ms,
                    regranted=[_grant_to_pb(grant, shard_of) for grant in message.regranted],
                    reason=message.reason,
                    commit_ms=message.commit_ms,
                    has_results=message.has_results,
                )
            )
        case Answer():
            return work_pb2.DownMessage(
                answer=work_pb2.Answer(
                    number=message.number,
                    verdict=_verdict_to_pb(message.verdict),
                    outcomes=[_outcome_to_pb(outcome) for outcome in message.outcomes],
                    grants=[_grant_to_pb(grant, shard_of) for grant in message.grants],
                    retry_ms=message.retry_ms,
                    reason=message.reason,
                )
            )
        case Push():
            return work_pb2.DownMessage(
                push=work_pb2.Push(
                    cuts=[work_pb2.LeaseCut(lease=_lease_to_pb(cut.lease), rows=_rows_to_pb(cut.rows)) for cut in message.cuts],
                    yields=[work_pb2.Yield(lease=_lease_to_pb(one.lease), keep=one.keep) for one in message.yields],
                    verdict=None if message.verdict is None else _verdict_to_pb(message.verdict),
                    reason=message.reason,
                    commit_ms=message.commit_ms,
                )
            )
        case _:
            assert_never(message)


def downward_from_pb(pb: work_pb2.DownMessage) -> tuple[Downward, dict[ShardId, Shard]]:
    """Read what the master said, and the shards of its grants. Raises InfraError on a message of another version."""
    match pb.WhichOneof("body"):
        case "welcome":
            grants, shards = _grants_from_pb(pb.welcome.regranted)
            welcome = Welcome(
                verdict=_verdict_from_pb(pb.welcome.verdict),
                session=SessionId(pb.welcome.session),
                epoch=Epoch(pb.welcome.epoch),
                heartbeat_ms=pb.welcome.heartbeat_ms,
                regranted=grants,
                reason=pb.welcome.reason,
                commit_ms=pb.welcome.commit_ms,
                has_results=pb.welcome.has_results,
            )
            return welcome, shards
        case "answer":
            grants, shards = _grants_from_pb(pb.answer.grants)
            answer = Answer(
                number=pb.answer.number,
                verdict=_verdict_from_pb(pb.answer.verdict),
                outcomes=tuple(_outcome_from_pb(outcome) for outcome in pb.answer.outcomes),
                grants=grants,
                retry_ms=pb.answer.retry_ms,
                reason=pb.answer.reason,
            )
            return answer, shards
        case "push":
            push = Push(
                cuts=tuple(LeaseCut(_lease_from_pb(cut.lease), _rows_from_pb(cut.rows)) for cut in pb.push.cuts),
                yields=tuple(Yield(_lease_from_pb(one.lease), one.keep if one.HasField("keep") else None) for one in pb.push.yields),
                verdict=_verdict_from_pb(pb.push.verdict) if pb.push.verdict else None,
                reason=pb.push.reason,
                commit_ms=pb.push.commit_ms,
            )
            return push, {}
        case _:
            raise _foreign("message")


def job_document_to_pb(job: JobDocument) -> work_pb2.JobDocument:
    return work_pb2.JobDocument(job=job.job, document=job.document, output=job.output)


def job_document_from_pb(pb: work_pb2.JobDocument) -> JobDocument:
    return JobDocument(job=pb.job, document=pb.document, output=pb.output)


def stats_to_pb(stats: Stats) -> work_pb2.Stats:
    return work_pb2.Stats(
        rows=stats.rows,
        rows_per_second=stats.rows_per_second,
        stages=[work_pb2.StageStats(**{name: getattr(stage, name) for name in _STAGE_FIELDS}) for stage in stats.stages],
        rss_bytes=stats.rss_bytes,
        hostname=stats.hostname,
        pid=stats.pid,
        host_restarts=stats.host_restarts,
    )


def stats_from_pb(pb: work_pb2.Stats) -> Stats:
    return Stats(
        rows=pb.rows,
        rows_per_second=pb.rows_per_second,
        stages=tuple(_stage_from_pb(stage) for stage in pb.stages),
        rss_bytes=pb.rss_bytes,
        hostname=pb.hostname,
        pid=pb.pid,
        host_restarts=pb.host_restarts,
    )


def _stage_from_pb(pb: work_pb2.StageStats) -> StageStats:
    found = {name: getattr(pb, name) for name in _STAGE_FIELDS}
    return StageStats(**{**found, "decisions": tuple(pb.decisions)})


def _request_to_pb(request: Request) -> work_pb2.Request:
    return work_pb2.Request(
        session=request.session,
        number=request.number,
        sizings=[work_pb2.Sizing(lease=_lease_to_pb(sizing.lease), rows=sizing.rows) for sizing in request.sizings],
        commits=[work_pb2.Commit(lease=_lease_to_pb(one.lease), record=_record_to_pb(one.record)) for one in request.commits],
        returns=[work_pb2.Return(lease=_lease_to_pb(one.lease), start=one.start) for one in request.returns],
        failures=[_failure_to_pb(failure) for failure in request.failures],
        held=[_lease_to_pb(lease) for lease in request.held],
        want=request.want,
        leaving=request.leaving,
        done=request.done,
        cause=request.cause.value,
        interruptions=[_interruption_to_pb(each) for each in request.interruptions],
    )


def _request_from_pb(pb: work_pb2.Request) -> Request:
    return Request(
        session=SessionId(pb.session),
        number=pb.number,
        sizings=tuple(Sizing(_lease_from_pb(sizing.lease), sizing.rows) for sizing in pb.sizings),
        commits=tuple(Commit(_lease_from_pb(one.lease), _record_from_pb(one.record)) for one in pb.commits),
        returns=tuple(Return(_lease_from_pb(one.lease), one.start if one.HasField("start") else None) for one in pb.returns),
        failures=tuple(_failure_from_pb(failure) for failure in pb.failures),
        held=_leases_from_pb(pb.held),
        want=pb.want,
        leaving=pb.leaving,
        done=tuple(pb.done),
        cause=_decode(_CAUSES, pb.cause or Cause.UNKNOWN.value, "cause"),
        interruptions=tuple(map(_interruption_from_pb, pb.interruptions)),
    )


def _interruption_to_pb(told: Interruption) -> work_pb2.Interruption:
    ranges = [work_pb2.AtWork(lease=_lease_to_pb(each.lease), rows=_rows_to_pb(each.rows)) for each in told.ranges]
    return work_pb2.Interruption(cause=told.cause.value, times=told.times, detail=told.detail, ranges=ranges)


def _interruption_from_pb(pb: work_pb2.Interruption) -> Interruption:
    ranges = tuple(AtWork(_lease_from_pb(each.lease), _rows_from_pb(each.rows)) for each in pb.ranges)
    return Interruption(_decode(_CAUSES, pb.cause, "cause"), pb.times, pb.detail, ranges)


def _failure_to_pb(failure: Failure) -> work_pb2.Failure:
    return work_pb2.Failure(
        lease=None if failure.lease is None else _lease_to_pb(failure.lease),
        kind=cast(Any, _FAILURE_TO_PB[failure.kind]),
        error=failure.error,
        traceback=failure.traceback,
        cause=failure.cause.value,
    )


def _failure_from_pb(pb: work_pb2.Failure) -> Failure:
    return Failure(
        lease=_lease_from_pb(pb.lease) if pb.HasField("lease") else None,
        kind=_decode(_FAILURE_FROM_PB, pb.kind, "kind of failure"),
        error=pb.error,
        traceback=pb.traceback,
        cause=_decode(_CAUSES, pb.cause or Cause.UNKNOWN.value, "cause"),
    )


def _record_to_pb(record: CommitRecord) -> work_pb2.CommitRecord:
    return work_pb2.CommitRecord(
        shard=record.shard,
        start=record.start,
        stop=record.stop,
        staged=record.staged,
        objects=[work_pb2.StagedObject(kind=staged.kind, token=staged.token) for staged in record.objects],
        rows_out=record.rows_out,
        rows_quarantined=record.rows_quarantined,
        row_hash=record.row_hash,
        round=record.round,
        attempt=record.attempt,
        worker=record.worker,
        schema=record.schema,
        code=record.code,
        size_bytes=record.size_bytes,
        accumulators=record.accumulators,
        seconds=record.seconds,
        rows_retried=record.rows_retried,
    )


def _record_from_pb(pb: work_pb2.CommitRecord) -> CommitRecord:
    return CommitRecord(
        shard=pb.shard,
        start=pb.start,
        stop=pb.stop,
        staged=StagedName(pb.staged),
        objects=tuple(StagedObject(kind=cast(Any, staged.kind), token=staged.token) for staged in pb.objects),
        rows_out=pb.rows_out,
        rows_quarantined=pb.rows_quarantined,
        row_hash=pb.row_hash,
        round=pb.round,
        attempt=pb.attempt,
        worker=pb.worker,
        schema=pb.schema,
        code=pb.code,
        size_bytes=pb.size_bytes,
        accumulators=pb.accumulators,
        seconds=pb.seconds,
        rows_retried=pb.rows_retried,
    )


def _outcome_to_pb(outcome: CommitOutcome) -> work_pb2.CommitOutcome:
    return work_pb2.CommitOutcome(
        staged=outcome.staged,
        acceptance=cast(Any, _ACCEPTANCE_TO_PB[outcome.acceptance]),
        left=None if outcome.left is None else _rows_to_pb(outcome.left),
    )


def _outcome_from_pb(pb: work_pb2.CommitOutcome) -> CommitOutcome:
    return CommitOutcome(
        staged=StagedName(pb.staged),
        acceptance=_decode(_ACCEPTANCE_FROM_PB, pb.acceptance, "acceptance"),
        left=_rows_from_pb(pb.left) if pb.HasField("left") else None,
    )


def _grant_to_pb(grant: Grant, shard_of: ShardLookup) -> work_pb2.Grant:
    return work_pb2.Grant(
        lease=_lease_to_pb(grant.lease),
        rows=_rows_to_pb(grant.rows),
        attempt=grant.attempt,
        quarantine=grant.quarantine,
        shard=_shard_to_pb(shard_of(grant.shard)),
        alone=grant.alone,
    )


def _grants_from_pb(pbs: Iterable[work_pb2.Grant]) -> tuple[tuple[Grant, ...], dict[ShardId, Shard]]:
    grants: list[Grant] = []
    shards: dict[ShardId, Shard] = {}
    for pb in pbs:
        shard = _shard_from_pb(pb.shard)
        shards[shard.index] = shard
        grants.append(
            Grant(
                lease=_lease_from_pb(pb.lease),
                shard=shard.index,
                rows=_rows_from_pb(pb.rows),
                attempt=pb.attempt,
                quarantine=pb.quarantine,
                alone=pb.alone,
            )
        )
    return tuple(grants), shards


def _shard_to_pb(shard: Shard) -> work_pb2.Shard:
    pieces = [work_pb2.Piece(path=piece.path, start=piece.start, stop=piece.stop, rows=piece.rows) for piece in shard.pieces]
    retry = None if shard.retry is None else work_pb2.Retry(round=shard.retry.round, runs=shard.retry.runs)
    return work_pb2.Shard(index=shard.index, pieces=pieces, rows=shard.rows, size_bytes=shard.size_bytes, retry=retry)


def _shard_from_pb(pb: work_pb2.Shard) -> Shard:
    pieces = tuple(Piece(piece.path, piece.start, piece.stop, piece.rows if piece.HasField("rows") else None) for piece in pb.pieces)
    retry = Retry(pb.retry.round, tuple(pb.retry.runs)) if pb.HasField("retry") else None
    return Shard(ShardId(pb.index), pieces, pb.rows if pb.HasField("rows") else None, pb.size_bytes, retry)


def _verdict_to_pb(verdict: Verdict) -> Any:
    return _VERDICT_TO_PB[verdict]


def _verdict_from_pb(code: int) -> Verdict:
    return _decode(_VERDICT_FROM_PB, code, "verdict")


def _lease_to_pb(lease: LeaseId) -> work_pb2.LeaseId:
    return work_pb2.LeaseId(epoch=lease.epoch, n=lease.n)


def _lease_from_pb(pb: work_pb2.LeaseId) -> LeaseId:
    return LeaseId(pb.epoch, pb.n)


def _leases_from_pb(pbs: Iterable[work_pb2.LeaseId]) -> tuple[LeaseId, ...]:
    return tuple(_lease_from_pb(pb) for pb in pbs)


def _rows_to_pb(rows: Rows) -> work_pb2.Rows:
    return work_pb2.Rows(start=rows.start, stop=rows.stop)


def _rows_from_pb(pb: work_pb2.Rows) -> Rows:
    return Rows(pb.start, pb.stop)
