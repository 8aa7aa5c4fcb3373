"""What is kept of each worker between two looks: since when it is as it is, and what it has computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.facts import PodFacts
from antinfer.core.scaling.measures import Meter
from antinfer.core.scaling.pods import worker_seen
from antinfer.core.scaling.values import Observed, WorkerSeen, WorkerState
from antinfer.launchers.port import Sight
from antinfer.master.controller.sight import JobSight, WorkerSight

_TAKEN: Final = (Cause.PREEMPTED, Cause.NODE_LOST)
_ASKED: Final = (Cause.PREEMPTED, Cause.DRAINED)
_OVER: Final = (WorkerState.ENDED, WorkerState.LOST)


@dataclass(slots=True)
class _Entry:
    """One worker."""

    state: WorkerState | None = None
    since: int = 0
    ready_at: int | None = None
    idle_since: int | None = None
    was_asked: bool = False
    is_ours: bool = True
    """It was started by this reign, so that what it has computed and committed is all known."""
    has_begun: bool = False
    computed: int = 0
    committed: int = 0
    is_counted: bool = False
    """That it was taken away is measured."""


class Book:
    """Puts what a launcher sees and what the master knows together. Times in ms."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.taken: tuple[str, ...] = ()
        """Members of the job that were taken away, as the last look has shown, and have not said so: no row is to blame for that."""
        self._entries: dict[str, _Entry] = {}
        self._at: int | None = None

    def asked(self, name: str) -> None:
        """We have asked a worker to leave."""
        if name in self._entries:
            self._entries[name].was_asked = True

    def observe(self, sight: Sight, job: JobSight, prefix: str, now: int) -> Observed:
        """Return all that is seen now.

        Args:
            sight: what the launcher sees.
            job: what the master knows.
            prefix: that of the names of workers of this reign.
            now: in ms.
        """
        work: dict[str, Counter[str]] = {}
        workers: list[WorkerSeen] = []
        for pod in sight.pods:
            entry = self._entries.get(pod.name)
            if entry is None:
                entry = self._entries[pod.name] = _Entry(is_ours=pod.name.startswith(f"{prefix}-"))
            known = job.workers.get(pod.name)
            if known is not None:
                self._note(pod, entry, known, work.setdefault(pod.worker_class, Counter()), now)
            else:
                entry.idle_since = None
            workers.append(self._seen(pod, entry, known, now))
        names = {pod.name for pod in sight.pods}
        gone = [name for name in self._entries if name not in names]
        for name in gone:
            del self._entries[name]
        over = (each.name for each in workers if each.state in _OVER and each.ending is not None and each.ending.cause in _ASKED)
        self.taken = tuple(name for name in (*gone, *over) if name in job.workers and not job.workers[name].is_draining)
        self._measure(work, now)
        return Observed(
            workers=tuple(workers),
            remaining_rows=job.remaining_rows,
            unleased_rows=job.unleased_rows,
            committed_rows=job.committed_rows,
            refused=sight.refused,
            measures=self.meter.measures(),
            is_done=job.is_done,
        )

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _note(self, pod: PodFacts, entry: _Entry, known: WorkerSight, work: Counter[str], now: int) -> None:
        """Take in what the master knows of a worker."""
        if entry.ready_at is None:
            entry.ready_at = now
            if not entry.is_ours:
                entry.computed, entry.has_begun = known.computed_rows, known.computed_rows > 0
        entry.was_asked |= known.is_draining
        idle = known.is_ready and not known.leases
        entry.idle_since = (entry.idle_since or now) if idle else None
        if known.computed_rows and not entry.has_begun:
            entry.has_begun = True
            self.meter.note_start(pod.worker_class, now - pod.created_at)
        work["workers"] += known.leases > 0
        work["rows"] += max(0, known.computed_rows - entry.computed)
        entry.computed, entry.committed = max(entry.computed, known.computed_rows), known.committed_rows

    def _seen(self, pod: PodFacts, entry: _Entry, known: WorkerSight | None, now: int) -> WorkerSeen:
        facts = replace(pod, has_session=known is not None, was_ready=entry.ready_at is not None, was_asked=entry.was_asked)
        seen = worker_seen(
            facts,
            since=now,
            ready_at=entry.ready_at,
            uncommitted_rows=0 if known is None else known.uncommitted_rows,
            idle_since=entry.idle_since,
        )
        if seen.state is not entry.state:
            entry.state, entry.since = seen.state, now
        if seen.state in _OVER and not entry.is_counted and seen.ending is not None and seen.ending.cause in _TAKEN:
            entry.is_counted = True
            self.meter.note_taken(pod.worker_class, max(0, entry.computed - entry.committed) if entry.is_ours else 0)
        return replace(seen, since=entry.since)

    def _measure(self, work: dict[str, Counter[str]], now: int) -> None:
        """Note the work of the time since the last look."""
        if self._at is not None and now > self._at:
            for worker_class, done in work.items():
                if done["workers"] or done["rows"]:
                    self.meter.note_work(worker_class, workers=done["workers"], ms=now - self._at, rows=done["rows"])
        self._at = now
