"""The bare master as a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contest import usual_environment

_START_S = 60.0


@contextmanager
def master_process(shards: int, folder: Path, event_log: str = "full") -> Iterator[str]:
    """Run `benchmarks.bare_master` with its store in `folder` for the time of the block; gives its address once it listens.

    Raises RuntimeError when it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="antinfer-") as place:
        listening = Path(place, "master")
        address = f"unix://{listening}"
        command = [sys.executable, "-m", "benchmarks.bare_master", address, str(shards), str(folder), event_log]
        process = subprocess.Popen(command, env=usual_environment())
        try:
            deadline = time.monotonic() + _START_S
            while not _is_open(listening):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the master did not start (exit status {process.poll()})")
                time.sleep(0.002)
            yield address
        finally:
            process.terminate()
            process.wait()


def _is_open(path: Path) -> bool:
    """Tell whether somebody listens at `path`: the name is there before that."""
    with socket.socket(socket.AF_UNIX) as end:
        return end.connect_ex(str(path)) == 0
