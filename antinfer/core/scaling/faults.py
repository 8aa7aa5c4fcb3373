"""What failed before: crash loops, whose places rest for a while, and nodes, which are avoided for a while."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from antinfer.core.budgets import backoff_ms
from antinfer.core.causes import Cause
from antinfer.core.scaling.values import ScalingPolicy, WorkerSeen

_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Loop:
    """Workers of one class that ended for the same cause, replacement after replacement."""

    worker_class: str
    cause: Cause
    rounds: int
    """How often those that were started after an end have ended as well. Thirty that end together are one round."""
    in_vain: int
    """Of these, the rounds since a row was committed."""
    last_at: int
    next_at: int
    """Whoever was started from then on, when the first places of this round were filled again, makes another round."""
    detail: str


@dataclass(slots=True)
class _Rest:
    worker_class: str
    until: int


class CrashLoops:
    """Who has to wait, and for how long. Each worker that failed keeps its own place empty; the others are replaced as ever."""

    def __init__(self) -> None:
        self._loops: dict[tuple[str, Cause], Loop] = {}
        self._rests: list[_Rest] = []

    def note(self, worker: WorkerSeen, cause: Cause, detail: str, policy: ScalingPolicy, now: int) -> None:
        """A worker has ended for a cause that pauses."""
        key = worker.worker_class, cause
        loop = self._loops.get(key)
        was_healthy = worker.ready_at is not None and now - worker.ready_at >= policy.healthy_ms
        if loop is None or (was_healthy and loop.next_at <= now):
            loop = self._loops[key] = Loop(worker.worker_class, cause, 0, 0, now, now, detail)
        is_new_round = worker.created_at >= loop.next_at or loop.rounds == 0
        if is_new_round:
            loop.rounds, loop.in_vain = loop.rounds + 1, loop.in_vain + 1
        pause = backoff_ms(policy.first_pause_ms, policy.longest_pause_ms, loop.rounds, worker.name)
        if is_new_round:
            loop.next_at = now + pause
        loop.last_at, loop.detail = now, detail
        if len(self._rests) < _MOST_REMEMBERED:
            self._rests.append(_Rest(worker.worker_class, now + pause))

    def note_progress(self) -> None:
        """Rows were committed: no loop shows that the job cannot get on. Pauses stay as long as they are."""
        for loop in self._loops.values():
            loop.in_vain = 0

    def expire(self, policy: ScalingPolicy, now: int) -> None:
        """Forget what is over."""
        self._rests = [rest for rest in self._rests if rest.until > now]
        # A replacement that has lasted is not seen here; one that has not would have ended by then.
        quiet = 2 * policy.longest_pause_ms + policy.healthy_ms
        for key in [key for key, loop in self._loops.items() if now - loop.last_at > quiet]:
            del self._loops[key]

    def resting(self, worker_class: str) -> int:
        """Return how many places of a class stay empty for now."""
        return sum(rest.worker_class == worker_class for rest in self._rests)

    def hopeless(self, policy: ScalingPolicy) -> Loop | None:
        """Return the loop that has gone on for too long, if there is one."""
        return next((loop for loop in self._loops.values() if loop.in_vain >= policy.tries), None)

    def going_on(self) -> list[Loop]:
        """Return the loops of more than one round, the worst first."""
        return sorted((loop for loop in self._loops.values() if loop.rounds > 1), key=lambda loop: (-loop.rounds, loop.worker_class))


@dataclass(slots=True)
class _NodeRecord:
    faults: list[int]
    """When."""
    workers: set[str]
    detail: str
    avoid_until: int = 0


class NodeFaults:
    """Nodes on which workers fail again and again."""

    def __init__(self) -> None:
        self._nodes: dict[str, _NodeRecord] = {}

    def note(self, node: str, worker: str, detail: str, now: int) -> None:
        """A worker has failed on a node in a way that may be the node's fault."""
        if not node:
            return
        if len(self._nodes) >= _MOST_REMEMBERED and node not in self._nodes:
            self._nodes.clear()
        record = self._nodes.setdefault(node, _NodeRecord([], set(), detail))
        record.faults.append(now)
        record.workers.add(worker)
        record.detail = detail

    def judge(self, works_on: Set[str], known: int, policy: ScalingPolicy, now: int) -> None:
        """Decide which nodes to avoid.

        Args:
            works_on: nodes with a worker that is ready. With none on another node it may as well be the job that is broken.
            known: number of nodes that workers have or had lately.
            policy: how many faults are too many.
            now: in ms.
        """
        for node in [node for node, record in self._nodes.items() if now - record.faults[-1] > policy.node_memory_ms]:
            if self._nodes[node].avoid_until <= now:
                del self._nodes[node]
        room = max(1, int(policy.avoided_share * known)) - len(self.avoided(now))
        for node, record in sorted(self._nodes.items()):
            recent = [at for at in record.faults if now - at <= policy.node_memory_ms]
            record.faults = recent or record.faults[-1:]
            if room > 0 and record.avoid_until <= now and len(recent) >= policy.node_faults and works_on - {node}:
                record.avoid_until = now + policy.node_memory_ms
                room -= 1

    def avoided(self, now: int) -> dict[str, tuple[int, str]]:
        """Return the nodes to avoid, with the end of that (ms) and why."""
        return {
            node: (record.avoid_until, f"{len(record.faults)} faults, {len(record.workers)} workers, at last: {record.detail}")
            for node, record in sorted(self._nodes.items())
            if record.avoid_until > now
        }

    @property
    def known(self) -> Set[str]:
        """Nodes that something is remembered about."""
        return self._nodes.keys()
