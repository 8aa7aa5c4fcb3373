"""The engine makes no circles of objects: a master looks for garbage rarely."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = """
import gc
from tests.unit.core.builders import World, record

world = World([10] * 200)
worker = world.worker()
gc.collect()
gc.disable()
grants = worker.ask(2).grants
while grants:
    grants = worker.ask(2, commits=[record(grant) for grant in grants]).grants
assert world.engine.ledger.is_complete
print(gc.collect())
"""


def test_what_is_done_leaves_nothing_to_a_garbage_collector():
    # In a process of its own: here threads that other tests have left behind make garbage, too.
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
