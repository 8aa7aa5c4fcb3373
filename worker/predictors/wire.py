"""What a host and its predictor say to each other: JSON lines over a socket pair, slab descriptors beside them; never a pickle.

::

    host -> predictor    {"is": "setup", "stage": {...}, "threads": n, "devices": ["0"] | null, "front": {...} | null, "rows": n}
                         {"is": "batch", "slot": s, "lies": [...], "fused": bool, "full": n, "proven": bool, "returned": [place, ...]}
                                                                            + descriptor of the slot's slab when it is a new one
                         {"is": "threads", "threads": n}
                         {"is": "stop"}
    predictor -> host    {"is": "ready", "load_seconds": x, "device": name, "dtype": name, "depth": n}
                         {"is": "alive"}                                    a sign of life within a batch of many calls
                         {"is": "aside", "slot": s}                         the stage in front works on the batch in a thread of its own
                         {"is": "made", "slot": s}                          and has done so
                         {"is": "failed", "error": ..., "hint": ..., "traceback": ..., "hopeless": bool, "passing": bool}
                         {"is": "result", "slot": s, "place": n, "lies": [...], "bad": [[row, error, traceback], ...], "ran": n | null,
                          "kept": bool, "seconds": x, "free": bytes | null, "memory": [own, shared, device] | null}
                                                              + descriptor of the slab in that place when it is a new one;
                                                              `kept`: use another slab for this slot next time
                         {"is": "oom", "slot": s, "kept": bool, "seconds": x, "error": ...}

`devices` are what ``CUDA_VISIBLE_DEVICES`` shall name, null leaves it as it is; `front` is the stage before when its batches may come raw
(`fused`); `rows` and `full` are the rows of a full batch of this stage; `proven`: it has results, so that no failure is hopeless any more.
What is `passing` is the fault of storage or network, and not of user code.
`lies` is where a batch lies in its slab (`worker.layout`). Batches have a slab for each slot, results one for each place: the host may hold
on to results while the next ones are made, and says with a batch which places it has done with (`returned`). `ran`: no more than so many
rows of the batch were run, the first ones. `depth`: batches that its user code computes at once.
Of the seconds that two batches spend together, the one that ends first is told all: sums never exceed the clock. `free` is what memory
the device has left after a batch larger than all before.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from collections import deque
from dataclasses import dataclass
from typing import Any

_CHUNK = 1 << 16
_DESCRIPTORS = 8

ROWS_COLUMN = "antinfer.rows"
"""Column of a result that says which row of the batch each row came from; missing when they go one for one."""


@dataclass(frozen=True, slots=True)
class Message:
    data: dict[str, Any]
    descriptor: int | None
    """Open file of a slab, owned by the receiver."""


class Channel:
    """One end of the socket pair. One thread may send while another receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._text = bytearray()
        self._searched = 0
        self._descriptors: deque[int] = deque()

    def send(self, data: dict[str, Any], descriptor: int | None = None) -> None:
        """Send one message and close `descriptor`, which the other side gets a copy of. Raises OSError when the other side is gone."""
        try:
            line = json.dumps({**data, "slab": descriptor is not None}, separators=(",", ":")).encode() + b"\n"
            if descriptor is not None:
                # The descriptor travels with the first byte, so that it is there when its line is complete.
                socket.send_fds(self._socket, [line[:1]], [descriptor])
                line = line[1:]
            self._socket.sendall(line)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for one message; None when the other side is gone.

        Raises TimeoutError when nothing comes for `timeout` seconds, and OSError when this process has too many files open to receive one.
        """
        while (end := self._text.find(b"\n", self._searched)) < 0:
            self._searched = len(self._text)
            if timeout is not None and not self._comes(timeout):
                raise TimeoutError
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                return None
            self._descriptors.extend(descriptors)
            if not data:
                return None
            self._text += data
        line = bytes(self._text[:end])
        del self._text[: end + 1]
        self._searched = 0
        message: dict[str, Any] = json.loads(line)
        if not message.pop("slab"):
            return Message(message, None)
        if not self._descriptors:
            # The kernel throws away what there is no room for, and says nothing.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Message(message, self._descriptors.popleft())

    def has_more(self, timeout: float) -> bool:
        """Tell whether `receive` has something to read within `timeout` seconds: a message, or the news that the other side is gone."""
        return self._text.find(b"\n", self._searched) >= 0 or self._comes(timeout)

    def _comes(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1e3))

    def close(self) -> None:
        """Close this end and every descriptor that no message has claimed."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._socket.close()
