"""Reign after reign over one job: claim, load, rule; and begin anew when the store is not what it was."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from antinfer import faultpoints
from antinfer.core import guards
from antinfer.core.budgets import BadRowBudget
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.documents import has_records
from antinfer.core.engine import Engine, Phase
from antinfer.core.events import DrainRequested, InterruptionSeen, JobFailed, PlanCompleted, PlanExtended
from antinfer.core.hindrance import HindrancePolicy
from antinfer.core.ids import WorkerId
from antinfer.core.interval import IntervalPolicy
from antinfer.core.plan import PlanIndex, Shard
from antinfer.errors import AntinferError, FencedError, Interrupted, MasterError, UserCodeError, UserError, split_hint
from antinfer.master import retrying, sealing
from antinfer.master.backoff import START_S, Wait, patiently
from antinfer.master.jobfile import JobMark, Standing, announce, begin_anew, check_mark
from antinfer.master.journal import Journal, Level
from antinfer.master.loop import Loop, now_ms
from antinfer.master.planner import Extension, Planner
from antinfer.master.publisher import Publisher, check_epoch
from antinfer.master.stagetable import stage_table
from antinfer.master.status import Figures, describe
from antinfer.master.store.base import DiscontinuityError, Store
from antinfer.master.streams import Streams
from antinfer.master.troubles import Troubles
from antinfer.rpc.values import GivenBack, JobDocument, Status
from antinfer.storage.jobs import RunDocument
from antinfer.storage.lastwords import LastWords
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    import pyarrow as pa

    from antinfer.core.rounds import Round
    from antinfer.master.controller.scaler import Scaler
    from antinfer.master.controller.sight import JobSight
    from antinfer.spec.schema import JobSpec

_log = logging.getLogger("antinfer.master")
T = TypeVar("T")
_STOP_S = 3.0
"""How long the batch under way may take once somebody wants us to stop."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is ruled over."""

    spec: JobSpec
    place: OutputPlace
    mark: JobMark
    suffix: str
    """Of parts, without a dot."""
    config: EngineConfig = field(default_factory=EngineConfig)


def engine_config(spec: JobSpec, job: str, ttl_s: float | None = None) -> EngineConfig:
    """Return the policy that the job file asks for; `ttl_s` is the time to live of sessions where it is not the usual one."""
    config = EngineConfig(
        job=job,
        task_rows=None if spec.task.rows == "auto" else spec.task.rows,
        interval=IntervalPolicy() if spec.commit_interval == "auto" else None,
        hindrance=HindrancePolicy(patience_ms=int(spec.patience * 1_000)),
        bad_rows=BadRowBudget(max_fraction=spec.quarantine.max_fraction, max_rows=spec.quarantine.max_rows),
    )
    return config if ttl_s is None else replace(config, ttl_ms=int(ttl_s * 1_000))


async def claim(place: OutputPlace, store: Store, owner: str, patiently: Wait) -> tuple[int, int, int]:
    """Claim the next epoch, first in the output place, then in the store (rule 9).

    Returns the epoch claimed, the last one claimed before in the output place, and the last one that claimed the store.

    Raises:
        FencedError: Somebody else was quicker.
    """
    while True:
        before = await asyncio.to_thread(patiently, "reading epochs", place.highest_epoch)
        fence = await store.fence()
        highest = before.epoch if before is not None else 0
        epoch = max(highest, fence.epoch) + 1
        if await asyncio.to_thread(patiently, "claiming an epoch", partial(place.claim_epoch, epoch, owner)):
            break
    faultpoints.hit("epoch.claimed", epoch=epoch)
    await store.claim(epoch, owner, unbroken=highest == fence.epoch)
    faultpoints.hit("epoch.stored", epoch=epoch)
    return epoch, highest, fence.epoch


class Master:
    """Rules one job until it is done, failed, or somebody else does."""

    def __init__(
        self,
        job: Job,
        store: Store,
        streams: Streams,
        planner: Planner,
        *,
        force: bool = False,
        retry: int = 0,
        check: bool = False,
        troubles: Troubles | None = None,
        patience_s: float = START_S,
        scaler: Scaler | None = None,
    ) -> None:
        """
        Args:
            job: what is ruled over.
            store: opened.
            streams: connections of workers.
            planner: neither loaded nor started.
            force: go on although pipeline or code have changed.
            retry: retry round to begin or to go on with, whatever pipeline and code are now; 0: none but one that is under way.
            check: look at the invariants after every batch.
            troubles: what the store waits for; what else is waited for is added.
            patience_s: with the output place until the first reign has begun, in seconds.
            scaler: looks after the workers; None: somebody else does.
        """
        self._job = job
        self._troubles = troubles or Troubles()
        self._start_patience_s = patience_s
        self._store = store
        self._streams = streams
        self._planner = planner
        self._force = force
        self._retry = retry
        self._round: Round | None = None
        self._check = check
        self._scaler = scaler
        self._address = ""
        self._asyncio = asyncio.get_running_loop()
        self.document: asyncio.Future[JobDocument] = self._asyncio.create_future()
        """What workers have to run; an error when that cannot be known."""
        self._plan = PlanIndex()
        self._figures = Figures(now_ms())
        self._loop: Loop | None = None
        self._epoch = 0
        self._possessed = False
        self._stopped = False
        self._unwanted = threading.Event()
        """The same for threads."""
        self._cause: AntinferError | None = None
        self._discontinuity = ""
        """Why the last reign ended, when that was the store."""
        self._running: asyncio.Task[None] | None = None

    # -- for people --------------------------------------------------------------------------------------------------------------------
    def status(self) -> Status:
        """Return the present status."""
        job, output = self._job.mark.job, self._job.place.uri
        if self._loop is None:
            return Status(job=job, output=output, epoch=self._epoch, phase="planning", reason=self._troubles.text or "taking over the job")
        return describe(self._loop.engine, self._figures, self._streams, self._troubles.text, job=job, output=output, at=now_ms())

    def knows(self, worker: str) -> bool:
        """Tell whether a worker of this name is a member of the job."""
        return self._loop is not None and self._loop.engine.sessions.of_worker(WorkerId(worker)) is not None

    async def give_back(self, id_: str, workers: int) -> GivenBack:
        """Make the job smaller, for good where its workers are ours to start. Raises `MasterError` when nobody rules yet."""
        from antinfer.core.scaling.values import GiveBack
        from antinfer.master.controller.sight import least_work

        loop = self._ruling()
        if self._scaler is not None:
            given = await self._scaler.give_back(GiveBack(id_, workers))
            if given is None:
                raise self._not_ready()
            return given
        leaving = least_work(self._sight(loop), workers)
        for name in leaving:
            loop.post(lambda at, name=name: DrainRequested(at, WorkerId(name)))  # type: ignore[misc]
        return GivenBack(None, tuple(leaving))

    async def release(self) -> None:
        """Let workers be started again in place of those that were given back. Raises `MasterError` when nobody rules yet."""
        self._ruling()
        if self._scaler is not None and not await self._scaler.release():
            raise self._not_ready()

    def story(self, shard: int) -> list[str]:
        """Tell why the ranges of a shard got where they are."""
        return [str(entry) for entry in self._loop.engine.story.of(shard)] if self._loop is not None else []

    def lookup(self, shard: int) -> Shard:
        """Return a shard as workers need it; from any thread. Raises IndexError beyond what is durably planned."""
        return retrying.handed_out(self._planner.lookup(shard), self._round)

    def cancelled(self, reason: str) -> None:
        """The user ends the job; the event that ends it comes by itself."""
        self._cause = self._cause or Interrupted(reason, hint="The same command resumes the job.")

    def stop(self) -> None:
        """End after the batch under way, or after a moment if that waits for a store that is away; the same command resumes."""
        self._stopped = True
        self._unwanted.set()
        if self._loop is not None:
            self._loop.stop()
        if self._running is not None:
            # A batch that is cut off here is in the store or is not; its answers never leave.
            self._asyncio.call_later(_STOP_S, self._running.cancel)

    def interrupted(self, cause: Cause, detail: str, times: int = 1) -> None:
        """Count what has interrupted the job and no worker can tell of; not heard while nobody rules."""
        if self._loop is not None:
            self._loop.post(lambda at: InterruptionSeen(at, cause, detail, times))

    def _ruling(self) -> Loop:
        if self._loop is None:
            raise self._not_ready()
        return self._loop

    @staticmethod
    def _not_ready() -> MasterError:
        return MasterError("this master is not ready yet", hint="It is taking over the job; try again.")

    # -- ruling ------------------------------------------------------------------------------------------------------------------------
    async def run(self, address: str = "") -> None:
        """Rule until the job is done; `address`, where the master listens, is left beside the output.

        Raises:
            FencedError: Another master rules the job.
            Interrupted: `stop` was called, or the user cancelled the job.
            AntinferError: The job has failed; the class says whose fault it was.
        """
        self._address = address
        self._running = asyncio.create_task(self._rule())
        try:
            await self._running
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            raise self._interrupted() from None
        except (Interrupted, FencedError):
            raise
        except AntinferError as error:
            await asyncio.to_thread(self._leave_word, error)
            raise
        finally:
            self.leave()
            await asyncio.to_thread(self._planner.stop)

    def leave(self) -> None:
        """Let no worker wait any longer."""
        self._streams.abdicate()
        if not self.document.done():
            self.document.cancel()

    async def _rule(self) -> None:
        while not self._stopped:
            try:
                await self._reign()
                return
            except DiscontinuityError as error:
                self._discontinuity = str(error)
                _log.warning("%s; beginning a new reign", error, extra={"action": "new_reign", "epoch": self._epoch})
        raise self._interrupted()

    async def _reign(self) -> None:
        job, store = self._job, self._store
        owner = f"store {store.name}, process {os.getpid()} on {os.uname().nodename}"
        self._epoch, last_claim, stored_epoch = await claim(job.place, store, owner, self._patiently)
        loaded = await store.load()
        if not self._possessed and await self._take_possession(has_commits=has_records(loaded.documents or {})):
            loaded = replace(loaded, documents=None)
        if self._address:
            say = partial(announce, job.place, self._address, self._epoch)
            await self._in_thread("saying where this master listens", say)
        if self._cause is not None:
            raise self._cause
        trusted = (
            loaded.documents is not None
            and loaded.whole
            and guards.store_is_current(
                loaded.written_run, loaded.run, own_server=loaded.own_server, stored_epoch=stored_epoch, last_claim=last_claim
            )
        )
        _log.info(
            "reign %d begins, from %s", self._epoch, "the store" if trusted else "the output", extra={"action": "reign", "owner": owner}
        )
        counted = self._note_discontinuity(trusted=trusted)
        config = replace(job.config, job=self._job_name)
        plan = PlanIndex(map(self._plan.rows, range(len(self._plan))), complete=self._plan.complete)
        engine = Engine(config, plan, self._epoch, self._round)
        publisher = Publisher(
            job.place,
            job.suffix,
            self._epoch,
            post=lambda make: loop.post_soon(make),
            fail=lambda error: loop.fail_soon(error),
            seal=self._seal,
            patience_s=job.spec.patience,
            troubles=self._troubles,
        )
        began = now_ms()
        journal = self._open_journal(engine, began, loaded.documents, trusted=trusted, owner=owner)
        loop = self._loop = Loop(
            engine,
            store,
            loaded.seq,
            send=lambda send: self._streams.send(send.stream, send.message),
            effects=publisher,
            connected=lambda: len(self._streams),
            figures=self._figures,
            journal=journal,
            check=self._check,
        )
        for cause, detail, times in counted:
            self.interrupted(cause, detail, times)
        self._streams.rule(loop.post)
        try:
            if self._stopped:
                loop.stop()
            await self._scaled(loop, loop.run(engine.start(began, loaded.documents, trusted=trusted)))
        finally:
            self._streams.abdicate()
            await asyncio.to_thread(publisher.stop)
            if journal is not None:
                await asyncio.to_thread(journal.end, _ending(loop))
        self._raise_outcome(loop)

    def _note_discontinuity(self, *, trusted: bool) -> list[tuple[Cause, str, int]]:
        """Return what a reign that follows from the loss of the store has to count: that, and what went with the store."""
        why, self._discontinuity = self._discontinuity, ""
        if not why:
            return []
        before = {} if trusted or self._loop is None else self._loop.engine.meta.causes
        kept = [(Cause(cause), "counted before the store was lost", times) for cause, times in before.items()]
        return [*kept, (Cause.STORE_LOST, why, 1)]

    async def _scaled(self, loop: Loop, ruling: Coroutine[Any, Any, None]) -> None:
        """Rule, and look after the workers meanwhile where that is ours to do."""
        if self._scaler is None:
            await ruling
            return
        # Most masters look after nobody, and every one starts faster without.
        from antinfer.master.controller.shell import Surroundings

        around = Surroundings(
            look=lambda: self._sight(loop), post=loop.post, fail=self._workers_failed, broken=loop.fail_soon, troubles=self._troubles
        )
        over = (Phase.DONE, Phase.FAILED)
        await self._scaler.during(
            ruling,
            around,
            self._job.place,
            self._patiently,
            epoch=self._epoch,
            address=self._address,
            is_over=lambda: loop.engine.phase in over,
        )

    def _sight(self, loop: Loop) -> JobSight:
        from antinfer.master.controller.sight import look

        return look(loop.engine, self._figures.rows_by_worker, self._streams.rows_of)

    def _open_journal(self, engine: Engine, at: int, documents: dict[str, str] | None, *, trusted: bool, owner: str) -> Journal | None:
        """Begin the event log of `engine`, which is about to be started with these arguments; None when the job wants none."""
        level: Level = self._job.spec.event_log
        if level == "off":
            return None
        journal = Journal(self._job.place, self._epoch, now_ms, level)
        journal.begin(engine, at, documents, trusted=trusted, owner=owner)
        return journal

    def _patiently(self, doing: str, work: Callable[[], T]) -> T:
        patience_s = self._start_patience_s if self._loop is None else self._job.spec.patience
        return patiently(doing, work, self._unwanted, patience_s, self._troubles)

    async def _in_thread(self, doing: str, work: Callable[[], T]) -> T:
        """Do something to the output place, patiently; it must be safe to call again."""
        return await asyncio.to_thread(self._patiently, doing, work)

    async def _take_possession(self, *, has_commits: bool) -> bool:
        """Once, after the first claim: say whose output this is, and go on with its plan; True when the job is begun anew instead."""
        place, mark = self._job.place, self._job.mark
        read = partial(check_mark, place, mark, force=self._force)
        standing = Standing.FORCED if self._retry else await self._in_thread("comparing the job with its output", read)
        if self._retry:
            begin = partial(retrying.begin, place, mark, self._retry, self._job.suffix, self._still_rules)
            await self._in_thread("opening the retry round", begin)
        elif standing is Standing.REPLACES:
            await self._in_thread("beginning the job anew", partial(begin_anew, place, mark, has_commits=has_commits))
        elif standing is not Standing.SAME:
            await self._in_thread("writing the job's mark", partial(mark.write, place))
        self._round = await self._in_thread("reading the retry round", partial(retrying.current, place, self._still_rules))
        self._extend(await asyncio.to_thread(self._planner.load))
        self._planner.start(
            frozen=lambda schema: self._soon(self._freeze, schema),
            extend=lambda extension: self._soon(self._extend, extension),
            fail=lambda error: self._soon(self._plan_failed, error),
        )
        self._possessed = True
        return standing is Standing.REPLACES

    @property
    def _job_name(self) -> str:
        return retrying.job_name(self._job.mark.job, self._round)

    def _still_rules(self) -> None:
        check_epoch(self._job.place, self._epoch)

    def _soon(self, call: Callable[[Any], None], argument: object) -> None:
        self._asyncio.call_soon_threadsafe(call, argument)

    def _freeze(self, schema: pa.Schema) -> None:
        job = self._job
        document = RunDocument(job.spec, schema, job.mark.code).to_json()
        if not self.document.done():  # else the master is being stopped
            self.document.set_result(JobDocument(self._job_name, document, job.place.uri))

    def _extend(self, extension: Extension) -> None:
        """Take in more of the plan. A reign that begins later finds it in the index, the present one hears of it."""
        self._plan.extend(extension.rows)
        self._plan.complete = extension.complete
        figures = self._figures
        figures.planned(extension.rows)
        figures.files_planned, figures.files_total = extension.files_done, extension.files_total
        if extension.rows:
            self._streams.post(lambda at: PlanExtended(at, extension.rows))
        if extension.complete:
            self._streams.post(PlanCompleted)

    def _plan_failed(self, error: AntinferError) -> None:
        self._cause = self._cause or error
        if not self.document.done():
            self.document.set_exception(error)
            self.document.exception()  # marks it as seen: nobody may ever have asked for it
        self._streams.post(lambda at: JobFailed(at, str(error)))

    def _workers_failed(self, error: AntinferError) -> None:
        self._cause = self._cause or error
        self._streams.post(lambda at: JobFailed(at, error.text))

    def _seal(self, first_chunk: int, rows: int) -> None:
        job, place = self._job, self._job.place
        records = sealing.final_records(place, job.suffix, rows)
        mark = job.mark
        measured = {
            "seconds": (now_ms() - self._figures.started_at) / 1_000,
            "stages": stage_table(self._streams.all_stats()),
            "causes": {} if self._loop is None else dict(self._loop.engine.meta.causes),
        }
        sealing.seal(job.spec, place, records, job=mark.job, epoch=self._epoch, first_chunk=first_chunk, code=mark.code, measured=measured)

    def _raise_outcome(self, loop: Loop) -> None:
        if loop.engine.phase is Phase.DONE:
            return
        if self._cause is not None:
            raise self._cause
        if loop.given_up is None:
            raise self._interrupted()
        message, hint = split_hint(loop.given_up.reason)
        if loop.given_up.traceback:
            raise UserCodeError(message, hint=hint, user_traceback=loop.given_up.traceback)
        raise UserError(message, hint=hint)

    def _leave_word(self, error: AntinferError) -> None:
        """Say beside the output why the job was given up, if that can be written, and the output is ours."""
        if not self._possessed or self._loop is None:
            return
        engine = self._loop.engine
        done, causes = engine.progress(), dict(engine.meta.causes)
        words = LastWords(self._job.mark.job, self._epoch, error.text, done.rows_done, done.rows_quarantined, causes)
        try:
            words.write(self._job.place)
        except AntinferError as trouble:
            _log.warning("why the job has failed cannot be left beside its output: %s", trouble, extra={"action": "no_last_words"})

    def _interrupted(self) -> Interrupted:
        return Interrupted("the master was stopped", hint="The same command resumes the job.")


def _ending(loop: Loop) -> str:
    """Say why a reign is over, for its log."""
    if loop.engine.phase is Phase.DONE:
        return "the job is done"
    if loop.given_up is not None:
        return f"the job has failed: {loop.given_up.reason}"
    error = sys.exc_info()[1]
    return str(error) if isinstance(error, AntinferError) else "the master was stopped"
