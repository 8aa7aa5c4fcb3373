"""A job that is run on this machine by a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antinfer.errors import UsageError
from antinfer.launchers.local.supervisor import LocalSupervisor
from antinfer.launchers.supervisor import RunOptions

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec


def run_job(
    spec: JobSpec, workers: int | None = None, *, store_url: str = "", force: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Run a job on this machine until every row is done; the call behind `Job.run`.

    Args:
        spec: the job.
        workers: number of worker processes; None: as in the job, at least one.
        store_url: Redis or Valkey to use; empty: as in the job, else an embedded server.
        force: go on although the job file or the code changed.
        progress: write what the processes say, and a line every few seconds, to standard error.

    Returns:
        The report that the master left in the output place: totals, accumulators, timings.

    Raises:
        UsageError: `workers` is less than one.
        Interrupted: Ctrl-C; the same call resumes.
        AntinferError: The job failed.
    """
    from antinfer.storage.jobs import read_report
    from antinfer.telemetry.progress import PlainProgress, quiet_line

    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    shown = PlainProgress()
    if store_url:
        from antinfer.spec.load import with_store

        spec = with_store(spec, store_url)
    LocalSupervisor(
        RunOptions(workers, force),
        on_line=shown.line if progress else quiet_line,
        on_status=shown.status if progress else (lambda status: None),
    ).run(lambda: spec)
    return read_report(spec)
