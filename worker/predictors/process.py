"""The host's side of one predictor process: start it, write batches into its slabs, read its results, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa

from antinfer.worker import deaths, families
from antinfer.worker.blackbox import WHERE_ARE_YOU
from antinfer.worker.deaths import Death
from antinfer.worker.layout import Layout, divide
from antinfer.worker.pipeline import arrays
from antinfer.worker.pipeline.pieces import BadRow
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.wire import ROWS_COLUMN, Channel, Message
from antinfer.worker.shm import Slab, SlabWriter
from antinfer.worker.tuning.batchsize import slots_of

_STOP_SECONDS = 10.0
"""Time for the user's teardown."""
_LENT_SHARE = 0.5
"""A result that fills less of its slab is copied out of it."""
_MOST_LENT = 8
"""So are results while so many of this process are held: each slab costs its memory and an open file until the process ends."""
_STACK_SECONDS = 0.5
"""Time for a process to write down where it is."""


class PredictorProcess:
    """One running process. `send` and `receive` may be called from two threads."""

    def __init__(
        self,
        started: spawn.Started,
        stage: StageCall,
        threads: int,
        *,
        devices: Sequence[str] | None = None,
        front: StageCall | None = None,
        rows: int = 0,
        lends: bool = False,
    ) -> None:
        """Have `started` set the user code up; see `wire` for the arguments.

        With `lends`, large results stay in the slab that the process wrote them into, until nobody holds on to them any more.
        """
        self._process = started.process
        self._channel = Channel(started.end)
        self._box = started.box
        self._ooms = started.ooms
        self._writers = [SlabWriter("antinfer-batch") for _ in range(slots_of(has_front=front is not None))]
        self._results: dict[int, Slab] = {}
        """By place."""
        self._returned: deque[int] = deque()
        """Places that nobody needs any more, and that the process does not know of yet."""
        self._lends = lends
        self._lent: set[int] = set()
        """Places whose results somebody holds on to."""
        self._stage = stage
        self._send(
            {
                "is": "setup",
                "stage": asdict(stage),
                "threads": threads,
                "devices": None if devices is None else list(devices),
                "front": None if front is None else asdict(front),
                "rows": rows,
            }
        )

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, slot: int, parts: Sequence[pa.RecordBatch], *, fused: bool = False, full: int = 0, proven: bool = False) -> int:
        """Hand the batch that consists of `parts` over in `slot`, where a full one has `full` rows; return the bytes of its rows.

        With `proven` the stage has results, from this process or from others. A process that has died shows at `receive`.

        Raises OSError when there is no memory for it.
        """
        batch = divide(parts)
        layout, fresh = self._writers[slot].write(batch)
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        about = {"fused": fused, "full": full, "proven": proven, "returned": returned}
        self._send({"is": "batch", "slot": slot, "lies": layout.to_json(), **about}, fresh)
        return batch.nbytes

    def limit_threads(self, threads: int) -> None:
        """Have it compute with `threads` threads from the next batch on."""
        self._send({"is": "threads", "threads": threads})

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for a message; None when the process is gone. Raises TimeoutError when nothing comes for `timeout` seconds."""
        return self._channel.receive(timeout)

    def outcome(self, message: Message) -> Outcome:
        """Return a result; the slot is free then."""
        data = message.data
        place: int = data["place"]
        if message.descriptor is not None:
            self._results[place] = Slab(message.descriptor, os.fstat(message.descriptor).st_size)
        self.free(message)
        batch: pa.RecordBatch | None = self._result(place, Layout.from_json(data["lies"]))
        bad = [(row, BadRow(error, traceback, self._stage.name)) for row, error, traceback in data["bad"]]
        rows = None
        if batch is not None and ROWS_COLUMN in batch.schema.names:
            rows = arrays.to_plain(batch.column(ROWS_COLUMN))
            batch = batch.drop_columns([ROWS_COLUMN]) if batch.num_columns > 1 else None
        return Outcome(batch, rows, bad, data["ran"])

    def _result(self, place: int, layout: Layout) -> pa.RecordBatch:
        slab = self._results[place]
        if self._lends and layout.length >= _LENT_SHARE * slab.size_bytes and len(self._lent) < _MOST_LENT:
            self._lent.add(place)
            batch = slab.lend(layout, partial(self._has_returned, place)).batch
            assert batch is not None
            return batch
        batch = slab.read(layout)
        self._returned.append(place)
        return batch

    def _has_returned(self, place: int) -> None:
        self._lent.discard(place)
        self._returned.append(place)

    def free(self, message: Message) -> None:
        """Use the slot of an answered batch again; its slab too, unless user code holds on to what lies in it."""
        if message.data["kept"]:
            self._writers[message.data["slot"]].forget()

    def close(self) -> None:
        """Let go of the channel of a process that has ended, and of all slabs of which nobody holds anything."""
        self._results.clear()
        self._writers.clear()
        self._channel.close()
        self._box.close()

    def stop(self) -> None:
        """Let the process finish by itself, with the user's teardown; kill it when that takes too long."""
        self._send({"is": "stop"})
        deaths.wait(self._process, _STOP_SECONDS)
        self.kill()

    def kill(self) -> bool:
        """Kill the process and all that it has started; False when that is to no avail, because the kernel itself does not let go of it."""
        # Its number belongs to nobody else as long as there is anybody left in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        is_gone = deaths.wait(self._process, _STOP_SECONDS) is not None
        # What made groups of its own has lost its parent now.
        families.end_orphans()
        return is_gone

    def end_hanging(self) -> str:
        """Ask the process where it is, kill it, and return what it said: the Python stacks of its threads, empty when it did not."""
        before = self._box.written
        self._process.send_signal(WHERE_ARE_YOU)
        deadline = time.monotonic() + _STACK_SECONDS
        seen = before
        # Until it is there, and nothing more comes.
        while time.monotonic() < deadline and (seen == before or self._box.written != seen):
            seen = self._box.written
            time.sleep(_STACK_SECONDS / 50)
        stack = self._box.text()
        self._process.kill()
        return stack

    def end(self) -> Death:
        """Wait for a process whose channel has closed, or that was killed, and say how it ended."""
        code = deaths.wait(self._process, _STOP_SECONDS)
        if code is None:
            how = "closed its channel and hung" if self.kill() else "does not even die when it is killed: the kernel holds it"
            death = Death(deaths.DeathKind.HANG, how, self._box.text())
        else:
            death = deaths.of_status(code, ooms=self._ooms, box=self._box.text())
            self.kill()
        self.close()
        return death

    def _send(self, data: dict[str, Any], descriptor: int | None = None) -> None:
        try:
            self._channel.send(data, descriptor)
        except ConnectionError:
            # It died: the reader of this channel sees the end of it and restarts the process.
            return
