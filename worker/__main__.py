"""``python -m antinfer.worker``: one worker process."""

from __future__ import annotations

import sys

from antinfer.worker.app import main

if __name__ == "__main__":
    sys.exit(main())
