"""Every message survives the wire whole."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import Epoch, LeaseId, SessionId, ShardId, WorkerId, staged_name
from antinfer.core.messages import (
    Acceptance,
    Answer,
    AtWork,
    Commit,
    CommitOutcome,
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
    Verdict,
    Welcome,
    Yield,
)
from antinfer.core.plan import Piece, Retry, Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import InfraError
from antinfer.rpc.convert import downward_from_pb, downward_to_pb, job_document_from_pb, job_document_to_pb, upward_from_pb, upward_to_pb
from antinfer.rpc.convert_status import status_from_pb, status_to_pb
from antinfer.rpc.v1 import work_pb2
from antinfer.rpc.values import JobDocument, StageStats, Stats, Status, WorkerStatus

LEASE, OTHER = LeaseId(3, 7), LeaseId(3, 8)
RECORD = CommitRecord(
    shard=5,
    start=10,
    stop=20,
    staged=staged_name(LEASE, 5, 10, 20, "ab"),
    objects=(StagedObject("record"), StagedObject("part", '{"upload": "x"}')),
    rows_out=9,
    rows_quarantined=1,
    row_hash="00ff",
    round=2,
    attempt=3,
    worker="w",
    schema="s",
    code="c",
    size_bytes=1 << 40,
    accumulators='{"n": 9}',
    seconds=0.25,
)
SHARDS = {
    ShardId(5): Shard(ShardId(5), (Piece("s3://b/a.csv", 0, 1 << 33, None),), None, 1 << 33),
    ShardId(6): Shard(ShardId(6), (Piece("/d/ä b.parquet", 0, 2, 0), Piece("/d/c.parquet", 2, 4, 8)), 8, 77, Retry(2, (1, 3, 6, 7))),
}
STAGE = StageStats(
    "detect",
    mode="processes",
    degree=2,
    batch_rows=64,
    rows_in=1 << 33,
    rows_out=7,
    fused_rows=3,
    batches=9,
    queue_rows=11,
    busy_seconds=1.5,
    starved_seconds=2.5,
    blocked_seconds=3.5,
    active_seconds=4.5,
    load_seconds=5.5,
    busy=0.25,
    starved=0.5,
    blocked=0.125,
    rows_per_second=6.5,
    decisions=("detect: 1 -> 2", "ä"),
)
GRANTS = (Grant(LEASE, ShardId(5), Rows(0, UNSIZED)), Grant(OTHER, ShardId(6), Rows(3, 4), 4, "this row kills"))

UPWARD = [
    Join(WorkerId("w"), ""),
    Join(WorkerId("w"), "job", (HeldRange(LEASE, ShardId(5), Rows(0, UNSIZED)),)),
    Request(SessionId("s"), 1),
    Request(
        SessionId("s"),
        1 << 40,
        sizings=(Sizing(LEASE, 0),),
        commits=(Commit(LEASE, RECORD),),
        returns=(Return(OTHER), Return(LEASE, 0), Return(LEASE, 7)),
        failures=(
            Failure(None, FailureKind.FATAL, "no", "Traceback"),
            *(Failure(LEASE, kind, "e", cause=Cause.DISK_FULL) for kind in FailureKind),
        ),
        held=(LEASE, OTHER),
        want=3,
        leaving=True,
        done=(0, 1 << 40),
        cause=Cause.PREEMPTED,
        interruptions=(
            Interruption(Cause.GPU_OOM),
            Interruption(Cause.PROCESS_CRASH, 1 << 33, "ä", (AtWork(LEASE, Rows(0, 5)), AtWork(OTHER, Rows(5, UNSIZED)))),
        ),
    ),
    Heartbeat(SessionId("s"), (LEASE,), 9),
    Heartbeat(SessionId("s"), (LEASE, OTHER), 9, (4, 0)),
    Stats(5, 1.5, (STAGE, StageStats("bare")), 1 << 33, "host", 12, 1),
]

DOWNWARD = [
    *(Welcome(verdict, reason="r") for verdict in Verdict),
    Welcome(Verdict.WORK, SessionId("s"), Epoch(3), 1_000, GRANTS),
    Welcome(Verdict.WORK, SessionId("s"), Epoch(3), 1_000, commit_ms=30_000),
    Welcome(Verdict.WORK, SessionId("s"), Epoch(3), 1_000, has_results=True),
    *(Answer(1, verdict) for verdict in Verdict),
    Answer(
        1,
        Verdict.WAIT,
        (CommitOutcome(RECORD.staged, Acceptance.ACCEPTED), *(CommitOutcome(RECORD.staged, one, Rows(0, 0)) for one in Acceptance)),
        GRANTS,
        500,
        "r",
    ),
    Push(),
    *(Push((LeaseCut(LEASE, Rows(0, 0)),), (Yield(OTHER),), verdict, "r") for verdict in Verdict),
    Push(yields=(Yield(LEASE, 0), Yield(OTHER, 9)), commit_ms=1_500),
]


@pytest.mark.parametrize("message", UPWARD, ids=lambda message: type(message).__name__)
def test_upward_messages_come_back_equal(message: object) -> None:
    wire = upward_to_pb(message).SerializeToString()
    assert upward_from_pb(work_pb2.UpMessage.FromString(wire)) == message


@pytest.mark.parametrize("message", DOWNWARD, ids=lambda message: type(message).__name__)
def test_downward_messages_come_back_equal_with_the_shards_of_their_grants(message: object) -> None:
    wire = downward_to_pb(message, SHARDS.__getitem__).SerializeToString()
    back, shards = downward_from_pb(work_pb2.DownMessage.FromString(wire))
    assert back == message
    grants = getattr(message, "grants", ()) or getattr(message, "regranted", ())
    assert shards == {grant.shard: SHARDS[grant.shard] for grant in grants}


@pytest.mark.parametrize(
    "status",
    [
        Status("j", "file:///o", 1, "planning"),
        Status(
            "j", "file:///o", 2, "running", "r", 10, 9, 8, 1, 2, 3.5, 4.5, 0.0, 6, True, 7, 0,
            (WorkerStatus("w", "working", 1, 2, 0.5), WorkerStatus("v", "lost", 0, 0, 9.0, Stats(rows=1))), {"expired": 2},
        ),
    ],
    ids=["unknown", "known"],
)  # fmt: skip
def test_status_comes_back_equal(status: Status) -> None:
    assert status_from_pb(status_to_pb(status)) == status


def test_the_job_document_comes_back_equal() -> None:
    job = JobDocument("j", '{"ä": 1}', "s3://b/o")
    assert job_document_from_pb(job_document_to_pb(job)) == job


@pytest.mark.parametrize(
    "read",
    [
        lambda: upward_from_pb(work_pb2.UpMessage()),
        lambda: downward_from_pb(work_pb2.DownMessage()),
        lambda: downward_from_pb(work_pb2.DownMessage(answer=work_pb2.Answer(number=1))),
        lambda: downward_from_pb(work_pb2.DownMessage(push=work_pb2.Push(verdict=99))),
    ],
    ids=["no body up", "no body down", "no verdict", "verdict of the future"],
)
def test_a_message_of_another_version_is_named_as_such(read: object) -> None:
    with pytest.raises(InfraError, match="unknown") as caught:
        read()
    assert "same antinfer version" in caught.value.hint
