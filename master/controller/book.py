"""What is kept of each worker between two looks: since when it is as it is, and what it has computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.facts import PodFacts
from antinfer.core.scaling.measures import Meter
from antinfer.core.scaling.pods import worker_seen
from antinfer.core.scaling.values import Measure, Observed, WorkerSeen, WorkerState
from antinfer.launchers.port import Sight
from antinfer.master.controller.sight import JobSight, WorkerSight

_TAKEN: Final = (Cause.PREEMPTED, Cause.NODE_LOST)
_ASKED: Final = (Cause.PREEMPTED, Cause.DRAINED)
_OVER: Final = (WorkerState.ENDED, WorkerState.LOST)
_SILENT_MS: Final = 10_000
"""Workers tell of rows now and then: time without any counts when they tell of more, or after so long."""


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
    computed: int | None = None
    """None: it has not said so in this reign."""
    committed: int = 0
    uncounted_ms: int = 0
    """Time for which it has held rows and told of no more."""
    is_counted: bool = False
    """That it was taken away is measured."""


class Book:
    """Puts what a launcher sees and what the master knows together. Times in ms."""

    def __init__(self, known: Mapping[str, Measure] | None = None) -> None:
        """`known`: what was measured in earlier reigns, by class of workers."""
        self.meter = Meter(known)
        self.taken: tuple[str, ...] = ()
        """Members of the job that were taken away, as the last look has shown, and have not said so: no row is to blame for that."""
        self._entries: dict[str, _Entry] = {}
        self._at: int | None = None
        self._measured_at: dict[str, int] = {}
        """When work of workers of each class was noted last."""

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
                self._note(entry, known, now)
                self._note_rows(pod, entry, known, work.setdefault(pod.worker_class, Counter()), now)
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
    def _note(self, entry: _Entry, known: WorkerSight, now: int) -> None:
        """Take in what the master knows of a worker."""
        if entry.ready_at is None:
            entry.ready_at = now
        entry.was_asked |= known.is_draining
        idle = known.is_ready and not known.leases
        entry.idle_since = (entry.idle_since or now) if idle else None
        entry.committed = known.committed_rows

    def _note_rows(self, pod: PodFacts, entry: _Entry, known: WorkerSight, work: Counter[str], now: int) -> None:
        """Count what it has computed, and in what time. A master that is new hears of neither at first."""
        told = known.computed_rows
        if told is None:
            return
        if entry.computed is None:
            # In which time it has computed what it tells of first is not known: that counts for no rate.
            entry.computed = told
            entry.has_begun = told > 0 and not entry.is_ours
        elif known.leases and self._at is not None:
            entry.uncounted_ms += now - self._at
        news = max(0, told - entry.computed)
        entry.computed += news
        if told > 0 and not entry.has_begun:
            entry.has_begun = True
            self.meter.note_start(pod.worker_class, now - pod.created_at)
        if news or entry.uncounted_ms >= _SILENT_MS:
            work["ms"] += entry.uncounted_ms
            work["rows"] += news
            entry.uncounted_ms = 0

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
            self.meter.note_taken(pod.worker_class, max(0, (entry.computed or 0) - entry.committed) if entry.is_ours else 0)
        return replace(seen, since=entry.since)

    def _measure(self, work: dict[str, Counter[str]], now: int) -> None:
        """Note the work that workers have told of since the last look."""
        for worker_class, done in work.items():
            if done["ms"] or done["rows"]:
                since = self._measured_at.get(worker_class, now)
                self.meter.note_work(worker_class, worker_ms=done["ms"], rows=done["rows"], ms=now - since)
                self._measured_at[worker_class] = now
        self._at = now
