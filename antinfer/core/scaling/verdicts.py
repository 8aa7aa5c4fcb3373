"""What stands in the way: when it is enough to fail the job, and what is said about it until then."""

from __future__ import annotations

from collections import Counter

from antinfer.core.causes import Cause
from antinfer.core.scaling.actions import FailJob, Tell, Topic
from antinfer.core.scaling.memory import Memory, Watched
from antinfer.core.scaling.tally import Tally
from antinfer.core.scaling.values import Desired, Obstacle, ScalingPolicy, Severity

_MOST_NAMED = 3
"""Nodes that are named in one text."""
_WORKED_BEFORE = 10
"""So many times the patience with what keeps workers from starting when some have started before."""


def patience_ms(obstacle: Obstacle | None, policy: ScalingPolicy) -> int | None:
    """Return how long an obstacle may last; None: as long as it likes."""
    if obstacle is None:
        return None
    match obstacle.severity:
        case Severity.WAITING:
            return None
        case Severity.UNREACHABLE:
            return policy.unreachable_patience_ms
        case Severity.MISSING_IMAGE:
            return policy.image_patience_ms
        case Severity.MISSING_CONFIG:
            return policy.config_patience_ms
        case Severity.INVALID:
            return policy.invalid_patience_ms


def failure(desired: Desired, memory: Memory, tally: Tally, now: int) -> FailJob | None:
    """Return the end of the job when no worker that we start can get it on; None: some can, or might."""
    loop = memory.loops.hopeless(desired.policy)
    healthy = any(worker.ready_at is not None and now - worker.ready_at >= desired.policy.healthy_ms for worker in tally.all("ready"))
    if loop is not None and not healthy:
        return FailJob(
            f"workers keep ending, {loop.in_vain} times in a row without a committed row between: {loop.cause.text} ({loop.detail})",
            "The last of them are kept, so that their logs can be read.",
        )
    if tally.all("ready"):
        return None  # it goes on with these; what is wrong with the others is told
    for (worker_class, _), watched in memory.obstacles.items():
        patience = patience_ms(watched.obstacle, desired.policy)
        if patience is None:
            continue
        patience *= _WORKED_BEFORE if memory.was_ready else 1
        if now - watched.since >= patience:
            return FailJob(f"workers cannot start: {watched.obstacle.detail}", _hint(watched, worker_class))
    return None


def tells(desired: Desired, memory: Memory, tally: Tally, now: int) -> tuple[Tell, ...]:
    """Return what is to be said about workers that wait, crash or cannot start, and nodes."""
    return (
        Tell(Topic.PENDING, _pending(desired, tally, now)),
        Tell(Topic.CRASHES, _crashes(memory)),
        Tell(Topic.IMAGE, "; ".join(f"{name} workers cannot start: {w.obstacle.detail}" for (name, _), w in memory.obstacles.items())),
        Tell(Topic.NODES, _nodes(memory, now)),
        Tell(Topic.GIVE_BACK, _given_back(desired, memory, now)),
    )


def _pending(desired: Desired, tally: Tally, now: int) -> str:
    waiting = [worker for worker in tally.waiting() if now - worker.since >= desired.policy.pending_ms]
    if not waiting:
        return ""
    reasons = Counter(worker.obstacle.detail for worker in waiting if worker.obstacle is not None)
    (most, _), *others = reasons.most_common()
    more = f" (and {len(others)} other reasons)" if others else ""
    return f"{len(waiting)} of {tally.active} workers wait for a place: {most}{more}"


def _crashes(memory: Memory) -> str:
    return "; ".join(
        f"{loop.worker_class} workers keep ending, {loop.rounds} times in a row: {loop.cause.text} ({loop.detail})"
        for loop in memory.loops.going_on()
    )


def _nodes(memory: Memory, now: int) -> str:
    avoided = [f"node {node} is avoided: {why}" for node, (_, why) in memory.nodes.avoided(now).items()]
    more = [f"and {len(avoided) - _MOST_NAMED} others"] if len(avoided) > _MOST_NAMED else []
    return "; ".join((*avoided[:_MOST_NAMED], *more))


def _given_back(desired: Desired, memory: Memory, now: int) -> str:
    ceiling = memory.limits(now).ceiling
    if ceiling is None:
        return ""
    if ceiling < desired.least:
        return f"workers are given back, but {desired.least} are kept: workers.min"
    return f"at most {ceiling} workers, as others were given back"


def _hint(watched: Watched, worker_class: str) -> str:
    if watched.obstacle.cause is Cause.IMAGE_ERROR:
        return "Check the name of the image, and the right to pull it; then resume the job."
    return f"Check what the {worker_class} workers are made from; then resume the job."
