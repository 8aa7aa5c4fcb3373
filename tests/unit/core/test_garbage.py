"""The engine makes no circles of objects: a master looks for garbage rarely."""

from __future__ import annotations

import gc

from tests.unit.core.builders import World, record


def test_what_is_done_leaves_nothing_to_a_garbage_collector():
    world = World([10] * 200)
    worker = world.worker()
    gc.collect()
    gc.disable()
    try:
        grants = worker.ask(2).grants
        while grants:
            grants = worker.ask(2, commits=[record(grant) for grant in grants]).grants
        assert world.engine.ledger.is_complete
        assert gc.collect() == 0
    finally:
        gc.enable()
