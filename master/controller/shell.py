"""The controller as a task beside the master's loop: look, decide, act, again whenever something has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from antinfer.core.causes import Cause
from antinfer.core.events import DrainRequested, InterruptionSeen
from antinfer.core.ids import WorkerId
from antinfer.core.scaling.actions import Action, AvoidNode, DeleteWorker, DrainWorker, FailJob, StartWorkers, Tell, Topic
from antinfer.core.scaling.memory import Memory
from antinfer.core.scaling.planning import Controller
from antinfer.core.scaling.values import Allowance, Desired, Ending, GiveBack, Observed, WorkerState
from antinfer.errors import AntinferError, UserError
from antinfer.launchers.port import Launcher, WorkerOrder
from antinfer.master.controller.account import Account
from antinfer.master.controller.book import Book
from antinfer.master.controller.sight import JobSight
from antinfer.master.loop import now_ms
from antinfer.master.streams import MakeEvent
from antinfer.master.troubles import Troubles
from antinfer.rpc.values import GivenBack

_log = logging.getLogger("antinfer.master.controller")
_TURN_S: Final = 1.0
_GATHER_S: Final = 0.1
"""Changes that come within this time are looked at together."""
_WRITE_S: Final = 30.0
"""How often it is written down what has been used up and measured; so much a budget may be exceeded by with each death of a master."""
_WAITED_FOR: Final = (Topic.PENDING, Topic.CRASHES, Topic.IMAGE)
"""Topics that say what the job waits for."""
_FORESEEN: Final = (Topic.DEADLINE, Topic.BUDGET)
"""Topics that say what it will not keep to."""


ANNOTATED: Final = "annotation"
"""Id of the request that stands in an annotation."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a controller needs of its master."""

    look: Callable[[], JobSight]
    post: Callable[[MakeEvent], None]
    fail: Callable[[UserError], None]
    """Fails the job."""
    broken: Callable[[BaseException], None]
    """Ends the reign: we cannot go on."""
    troubles: Troubles


class Elastic:
    """Keeps as many workers as a job needs, during one reign."""

    def __init__(
        self, launcher: Launcher, desired: Desired, account: Account, around: Surroundings, keep: Callable[[Account], None]
    ) -> None:
        """
        Args:
            launcher: open.
            desired: what is wanted; its prefix is that of this reign.
            account: what is known from earlier reigns.
            around: the master.
            keep: writes down what the next reign has to know; blocks.
        """
        self._keep = keep
        self._launcher = launcher
        self._desired = desired
        self._account = account
        self._asked_back = {each.id: each for each in account.given_back}
        self._around = around
        self._controller = Controller(Memory(account.used_ms))
        self._book = Book(account.measures)
        self._changed = asyncio.Event()
        self._written_at = now_ms()
        self._denied_since: int | None = None
        self._has_failed = False
        self._reckons = desired.allowance != Allowance() or desired.deadline_at is not None
        self._last = Observed()

    def changed(self) -> None:
        """There is something new to see. From the event loop's thread."""
        self._changed.set()

    async def run(self) -> None:
        """Turn until cancelled. Raises what a launcher's threads have failed with."""
        while True:
            if self.turn(now_ms()) and self._has_to_write():
                await self.write()
            try:
                await asyncio.wait_for(self._changed.wait(), _TURN_S)
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()

    def turn(self, now: int) -> bool:
        """Look, decide and act once; False when there is nothing to see yet, or nothing to do any more."""
        sight = self._launcher.observe()
        if sight is None or self._has_failed:
            return False
        if self._is_denied(sight.denied, now):
            return True
        job = self._around.look()
        observed = self._last = self._book.observe(sight, job, self._desired.prefix, now)
        for name in self._book.taken:
            _log.info("worker %s was taken away", name, extra={"action": "worker_taken", "worker": name})
            self._drain(name, Cause.PREEMPTED)
        desired = replace(self._desired, give_back=self._wanted_back(sight.give_back))
        for action in self._controller.turn(desired, observed, now):
            self._carry_out(action, job)
        seen = self._controller.memory.interruptions
        while seen:
            cause, detail = seen.popleft()
            self._around.post(partial(InterruptionSeen, cause=cause, detail=detail))
        return True

    async def give_back(self, request: GiveBack) -> GivenBack:
        """Make the job smaller, durably: what was given back is not replaced until `release`, whoever is master then."""
        self._asked_back[request.id] = request
        before = set(self._controller.memory.told_to_leave)
        self.turn(now_ms())
        await self.write()
        return GivenBack(self._controller.memory.limits(now_ms()).ceiling, tuple(sorted(self._controller.memory.told_to_leave - before)))

    async def release(self) -> None:
        """Let workers be started again in place of those that were given back by request."""
        self._asked_back = {id_: each for id_, each in self._asked_back.items() if id_ == ANNOTATED}
        self.turn(now_ms())
        await self.write()

    async def write(self) -> None:
        """Write down what the next reign has to know."""
        self._written_at = now_ms()
        account = self.account
        try:
            await asyncio.to_thread(self._keep, account)
            self._account = account
        except AntinferError as error:
            # The next time will do: whoever reads it then sees what has been used up until now, too.
            _log.warning("cannot write down what workers have used up: %s", error, extra={"action": "account_not_written"})

    @property
    def account(self) -> Account:
        """What the next reign has to know of this one."""
        used_ms, measures = dict(self._controller.memory.used_ms), self._book.meter.measures()
        return replace(self._account, used_ms=used_ms, given_back=self._given_back(), measures=measures)

    def clear(self) -> None:
        """The job is over, one way or the other: remove every worker that is left, but for those whose logs somebody will want."""
        for worker in self._last.workers:
            if worker.state is not WorkerState.ENDED or worker.ending is None or not self._is_telling(worker.ending):
                self._launcher.stop(worker.name, drain=True)
        for name in self._controller.memory.asked:
            self._launcher.stop(name, drain=True)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _is_telling(self, ending: Ending) -> bool:
        """Tell whether somebody will want the log of a worker that ended so."""
        # One that left because the job is done may have been seen to leave before the job was seen to be done.
        return not ending.cause.is_blameless and (self._has_failed or ending.cause is not Cause.LEFT_EARLY)

    def _has_to_write(self) -> bool:
        is_due = now_ms() - self._written_at >= _WRITE_S * 1_000
        if self._given_back() != tuple(self._account.given_back):
            # At once, but not in a circle when it fails.
            return is_due or now_ms() - self._written_at >= _TURN_S * 1_000
        return self._reckons and is_due

    def _given_back(self) -> tuple[GiveBack, ...]:
        """Return what has to outlive us: each request, with the number of workers there were."""
        known = self._controller.memory.given_back
        return tuple(known.get(id_, each) for id_, each in self._asked_back.items())

    def _wanted_back(self, annotated: int) -> tuple[GiveBack, ...]:
        """Return all requests to give workers back; the annotation's is there for as long as it is."""
        earlier = self._asked_back.pop(ANNOTATED, None)
        if annotated:
            self._asked_back[ANNOTATED] = GiveBack(ANNOTATED, annotated, had=None if earlier is None else earlier.had)
        return tuple(self._asked_back.values())

    def _is_denied(self, why: str, now: int) -> bool:
        """Fail the job when workers have not been to be seen for so long that it will not mend."""
        if not why:
            self._denied_since = None
            return False
        if self._denied_since is None:
            self._denied_since = now
        if now - self._denied_since >= self._desired.policy.invalid_patience_ms:
            self._fail(FailJob(f"workers cannot be looked after: {why}", "Give the master that right; then resume the job."))
        return True

    def _carry_out(self, action: Action, job: JobSight) -> None:
        match action:
            case StartWorkers(worker_class, names, memory_bytes, avoid):
                _log.info("starting %d %s workers: %s", len(names), worker_class, _some(names), extra={"action": "start_workers"})
                self._launcher.start([WorkerOrder(name, worker_class, memory_bytes, avoid) for name in names])
            case DrainWorker(name, cause, why):
                _log.info("draining worker %s: %s", name, why, extra={"action": "drain_worker", "worker": name, "cause": cause.value})
                self._book.asked(name)
                if name in job.workers:
                    self._drain(name, cause)
                else:
                    self._launcher.stop(name, drain=True)
            case DeleteWorker(name, cause, why):
                _log.info("deleting worker %s: %s", name, why, extra={"action": "delete_worker", "worker": name, "cause": cause.value})
                self._launcher.stop(name, drain=True)
            case AvoidNode(node, _, why):
                _log.warning("node %s gets no workers for a while: %s", node, why, extra={"action": "avoid_node"})
            case FailJob():
                self._fail(action)
            case Tell(topic, text):
                self._tell(topic, text)

    def _drain(self, name: str, cause: Cause) -> None:
        self._around.post(lambda at: DrainRequested(at, WorkerId(name), cause))

    def _fail(self, action: FailJob) -> None:
        self._has_failed = True
        self._around.fail(UserError(action.reason, hint=action.hint))

    def _tell(self, topic: Topic, text: str) -> None:
        if text:
            _log.warning("%s", text, extra={"action": "workers", "topic": topic.value})
        key = "workers", topic.value
        if topic in _FORESEEN:
            self._around.troubles.foresee(key, text)
        elif topic in _WAITED_FOR and text:
            self._around.troubles.note(key, text)
        elif topic in _WAITED_FOR:
            self._around.troubles.clear(key)


def _some(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
