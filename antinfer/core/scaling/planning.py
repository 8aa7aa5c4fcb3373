"""From what is wanted, seen and remembered to what is done now.

Level-triggered: the plan depends on what is there, not on what happened, so that it may be made at any time, as often as one likes, and
after anything was missed. Made twice of the same it says the same, and doing it twice does no harm: workers are started by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass

from antinfer.core.causes import Cause
from antinfer.core.scaling import shares, verdicts
from antinfer.core.scaling.actions import Action, AvoidNode, DeleteWorker, DrainWorker, FailJob, StartWorkers, Tell
from antinfer.core.scaling.memory import Memory, worker_name
from antinfer.core.scaling.tally import ClassTally, Tally
from antinfer.core.scaling.targets import Aim, Decision, decide
from antinfer.core.scaling.values import CLASSES, Desired, Observed, WorkerSeen, WorkerState

_RETELL_MS = 60_000
"""What was told and has only changed in its numbers is told again after this long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    actions: tuple[Action, ...]
    aim: Aim
    """How many workers there should be, for the next plan."""


class Controller:
    """A memory, and the two steps of each turn: take in, decide.

    A turn is due whenever something has changed, and about once a second while workers are missing or on their way, because pauses end by
    themselves. It asks nothing of anybody, so that a turn too many costs some milliseconds and no more.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory if memory is not None else Memory()

    def turn(self, desired: Desired, observed: Observed, now: int) -> tuple[Action, ...]:
        """Return what to do about what is seen now, on the understanding that it is tried."""
        self.memory.observe(desired, observed, now)
        made = plan(desired, observed, self.memory, now)
        self.memory.note(made.aim, made.actions, desired.policy, now)
        return made.actions


def plan(desired: Desired, observed: Observed, memory: Memory, now: int) -> Plan:
    """Return what to do now.

    Args:
        desired: what is wanted.
        observed: what is seen.
        memory: what is remembered; `observed` was taken in already. It is not changed.
        now: in ms.
    """
    tally = Tally(observed.workers, memory.invisible(), memory.told_to_leave)
    if observed.is_done:
        # Workers leave by themselves; nothing is started for rows that are all committed.
        return Plan(tuple(_cleared(desired, tally, memory, now)), memory.aim)
    decision = decide(desired, observed, tally, memory.aim, memory.limits(now), now)
    failure = verdicts.failure(desired, memory, tally, now) or _spent(desired, decision, tally, memory, now)
    tells = tuple(_news((*decision.tells, *verdicts.tells(desired, memory, tally, now)), memory, now))
    if failure is not None:
        return Plan((*tells, failure), decision.aim)
    want = shares.split(decision.aim.total, desired.on_demand)
    stuck = _stuck(desired, tally, now)
    removed = [*stuck, *_surplus(desired, tally, want, {worker.name for worker, _, _ in stuck})]
    gone = {worker.name for worker, _, _ in removed}
    actions: list[Action] = [
        *(AvoidNode(n, until, why) for n, (until, why) in memory.nodes.avoided(now).items() if memory.told_nodes.get(n) != until),
        *_starts(desired, tally, memory, want, gone, now),
        *_dismissed(removed),
        *_leaving(desired, tally, memory, now),
        *_cleared(desired, tally, memory, now),
        *tells,
    ]
    return Plan(tuple(actions), decision.aim)


# -- more -----------------------------------------------------------------------------------------------------------------------------
def _starts(desired: Desired, tally: Tally, memory: Memory, want: dict[str, int], gone: set[str], now: int) -> Iterable[StartWorkers]:
    """Start what is missing, as many at once as may be; what was asked for and does not show is asked for again."""
    active = {name: sum(w.name not in gone for w in _active(each)) for name, each in tally.by_class.items()}
    room = desired.most - sum(active.values())
    if desired.surge is not None:
        leaving = sum(not memory.is_overdue(worker, desired.policy, now) for worker in tally.all("leaving"))
        leaving += sum(worker.name in gone for worker in tally.all("ready"))
        room -= max(0, leaving - desired.surge)
    room = min(room, memory.startable(desired.policy))
    avoid = tuple(memory.nodes.avoided(now))
    number = memory.next_number
    for name in CLASSES:
        again = [each for each, asked in memory.asked.items() if asked.worker_class == name and asked.again_at <= now and each not in gone]
        missing = min(room, want[name] - active[name] - memory.loops.resting(name))
        new = [worker_name(desired.prefix, number + index) for index in range(max(0, missing))]
        number, room = number + len(new), room - len(new)
        if again or new:
            yield StartWorkers(name, (*again, *new), memory.raised.get(name) or desired.of(name).memory_bytes, avoid)


# -- fewer ----------------------------------------------------------------------------------------------------------------------------
_Removal = tuple[WorkerSeen, Cause, str]


def _surplus(desired: Desired, tally: Tally, want: dict[str, int], stuck: Set[str]) -> list[_Removal]:
    """Choose who is not needed: who has no place, who has not begun, who would lose the least, and of those who has been idle longest."""
    chosen: list[WorkerSeen] = []
    for name in CLASSES:
        each = tally.by_class[name]
        if each.active <= want[name]:
            continue
        in_order = [
            *sorted(each.pending, key=lambda worker: (worker.obstacle is None, -worker.since, worker.name)),
            *sorted(each.starting, key=lambda worker: (-worker.since, worker.name)),
            *sorted(each.ready, key=lambda worker: (worker.uncommitted_rows, _idle_from(worker), -worker.created_at, worker.name)),
        ]
        left = [worker for worker in in_order if worker.name not in stuck]
        chosen += left[: max(0, len(left) - want[name])]
    # One that works in the place of a worker of the other class goes on until that one is ready, if there is room for both.
    working = [worker for worker in chosen if worker.state is WorkerState.READY]
    ready = len(tally.all("ready"))
    coming = desired.most - ready - (len(chosen) - len(working))
    held = max(0, min(sum(want.values()) - (ready - len(working)), coming, len(working)))
    stays = {worker.name for worker in working[len(working) - held :]}
    chosen = [worker for worker in chosen if worker.name not in stays]
    return [(worker, Cause.DRAINED, "fewer workers are needed") for worker in chosen]


def _stuck(desired: Desired, tally: Tally, now: int) -> list[_Removal]:
    """Choose the workers that do not start where they are, while others do."""
    removed: list[_Removal] = []
    for each in tally.by_class.values():
        for worker in each.starting:
            patience = verdicts.patience_ms(worker.obstacle, desired.policy) if each.ready else None
            if now - worker.since > (desired.policy.start_patience_ms if patience is None else patience):
                what = "did not join" if worker.obstacle is None else worker.obstacle.detail
                removed.append((worker, Cause.NODE_REFUSED, f"does not start on node {worker.node}: {what}"))
    return removed


def _dismissed(removed: Iterable[_Removal]) -> Iterable[Action]:
    """Ask who works to leave; whoever has not begun has nothing to hand over."""
    for worker, cause, why in removed:
        if worker.state is WorkerState.READY:
            yield DrainWorker(worker.name, cause, why)
        else:
            yield DeleteWorker(worker.name, cause, why)


def _leaving(desired: Desired, tally: Tally, memory: Memory, now: int) -> Iterable[Action]:
    """See to it that whoever has to leave knows, and does in the end."""
    for worker in tally.all("leaving"):
        asked_at = memory.drained.get(worker.name, memory.deleted.get(worker.name))
        if asked_at is not None:
            if now - asked_at > desired.policy.drain_ms and _may_delete(worker.name, memory, now):
                yield DeleteWorker(worker.name, Cause.DRAINED, "did not leave in time")
        elif not worker.was_told and worker.ending is not None:
            yield DrainWorker(worker.name, worker.ending.cause, worker.ending.detail)
    for worker in tally.all("lost"):
        if not worker.was_told and worker.name not in memory.deleted:
            yield DeleteWorker(worker.name, Cause.NODE_LOST, "its node does not answer")


def _cleared(desired: Desired, tally: Tally, memory: Memory, now: int) -> Iterable[DeleteWorker]:
    """Delete the objects of workers that have ended, but for the last that failed: somebody will want their logs."""
    ended = tally.all("ended")
    failed = [worker for worker in ended if worker.ending is None or not worker.ending.cause.is_blameless]
    failed.sort(key=lambda worker: (-worker.since, worker.name))
    kept = {worker.name for worker in failed[: desired.policy.keep_ended]}
    for worker in ended:
        if worker.name not in kept and _may_delete(worker.name, memory, now):
            yield DeleteWorker(worker.name, Cause.DRAINED, "has ended")


# -- inside ---------------------------------------------------------------------------------------------------------------------------
def _active(each: ClassTally) -> Iterable[WorkerSeen]:
    yield from each.pending
    yield from each.starting
    yield from each.ready


def _idle_from(worker: WorkerSeen) -> float:
    return math.inf if worker.idle_since is None else worker.idle_since


def _may_delete(name: str, memory: Memory, now: int) -> bool:
    at = memory.deleted.get(name)
    return at is None or now - at > 60_000


def _spent(desired: Desired, decision: Decision, tally: Tally, memory: Memory, now: int) -> FailJob | None:
    if not decision.is_spent or tally.active or any(memory.is_paid(worker, desired.policy, now) for worker in tally.all("leaving")):
        return None
    return FailJob("the budget of the job is used up", "Nothing is lost: allow more in workers.budget and resume the job.")


def _news(tells: Iterable[Tell], memory: Memory, now: int) -> Iterable[Tell]:
    """Leave out what was told already."""
    for tell in tells:
        text, at = memory.told.get(tell.topic, ("", -_RETELL_MS))
        if tell.text != text and (not tell.text or not text or now - at >= _RETELL_MS):
            yield tell
