"""What must hold of an engine after every step; checked by tests and the simulator, and by a master started with ``--check``."""

from __future__ import annotations

from collections.abc import Iterable

from antinfer.core.engine import Engine
from antinfer.core.ids import ShardId
from antinfer.core.ledger import OpenShard
from antinfer.errors import InvariantViolation


def check(engine: Engine) -> None:
    """Raise `InvariantViolation`, with the story of the shard, unless the rows of the plan are partitioned and all tables agree.

    Costs O(open): finished and untouched shards are only counted.
    """
    check_shards(engine, engine.ledger.open)
    for problem in (_coverage_problem(engine), _session_problem(engine)):
        if problem:
            raise InvariantViolation(problem)


def check_shards(engine: Engine, shards: Iterable[ShardId]) -> None:
    """Raise `InvariantViolation` unless the rows of each of `shards` that is open are partitioned. For those that a step has changed."""
    for shard_id in shards:
        shard = engine.ledger.open.get(shard_id)
        problem = "" if shard is None else _shard_problem(shard)
        if problem:
            raise InvariantViolation(_with_story(engine, shard_id, problem))


def _shard_problem(shard: OpenShard) -> str:
    """Committed, pending and leased rows must tile the shard; leases may cover the same rows, but then exactly the same."""
    leased = {lease.rows for lease in shard.leases.values()}
    runs = sorted([*shard.committed, *leased, *(pending.rows for pending in shard.pending.values())])
    at = 0
    for start, stop in runs:
        if start != at:
            return f"rows [{at}, {start}) are nowhere" if start > at else f"row {start} is in two places"
        if stop <= start:
            return f"empty range at row {start}"
        at = stop
    if at != shard.stop:
        return f"rows end at {at}, the shard at {shard.stop}"
    if shard.is_finished():
        return "finished, yet still open"
    for start, pending in shard.pending.items():
        if pending.rows.start != start:
            return f"pending range {pending.rows} is filed under {start}"
    return ""


def _coverage_problem(engine: Engine) -> str:
    ledger = engine.ledger
    below = len(ledger.finished) + len(ledger.open)
    if below != ledger.cursor:
        return f"{ledger.cursor} shards were touched, but {len(ledger.finished)} are finished and {len(ledger.open)} open"
    for shard_id in ledger.open:
        if shard_id in ledger.finished or shard_id >= ledger.cursor:
            return f"shard {shard_id} is open and also finished or untouched"
    listed = {lease for shard in ledger.open.values() for lease in shard.leases}
    if listed != ledger.leases.keys():
        return f"leases {listed ^ ledger.leases.keys()} are in one table only"
    return ""


def _session_problem(engine: Engine) -> str:
    held = {lease: session.id for session in engine.sessions for lease in session.leases}
    for lease in engine.ledger.leases.values():
        if held.pop(lease.id, None) != lease.session:
            return f"lease {lease.id} and session {lease.session} do not know each other"
    return f"sessions hold leases that do not stand: {held}" if held else ""


def _with_story(engine: Engine, shard_id: ShardId, problem: str) -> str:
    story = "\n".join(f"  {entry}" for entry in engine.story.of(shard_id))
    return f"shard {shard_id}: {problem}\n{story}"
