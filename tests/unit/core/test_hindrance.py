"""A full disk: no work is leased in vain, it is found out when there is room again, and patience ends."""

from __future__ import annotations

from itertools import pairwise

import pytest

from antinfer.core import commands
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Phase
from antinfer.core.hindrance import Hindrance, HindrancePolicy
from antinfer.core.messages import Failure, FailureKind, Grant, Push, Verdict
from tests.unit.core.builders import World, record

POLICY = HindrancePolicy(first_ms=1_000, longest_ms=30_000, patience_ms=600_000)
FULL = "output /out: no space left on the device"


def test_without_one_everything_is_granted() -> None:
    hindrance = Hindrance(POLICY)
    assert hindrance.allows(7, 0) == 7
    hindrance.note_grant(0)
    assert hindrance.allows(7, 0) == 7
    assert not hindrance.has_lasted(10**9)
    assert hindrance.text(5) == ""


def test_leasing_stops_at_once_and_one_range_tries_again_later() -> None:
    hindrance = Hindrance(POLICY)
    hindrance.meet(FULL, 10_000)
    assert hindrance.allows(7, 10_000) == 0
    assert hindrance.allows(7, 10_700) == 0
    assert hindrance.allows(7, 11_300) == 1
    hindrance.note_grant(11_300)
    assert hindrance.allows(7, 11_300) == 0, "one at a time"
    assert hindrance.text(12_000) == f"no work is handed out for 2 s: {FULL}"


def test_pauses_grow_and_failures_of_what_was_under_way_do_not_prolong_them() -> None:
    hindrance, tries, at = Hindrance(POLICY), [], 0
    hindrance.meet(FULL, at)
    while len(tries) < 10:
        at += 100
        if hindrance.allows(1, at):
            hindrance.note_grant(at)
            tries.append(at)
        hindrance.meet(FULL, at)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert max(pauses) < 30_000 * 1.25 + 200
    assert min(pauses[-3:]) > 30_000 * 0.7


def test_a_commit_of_what_was_granted_since_ends_it() -> None:
    hindrance = Hindrance(POLICY)
    hindrance.meet(FULL, 10_000)
    hindrance.note_commit(9_000, None, 10_100)
    assert hindrance.allows(7, 10_100) == 0, "that was staged before the disk was full"
    hindrance.note_commit(11_300, None, 11_400)
    assert hindrance.allows(7, 11_400) == 7
    assert hindrance.since is None
    hindrance.meet("read-only", 50_000)
    assert hindrance.allows(7, 50_900 + 400) == 1, "a new one begins with short pauses"


def test_the_second_commit_of_an_older_lease_ends_it_too() -> None:
    hindrance = Hindrance(POLICY)
    hindrance.meet(FULL, 10_000)
    hindrance.note_commit(9_000, 9_500, 10_200)
    hindrance.note_commit(9_000, 10_200, 10_200)
    assert hindrance.since == 10_000, "what one request brings may all be from before"
    hindrance.note_commit(9_000, 10_200, 10_700)
    assert hindrance.since is None


def test_patience_counts_from_the_first() -> None:
    hindrance = Hindrance(POLICY)
    hindrance.meet(FULL, 0)
    hindrance.meet(FULL, 599_000)
    assert not hindrance.has_lasted(600_000)
    assert hindrance.has_lasted(600_001)


# -- in the engine -----------------------------------------------------------------------------------------------------------------------


def full(*grants: Grant) -> tuple[Failure, ...]:
    return tuple(Failure(grant.lease, FailureKind.STORAGE, FULL, cause=Cause.DISK_FULL) for grant in grants)


def world() -> World:
    return World([10] * 8, config=EngineConfig(hindrance=POLICY))


def test_one_worker_without_room_stops_the_leasing_to_all_and_one_commit_starts_it_again() -> None:
    here = world()
    one, two = here.worker("w1"), here.worker("w2")
    grants = one.ask(3).grants
    assert here.engine.hindrance(here.at) == ""
    answer = one.ask(3, failures=full(*grants))
    assert (answer.verdict, answer.grants) == (Verdict.WAIT, ())
    assert two.ask(3).verdict is Verdict.WAIT
    assert FULL in here.engine.hindrance(here.at)

    here.silence(1_400)
    pushed = [sent for sent in here.of(commands.Send) if isinstance(sent.message, Push)]
    assert pushed == [], "nobody is nudged while there is nothing to be had"
    (probe,) = two.ask(3).grants
    assert one.ask(3).grants == (), "one range at a time"
    assert len(two.ask(3, commits=[record(probe)]).grants) == 3
    assert len(one.ask(3).grants) == 3
    assert here.engine.hindrance(here.at) == ""


def test_a_job_whose_leases_are_long_forgets_what_has_passed() -> None:
    here = World([10_000] * 3, config=EngineConfig(hindrance=POLICY))
    worker = here.worker()
    long, other = worker.ask(2).grants
    worker.ask(failures=full(other))
    for row in range(100, 10_001, 100):
        here.silence(8_000)
        worker.ask(commits=[record(long, row, start=row - 100)])
    assert here.at > POLICY.patience_ms
    assert here.engine.hindrance(here.at) == ""
    worker.ask(failures=full(worker.take()))
    assert here.engine.phase is Phase.SERVING, "it has only just begun"


def test_nothing_is_used_up_however_often_a_range_meets_it() -> None:
    here = world()
    worker = here.worker()
    for _ in range(here.config.storage_attempts + 5):
        while not (grants := worker.ask(1).grants):
            here.silence(1_000)
        worker.ask(failures=full(*grants))
        if here.at > 500_000:
            break
    assert here.engine.phase is Phase.SERVING
    while not (grants := worker.ask(1).grants):
        here.silence(1_000)
    assert grants[0].rows.size == 10, "no range was split"
    assert grants[0].quarantine == ""


@pytest.mark.parametrize("cause", [Cause.DISK_FULL, Cause.OUTPUT_REFUSED])
def test_patience_ends_with_the_error(cause: Cause) -> None:
    here = world()
    worker = here.worker()
    while here.engine.phase is Phase.SERVING:
        assert here.at < 700_000
        for grant in worker.ask(1).grants:
            worker.ask(failures=(Failure(grant.lease, FailureKind.STORAGE, FULL, cause=cause),))
        here.silence(1_000)
    assert here.at > POLICY.patience_ms
    assert here.engine.failure == FULL


def test_other_trouble_of_storage_stops_nobody_else() -> None:
    here = world()
    worker = here.worker()
    grant = worker.take()
    assert worker.ask(1, failures=(Failure(grant.lease, FailureKind.STORAGE, "no route", cause=Cause.STORAGE),)).grants
