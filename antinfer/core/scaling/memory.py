"""What a controller remembers between two looks. A new one begins with nothing but what has been used up, and gets on with that.

Everything here was seen or done before. That a worker was asked for, so that it is not asked for twice before it shows; what ended, so that
each end counts once; what has to rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from antinfer.core.budgets import backoff_ms
from antinfer.core.causes import Cause
from antinfer.core.scaling import remedies
from antinfer.core.scaling.actions import Action, AvoidNode, DeleteWorker, DrainWorker, StartWorkers, Tell, Topic
from antinfer.core.scaling.faults import CrashLoops, NodeFaults
from antinfer.core.scaling.targets import Aim, Limits
from antinfer.core.scaling.values import (
    MIB,
    Desired,
    Ending,
    GiveBack,
    Observed,
    Obstacle,
    ScalingPolicy,
    Severity,
    WorkerSeen,
    WorkerState,
)

_PAID = (WorkerState.STARTING, WorkerState.READY, WorkerState.LEAVING)
_GAP_MS = 30_000
"""An obstacle that was not seen for so long has passed: between two tries of the kubelet it is away for a moment."""

_REFUSED_MS = 2_000
_LONGEST_REFUSED_MS = 60_000
"""Pauses before a worker that could not be asked for is asked for again."""
_GONE_MS = 600_000
"""How long the end of a worker that is not seen any more is remembered."""


@dataclass(slots=True)
class Asked:
    """A worker that was asked for, and is not seen yet."""

    worker_class: str
    first_at: int
    again_at: int
    tries: int = 1
    obstacle: Obstacle | None = None


@dataclass(slots=True)
class Watched:
    """An obstacle that keeps workers of a class from starting."""

    obstacle: Obstacle
    since: int
    seen_at: int


class Memory:
    """Changed by `observe` and `note` alone; `planning.plan` only reads it."""

    def __init__(self, used_ms: Mapping[str, int] | None = None) -> None:
        """
        Args:
            used_ms: time that workers of each class were paid for in earlier reigns.
        """
        self.used_ms: Counter[str] = Counter(used_ms or {})
        self.ends: Counter[Cause] = Counter()
        """How many workers ended for each cause."""
        self.aim = Aim()
        self.asked: dict[str, Asked] = {}
        self.next_number = 1
        self.drained: dict[str, int] = {}
        """When each worker that is asked to leave was first asked."""
        self.deleted: dict[str, int] = {}
        """When each object was last asked to be deleted."""
        self.loops = CrashLoops()
        self.nodes = NodeFaults()
        self.raised: dict[str, int] = {}
        """Memory (bytes) of workers to come, by class, after the system ran out of it."""
        self.obstacles: dict[tuple[str, Cause], Watched] = {}
        self.was_ready: set[str] = set()
        """Classes that have had a worker that was ready."""
        self.told: dict[Topic, tuple[str, int]] = {}
        self.told_nodes: dict[str, int] = {}
        self.given_back: dict[str, GiveBack] = {}
        """Requests to give workers back, by id, with the number of workers there were."""
        self._alive: dict[str, WorkerSeen] = {}
        self._counted: dict[str, int] = {}
        """Workers whose end was counted, with when they were seen last."""
        self._committed_rows = -1
        self._tokens = 0.0
        self._seen_at: int | None = None

    # -- what is seen ------------------------------------------------------------------------------------------------------------
    def observe(self, desired: Desired, observed: Observed, now: int) -> None:
        """Take in what is seen. Seeing the same twice changes nothing but the time."""
        self._let_time_pass(desired.policy, now)
        if observed.committed_rows > self._committed_rows >= 0:
            self.loops.note_progress()
        self._committed_rows = max(self._committed_rows, observed.committed_rows)
        alive: dict[str, WorkerSeen] = {}
        for worker in observed.workers:
            name = worker.name
            self.asked.pop(name, None)
            self._reserve(desired.prefix, name)
            if worker.state is WorkerState.ENDED or worker.state is WorkerState.LOST:
                self._end(desired, worker, _ending(worker, observed), now)
            if worker.state is not WorkerState.ENDED:
                alive[name] = worker
            if worker.state is WorkerState.READY:
                self.was_ready.add(worker.worker_class)
        seen = {worker.name for worker in observed.workers}
        for name, worker in self._alive.items():
            if name not in seen:
                self._end(desired, worker, worker.ending or Ending(Cause.DRAINED, "its object is gone"), now)
        self._alive = alive
        for name in [name for name in (*self.drained, *self.deleted) if name not in seen and name not in self.asked]:
            self.drained.pop(name, None)
            self.deleted.pop(name, None)
        for name in [name for name, at in self._counted.items() if name not in seen and now - at > _GONE_MS]:
            del self._counted[name]
        self._refuse(observed, now)
        self._watch(observed.workers, now)
        self._judge_nodes(alive.values(), desired.policy, now)
        self._give_back(desired, alive.values(), now)

    def limits(self, now: int) -> Limits:
        """Return what has been used up and given back."""
        return Limits(min(self._ceilings(now), default=None), self.used_ms)

    @property
    def told_to_leave(self) -> Set[str]:
        """Names of workers that were told to leave, or whose objects are being deleted."""
        return self.drained.keys() | self.deleted.keys()

    def is_overdue(self, worker: WorkerSeen, policy: ScalingPolicy, now: int) -> bool:
        """Tell whether a worker that was told to leave, which it may not show yet, should have left long ago: nobody waits for it."""
        told_at = self.drained.get(worker.name, self.deleted.get(worker.name, worker.since))
        return now - told_at > 2 * policy.drain_ms

    def is_paid(self, worker: WorkerSeen, policy: ScalingPolicy, now: int) -> bool:
        """Tell whether a worker is to be paid for. An object that should be gone, of a worker that nobody hears, is but an object."""
        is_but_an_object = worker.state is WorkerState.LEAVING and not worker.is_heard and self.is_overdue(worker, policy, now)
        return worker.state in _PAID and not is_but_an_object

    def invisible(self) -> list[WorkerSeen]:
        """Return the workers that were asked for and are not seen yet, as if they were waiting."""
        return [
            WorkerSeen(name, asked.worker_class, WorkerState.PENDING, asked.first_at, asked.first_at, obstacle=asked.obstacle)
            for name, asked in self.asked.items()
        ]

    def startable(self, policy: ScalingPolicy) -> int:
        """Return how many workers may be started now without asking the launcher for too much at once."""
        return int(min(self._tokens, policy.starts_at_once))

    # -- what is done ------------------------------------------------------------------------------------------------------------
    def note(self, aim: Aim, actions: Sequence[Action], policy: ScalingPolicy, now: int) -> None:
        """Remember what was decided, and what is done about it."""
        self.aim = aim
        for action in actions:
            match action:
                case StartWorkers(worker_class, names):
                    self._note_start(worker_class, names, policy, now)
                case DrainWorker(name):
                    self.drained.setdefault(name, now)
                case DeleteWorker(name, cause, why):
                    self._note_deletion(name, cause, why, now)
                case AvoidNode(node, until):
                    self.told_nodes[node] = until
                case Tell(topic, text):
                    self.told[topic] = text, now
                case _:
                    pass  # a job that has failed needs no memory

    def _note_deletion(self, name: str, cause: Cause, why: str, now: int) -> None:
        worker = self._alive.get(name)
        if worker is not None and name not in self.deleted and cause is Cause.NODE_REFUSED:
            self.nodes.note(worker.node, name, why, now)
        self.deleted[name] = now
        self.asked.pop(name, None)

    def _note_start(self, worker_class: str, names: Iterable[str], policy: ScalingPolicy, now: int) -> None:
        for name in names:
            asked = self.asked.get(name)
            if asked is None:
                self.asked[name] = Asked(worker_class, now, now + policy.visible_ms)
                self.next_number = max(self.next_number, _number(name) + 1)
                self._tokens -= 1
            else:
                asked.tries += 1
                pause = backoff_ms(_REFUSED_MS, _LONGEST_REFUSED_MS, asked.tries, name) if asked.obstacle is not None else 0
                asked.again_at = now + max(policy.visible_ms, pause)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _let_time_pass(self, policy: ScalingPolicy, now: int) -> None:
        if self._seen_at is None:
            self._tokens = policy.starts_at_once
        elif now > self._seen_at:
            passed = now - self._seen_at
            self._tokens = min(policy.starts_at_once, self._tokens + passed * policy.starts_per_s / 1_000)
            for worker in self._alive.values():
                if self.is_paid(worker, policy, now):
                    self.used_ms[worker.worker_class] += passed
        self._seen_at = now
        self.loops.expire(policy, now)

    def _reserve(self, prefix: str, name: str) -> None:
        """Never use a name again, also one that a controller with this prefix used before us."""
        if name.startswith(prefix):
            self.next_number = max(self.next_number, _number(name) + 1)

    def _end(self, desired: Desired, worker: WorkerSeen, ending: Ending, now: int) -> None:
        """Count an end once, and do what its cause asks for."""
        is_new = worker.name not in self._counted
        self._counted[worker.name] = now
        if not is_new:
            return
        if worker.name in self.drained and not ending.cause.is_blameless:
            # It was on its way out: with what code it ends does not matter, unless it was memory.
            ending = ending if ending.cause is Cause.OUT_OF_MEMORY else Ending(Cause.DRAINED, ending.detail)
        self.ends[ending.cause] += 1
        remedy = remedies.of(ending.cause)
        if remedy.raises_memory and self._raise_memory(desired, worker):
            return
        if remedy.pauses:
            self.loops.note(worker, ending.cause, ending.detail, desired.policy, now)
        if remedy.blames_node:
            self.nodes.note(worker.node, worker.name, f"{ending.cause.value} ({ending.detail})", now)

    def _raise_memory(self, desired: Desired, worker: WorkerSeen) -> bool:
        """Let the next workers of a class have half as much memory again; False when this one had as much as they may have."""
        about = desired.of(worker.worker_class)
        had = worker.memory_bytes or about.memory_bytes
        if not had or had >= about.max_memory_bytes:
            return False
        more = min(about.max_memory_bytes, -(-had * 3 // (2 * MIB)) * MIB)
        self.raised[worker.worker_class] = max(more, self.raised.get(worker.worker_class, 0))
        return True

    def _refuse(self, observed: Observed, now: int) -> None:
        for name, obstacle in observed.refused.items():
            asked = self.asked.get(name)
            if asked is not None and asked.obstacle != obstacle:
                asked.obstacle = obstacle
                asked.again_at = now + backoff_ms(_REFUSED_MS, _LONGEST_REFUSED_MS, asked.tries, name)

    def _watch(self, workers: Iterable[WorkerSeen], now: int) -> None:
        """Keep the time for which something has kept workers from starting."""
        met = [(worker.worker_class, worker.obstacle) for worker in workers if worker.obstacle is not None]
        met += [(asked.worker_class, asked.obstacle) for asked in self.asked.values() if asked.obstacle is not None]
        for worker_class, obstacle in met:
            if obstacle.cause is Cause.NO_CAPACITY:
                continue
            watched = self.obstacles.setdefault((worker_class, obstacle.cause), Watched(obstacle, now, now))
            watched.seen_at = now
            # Between two tries the kubelet says only that it waits; what was wrong it says when it tries.
            if len(obstacle.detail) >= len(watched.obstacle.detail) or obstacle.severity is Severity.INVALID:
                watched.obstacle = obstacle
        for key in [key for key, watched in self.obstacles.items() if now - watched.seen_at > _GAP_MS]:
            del self.obstacles[key]

    def _judge_nodes(self, alive: Iterable[WorkerSeen], policy: ScalingPolicy, now: int) -> None:
        if not self.nodes.known:
            return
        placed = [worker for worker in alive if worker.node]
        ready = {worker.node for worker in placed if worker.state is WorkerState.READY}
        self.nodes.judge(ready, len({worker.node for worker in placed} | self.nodes.known), policy, now)
        self.told_nodes = {node: until for node, until in self.told_nodes.items() if until > now}

    def _give_back(self, desired: Desired, alive: Iterable[WorkerSeen], now: int) -> None:
        """Note of each new request how many workers there were: what is left then does not sink further however often it is seen."""
        known = self.given_back
        self.given_back = {wish.id: replace(wish, had=known[wish.id].had) for wish in desired.give_back if wish.id in known}
        self.given_back |= {wish.id: wish for wish in desired.give_back if wish.id not in known and wish.had is not None}
        new = [wish for wish in desired.give_back if wish.id not in self.given_back]
        if not new:
            return
        placed = sum(worker.is_placed for worker in alive)
        for wish in new:
            self.given_back[wish.id] = replace(wish, had=min([placed, *self._ceilings(now)]))

    def _ceilings(self, now: int) -> list[int]:
        """Return how many workers each request that holds now leaves."""
        holding = (wish for wish in self.given_back.values() if wish.until is None or wish.until > now)
        return [max(0, (wish.had or 0) - wish.workers) for wish in holding]


def _ending(worker: WorkerSeen, observed: Observed) -> Ending:
    if worker.ending is None:
        return Ending(Cause.UNKNOWN)
    if observed.is_done and worker.ending.cause is Cause.LEFT_EARLY:
        return Ending(Cause.DRAINED, "the job is done")
    return worker.ending


def _number(name: str) -> int:
    """Return the number at the end of a worker's name; 0 when there is none."""
    text = name.rpartition("-")[2]
    return int(text) if text.isdecimal() else 0


def worker_name(prefix: str, number: int) -> str:
    """Return the name of a worker."""
    return f"{prefix}-{number}"
