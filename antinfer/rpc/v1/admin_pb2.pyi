from antinfer.rpc.v1 import work_pb2 as _work_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("job", "output", "epoch", "phase", "reason", "rows_total", "rows_known", "rows_committed", "rows_quarantined", "rows_leased", "rows_per_second", "elapsed_seconds", "eta_seconds", "shards_planned", "plan_complete", "files_planned", "files_total", "workers", "counters")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ROWS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    ROWS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ROWS_QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    ROWS_LEASED_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    PLAN_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    FILES_PLANNED_FIELD_NUMBER: _ClassVar[int]
    FILES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    job: str
    output: str
    epoch: int
    phase: str
    reason: str
    rows_total: int
    rows_known: int
    rows_committed: int
    rows_quarantined: int
    rows_leased: int
    rows_per_second: float
    elapsed_seconds: float
    eta_seconds: float
    shards_planned: int
    plan_complete: bool
    files_planned: int
    files_total: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    counters: _containers.ScalarMap[str, int]
    def __init__(self, job: _Optional[str] = ..., output: _Optional[str] = ..., epoch: _Optional[int] = ..., phase: _Optional[str] = ..., reason: _Optional[str] = ..., rows_total: _Optional[int] = ..., rows_known: _Optional[int] = ..., rows_committed: _Optional[int] = ..., rows_quarantined: _Optional[int] = ..., rows_leased: _Optional[int] = ..., rows_per_second: _Optional[float] = ..., elapsed_seconds: _Optional[float] = ..., eta_seconds: _Optional[float] = ..., shards_planned: _Optional[int] = ..., plan_complete: bool = ..., files_planned: _Optional[int] = ..., files_total: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "state", "leases", "rows_committed", "silent_seconds", "stats")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    ROWS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    state: str
    leases: int
    rows_committed: int
    silent_seconds: float
    stats: _work_pb2.Stats
    def __init__(self, worker: _Optional[str] = ..., state: _Optional[str] = ..., leases: _Optional[int] = ..., rows_committed: _Optional[int] = ..., silent_seconds: _Optional[float] = ..., stats: _Optional[_Union[_work_pb2.Stats, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: bool = ...) -> None: ...

class GiveBackRequest(_message.Message):
    __slots__ = ("id", "workers")
    ID_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    id: str
    workers: int
    def __init__(self, id: _Optional[str] = ..., workers: _Optional[int] = ...) -> None: ...

class GiveBackReply(_message.Message):
    __slots__ = ("most", "leaving")
    MOST_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    most: int
    leaving: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, most: _Optional[int] = ..., leaving: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StoryRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: int
    def __init__(self, shard: _Optional[int] = ...) -> None: ...

class StoryReply(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...
