"""The predictor's side: one copy of a stage's user code in a process of its own."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from typing import Any

import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.storage.lean import keep_pandas_out
from antinfer.worker.calls import Caller
from antinfer.worker.pipeline import arrays
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.wire import ROWS_COLUMN, Channel, Message
from antinfer.worker.shm import Loan, Slab, SlabWriter


def serve(descriptor: int) -> int:
    """Serve the host at the other end of the socket `descriptor` until it says stop or is gone; return the exit code."""
    # Standard output belongs to the command that started it all; what user code prints goes where logs go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = Channel(socket.socket(fileno=descriptor))
    setup = channel.receive()
    if setup is None:
        return 0
    keep_pandas_out()
    try:
        caller = Caller(StageCall(**setup.data["stage"]), copy=False)
        _limit_threads(setup.data["threads"])
        channel.send({"is": "ready"})
        _Server(channel, caller).run()
    except UserCodeError as error:
        return _give_up(channel, str(error), error.hint, error.user_traceback)
    except ConnectionError:
        # The host is gone, and with it everybody who wants a result.
        return 0
    except Exception as error:  # noqa: BLE001 - a mistake of ours must not look like a row that kills
        return _give_up(channel, f"a predictor failed: {type(error).__name__}: {error}", "", traceback.format_exc())
    return 0


def _give_up(channel: Channel, error: str, hint: str, trace: str) -> int:
    channel.send({"is": "failed", "error": error, "hint": hint, "traceback": trace})
    return 1


class _Server:
    def __init__(self, channel: Channel, caller: Caller) -> None:
        self._channel = channel
        self._caller = caller
        self._inputs: dict[int, Slab] = {}
        self._outputs: dict[int, SlabWriter] = {}

    def run(self) -> None:
        while (message := self._channel.receive()) is not None and message.data["is"] == "batch":
            self._answer(message)
        if message is not None:
            self._caller.close()

    def _answer(self, message: Message) -> None:
        slot: int = message.data["slot"]
        if message.descriptor is not None:
            self._inputs[slot] = Slab(message.descriptor, os.fstat(message.descriptor).st_size)
        loan = self._inputs[slot].lend(message.data["length"])
        began = time.monotonic()
        result, bad = self._call(loan)
        seconds = time.monotonic() - began
        length, fresh = self._outputs.setdefault(slot, SlabWriter("antinfer-results")).write(result)
        del result
        kept = not loan.give_back()
        self._channel.send({"is": "result", "slot": slot, "length": length, "bad": bad, "kept": kept, "seconds": seconds}, fresh)

    def _call(self, loan: Loan) -> tuple[pa.RecordBatch, list[list[Any]]]:
        assert loan.batch is not None
        outcome = self._caller.run(loan.batch)
        bad = [[row, reason.error, reason.traceback] for row, reason in outcome.bad or ()]
        return _with_rows(outcome), bad


def _with_rows(outcome: Outcome) -> pa.RecordBatch:
    if outcome.rows is None:
        return outcome.batch
    rows = arrays.from_plain(outcome.rows)
    if outcome.batch is None:
        return pa.RecordBatch.from_arrays([rows], names=[ROWS_COLUMN])
    return pa.RecordBatch.from_arrays([*outcome.batch.columns, rows], names=[*outcome.batch.schema.names, ROWS_COLUMN])


def _limit_threads(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
