"""The end of a job as a worker sees it that was paused or cut off while its master finished and left: nobody will ever tell it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antinfer.core.ids import LeaseId
from antinfer.errors import AntinferError
from antinfer.rpc.values import JobDocument

if TYPE_CHECKING:
    from antinfer.storage.place import OutputPlace

_log = logging.getLogger("antinfer.worker")


def is_finished(job: JobDocument) -> bool:
    """Look into the output place whether the job is done; False as well when the place cannot be looked at now."""
    try:
        with _place_of(job) as place:
            return _is_sealed(place)
    except AntinferError:
        return False  # a worker that has lost its network has lost both; it goes on looking for its master


def tidy_up(job: JobDocument, leases: Iterable[LeaseId]) -> None:
    """Remove what was staged under `leases`, still held when the job was over: its last master may have left before it was written.

    Nothing of an epoch above theirs is touched: it belongs to whoever opened the finished job again.
    """
    before = max((lease.epoch for lease in leases), default=-1) + 1
    if not before:
        return
    try:
        with _place_of(job) as place:
            if _is_sealed(place):
                place.sweep(before, ())
    except AntinferError as error:
        _log.warning("what was staged last is left over: %s", error, extra={"action": "tidy_up", "job": job.job})


def _is_sealed(place: OutputPlace) -> bool:
    from antinfer.storage import layout

    return place.read(layout.SUCCESS) is not None


@contextmanager
def _place_of(job: JobDocument) -> Iterator[OutputPlace]:
    # Imported here: an agent whose master lives needs none of it.
    from antinfer.spec.normal import normal_job
    from antinfer.storage.jobs import open_output

    place = open_output(normal_job(json.loads(job.document)["spec"]))
    try:
        yield place
    finally:
        place.close()
