"""Writers: threads that put finished pieces into parts, and stage them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from antinfer import faultpoints
from antinfer.errors import InfraError, OutputError
from antinfer.storage.limits import PART_BYTES
from antinfer.worker.host import failing
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.parts import OpenPart, OutputPlan
from antinfer.worker.host.runs import Run
from antinfer.worker.hostlink import FromHost, Staged

_LOG = logging.getLogger("antinfer.worker")


class Writer:
    """One writer; `run` is its thread. A lease is written by one writer at a time."""

    def __init__(self, plan: OutputPlan, leases: Leases, send: Callable[[FromHost], None]) -> None:
        self._plan = plan
        self._leases = leases
        self._send = send

    def run(self) -> None:
        """Write until the leases are stopped. Raises UserCodeError for results that cannot be written."""
        # A part bound for an object store is first written to a disk of this machine alone.
        is_shared = "://" not in self._plan.place.uri
        while (run := self._leases.next_to_write()) is not None:
            try:
                self._turn(run)
            except InfraError as error:
                # First of all: on a full disk, what cannot be used is in the way of everybody.
                _abort(run)
                self._leases.give_up(run, lambda lease, why=error: failing.failed(lease, why, shared=is_shared))  # type: ignore[misc]
            self._leases.written(run)

    def _turn(self, run: Run) -> None:
        if run.dropped:
            _abort(run)
            return
        pieces, close = self._leases.ready(run)
        for piece in pieces:
            chunk = self._leases.chunk_of(run, piece)
            if chunk is None:
                _abort(run)
                return
            if run.part is None:
                run.part = OpenPart(self._plan, run)
            run.part.add(run, piece, chunk)
            self._leases.wrote(run, piece, run.part.held_bytes)
            if run.part.size_bytes >= PART_BYTES:
                self._stage(run)
        if close and run.part is not None:
            self._stage(run)

    def _stage(self, run: Run) -> None:
        assert run.part is not None
        if run.dropped:
            _abort(run)
            return
        lease = run.lease
        record = run.part.stage(run, lease, run.written)
        faultpoints.hit("commit.staged", staged=record.staged)
        run.part = None
        self._leases.staged(run)
        self._send(Staged(lease, record))


def _abort(run: Run) -> None:
    """Throw away what is not staged. What cannot be removed now, as it could not be written, goes with the spool folder of this process."""
    part, run.part = run.part, None
    if part is None:
        return
    try:
        part.abort()
    except OutputError as error:
        _LOG.warning("a part that was given up is left in the spool: %s", error, extra={"action": "abort_part"})
