"""The agent: the shell around the session. It keeps time, runs the stage host, and speaks to the master; no user code runs here."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final, assert_never

from antinfer import faultpoints
from antinfer.core.causes import Cause
from antinfer.core.ids import WorkerId
from antinfer.core.messages import Answer, FailureKind, Request
from antinfer.errors import AntinferError, Blame, MasterError
from antinfer.launchers import pidfile
from antinfer.rpc.channel import Tls
from antinfer.rpc.status import refuses_us
from antinfer.rpc.values import JobDocument, Stats
from antinfer.worker import ending, hostlink
from antinfer.worker.hoststart import HOST_COMMAND, Spawned, spawn
from antinfer.worker.link import Closed, Link, News, Opened, Said
from antinfer.worker.policy import SessionPolicy
from antinfer.worker.session import Session
from antinfer.worker.signals import (
    Action,
    Connect,
    Connected,
    Disconnected,
    DrainAsked,
    Event,
    Exit,
    HostDied,
    HostSaid,
    Received,
    SendUp,
    StartHost,
    StopHost,
    Ticked,
    ToHost,
)
from antinfer.worker.supervision import HostProcess, resident_bytes

_log = logging.getLogger("antinfer.worker")

WAIT_S: Final = 900.0
"""Workers of a cluster may be there long before the node of their master is."""
_STATS_MS: Final = 2_000
_REMIND_MS: Final = 30_000
"""How often the log says that the master is still away, and how often we look whether the job is over."""
_LOOK_AFTER_MS: Final = 3_000
"""Silence after which we look for the first time: masters that are restarted are mostly back before."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What an agent needs to know."""

    addresses: tuple[str, ...]
    """Masters to try, in turn."""
    worker: WorkerId
    job: str = ""
    """Job id to insist on; empty: whatever the first master serves."""
    token: str = ""
    tls: Tls | None = None
    insecure: bool = False
    """The token may travel in plain text."""
    base_dir: str = ""
    """Folder of the user code on this machine; empty: as the job says."""
    policy: SessionPolicy = field(default_factory=SessionPolicy)
    host_command: tuple[str, ...] = HOST_COMMAND
    spare_host: Spawned | None = None
    """A host that was started already; used first."""
    wait_s: float = WAIT_S
    """How long to try until a master answers for the first time. Once one has, the output tells whether there is anything to wait for."""
    host_patience_s: float = 10.0
    """How long a host may take to tear down."""
    is_finished: Callable[[JobDocument], bool] = ending.is_finished
    """Looks into the output place whether the job is done; called on a thread of its own while no master answers."""
    pid_file: Path | None = None
    """Where our process id stands as long as we listen to signals."""


class Agent:
    """Runs one worker to its end: one loop over an inbox that other threads fill."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._session = Session(options.worker, options.job, options.policy)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._addresses = itertools.cycle(options.addresses)
        self._link: Link | None = None
        self._host: HostProcess | None = None
        self._spare_host = options.spare_host
        self._stopping: list[HostProcess] = []
        self._job: JobDocument | None = None
        self._signals = 0
        self._is_over = False
        self._exit: Exit | None = None
        self._began_at = _now()
        self._silent_since: int | None = None
        self._reminded_at = 0
        self._look_at: int | None = 0
        """When to look next whether the job is over; None while a look is under way."""
        self._missed_the_end = False
        self._progress = hostlink.Progress(0)
        self._dead_hosts = hostlink.Progress(0)
        self._rows_before = 0
        self._rate = 0.0
        self._rss_bytes = 0
        self._hosts_started = 0
        self._is_isolating = False
        """Map functions run in processes from now on: one of them may have killed a host."""

    def run(self) -> Exit:
        """Work until the job is over or somebody stops us; leaves no process behind. Call from the main thread to be stopped by signals."""
        restore = self._catch_signals()
        try:
            with pidfile.kept(self._options.pid_file):
                self._perform(self._session.start())
                self._after(_STATS_MS, self._tell_regularly)
                while self._exit is None:
                    self._turn()
        finally:
            self._is_over = True
            self._tear_down()
            restore()
        return self._exit

    # -- the loop ----------------------------------------------------------------------------------------------------------------
    def _turn(self) -> None:
        wake_at = min((time_at for time_at in (self._session.wake_at, self._next_timer()) if time_at is not None), default=None)
        try:
            handle = self._inbox.get(timeout=None if wake_at is None else max(0, wake_at - _now()) / 1_000)
        except Empty:
            self._step(Ticked(_now()))
        else:
            handle()
        while self._timers and self._timers[0][0] <= _now() and self._exit is None:
            heapq.heappop(self._timers)[2]()

    def _step(self, event: Event) -> None:
        self._perform(self._session.step(event))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendUp():
                    if self._link is not None:
                        self._link.send(action.message)
                        if isinstance(action.message, Request) and action.message.commits:
                            faultpoints.hit("commit.sent", worker=self._options.worker)
                case ToHost():
                    if self._host is not None:
                        self._host.send(action.message)
                case StartHost():
                    self._after(action.after_ms, self._start_host)
                case StopHost():
                    self._stop_host()
                case Connect():
                    self._drop_link()
                    # Thousands of workers notice a lost master in the same moment; they must not come back in the same moment.
                    self._after(int(action.after_ms * random.uniform(0.5, 1.5)), self._connect)
                case Exit():
                    self._exit = action
                case _:
                    assert_never(action)

    def _after(self, pause_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (_now() + pause_ms, next(self._serial), call))

    def _next_timer(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    # -- the master --------------------------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        options = self._options
        self._link = Link(
            next(self._addresses), token=options.token, tls=options.tls, insecure=options.insecure, deliver=self._deliver_news
        )

    def _deliver_news(self, link: Link, news: News) -> None:
        self._inbox.put(partial(self._on_news, link, news))

    def _on_news(self, link: Link, news: News) -> None:
        if link is not self._link:
            return
        match news:
            case Opened():
                self._on_opened(link, news.job)
            case Said():
                if isinstance(news.message, Answer) and news.message.outcomes:
                    faultpoints.hit("commit.confirmed", worker=self._options.worker)
                self._step(Received(_now(), news.message, news.shards))
            case Closed():
                self._link = None
                self._note_silence(link, news.error)
                if self._exit is None:
                    self._step(Disconnected(_now()))
            case _:
                assert_never(news)

    def _on_opened(self, link: Link, job: JobDocument) -> None:
        wanted = self._job.job if self._job is not None else self._options.job
        if wanted and wanted != job.job:
            self._exit = Exit(1, f"the master at {link.address} serves job {job.job}, not {wanted}")
            return
        if self._silent_since is not None:
            _log.info("found the master again at %s", link.address, extra={"action": "reconnected", "worker": self._options.worker})
        self._silent_since = None
        if self._job is None:
            self._job = job
            _log.info("connected to the master at %s", link.address, extra={"action": "connected", "job": job.job})
            if self._host is not None:
                self._host.send(self._setup(job))
        self._step(Connected(_now()))

    def _note_silence(self, link: Link, error: AntinferError | None) -> None:
        """Log once a while that the master is away; end at once when waiting cannot help, and in the end when none was ever there."""
        reason = str(error) if error is not None else f"the master at {link.address} ended the stream"
        if error is not None and self._job is None and (error.blame is Blame.USER or refuses_us(error)):
            self._exit = Exit(error.exit_code, error.text)
            return
        if error is not None and error.blame is Blame.INTERNAL:
            _log.error("%s", reason, exc_info=error, extra={"action": "link_broken"})
        now = _now()
        if self._job is None and now - self._began_at >= self._options.wait_s * 1_000:
            self._exit = Exit(MasterError.exit_code, f"no master has answered for {self._options.wait_s:g} s, at last: {reason}")
            return
        extra = {"action": "master_away", "worker": self._options.worker}
        if self._silent_since is None:
            self._silent_since = self._reminded_at = now
            self._look_at = now + _LOOK_AFTER_MS
            how_long = f" for up to {self._options.wait_s:g} s" if self._job is None else ""
            _log.info("the master is away, trying on%s: %s", how_long, reason, extra=extra)
        elif now - self._reminded_at >= _REMIND_MS:
            self._reminded_at = now
            _log.warning("no master for %.0f s, trying on: %s", (now - self._silent_since) / 1_000, reason, extra=extra)

        if self._job is not None and self._look_at is not None and now >= self._look_at:
            self._look_at = None
            threading.Thread(target=self._look_for_the_end, args=(self._job,), name="look-for-the-end", daemon=True).start()

    def _look_for_the_end(self, job: JobDocument) -> None:
        finished = self._options.is_finished(job)
        self._inbox.put(partial(self._on_looked, finished=finished))

    def _on_looked(self, *, finished: bool) -> None:
        self._look_at = _now() + _REMIND_MS
        if finished and self._silent_since is not None:
            self._missed_the_end = True
            self._exit = Exit(0, "the job is done, and its master has left")

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.hang_up()
            self._link = None

    # -- the host ----------------------------------------------------------------------------------------------------------------
    def _start_host(self) -> None:
        spawned, self._spare_host = self._spare_host or spawn(self._options.host_command), None
        self._host = HostProcess(spawned, self._deliver_message, self._deliver_end)
        self._hosts_started += 1
        if self._job is not None:
            self._host.send(self._setup(self._job))

    def _setup(self, job: JobDocument) -> hostlink.Setup:
        here = self._options.base_dir
        document = hostlink.with_base_dir(job.document, here) if here else job.document
        return hostlink.Setup(worker=self._options.worker, job=job.job, document=document, output=job.output, isolated=self._is_isolating)

    def _deliver_message(self, host: HostProcess, message: hostlink.FromHost) -> None:
        self._inbox.put(partial(self._on_message, host, message))

    def _deliver_end(self, host: HostProcess, detail: str) -> None:
        self._inbox.put(partial(self._on_host_end, host, detail))

    def _on_message(self, host: HostProcess, message: hostlink.FromHost) -> None:
        if host is not self._host:
            return
        if isinstance(message, hostlink.Progress):
            self._progress = message
        elif isinstance(message, hostlink.Staged):
            faultpoints.hit("commit.told", worker=self._options.worker, staged=message.record.staged)
            # Before the commit that may be the last, so that the report has it all.
            self._tell_stats()
        elif isinstance(message, hostlink.Failed) and message.kind is FailureKind.STORAGE:
            extra = {"action": "storage_trouble", "worker": self._options.worker}
            _log.warning("storage trouble, to be tried again: %s", message.error, extra=extra)
        self._step(HostSaid(_now(), message))

    def _on_host_end(self, host: HostProcess, detail: str) -> None:
        if host is not self._host:
            return
        self._host = None
        self._is_isolating = self._is_isolating or host.blames_user_code
        self._bury_progress()
        _log.warning("the stage host is gone: %s", detail, extra={"action": "host_died", "worker": self._options.worker})
        self._step(HostDied(_now(), detail))

    def _stop_host(self) -> None:
        if self._host is not None:
            if self._job is None:
                self._host.kill()  # it still waits to be told what to run, and has nothing to tear down
            else:
                self._host.stop(self._options.host_patience_s)
            self._stopping.append(self._host)
            self._host = None
            self._bury_progress()

    def _bury_progress(self) -> None:
        self._dead_hosts = self._told()
        self._progress = hostlink.Progress(0)

    def _told(self) -> hostlink.Progress:
        """Return what our hosts have done, the dead ones included."""
        earlier = {stage.name: stage for stage in self._dead_hosts.stages}
        here = [stage.after(earlier.pop(stage.name)) if stage.name in earlier else stage for stage in self._progress.stages]
        # A host that has not said a word yet has not done anything either.
        return hostlink.Progress(self._dead_hosts.rows + self._progress.rows, (*here, *earlier.values()))

    def _tell_regularly(self) -> None:
        self._after(_STATS_MS, self._tell_regularly)
        rows = self._dead_hosts.rows + self._progress.rows
        self._rss_bytes = resident_bytes(self._host.pid if self._host is not None else None)
        self._rate = (rows - self._rows_before) * 1_000 / _STATS_MS
        self._rows_before = rows
        self._tell_stats()

    def _tell_stats(self) -> None:
        told = self._told()
        if self._link is not None and self._session.is_connected:
            self._link.send(
                Stats(
                    rows=told.rows,
                    rows_per_second=self._rate,
                    stages=told.stages,
                    rss_bytes=self._rss_bytes,
                    hostname=socket.gethostname(),
                    pid=os.getpid(),
                    host_restarts=max(0, self._hosts_started - 1),
                )
            )

    # -- the end -----------------------------------------------------------------------------------------------------------------
    def _catch_signals(self) -> Callable[[], None]:
        """Drain on SIGUSR1 and on the first SIGTERM or SIGINT, stop at once on the second of those; returns what undoes this."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        former: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            former[number] = signal.signal(number, self._hear)

        def restore() -> None:
            for number, handler in former.items():
                signal.signal(number, handler)

        return restore

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_over:
            self._inbox.put(partial(self._on_signal, number))
        elif self._is_hurry(number):
            self._kill_hosts()

    def _is_hurry(self, number: int) -> bool:
        """Count a signal. What comes before the end of a pod says SIGUSR1, so that the SIGTERM that follows is still the first."""
        self._signals += number != signal.SIGUSR1
        return self._signals > 1 and number != signal.SIGUSR1

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._is_hurry(number):
            self._kill_hosts()
            self._exit = Exit(130, f"stopped at once by a second {name}")
            return
        more = "" if number == signal.SIGUSR1 else "; once more stops at once"
        _log.info("%s: draining%s", name, more, extra={"action": "drain", "worker": self._options.worker})
        # What takes nodes away, and what scales in, says SIGTERM; people say SIGINT.
        cause = Cause.DRAINED if number == signal.SIGINT else Cause.PREEMPTED
        self._step(DrainAsked(_now(), f"drained after {name}", cause))

    def _kill_hosts(self) -> None:
        for host in (self._host, *self._stopping):
            if host is not None:
                host.kill()

    def _tear_down(self) -> None:
        self._drop_link()
        self._stop_host()
        for host in self._stopping:
            if not host.join(self._options.host_patience_s + 1):
                host.kill()
                host.join(1)
        if self._missed_the_end and self._job is not None:
            ending.tidy_up(self._job, self._session.leases)


def _now() -> int:
    return time.monotonic_ns() // 1_000_000
