"""``python -m antinfer.worker``: one worker process."""

from __future__ import annotations

from antinfer.launchers.leaving import leave
from antinfer.worker.app import main

if __name__ == "__main__":
    leave(main())
