"""The rules of DESIGN section 4 that a worker enforces, one small function each.

The session calls them through this module, so that the simulator can replace one and show what goes wrong: without it rows are lost or
stuck (``tests/sim/test_rules.py``). No play is known for `is_sent_again`: a second line of defence, without which unit tests of the session
fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from antinfer.core.ids import LeaseId, SessionId, ShardId
from antinfer.core.messages import Acceptance, Heartbeat, HeldRange, Verdict
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord


def about_lost_objects(records: Iterable[CommitRecord]) -> list[Any]:
    """Rule 1: what to do about staged objects that cannot be committed any more: nothing, only the master collects staging."""
    return []


def heartbeat(session: SessionId, held: tuple[LeaseId, ...], answered: int) -> Heartbeat:
    """Rule 10: heart-beats name every lease held and the last answer seen, both as of one instant."""
    return Heartbeat(session, held, answered)


def keeps_work(verdict: Verdict) -> bool:
    """Rule 15: a master that does not rule says nothing about our leases; keep everything and try another."""
    return verdict is Verdict.NOT_MASTER


def is_sent_again(acceptance: Acceptance) -> bool:
    """Rule 15: a commit that came too early keeps its object and is sent again, in order; refused, its rows would be computed again."""
    return acceptance is Acceptance.RETRY


def held_ranges(leases: Iterable[tuple[LeaseId, ShardId, Rows]]) -> tuple[HeldRange, ...]:
    """Rule 18: a worker that joins again names what it was working on; if nobody touched it, the work is kept."""
    return tuple(HeldRange(lease, shard, rows) for lease, shard, rows in leases)
