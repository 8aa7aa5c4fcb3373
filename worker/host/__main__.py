"""``python -m antinfer.worker.host FD [BOX]``: the stage host, started by an agent; FD is its end of the socket pair.

BOX is a file for what it can still say when it crashes or hangs; not given: that goes to standard error.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
import time

from antinfer.worker import blackbox
from antinfer.worker.predictors import spawn

_FILES = 1 << 14
"""A predictor process takes six descriptors, and many a shell grants 1,024 where there are 192 cores."""


def _raise_limit_of_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _import_all() -> None:
    from antinfer.launchers.ahead import import_ahead
    from antinfer.storage.lean import keep_pandas_out

    keep_pandas_out()
    # The last ones depend on the job; most jobs want these.
    import_ahead("antinfer.worker.host.app", "antinfer.storage.posix", "antinfer.storage.sources.parquet", "antinfer.storage.sinks.parquet")


def main(descriptor: int, box: int | None = None) -> int:
    """Run a host for the agent behind `descriptor`; return the exit code."""
    blackbox.keep(box)
    began = time.monotonic()
    # Standard output belongs to the command that started it all; what user code prints goes where logs go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _raise_limit_of_files()
    spare = spawn.start_spare()

    from antinfer.worker.host.early import receive_setup, start_predictors
    from antinfer.worker.host.link import AgentLink

    # This is what takes the time: it goes on while the agent looks for its master, and later while the predictors load.
    imports = threading.Thread(target=_import_all, name="imports", daemon=True)
    imports.start()
    link = AgentLink(socket.socket(fileno=descriptor))
    setup = receive_setup(link)
    if setup is None:
        return 0
    started = start_predictors(setup, spare)
    # Two threads that import the same packages can meet in a circle of imports and find a module half made.
    imports.join()

    from antinfer.worker.host import failing
    from antinfer.worker.host.app import Host

    try:
        return Host(link, setup, started, began, box).run()
    except Exception as error:  # noqa: BLE001 - told to the agent, who would otherwise start hosts again and again
        link.send(failing.failed(None, error))
        return 1


if __name__ == "__main__":
    code = main(*map(int, sys.argv[1:]))
    sys.stderr.flush()
    # Threads of user code may still run; nothing of ours is left to be done.
    os._exit(code)
