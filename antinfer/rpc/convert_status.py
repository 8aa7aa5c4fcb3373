"""Conversion between generated messages and the values of the admin service; pairs that are each other's inverse."""

from __future__ import annotations

from typing import cast

from antinfer.rpc.convert import stats_from_pb, stats_to_pb
from antinfer.rpc.v1 import admin_pb2
from antinfer.rpc.values import Phase, Status, WorkerState, WorkerStatus


def status_to_pb(status: Status) -> admin_pb2.Status:
    return admin_pb2.Status(
        job=status.job,
        output=status.output,
        epoch=status.epoch,
        phase=status.phase,
        reason=status.reason,
        rows_total=status.rows_total,
        rows_known=status.rows_known,
        rows_committed=status.rows_committed,
        rows_quarantined=status.rows_quarantined,
        rows_leased=status.rows_leased,
        rows_per_second=status.rows_per_second,
        elapsed_seconds=status.elapsed_seconds,
        eta_seconds=status.eta_seconds,
        shards_planned=status.shards_planned,
        plan_complete=status.plan_complete,
        files_planned=status.files_planned,
        files_total=status.files_total,
        workers=[_worker_status_to_pb(worker) for worker in status.workers],
        counters=status.counters,
    )


def status_from_pb(pb: admin_pb2.Status) -> Status:
    return Status(
        job=pb.job,
        output=pb.output,
        epoch=pb.epoch,
        phase=cast(Phase, pb.phase),
        reason=pb.reason,
        rows_total=pb.rows_total if pb.HasField("rows_total") else None,
        rows_known=pb.rows_known,
        rows_committed=pb.rows_committed,
        rows_quarantined=pb.rows_quarantined,
        rows_leased=pb.rows_leased,
        rows_per_second=pb.rows_per_second,
        elapsed_seconds=pb.elapsed_seconds,
        eta_seconds=pb.eta_seconds if pb.HasField("eta_seconds") else None,
        shards_planned=pb.shards_planned,
        plan_complete=pb.plan_complete,
        files_planned=pb.files_planned,
        files_total=pb.files_total if pb.HasField("files_total") else None,
        workers=tuple(_worker_status_from_pb(worker) for worker in pb.workers),
        counters=dict(pb.counters),
    )


def _worker_status_to_pb(status: WorkerStatus) -> admin_pb2.WorkerStatus:
    return admin_pb2.WorkerStatus(
        worker=status.worker,
        state=status.state,
        leases=status.leases,
        rows_committed=status.rows_committed,
        silent_seconds=status.silent_seconds,
        stats=None if status.stats is None else stats_to_pb(status.stats),
    )


def _worker_status_from_pb(pb: admin_pb2.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        worker=pb.worker,
        state=cast(WorkerState, pb.state),
        leases=pb.leases,
        rows_committed=pb.rows_committed,
        silent_seconds=pb.silent_seconds,
        stats=stats_from_pb(pb.stats) if pb.HasField("stats") else None,
    )
