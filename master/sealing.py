"""The end of a job: final manifest, report, mark of success."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from antinfer import faultpoints
from antinfer.core.records import CommitRecord
from antinfer.errors import InternalError
from antinfer.storage import layout
from antinfer.storage.jobs import part_options
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_PACKAGES = ("antinfer", "pyarrow", "numpy", "grpcio", "redis")


def final_records(place: OutputPlace, suffix: str, rows: int) -> list[CommitRecord]:
    """Return the record of every commit of a job that has none left to publish.

    Args:
        place: its output place, audited.
        suffix: of parts, without a dot.
        rows: input rows that the ledger holds as committed.

    Raises:
        InternalError: The records do not add up to `rows`: better no ``_SUCCESS`` than a false one.
    """
    from antinfer.storage import manifest

    records = manifest.published(place, manifest.Listing.of(place), suffix, manifest.read_all(place))
    found = manifest.totals(records).rows
    if found != rows:
        raise InternalError(f"{place.uri}: {rows:,} rows were committed, but its records name {found:,}")
    return records


def seal(
    spec: JobSpec,
    place: OutputPlace,
    records: Sequence[CommitRecord],
    *,
    job: str,
    epoch: int,
    first_chunk: int,
    code: str,
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Give types to the parts that were written before these were known, then write the final manifest, the report and ``_SUCCESS``,
    in this order; done again, it ends in the same.

    Args:
        spec: the job.
        place: its output place.
        records: of `final_records`.
        job: job id.
        epoch: of this reign.
        first_chunk: first number that no manifest chunk of this reign has.
        code: fingerprint of user code and pipeline.
        measured: what is known of this reign beside its records, for the report.

    Raises:
        UserCodeError: The user's own accumulator failed.
        OutputError: The place cannot be read or written.
        SchemaMismatchError: Parts whose types were not all known contradict each other.
    """
    from antinfer.storage import manifest

    if any(not record.schema for record in records):
        from antinfer.storage import latetypes

        records = latetypes.settle(place, records, spec.sink.type, part_options(spec))
    faultpoints.hit("seal.begin", epoch=epoch)
    manifest.rewrite(place, epoch, first_chunk, records)
    faultpoints.hit("seal.manifest", epoch=epoch)
    report = _report(spec, place, records, job=job, epoch=epoch, code=code)
    report |= measured or {}
    place.write(layout.REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
    faultpoints.hit("seal.report", epoch=epoch)
    place.write(layout.SUCCESS, manifest.seal_text(records))


def _report(spec: JobSpec, place: OutputPlace, records: Sequence[CommitRecord], *, job: str, epoch: int, code: str) -> dict[str, Any]:
    from antinfer.storage import manifest

    totals = manifest.totals(records)
    workers: dict[str, dict[str, float]] = {}
    for record in records:
        entry = workers.setdefault(record.worker, {"commits": 0, "rows": 0, "seconds": 0.0})
        entry["commits"] += 1
        entry["rows"] += record.rows_in
        entry["seconds"] += record.seconds
    return {
        "name": spec.name,
        "job": job,
        "output": place.uri,
        "epoch": epoch,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows_in": totals.rows,
        "rows_out": totals.rows_out,
        "rows_quarantined": totals.rows_quarantined,
        "rows_retried": totals.rows_retried,
        "retry_rounds": max((record.round for record in records), default=0),
        # Negative when a stage drops rows: what comes out and what is given up are then fewer than what came in.
        "rows_fanned_out": totals.rows_out + totals.rows_quarantined - totals.rows,
        "parts": sum(any(staged.kind == "part" for staged in record.objects) for record in records),
        "commits": totals.commits,
        "size_bytes": totals.size_bytes,
        "busy_seconds": totals.seconds,
        "attempts_most": max((record.attempt for record in records), default=0),
        "workers": workers,
        "accumulators": _accumulators(spec, records),
        "code": code,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _accumulators(spec: JobSpec, records: Sequence[CommitRecord]) -> dict[str, Any]:
    if not spec.accumulators:
        return {}
    from antinfer.metrics import AccumulatorSet
    from antinfer.spec.usercode import resolve

    merged = AccumulatorSet.from_config(spec.accumulators, lambda reference: resolve(reference, spec.base_dir))
    for record in records:
        # A range whose rows are all in quarantine has nothing to add.
        if record.accumulators:
            merged.merge(record.accumulators)
    return merged.results()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
