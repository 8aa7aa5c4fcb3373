"""``python -m antinfer.worker.host FD``: the stage host, started by an agent; FD is its end of the socket pair."""

from __future__ import annotations

import os
import socket
import sys
import time

from antinfer.worker.host.early import receive_setup, start_predictors
from antinfer.worker.host.link import AgentLink


def main(descriptor: int) -> int:
    """Run a host for the agent behind `descriptor`; return the exit code."""
    began = time.monotonic()
    # Standard output belongs to the command that started it all; what user code prints goes where logs go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    link = AgentLink(socket.socket(fileno=descriptor))
    setup = receive_setup(link)
    if setup is None:
        return 0
    started = start_predictors(setup)

    # Imported while the predictors load: this is what takes the time.
    from antinfer.errors import AntinferError
    from antinfer.worker.host import failing
    from antinfer.worker.host.app import Host

    try:
        return Host(link, setup, started, began).run()
    except AntinferError as error:
        link.send(failing.failed(None, error))
        return 1


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    # Threads of user code may still run; nothing of ours is left to be done.
    os._exit(code)
