"""The rules of DESIGN section 4 that the core enforces, one small function each.

The engine calls them through this module, so that the simulator can replace one and show what goes wrong: without it rows are lost, doubled
or stuck (``tests/sim/test_rules.py``). Where the real worker covers for a rule, its play has a worker that does not. No play is known for
`is_out_of_order`, nor for the session in `commit_belongs`: second lines of defence, without which unit tests of the engine fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from antinfer.core.ids import LeaseId, SessionId, lease_of
from antinfer.core.ranges import Rows, RowSet
from antinfer.core.records import CommitRecord


def is_recorded(staged: str, records: Mapping[str, object]) -> bool:
    """Rule 1: a repeated commit is matched by its staged name before the lease is looked up, which may be gone by then.

    Without it a worker is refused what stands, and whoever removes what was refused removes what is yet to be published.
    """
    return staged in records


def may_drop_record(published: bool, flushed: bool) -> bool:
    """Rule 2: a record leaves the store only when it is published AND flushed."""
    return published and flushed


def may_collect(staged: str, standing: Mapping[LeaseId, object], records: Mapping[str, object], closed_below: Mapping[int, int]) -> bool:
    """Rule 5: only objects whose lease is known to be closed and that no unpublished record names; an unknown lease is never garbage.

    Args:
        staged: name found in staging.
        standing: leases that stand.
        records: staged names of the records that are still kept.
        closed_below: for each epoch whose leases this master knows, the first lease number that was never granted.
    """
    try:
        lease = lease_of(staged)
    except ValueError:
        return False
    return staged not in records and lease not in standing and lease.n < closed_below.get(lease.epoch, 0)


def rows_freed(rows: Rows, others: Iterable[Rows]) -> list[Rows]:
    """Rule 6: of a lease that ends, only what no other lease covers becomes pending."""
    covered = RowSet()
    for other in sorted(others):
        for gap in covered.gaps(*other):
            covered.add(*gap)
    return covered.gaps(*rows)


def unheld(granted: Iterable[tuple[LeaseId, int]], held: Sequence[LeaseId], answered: int) -> list[LeaseId]:
    """Rule 10: leases granted to an answered request that the worker does not hold; their answer was lost, or the worker dropped them.

    Args:
        granted: lease and the number of the request it was granted to.
        held: leases the worker says it holds.
        answered: highest request number whose answer the worker has.
    """
    holding = set(held)
    return [lease for lease, request in granted if request <= answered and lease not in holding]


def commit_belongs(record: CommitRecord, lease: LeaseId, holder: SessionId, session: SessionId) -> bool:
    """Rule 13: commit checks the lease, its session, and that the staged object was written under that very lease.

    An object whose name is of a lease that has ended may be collected in the same moment. The session is checked although workers name
    leases of their own session only: a lease that ended for one session would be left standing in another.
    """
    return holder == session and record.staged.startswith(f"{lease.epoch}-{lease.n}.")


def is_out_of_order(start: int, committed_to: int) -> bool:
    """Rule 15: a prefix that starts beyond what is committed waits for its predecessor; it is not refused.

    Refused, its rows would be computed again. Workers send the commits of a lease in order, and one request at a time, so it takes a
    predecessor that was refused to get here.
    """
    return start > committed_to


def store_is_current(stored_run: str, run: str, *, own_server: bool, stored_epoch: int, last_claim: int) -> bool:
    """Rules 9 and 11: whether the documents in the store are all there is to know, so that the output need not be listed.

    Args:
        stored_run: run id of the server when the documents were last written.
        run: its run id now.
        own_server: it is our embedded server on its own locked append-only file, which loses nothing when it restarts.
        stored_epoch: epoch that wrote the documents.
        last_claim: highest epoch claimed in the output place before this reign; higher than `stored_epoch`: another store was used
            since.
    """
    return (own_server or stored_run == run) and stored_epoch == last_claim


def clock_jumped(gap_ms: int, ttl_ms: int) -> bool:
    """Rule 16: after a gap of the master's own loop this long, silence says nothing about the workers."""
    return gap_ms * 3 > ttl_ms


def may_regrant() -> bool:
    """Rule 18: a worker that joins again may name its old range; if nobody touched it, the work is kept."""
    return True
