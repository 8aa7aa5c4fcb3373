"""The processes of a job under test: who works, who rules, where the store is; whoever goes missing is replaced."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from antinfer.core.scaling import exits
from antinfer.errors import AntinferError, FencedError, InfraError
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.processes import explain_exit
from antinfer.rpc.values import Status
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.kinds import NETWORK, POINTED, POINTED_TARGETS
from antinfer.testing.chaos.plan import FaultPlan
from antinfer.testing.chaos.points import PointFolder, Proof
from antinfer.testing.chaos.processes import Process, signal_all, state_of
from antinfer.testing.chaos.proxy import Proxy
from antinfer.testing.chaos.servers import ValkeyServer
from antinfer.testing.chaos.stage import Life
from antinfer.testing.chaos.watching import ask_first

_MASTERS: Final = ("master", "second-master")
_MOST_SURPRISES: Final = 20
_LEAVE_S: Final = 20.0
_JOINED: Final = "connected to the master"
"""A worker says so once it has met one."""


@dataclass
class Member:
    """One process of the job that may die and is replaced."""

    process: Process
    started_at: float
    ended_at: float | None = None
    doomed: bool = False
    """It was told to go, or killed: its end is no surprise, and somebody else takes its place."""
    frozen: set[int] = field(default_factory=set)
    """Processes of it that are stopped."""

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def is_whole(self) -> bool:
        return self.process.is_alive and not self.doomed and not self.frozen


class Crew:
    """Starts, replaces and ends the processes of one run. A `Stage`, but for the faults."""

    patience_s = 10.0

    def __init__(self, cluster: Cluster, plan: FaultPlan, store: ValkeyServer | None) -> None:
        """
        Args:
            cluster: where they run.
            plan: how many there are, and how soon they are replaced.
            store: the server that the masters use; None: they have their own. Is started and killed here.
        """
        self.cluster = cluster
        self.plan = plan
        self.store = store
        self.workers: list[Member] = []
        self.masters: list[Member] = []
        self.surprises: list[str] = []
        self.failure: AntinferError | None = None
        """What the master gave the job up with."""
        self.store_frozen = False
        self.points = PointFolder(cluster.folder / "points") if _has_points(plan) else None
        """Where faults at points are armed; None: there are none in the plan."""
        self.rows_to_poison: list[dict[str, Any]] = []
        """Rows of the input, one of which a poisonous fault takes."""
        self.links: dict[str, list[Proxy]] = {}
        """What stands between each worker and the masters, and (``store``) the masters and the store; only where nothing befalls it now."""
        self._proxies: list[Proxy] = []
        self._through_proxy = ""
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        if self.points is not None:
            cluster.environment = {**cluster.environment, **self.points.environment}
        self._names = _MASTERS if any(rule.kind == "usurp" for rule in plan.rules) else _MASTERS[:1]

    # -- starting ----------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start everything; return when the master listens."""
        if self.store is not None:
            self.store.start()
        self.start_master(self._names[0], wait=True)
        for _ in range(self.plan.workers):
            self.start_worker()

    def start_worker(self) -> None:
        name = f"worker-{next(self._numbers)}"
        addresses = [self.cluster.address(master) for master in self._names]
        if _is_cut_off(self.plan, "worker"):
            self.links[name] = [
                self._proxy(address, f"unix://{self.cluster.folder}/{name}.{number}.sock") for number, address in enumerate(addresses)
            ]
            addresses = [link.address for link in self.links[name]]
        self.workers.append(Member(self.cluster.worker_at(name, *addresses, grace_s=self.plan.notice_s), time.monotonic()))

    def _proxy(self, target: str, listen: str = "127.0.0.1:0") -> Proxy:
        self._proxies.append(Proxy(target, listen))
        return self._proxies[-1]

    def _store_url(self) -> str:
        assert self.store is not None
        if not _is_cut_off(self.plan, "store"):
            return self.store.url
        if not self._through_proxy:
            link = self._proxy(f"127.0.0.1:{self.store.port}")
            self.links["store"] = [link]
            self._through_proxy = f"redis://{link.address}/0"
        return self._through_proxy

    def start_master(self, name: str, *, wait: bool = False) -> Member:
        self._outcome(name).unlink(missing_ok=True)
        store = () if self.store is None else ("--store", self._store_url())
        process = self.cluster.master(name, *store, "--outcome", str(self._outcome(name)), wait=wait)
        self.masters.append(Member(process, time.monotonic()))
        return self.masters[-1]

    def _outcome(self, name: str) -> Path:
        return self.cluster.folder / f"{name}.outcome"

    # -- who is there --------------------------------------------------------------------------------------------------------------------
    @property
    def master(self) -> Member:
        """The one that rules, or ruled last."""
        return self.masters[-1]

    @property
    def other_master(self) -> str:
        """The name of the one that does not rule."""
        return next(name for name in self._names if name != self.master.name)

    @property
    def master_listens(self) -> bool:
        return self.master.is_whole and self.cluster.ready_file(self.master.name).exists()

    def addresses(self) -> list[str]:
        """Where masters listen; that of the one that rules comes first, those that are stopped are left out."""
        known = {member.name: member for member in self.masters}
        return [self.cluster.address(member.name) for member in reversed(known.values()) if member.is_whole]

    def ask(self) -> Status | None:
        return ask_first(self.addresses())

    def published(self) -> int:
        return self.cluster.published()

    def proofs(self) -> list[Proof]:
        return [] if self.points is None else self.points.proofs()

    def lives(self) -> list[Life]:
        return [Life(each.name, each.started_at, each.ended_at) for each in (*self.masters, *self.workers)]

    def last_words(self) -> str:
        return self.cluster.logs()

    def bugs(self) -> list[str]:
        return self.cluster.bugs()

    # -- as time goes ---------------------------------------------------------------------------------------------------------------------
    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something done after so many seconds."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), do))

    def replace_later(self) -> None:
        """Plan somebody to take the place of a worker that is gone, or about to go."""
        if self.plan.replace_s is not None:
            self.later(self.plan.replace_s, self.start_worker)

    def tend(self) -> bool:
        """Do what is due and look after everybody; return whether the job is over."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for member in self.workers:
            self._tend_worker(member)
        return self._tend_masters()

    def _tend_worker(self, member: Member) -> None:
        status = member.process.status
        if status is None or member.ended_at is not None:
            return
        member.ended_at = time.monotonic()
        if member.doomed or status == 0:
            return
        if self._fell_at_point(member):
            self.replace_later()
        else:
            self._surprise(f"{member.name} ended by itself with {explain_exit(exits.of_process(status))}: {_last_line(member.process)}")
            self.replace_later()

    def _fell_at_point(self, member: Member) -> bool:
        return any(proof.pid == member.process.pid for proof in self.proofs())

    def _tend_masters(self) -> bool:
        for member in self.masters:
            if member.ended_at is None and member.process.status is not None:
                member.ended_at = time.monotonic()
                self._see_off(member, member.process.status)
        return self.failure is not None or self.master.process.status == 0

    def _see_off(self, member: Member, status: int) -> None:
        outcome = Outcome.read(self._outcome(member.name))
        error = outcome.to_error() if outcome is not None and outcome.status == "failed" else None
        others = [other for other in self.masters if other.process.is_alive and other is not member]
        if member is not self.master:
            return
        if isinstance(error, FencedError) and others:
            # The one whose place it took had not claimed the job yet when it was stopped, and did so when it woke up.
            self.masters.remove(others[-1])
            self.masters.append(others[-1])
            others[-1].doomed = False
        elif error is not None:
            self.failure = error
        elif status != 0:
            if not member.doomed and not self._fell_at_point(member):
                self._surprise(f"{member.name} ended by itself with {explain_exit(exits.of_process(status))}: {_last_line(member.process)}")
            self.later(self.plan.restart_s, self._restart_master)

    def _restart_master(self) -> None:
        self.start_master(self.master.name)

    def _surprise(self, what: str) -> None:
        self.surprises.append(what)
        if len(self.surprises) > _MOST_SURPRISES:
            raise InfraError(f"processes die by themselves again and again, at last: {what}", hint=f"Logs: {self.cluster.folder}")

    # -- freezing ------------------------------------------------------------------------------------------------------------------------
    def freeze(self, member: Member, pids: list[int], seconds: float) -> int:
        """Stop these processes of a member for a while; return how many are stopped now."""
        member.frozen.update(signal_all(pids, signal.SIGSTOP))
        self.later(seconds, lambda: self.thaw(member))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and not all(state_of(pid) in "TZX" for pid in member.frozen):
            time.sleep(0.001)
        return sum(state_of(pid) == "T" for pid in member.frozen)

    def thaw(self, member: Member) -> None:
        signal_all(member.frozen, signal.SIGCONT)
        member.frozen.clear()

    # -- the end -------------------------------------------------------------------------------------------------------------------------
    def end(self) -> list[str]:
        """Let everybody leave who should by now; return what still runs after a while. `close` ends that by force."""
        for member in (*self.workers, *self.masters):
            self.thaw(member)
        for proxy in self._proxies:
            proxy.release()
        if self.store is not None:
            self.store.send(signal.SIGCONT)
        for member in self.workers:
            # One that came too late to meet a master would wait for one for ever, and rightly.
            if member.process.is_alive and _JOINED not in member.process.log:
                member.process.send(signal.SIGTERM)
        deadline = time.monotonic() + _LEAVE_S
        while (left := self.cluster.living()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for member in (*self.workers, *self.masters):
            member.ended_at = member.ended_at or time.monotonic()
        return left

    def close(self) -> None:
        """Leave nothing behind."""
        self.cluster.close()
        for proxy in self._proxies:
            proxy.close()
        if self.store is not None:
            self.store.kill()


def _has_points(plan: FaultPlan) -> bool:
    return any(rule.kind in POINTED or rule.target in POINTED_TARGETS or rule.is_pointed for rule in plan.rules)


def _is_cut_off(plan: FaultPlan, target: str) -> bool:
    return any(rule.kind in NETWORK and rule.target == target for rule in plan.rules)


def _last_line(process: Process) -> str:
    lines = process.log.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
