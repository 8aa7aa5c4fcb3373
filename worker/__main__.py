"""``python -m antinfer.worker``: one worker process."""

from __future__ import annotations

from antinfer.worker import hoststart

if __name__ == "__main__":
    # Before the imports of the agent itself: the host has more to import than we have, and can do it meanwhile.
    host = hoststart.spawn()

    from antinfer.launchers.leaving import leave
    from antinfer.worker.app import main

    leave(main(spare_host=host))
