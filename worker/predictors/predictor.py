"""Supervision of a predictor process: keep it fed, take its results, and start it again when it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from antinfer.core.causes import Cause
from antinfer.errors import InfraError, UserCodeError
from antinfer.worker import deaths
from antinfer.worker.calls import select_columns
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.leaks import Enough, Memory
from antinfer.worker.pipeline.splitter import Outcome, cut
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.care import Care
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.inquest import Inquest
from antinfer.worker.predictors.process import PredictorProcess
from antinfer.worker.predictors.sizing import Sizing
from antinfer.worker.predictors.watch import LOOK_SECONDS, Overdue, Watch
from antinfer.worker.predictors.wire import Message
from antinfer.worker.tuning.batchsize import Sample, slots_of

_LOG = logging.getLogger("antinfer.predictors")
_LAST_WORDS_SECONDS = 15.0
"""What a killed process said before is heard for so long; the kernel may not let go of one that hangs in a driver."""
_HANG_UP_SECONDS = 1.0
"""A channel lives on after its process where user code has started others that inherited it; nobody waits for them."""


class Predictor:
    """One supervised process of one stage. `run` is its thread, which must live as long as the process."""

    def __init__(
        self,
        node: int,
        stage: StageCall,
        feed: Feed,
        *,
        threads: int,
        started: spawn.Started | None = None,
        devices: Sequence[str] | None = None,
        front: StageCall | None = None,
        sizing: Sizing | None = None,
        care: Care | None = None,
    ) -> None:
        """Nothing runs yet, but for `started`.

        Args:
            node: Number of the stage in `feed`.
            stage: What to call.
            feed: Where batches come from and go to.
            threads: Threads that the process computes with.
            started: A process that is loading already; None: `run` starts one.
            devices: What the process may see of the GPUs; None: all.
            front: The stage before, for batches that come raw (`Assembled.fused`): its target is what runs on the device.
            sizing: The batch size of this stage, shared with its other predictors; None: one of its own.
            care: What else it shares with them; None: nothing.
        """
        self._node = node
        self._stage = stage
        self._feed = feed
        self._threads = threads
        self.devices = devices
        """What the process may see of the GPUs; None: all."""
        self._front = front
        self._most_slots = slots_of(has_front=front is not None)
        self._sizing = Sizing(node, stage, feed, slots=self._most_slots) if sizing is None else sizing
        self._care = Care() if care is None else care
        self.load_seconds = 0.0
        """Time that the user code took to set up, the last time."""
        self._told_threads = threads
        self._ready = threading.Event()
        self._inbox: deque[Message | OSError | None] = deque()
        self._again: deque[Assembled] = deque()
        """Batches to be run again, oldest first, before new ones."""
        self._under_way: dict[int, Assembled] = {}
        """Slot -> batch, oldest first."""
        self._sent_bytes: dict[int, int] = {}
        self._inquest = Inquest(node, stage, feed, self._sizing, self._care)
        self._memory = Memory()
        self._enough: Enough | None = None
        """Why the process is to be started afresh as soon as it owes nothing."""
        self._overdue: Overdue | None = None
        self._stack = ""
        """Of a process that hung."""
        self._stopping = False
        self._ready_now = False
        self._has_answered = False
        """The process has, since it was started."""
        self._depth = 1
        """Batches that the user code computes at once."""
        self._retiring = False
        self._noticed = False
        """`run` knows that it is retiring."""
        self._dismissed: PredictorProcess | None = None
        """Whose end is no news."""
        self._process = None if started is None else self._adopt(started)

    def wait_ready(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; true once the user code has been set up."""
        return self._ready.wait(timeout)

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The process at work; None before there is one."""
        return None if self._process is None else self._process.pid

    def limit_threads(self, threads: int) -> None:
        """Have the process compute with `threads` threads from its next batch on. May be called by any thread."""
        self._threads = threads
        self._feed.wake_up(self._node)

    def retire(self) -> None:
        """Have `run` take no more batches, finish those under way, let the process tear down, and return. May be called by any thread."""
        self._retiring = True
        self._feed.wake_up(self._node)

    def run(self) -> None:
        """Feed the process until the flow stops or it is retired, then let it tear down.

        Raises UserCodeError when the user code is at fault for good, and InfraError for trouble of this machine, of storage or network.
        """
        try:
            if self._process is None:
                self._process = self._adopt(spawn.start(self._threads))
            while not self._is_done():
                self._noticed = self._retiring
                self._handle_messages()
                self._tell_threads()
                if self._enough and not self._under_way:
                    self._start_afresh()
                call = self._next()
                if call is not None:
                    self._hand_over(call)
                    # Its memory must not be held while the next one is waited for, which may be long.
                    del call
                elif not self._woken():
                    break
            self._stopping = True
            if self._ready_now:
                self._process.stop()
            else:
                self._process.kill()
        except BaseException:
            self._stopping = True
            if self._process is not None:
                self._process.kill()
            raise
        finally:
            self._hang_up()

    # -- feeding ---------------------------------------------------------------------------------------------------------------------
    def _is_done(self) -> bool:
        return self._retiring and not (self._inbox or self._under_way or self._again)

    def _woken(self) -> bool:
        # Whoever waits for a batch must hear that it is to take none.
        return bool(self._inbox) or self._retiring != self._noticed or self._is_done() or self._owes_threads

    def _next(self) -> Assembled | None:
        while True:
            may_send = self._ready_now and not self._enough and len(self._under_way) < self._slots
            if self._again and may_send:
                call: Assembled | None = self._again.popleft()
            else:
                want = may_send and not self._again and not self._noticed
                call = self._feed.take(self._node, want=want, owed=len(self._under_way), wake=self._woken)
            if call is None or not call.deaths or not call.is_dropped:
                return call
            # A suspect that nobody wants any more is not worth another death.
            self._feed.finish(self._node, call, Outcome.nothing(), 0.0)

    @property
    def _owes_threads(self) -> bool:
        return self._ready_now and self._told_threads != self._threads

    def _tell_threads(self) -> None:
        if self._owes_threads:
            assert self._process is not None
            self._told_threads = self._threads
            self._process.limit_threads(self._told_threads)

    @property
    def _slots(self) -> int:
        # A batch under suspicion runs alone, so that nobody else is blamed for its deaths.
        suspects = [*self._under_way.values(), *list(self._again)[:1]]
        return 1 if any(call.deaths for call in suspects) else self._most_slots

    def _hand_over(self, call: Assembled) -> None:
        slot = next(slot for slot in range(self._most_slots) if slot not in self._under_way)
        self._under_way[slot] = call
        stage = self._front if call.fused and self._front is not None else self._stage
        parts = call.batches(lambda batch: select_columns(batch, stage))
        assert self._process is not None
        self._watch.handed(slot, call)
        full, proven = self._feed.batch_rows(self._node), self._care.standing.has_results
        self._sent_bytes[slot] = self._process.send(slot, parts, fused=call.fused, full=full, proven=proven)

    # -- what the process says -------------------------------------------------------------------------------------------------------
    def _handle_messages(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if message is None:
                self._bury()
                continue
            if isinstance(message, OSError):
                raise message
            match message.data["is"]:
                case "ready":
                    self._welcome(message.data)
                case "failed":
                    self._hear_out(message.data)
                case "oom":
                    self._halve(message)
                case "result":
                    self._finish(message)

    def _welcome(self, data: dict[str, Any]) -> None:
        self._ready_now = True
        self._inquest.was_set_up()
        self.load_seconds = data["load_seconds"]
        self._sizing.ready(data["device"], data["dtype"])
        self._depth = data["depth"]
        _LOG.info(
            "%s is ready on %s after %.1f s",
            self._stage.where,
            data["device"],
            data["load_seconds"],
            extra={"action": "ready", "stage": self._stage.name, "device": data["device"], "load_seconds": round(data["load_seconds"], 3)},
        )
        self._ready.set()

    def _finish(self, message: Message) -> None:
        assert self._process is not None
        data = message.data
        call, size = self._under_way.pop(data["slot"]), self._sent_bytes.pop(data["slot"])
        outcome = self._process.outcome(message)
        if len(outcome.bad or ()) < cut(call, outcome)[0].rows:
            self._care.standing.has_results = True
        self._inquest.has_worked()
        self._has_answered = True
        self._look_after(data)
        if not outcome.bad and outcome.ran is None:
            # One with bad rows was run several times over, and one that was cut short says nothing about its size.
            self._sizing.observe(Sample(call.rows, size, data["seconds"], self._process.pid, data["free"], call.fused))
        elif call.rows == 1:
            self._sizing.acquit(call)
        self._feed.finish(self._node, call, outcome, data["seconds"])

    def _hear_out(self, data: dict[str, Any]) -> None:
        """Raise what a process gives up for, unless it held for hopeless what has worked elsewhere meanwhile."""
        if data["passing"]:
            raise InfraError(data["error"], hint=data["hint"])
        if not (data["hopeless"] and self._care.standing.has_results):
            error, trace = data["error"], data["traceback"]
            raise UserCodeError(error, hint=data["hint"], user_traceback=trace, hopeless=data["hopeless"])
        self._again.extendleft(reversed(self._under_way.values()))
        self._under_way.clear()
        self._sent_bytes.clear()
        self._enough = Enough(Cause.HOPELESS, "it had seen none but bad rows")
        self._start_afresh()

    def _halve(self, message: Message) -> None:
        """Run a batch that does not fit into memory again in two parts, and have later ones cut smaller."""
        assert self._process is not None
        call = self._under_way.pop(message.data["slot"])
        del self._sent_bytes[message.data["slot"]]
        self._process.free(message)
        self._has_answered = True
        self._sizing.ran_out(call)
        self._care.note(Cause.GPU_OOM, f"a batch of {call.rows} rows did not fit into memory and is run in halves", call)
        self._feed.hold(self._node)
        self._again.extendleft(reversed(call.halves()))

    # -- deaths ----------------------------------------------------------------------------------------------------------------------
    def _bury(self) -> None:
        """Restart a process that died, and decide what happens to its batches."""
        assert self._process is not None
        death, overdue = self._process.end(), self._overdue
        if overdue is not None:
            death = deaths.hung(overdue.seconds, overdue.limit.reason, self._stack)
        self._overdue, self._stack, self._enough = None, "", None
        calls = list(self._under_way.values())
        if overdue is not None:
            calls.sort(key=lambda call: call is not overdue.call)
        self._under_way.clear()
        self._sent_bytes.clear()
        about = {"stage": self._stage.name, "death": death.kind.value, "rows": calls[0].rows if calls else 0}
        _LOG.warning(
            "the process of %s %s; it is started again%s",
            self._stage.where,
            death.how,
            f"; it was here:\n{death.stack}" if death.stack else "",
            extra={"action": "restart", "cause": death.kind.cause.value, **about},
        )
        self._care.note(death.kind.cause, f"restarted after {death.kind.value}: its process {death.how}", calls[0] if calls else None)
        pause = self._inquest.pause(death, in_setup=not self._ready_now)
        if overdue is None and len(calls) > 1 and (self._depth > 1 or self._front is not None):
            # It was at work on several of them: each is run alone now, where the one that is to blame shows.
            for call in calls:
                call.deaths += 1
        # Otherwise the oldest one. One that answered while it was being ended for hanging is past it.
        elif calls and (overdue is None or overdue.call is calls[0]):
            calls[:1] = self._inquest.blame(calls[0], death, self._memory.resident, at_once=not self._has_answered)
        self._again.extendleft(reversed(calls))
        self._rest(pause)
        self._process = self._adopt(spawn.start(self._threads))

    def _rest(self, seconds: float) -> None:
        """Do nothing for some time, unless everything stops."""
        if not seconds:
            return
        until = time.monotonic() + seconds
        timer = threading.Timer(seconds, self._feed.wake_up, (self._node,))
        timer.daemon = True
        timer.start()
        self._feed.take(self._node, want=False, wake=lambda: self._retiring or time.monotonic() >= until)
        timer.cancel()

    # -- age -------------------------------------------------------------------------------------------------------------------------
    def _look_after(self, data: dict[str, Any]) -> None:
        """Note why the process shall be started afresh, once there is a reason."""
        now = time.monotonic()
        why = self._life.lived(now)
        if data["memory"] is not None:
            self._memory = Memory(*data["memory"])
            why = why or self._life.holds(now, self._memory)
        self._enough = self._enough or why

    def _start_afresh(self) -> None:
        """Replace the process, which owes nothing, by a new one."""
        assert self._process is not None and self._enough is not None
        extra = {"action": "recycle", "stage": self._stage.name}
        _LOG.info("the process of %s is started afresh: %s", self._stage.where, self._enough.why, extra=extra)
        self._care.note(self._enough.cause, f"started afresh: {self._enough.why}")
        self._enough = None
        former, listener = self._process, self._listener
        self._dismissed = former
        former.stop()
        listener.join(_HANG_UP_SECONDS)
        if not listener.is_alive():
            former.close()
        # It may have ended by itself before it was dismissed, and its successor is not to be buried for that.
        self._inbox.clear()
        self._process = self._adopt(spawn.start(self._threads))

    def _adopt(self, started: spawn.Started) -> PredictorProcess:
        self._ready_now = self._has_answered = False
        self._life = self._care.life()
        self._watch = Watch(self._care.patience)
        self._told_threads = threads = self._threads
        process = PredictorProcess(
            started,
            self._stage,
            threads,
            devices=self.devices,
            front=self._front,
            rows=self._feed.batch_rows(self._node),
            lends=self._care.lends,
        )
        name = f"listen-{self._stage.name}-{process.pid}"
        self._listener = threading.Thread(target=self._listen, args=(process, self._watch), name=name, daemon=True)
        self._listener.start()
        return process

    def _hang_up(self) -> None:
        """Let go of the channel of the last process, once its listener has heard the end of it."""
        if self._process is None:
            return
        self._listener.join(_HANG_UP_SECONDS)
        if not self._listener.is_alive():
            self._process.close()

    # -- the listener ----------------------------------------------------------------------------------------------------------------
    def _listen(self, process: PredictorProcess, watch: Watch) -> None:
        has_ended = False
        while True:
            try:
                message = process.receive(LOOK_SECONDS)
            except TimeoutError:
                # User code may have started others that keep the channel open, so its end says nothing.
                if not has_ended:
                    has_ended = process.has_ended or self._end_overdue(process, watch)
                    continue
                message = None
            except OSError as error:
                self._inbox.append(error)
                self._feed.wake_up(self._node)
                return
            if message is None and (self._stopping or process is self._dismissed):
                return
            if message is not None:
                is_all = watch.heard(message.data)
                # One thread of it may hang while the other goes on.
                has_ended = has_ended or self._end_overdue(process, watch)
                if is_all:
                    continue
            self._inbox.append(message)
            self._feed.wake_up(self._node)
            if message is None:
                return

    def _end_overdue(self, process: PredictorProcess, watch: Watch) -> bool:
        """End a process that has not answered in time; true when that is done and it is silent for good."""
        overdue = None if self._stopping or process is self._dismissed else watch.overdue()
        if overdue is None:
            return False
        self._overdue, self._stack = overdue, process.end_hanging()
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while not process.has_ended and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)
        return True
