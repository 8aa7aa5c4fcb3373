"""The predictor's side: one copy of a stage's user code in a process of its own.

Plain user code is given one batch after the other. Asynchronous code (`worker.calls`) is given the next batch while the last one is being
computed; when one of them fails, all that were begun are ended first, so that what is tried again runs alone. A stage in front that works
in this process may do so aside (its `submit` returns a future): batches that do not need it go on meanwhile, so answers come in any order.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from antinfer import faultpoints
from antinfer.errors import InfraError, UserCodeError
from antinfer.storage.lean import keep_pandas_out
from antinfer.worker.calls import Begun, Caller, Fault
from antinfer.worker.deaths import BROKEN_DEVICE
from antinfer.worker.host.nvml import GpuReader
from antinfer.worker.layout import Layout
from antinfer.worker.pipeline import arrays
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.spawn import THREAD_VARIABLES
from antinfer.worker.predictors.wire import ROWS_COLUMN, Channel, Message
from antinfer.worker.shm import Loan, Slab, SlabShelf

_STREAMS_AT_ONCE = 32
"""As many queues as CUDA can have. Streams that share one wait for each other: with eight, decoding on a dozen of its own stood still
while a model ran."""
_NICE = 5
"""What runs a map stage gives way to what feeds devices: they idle when that waits for a core, and then all the others wait for them."""
_PULSE_SECONDS = 0.1
"""Signs of life are that far apart at least."""
_LOOK_SECONDS = 1e-3
"""While a batch is computed, so often it is looked whether it is done: the one after it must reach the device before that."""
_MOST_UNCOUNTED = 100
"""Stretches of time of an overtaken batch that are kept: it may be overtaken very often."""
_WEIGH_SECONDS = 1.0
"""And so far what is said about memory."""


def serve(descriptor: int, box: int) -> int:
    """Serve the host at the other end of the socket `descriptor` until it says stop or is gone; return the exit code.

    Into the file `box` goes what nobody could say any more who waited for an answer.
    """
    # Standard output belongs to the command that started it all; what user code prints goes where logs go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = Channel(socket.socket(fileno=descriptor))
    setup = channel.receive()
    if setup is None:
        return 0
    began = time.monotonic()
    keep_pandas_out()
    data = setup.data
    if data["stage"]["kind"] != "predict":
        os.nice(_NICE)
    # Read by the driver when a device is first used, so it is in time for whatever user code does.
    os.environ.update({} if data["devices"] is None else {"CUDA_VISIBLE_DEVICES": ",".join(data["devices"])})
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", str(_STREAMS_AT_ONCE))
    try:
        faultpoints.hit("predictor.load", stage=data["stage"]["name"])
        _limit_threads(data["threads"])
        front = None if data["front"] is None else StageCall(**data["front"])
        caller = Caller(StageCall(**data["stage"]), copy=False, front=front, rows=data["rows"])
        _limit_threads(data["threads"])
        device = _device_name(data["devices"])
        ready = {"device": device, "dtype": caller.attribute("dtype"), "depth": caller.depth}
        channel.send({"is": "ready", "load_seconds": time.monotonic() - began, **ready})
        _Server(channel, caller, data["rows"], box).run()
    except UserCodeError as error:
        return _give_up(channel, str(error), error.hint, error.user_traceback, hopeless=error.hopeless)
    except InfraError as error:
        return _give_up(channel, str(error), error.hint, "", passing=True)
    except ConnectionError:
        # The host is gone, and with it everybody who wants a result.
        return 0
    except Exception as error:  # noqa: BLE001 - a mistake of ours must not look like a row that kills
        return _give_up(channel, f"a predictor failed: {type(error).__name__}: {error}", "", traceback.format_exc())
    return 0


def _give_up(channel: Channel, error: str, hint: str, trace: str, *, hopeless: bool = False, passing: bool = False) -> int:
    channel.send({"is": "failed", "error": error, "hint": hint, "traceback": trace, "hopeless": hopeless, "passing": passing})
    return 1


@dataclass(slots=True)
class _Job:
    """A batch between its arrival and its answer."""

    slot: int
    loan: Loan
    begun: Begun
    began: float
    rows: int
    is_made: threading.Event = field(default_factory=threading.Event)
    """The stage in front has done its part aside, and the host knows."""

    def give_back(self) -> bool:
        # It holds on to the batch.
        del self.begun
        return self.loan.give_back()


class _Server:
    def __init__(self, channel: Channel, caller: Caller, rows: int, box: int) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._caller = caller
        self._box = box
        self._pulse_at = self._weighed_at = 0.0
        caller.pulse = self._pulse
        self._full = rows
        self._inputs: dict[int, Slab] = {}
        self._outputs = SlabShelf("antinfer-results")
        self._coming: deque[_Job] = deque()
        """Batches on which the stage in front still works, oldest first."""
        self._jobs: deque[_Job] = deque()
        """Batches that are being computed, oldest first; they overtake those that still come."""
        self._counted = 0.0
        """Everything before this moment is in the seconds of some batch, but for `_uncounted`."""
        self._uncounted: list[tuple[float, float]] = []
        """Times before that, begin and end, in which only batches were under way that were overtaken."""
        self._largest = 0

    def run(self) -> None:
        try:
            is_told = self._served()
        finally:
            # Nobody waits for them any more, but the end of the process would.
            for job in self._coming:
                assert job.begun.coming is not None
                job.begun.coming.cancel()
        if is_told:
            self._caller.close()

    def _served(self) -> bool:
        """Serve until the host says stop (true) or is gone."""
        while True:
            # What the stage in front has done goes first: it was there before anything that waits to be read.
            while self._may_submit or len(self._jobs) >= self._caller.depth or not self._more_comes():
                if self._may_submit:
                    self._submit(self._coming.popleft())
                else:
                    self._end(self._jobs.popleft())
            message = self._channel.receive()
            if message is None:
                return False
            match message.data["is"]:
                case "batch":
                    self._begin(message)
                case "threads":
                    _limit_threads(message.data["threads"])
                case _:
                    return True

    def _more_comes(self) -> bool:
        """Wait for a message as long as nobody waits for a result, or with one; false when there is something to go on with."""
        patience = 0.0
        while (self._jobs or self._coming) and not self._channel.has_more(patience):
            if self._may_submit or (self._jobs and self._caller.is_done(self._jobs[0].begun)):
                return False
            patience = _LOOK_SECONDS
        return True

    @property
    def _may_submit(self) -> bool:
        """The stage in front has done its part of the oldest batch there, and there is room for it."""
        return len(self._jobs) < self._caller.depth and bool(self._coming) and self._coming[0].is_made.is_set()

    # -- batches ---------------------------------------------------------------------------------------------------------------------
    def _begin(self, message: Message) -> None:
        data = message.data
        slot: int = data["slot"]
        if message.descriptor is not None:
            self._map(slot, message.descriptor)
        self._outputs.give_back(data["returned"])
        if data["full"] != self._full:
            self._full = data["full"]
            self._caller.tell("expect", self._full)
        self._caller.standing.has_results = self._caller.standing.has_results or data["proven"]
        loan = self._inputs[slot].lend(Layout.from_json(data["lies"]))
        assert loan.batch is not None
        began = time.monotonic()
        begun = self._caller.begin(loan.batch, fused=data["fused"])
        job = _Job(slot, loan, begun, began, loan.batch.num_rows)
        # It holds on to the batch, which lies in the slab.
        del begun
        self._admit(job)

    def _admit(self, job: _Job) -> None:
        """Put a batch where it is waited for."""
        if job.begun.fault is not None:
            self._fail(job, job.begun.fault)
        elif job.begun.coming is not None:
            self._coming.append(job)
            self._send({"is": "aside", "slot": job.slot})
            job.begun.coming.add_done_callback(partial(self._made, job.slot, job.is_made))
        else:
            self._jobs.append(job)

    def _made(self, slot: int, is_made: threading.Event, future: Future[Any]) -> None:
        """Say, in the thread of the stage in front, that this has done its part: it may be long until ours looks."""
        # When the host is gone our thread hears of it.
        with contextlib.suppress(ConnectionError):
            self._send({"is": "made", "slot": slot})
        is_made.set()

    def _submit(self, job: _Job) -> None:
        job.begun = self._caller.submit(job.begun)
        self._admit(job)

    def _end(self, job: _Job) -> None:
        ended = self._caller.end(job.begun)
        if isinstance(ended, Fault):
            self._fail(job, ended)
        else:
            self._answer(job, ended)

    def _fail(self, job: _Job, fault: Fault) -> None:
        """Have a batch that does not fit into memory sent again in halves; run any other again until the guilty rows are known."""
        _die_if_device_is_broken(fault, self._box)
        if fault.no_memory and job.rows > 1:
            kept = not job.give_back()
            _release_memory()
            self._send({"is": "oom", "slot": job.slot, "kept": kept, "seconds": self._seconds(job), "error": fault.error})
            return
        ended: list[tuple[_Job, Outcome | Fault]] = [(job, fault)]
        ended += [(other, self._caller.end(other.begun, copy=True)) for other in self._jobs]
        self._jobs.clear()
        for each, _ in ended:
            each.begun = each.begun.bare
        put_off = self._wait_for_front(drop=fault.no_memory)
        if fault.no_memory:
            _release_memory()
        for each, outcome in sorted(ended, key=lambda pair: pair[0].began):
            self._answer(each, self._recover(each, outcome) if isinstance(outcome, Fault) else outcome)
        for each in put_off:
            each.begun = self._caller.begin(each.begun.batch, fused=each.begun.fused)
            self._admit(each)

    def _wait_for_front(self, *, drop: bool) -> list[_Job]:
        """Wait until the stage in front has nothing left to do, so that it is free for what is tried again; return what was dropped."""
        for job in self._coming:
            # Whether that one hangs is watched by itself: we live.
            while not job.is_made.wait(_PULSE_SECONDS):
                self._pulse()
        if not drop:
            return []
        dropped = list(self._coming)
        self._coming.clear()
        for job in dropped:
            job.begun = job.begun.bare
            job.is_made = threading.Event()
        return dropped

    def _recover(self, job: _Job, fault: Fault) -> Outcome:
        fused = job.begun.fused
        if fault.no_memory:
            # It may have been short of the memory that others held, who have let go of it.
            return self._caller.run(job.begun.batch, fused=fused)
        return self._caller.recover(job.begun.batch, fault, fused=fused)

    def _answer(self, job: _Job, outcome: Outcome) -> None:
        faultpoints.hit("predictor.answer", rows=job.rows)
        seconds = self._seconds(job)
        bad = [[row, reason.error, reason.traceback] for row, reason in outcome.bad or ()]
        place, layout, fresh = self._outputs.write(_with_rows(outcome))
        outcome.batch = None
        free = _free_memory() if job.rows > self._largest else None
        self._largest = max(self._largest, job.rows)
        answer = {"is": "result", "slot": job.slot, "place": place, "lies": layout.to_json(), "bad": bad}
        answer |= {"ran": outcome.ran, "seconds": seconds}
        self._send({**answer, "free": free, "memory": self._weigh(), "kept": not job.give_back()}, fresh)

    def _seconds(self, job: _Job) -> float:
        """Return the time since a batch was begun, without what was counted for others."""
        now = time.monotonic()
        times, self._counted = [*self._uncounted, (self._counted, now)], now
        oldest = min((other.began for other in (*self._coming, *self._jobs)), default=now)
        left = [(begin, min(end, job.began)) for begin, end in times if begin < job.began and min(end, job.began) > oldest]
        self._uncounted = left[-_MOST_UNCOUNTED:]
        return sum(max(0.0, end - max(begin, job.began)) for begin, end in times)

    def _weigh(self) -> list[int] | None:
        """Return what user code holds, now and then: memory of the process, shared memory and memory of the device, in bytes."""
        now = time.monotonic()
        if now - self._weighed_at < _WEIGH_SECONDS:
            return None
        self._weighed_at = now
        resident, shared = _resident_memory()
        # What we hand over in is no leak of the user's, however it grows.
        shared = max(0, shared - self._outputs.size_bytes - sum(slab.size_bytes for slab in self._inputs.values()))
        cuda = _cuda()
        return [resident, shared, 0 if cuda is None else int(cuda.memory_reserved())]

    def _pulse(self) -> None:
        """Tell the host, now and then, that one call has come back and another one begins."""
        now = time.monotonic()
        if now - self._pulse_at >= _PULSE_SECONDS:
            self._pulse_at = now
            self._send({"is": "alive"})

    def _send(self, data: dict[str, Any], descriptor: int | None = None) -> None:
        with self._sending:
            self._channel.send(data, descriptor)

    def _map(self, slot: int, descriptor: int) -> None:
        old = self._inputs.pop(slot, None)
        if old is not None:
            self._caller.tell("unregister", old.view())
        self._inputs[slot] = slab = Slab(descriptor, os.fstat(descriptor).st_size)
        self._caller.tell("register", slab.view())


def _with_rows(outcome: Outcome) -> pa.RecordBatch:
    if outcome.rows is None:
        return outcome.batch
    rows = arrays.from_plain(outcome.rows)
    if outcome.batch is None:
        return pa.RecordBatch.from_arrays([rows], names=[ROWS_COLUMN])
    return pa.RecordBatch.from_arrays([*outcome.batch.columns, rows], names=[*outcome.batch.schema.names, ROWS_COLUMN])


def _limit_threads(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    elif "torch._dynamo" not in sys.modules:
        # A compiled model is compiled again for another number of threads, and nothing comes out meanwhile.
        torch.set_num_threads(threads)


def _cuda() -> Any:
    """Return ``torch.cuda`` when user code has put it to use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _device_name(devices: list[str] | None) -> str:
    if (cuda := _cuda()) is not None:
        return str(cuda.get_device_name())
    if not devices:
        return "CPU"
    # Code may compute there without torch, or first with a batch.
    return GpuReader(devices).model() or f"GPU {', '.join(devices)}"


def _free_memory() -> int | None:
    cuda = _cuda()
    return None if cuda is None else int(cuda.mem_get_info()[0])


def _resident_memory() -> tuple[int, int]:
    """Return the resident memory of this process, what it shares left out, and what it shares."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = (int(pages) * mmap.PAGESIZE for pages in file.read().split())
    except OSError:
        return 0, 0
    return resident - shared, shared


def _release_memory() -> None:
    gc.collect()
    if (cuda := _cuda()) is not None:
        cuda.empty_cache()


def _die_if_device_is_broken(fault: Fault, box: int) -> None:
    """End the process when its device answers no call any more: every row would fail from now on, whoever is to blame."""
    cuda = _cuda()
    if cuda is None:
        return
    try:
        cuda.synchronize()
    except RuntimeError as error:
        text = f"{fault.traceback}the device cannot be used any more: {error}\n"
        sys.stderr.write(text)
        sys.stderr.flush()
        os.write(box, f"{fault.traceback}{fault.error.splitlines()[0]}\n".encode())
        os._exit(BROKEN_DEVICE)
