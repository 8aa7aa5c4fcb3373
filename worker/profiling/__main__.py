"""``python -m antinfer.worker.profiling FD PARENT``: measures one job, told what and asked for the result over the socket FD.

::

    parent -> profiler    {"is": "setup", "job": document, "rows": n | null, "seconds": x, "folder": path}
    profiler -> parent    {"is": "step", "text": ...}
                          {"is": "profile", "profile": {...}}
                          {"is": "failed", "outcome": {...}}
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from antinfer.errors import AntinferError, InternalError
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.parent import die_with_parent
from antinfer.worker.predictors.wire import Channel


def main(descriptor: int) -> int:
    """Measure for the command behind `descriptor`; return the exit code."""
    # Standard output belongs to the command that started us; what user code prints goes where logs go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = Channel(socket.socket(fileno=descriptor))
    setup = channel.receive()
    if setup is None:
        return 0
    try:
        channel.send({"is": "profile", "profile": _profile(channel, setup.data)})
    except AntinferError as error:
        channel.send({"is": "failed", "outcome": asdict(Outcome.of(error))})
    except Exception as error:  # noqa: BLE001 - whatever it is, the command has to hear of it
        import traceback

        bug = InternalError(f"the profiler failed: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        channel.send({"is": "failed", "outcome": asdict(Outcome.of(bug))})
    return 0


def _profile(channel: Channel, data: dict[str, Any]) -> dict[str, Any]:
    from antinfer.storage.lean import keep_pandas_out

    keep_pandas_out()
    from antinfer.spec.canonical import from_document
    from antinfer.worker.profiling.profiler import Options, profile

    options = Options(data["rows"], data["seconds"])
    made = profile(from_document(data["job"]), options, Path(data["folder"]), lambda text: channel.send({"is": "step", "text": text}))
    return made.to_json()


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    # Threads of user code may still run; nothing of ours is left to be done.
    os._exit(code)
