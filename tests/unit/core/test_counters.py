"""What the engine counts besides the work itself."""

from __future__ import annotations

from antinfer.core.messages import Acceptance
from tests.unit.core.builders import World, record


def test_counters_say_what_became_of_leases():
    world = World([10, 10])
    one, two = world.worker("w1"), world.worker("w2")
    grant, held = one.take(), two.take()
    one.ask(commits=[record(grant, 4)], returns=[grant.lease])
    assert [outcome.acceptance for outcome in one.ask(commits=[record(grant, start=4)]).outcomes] == [Acceptance.REFUSED]
    again = one.take()
    assert again.attempt == 2
    world.silence(world.engine.config.ttl_ms + 200)
    counters = world.engine.counters()
    assert held.lease not in world.engine.ledger.leases
    assert {name: count for name, count in counters.items() if count} == {
        "commits": 1,
        "rows_out": 4,
        "leases_granted": 3,
        "leases_returned": 1,
        "leases_retried": 1,
        "leases_expired": 2,
        "commits_refused": 1,
        "workers_expired": 2,
        "cause_woke_late": 1,
        "cause_node_lost": 2,
    }
