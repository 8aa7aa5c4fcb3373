from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_WORK: _ClassVar[Verdict]
    VERDICT_WAIT: _ClassVar[Verdict]
    VERDICT_DRAIN: _ClassVar[Verdict]
    VERDICT_DONE: _ClassVar[Verdict]
    VERDICT_FAILED: _ClassVar[Verdict]
    VERDICT_UNKNOWN_SESSION: _ClassVar[Verdict]
    VERDICT_UNKNOWN_JOB: _ClassVar[Verdict]
    VERDICT_NOT_MASTER: _ClassVar[Verdict]

class Acceptance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCEPTANCE_UNSPECIFIED: _ClassVar[Acceptance]
    ACCEPTANCE_ACCEPTED: _ClassVar[Acceptance]
    ACCEPTANCE_REFUSED: _ClassVar[Acceptance]
    ACCEPTANCE_RETRY: _ClassVar[Acceptance]

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_RANGE: _ClassVar[FailureKind]
    FAILURE_KIND_STORAGE: _ClassVar[FailureKind]
    FAILURE_KIND_FATAL: _ClassVar[FailureKind]
VERDICT_UNSPECIFIED: Verdict
VERDICT_WORK: Verdict
VERDICT_WAIT: Verdict
VERDICT_DRAIN: Verdict
VERDICT_DONE: Verdict
VERDICT_FAILED: Verdict
VERDICT_UNKNOWN_SESSION: Verdict
VERDICT_UNKNOWN_JOB: Verdict
VERDICT_NOT_MASTER: Verdict
ACCEPTANCE_UNSPECIFIED: Acceptance
ACCEPTANCE_ACCEPTED: Acceptance
ACCEPTANCE_REFUSED: Acceptance
ACCEPTANCE_RETRY: Acceptance
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_RANGE: FailureKind
FAILURE_KIND_STORAGE: FailureKind
FAILURE_KIND_FATAL: FailureKind

class GetJobRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class JobDocument(_message.Message):
    __slots__ = ("job", "document", "output")
    JOB_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    job: str
    document: str
    output: str
    def __init__(self, job: _Optional[str] = ..., document: _Optional[str] = ..., output: _Optional[str] = ...) -> None: ...

class UpMessage(_message.Message):
    __slots__ = ("join", "request", "heartbeat", "stats")
    JOIN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    join: Join
    request: Request
    heartbeat: Heartbeat
    stats: Stats
    def __init__(self, join: _Optional[_Union[Join, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ...) -> None: ...

class DownMessage(_message.Message):
    __slots__ = ("welcome", "answer", "push")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    answer: Answer
    push: Push
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., push: _Optional[_Union[Push, _Mapping]] = ...) -> None: ...

class LeaseId(_message.Message):
    __slots__ = ("epoch", "n")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    n: int
    def __init__(self, epoch: _Optional[int] = ..., n: _Optional[int] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("path", "start", "stop", "rows")
    PATH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    path: str
    start: int
    stop: int
    rows: int
    def __init__(self, path: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class Retry(_message.Message):
    __slots__ = ("round", "runs")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    round: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, round: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("index", "pieces", "rows", "size_bytes", "retry")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    index: int
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    rows: int
    size_bytes: int
    retry: Retry
    def __init__(self, index: _Optional[int] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., rows: _Optional[int] = ..., size_bytes: _Optional[int] = ..., retry: _Optional[_Union[Retry, _Mapping]] = ...) -> None: ...

class HeldRange(_message.Message):
    __slots__ = ("lease", "shard", "rows")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    shard: int
    rows: Rows
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., shard: _Optional[int] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("worker", "job", "held")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    worker: str
    job: str
    held: _containers.RepeatedCompositeFieldContainer[HeldRange]
    def __init__(self, worker: _Optional[str] = ..., job: _Optional[str] = ..., held: _Optional[_Iterable[_Union[HeldRange, _Mapping]]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("lease", "rows", "attempt", "quarantine", "shard", "alone")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    rows: Rows
    attempt: int
    quarantine: str
    shard: Shard
    alone: bool
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ..., attempt: _Optional[int] = ..., quarantine: _Optional[str] = ..., shard: _Optional[_Union[Shard, _Mapping]] = ..., alone: bool = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("verdict", "session", "epoch", "heartbeat_ms", "regranted", "reason", "commit_ms", "has_results")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    REGRANTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MS_FIELD_NUMBER: _ClassVar[int]
    HAS_RESULTS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    session: str
    epoch: int
    heartbeat_ms: int
    regranted: _containers.RepeatedCompositeFieldContainer[Grant]
    reason: str
    commit_ms: int
    has_results: bool
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., session: _Optional[str] = ..., epoch: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., regranted: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., reason: _Optional[str] = ..., commit_ms: _Optional[int] = ..., has_results: bool = ...) -> None: ...

class StagedObject(_message.Message):
    __slots__ = ("kind", "token")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    token: str
    def __init__(self, kind: _Optional[str] = ..., token: _Optional[str] = ...) -> None: ...

class CommitRecord(_message.Message):
    __slots__ = ("shard", "start", "stop", "staged", "objects", "rows_out", "rows_quarantined", "row_hash", "round", "attempt", "worker", "schema", "code", "size_bytes", "accumulators", "seconds", "rows_retried")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_OUT_FIELD_NUMBER: _ClassVar[int]
    ROWS_QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    ROW_HASH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATORS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_RETRIED_FIELD_NUMBER: _ClassVar[int]
    shard: int
    start: int
    stop: int
    staged: str
    objects: _containers.RepeatedCompositeFieldContainer[StagedObject]
    rows_out: int
    rows_quarantined: int
    row_hash: str
    round: int
    attempt: int
    worker: str
    schema: str
    code: str
    size_bytes: int
    accumulators: str
    seconds: float
    rows_retried: int
    def __init__(self, shard: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., staged: _Optional[str] = ..., objects: _Optional[_Iterable[_Union[StagedObject, _Mapping]]] = ..., rows_out: _Optional[int] = ..., rows_quarantined: _Optional[int] = ..., row_hash: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., worker: _Optional[str] = ..., schema: _Optional[str] = ..., code: _Optional[str] = ..., size_bytes: _Optional[int] = ..., accumulators: _Optional[str] = ..., seconds: _Optional[float] = ..., rows_retried: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("lease", "record")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    record: CommitRecord
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., record: _Optional[_Union[CommitRecord, _Mapping]] = ...) -> None: ...

class Sizing(_message.Message):
    __slots__ = ("lease", "rows")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    rows: int
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., rows: _Optional[int] = ...) -> None: ...

class Return(_message.Message):
    __slots__ = ("lease", "start")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    start: int
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., start: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("lease", "kind", "error", "traceback", "cause")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    kind: FailureKind
    error: str
    traceback: str
    cause: str
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., kind: _Optional[_Union[FailureKind, str]] = ..., error: _Optional[str] = ..., traceback: _Optional[str] = ..., cause: _Optional[str] = ...) -> None: ...

class AtWork(_message.Message):
    __slots__ = ("lease", "rows")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    rows: Rows
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ...) -> None: ...

class Interruption(_message.Message):
    __slots__ = ("cause", "times", "detail", "ranges")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    cause: str
    times: int
    detail: str
    ranges: _containers.RepeatedCompositeFieldContainer[AtWork]
    def __init__(self, cause: _Optional[str] = ..., times: _Optional[int] = ..., detail: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[AtWork, _Mapping]]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("session", "number", "sizings", "commits", "failures", "held", "want", "leaving", "returns", "done", "cause", "interruptions")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIZINGS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTIONS_FIELD_NUMBER: _ClassVar[int]
    session: str
    number: int
    sizings: _containers.RepeatedCompositeFieldContainer[Sizing]
    commits: _containers.RepeatedCompositeFieldContainer[Commit]
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    held: _containers.RepeatedCompositeFieldContainer[LeaseId]
    want: int
    leaving: bool
    returns: _containers.RepeatedCompositeFieldContainer[Return]
    done: _containers.RepeatedScalarFieldContainer[int]
    cause: str
    interruptions: _containers.RepeatedCompositeFieldContainer[Interruption]
    def __init__(self, session: _Optional[str] = ..., number: _Optional[int] = ..., sizings: _Optional[_Iterable[_Union[Sizing, _Mapping]]] = ..., commits: _Optional[_Iterable[_Union[Commit, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., held: _Optional[_Iterable[_Union[LeaseId, _Mapping]]] = ..., want: _Optional[int] = ..., leaving: bool = ..., returns: _Optional[_Iterable[_Union[Return, _Mapping]]] = ..., done: _Optional[_Iterable[int]] = ..., cause: _Optional[str] = ..., interruptions: _Optional[_Iterable[_Union[Interruption, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("session", "held", "answered", "done")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    session: str
    held: _containers.RepeatedCompositeFieldContainer[LeaseId]
    answered: int
    done: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session: _Optional[str] = ..., held: _Optional[_Iterable[_Union[LeaseId, _Mapping]]] = ..., answered: _Optional[int] = ..., done: _Optional[_Iterable[int]] = ...) -> None: ...

class StageStats(_message.Message):
    __slots__ = ("name", "mode", "degree", "batch_rows", "rows_in", "rows_out", "fused_rows", "batches", "queue_rows", "busy_seconds", "starved_seconds", "blocked_seconds", "active_seconds", "load_seconds", "busy", "starved", "blocked", "rows_per_second", "decisions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_IN_FIELD_NUMBER: _ClassVar[int]
    ROWS_OUT_FIELD_NUMBER: _ClassVar[int]
    FUSED_ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ROWS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STARVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    STARVED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    mode: str
    degree: int
    batch_rows: int
    rows_in: int
    rows_out: int
    fused_rows: int
    batches: int
    queue_rows: int
    busy_seconds: float
    starved_seconds: float
    blocked_seconds: float
    active_seconds: float
    load_seconds: float
    busy: float
    starved: float
    blocked: float
    rows_per_second: float
    decisions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., mode: _Optional[str] = ..., degree: _Optional[int] = ..., batch_rows: _Optional[int] = ..., rows_in: _Optional[int] = ..., rows_out: _Optional[int] = ..., fused_rows: _Optional[int] = ..., batches: _Optional[int] = ..., queue_rows: _Optional[int] = ..., busy_seconds: _Optional[float] = ..., starved_seconds: _Optional[float] = ..., blocked_seconds: _Optional[float] = ..., active_seconds: _Optional[float] = ..., load_seconds: _Optional[float] = ..., busy: _Optional[float] = ..., starved: _Optional[float] = ..., blocked: _Optional[float] = ..., rows_per_second: _Optional[float] = ..., decisions: _Optional[_Iterable[str]] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("rows", "rows_per_second", "stages", "rss_bytes", "hostname", "pid", "host_restarts")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOST_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    rows_per_second: float
    stages: _containers.RepeatedCompositeFieldContainer[StageStats]
    rss_bytes: int
    hostname: str
    pid: int
    host_restarts: int
    def __init__(self, rows: _Optional[int] = ..., rows_per_second: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[StageStats, _Mapping]]] = ..., rss_bytes: _Optional[int] = ..., hostname: _Optional[str] = ..., pid: _Optional[int] = ..., host_restarts: _Optional[int] = ...) -> None: ...

class CommitOutcome(_message.Message):
    __slots__ = ("staged", "acceptance", "left")
    STAGED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    staged: str
    acceptance: Acceptance
    left: Rows
    def __init__(self, staged: _Optional[str] = ..., acceptance: _Optional[_Union[Acceptance, str]] = ..., left: _Optional[_Union[Rows, _Mapping]] = ...) -> None: ...

class LeaseCut(_message.Message):
    __slots__ = ("lease", "rows")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    rows: Rows
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("number", "verdict", "outcomes", "grants", "retry_ms", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    verdict: Verdict
    outcomes: _containers.RepeatedCompositeFieldContainer[CommitOutcome]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    retry_ms: int
    reason: str
    def __init__(self, number: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., outcomes: _Optional[_Iterable[_Union[CommitOutcome, _Mapping]]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., retry_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Yield(_message.Message):
    __slots__ = ("lease", "keep")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseId
    keep: int
    def __init__(self, lease: _Optional[_Union[LeaseId, _Mapping]] = ..., keep: _Optional[int] = ...) -> None: ...

class Push(_message.Message):
    __slots__ = ("cuts", "verdict", "reason", "yields", "commit_ms")
    CUTS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    YIELDS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MS_FIELD_NUMBER: _ClassVar[int]
    cuts: _containers.RepeatedCompositeFieldContainer[LeaseCut]
    verdict: Verdict
    reason: str
    yields: _containers.RepeatedCompositeFieldContainer[Yield]
    commit_ms: int
    def __init__(self, cuts: _Optional[_Iterable[_Union[LeaseCut, _Mapping]]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., yields: _Optional[_Iterable[_Union[Yield, _Mapping]]] = ..., commit_ms: _Optional[int] = ...) -> None: ...
