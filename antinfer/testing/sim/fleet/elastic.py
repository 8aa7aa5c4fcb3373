"""Workers by the controller: the real one of a master, over a cluster with so many places that takes its time to make a pod."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED
from antinfer.errors import UserError
from antinfer.launchers.port import Sight, WorkerOrder
from antinfer.master.controller.account import Account
from antinfer.master.controller.shell import Elastic, Surroundings
from antinfer.master.controller.sight import JobSight, look
from antinfer.master.streams import MakeEvent
from antinfer.master.troubles import Troubles
from antinfer.testing.sim.fleet.clock import Clock
from antinfer.testing.sim.fleet.conditions import Scaling
from antinfer.testing.sim.fleet.node import Node
from antinfer.testing.sim.fleet.reign import Master

_TURN_MS: Final = 1_000
_KEEP_MS: Final = 30_000
"""How often it is kept what has been used up."""
_GRACE_MS: Final = 30_000
_CONTAINER: Final = "worker"


@dataclass(eq=False, slots=True)
class _Pod:
    """One worker that was ordered, from then until it is forgotten."""

    order: WorkerOrder
    created_at: int
    node: Node | None = None
    """Its place; None: it has found none yet."""
    life: int = 0
    """Of its node while it works there; 0: it is still being made."""
    exit_code: int | None = None
    was_taken: bool = False
    """Its node is gone."""
    is_leaving: bool = False

    @property
    def has_ended(self) -> bool:
        return self.exit_code is not None or self.was_taken

    def facts(self) -> PodFacts:
        phase, reason = ("Running" if self.life else "Pending"), ""
        containers: tuple[ContainerFacts, ...] = ()
        if self.was_taken:
            phase, reason = "Failed", "Preempted"
        elif self.exit_code is not None:
            phase = "Failed" if self.exit_code else "Succeeded"
            containers = (ContainerFacts(_CONTAINER, exit_code=self.exit_code),)
        waits = () if self.node is not None else (ConditionFacts("PodScheduled", False, "Unschedulable", "no place is free"),)
        return PodFacts(
            name=self.order.name,
            worker_class=self.order.worker_class,
            created_at=self.created_at,
            container=_CONTAINER,
            phase=phase,
            reason=reason,
            conditions=waits,
            containers=containers,
            node="" if self.node is None else f"node-{self.node.index}",
            node_state=NodeState.UNKNOWN if self.node is None else NodeState.READY,
            is_deleting=self.is_leaving,
        )


class Pods:
    """All pods of a job. A launcher, see `antinfer.launchers.port.Launcher`."""

    def __init__(self, clock: Clock, scaling: Scaling, nodes: Sequence[Node], run: Callable[[Node, str], None], back_ms: int) -> None:
        """
        Args:
            clock: virtual time.
            scaling: classes of the places.
            nodes: the places.
            run: starts a worker of a name on a node.
            back_ms: time until another node comes for one that was taken away.
        """
        self._clock = clock
        self._made_ms = int(scaling.made_after * 1_000)
        self._run = run
        self._back_ms = back_ms
        self._protected = scaling.protected
        self._pods: dict[str, _Pod] = {}
        self._of_node: dict[int, _Pod] = {}
        self._free = list(nodes)
        self.most = 0
        """Most workers that there ever were at a time."""

    def worker_class(self, node: Node) -> str:
        return PROTECTED if node.index < self._protected else PREEMPTIBLE

    def rows_of(self, name: str) -> int | None:
        """Return how many rows a worker has computed, as it has told the present master; None: it has not."""
        pod = self._pods.get(name)
        return None if pod is None or pod.node is None or pod.node.life != pod.life else pod.node.rows_told

    # -- the port ----------------------------------------------------------------------------------------------------------------
    def open(self, on_change: Callable[[], None]) -> None:
        """Nobody need be told: the controller looks every second."""

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        for order in workers:
            if order.name not in self._pods:
                self._pods[order.name] = _Pod(order, self._clock.now)
        self._place()

    def stop(self, name: str, *, drain: bool) -> None:
        pod = self._pods.get(name)
        if pod is None:
            return
        if pod.has_ended or not pod.life:
            self._forget(pod)
            return
        assert pod.node is not None
        if not pod.is_leaving:
            pod.is_leaving = True
            pod.node.drain()
        if pod.life:
            self._clock.after(_GRACE_MS if drain else _TURN_MS, self._force, pod)

    def observe(self) -> Sight:
        return Sight(tuple([pod.facts() for pod in self._pods.values()]))

    def close(self) -> None:
        """There is nothing under way."""

    # -- what happens ------------------------------------------------------------------------------------------------------------
    def ended(self, node: Node, code: int) -> None:
        """The worker on a node has ended by itself."""
        pod = self._of_node.pop(node.index)
        pod.exit_code, pod.life = code, 0
        if pod.is_leaving:
            del self._pods[pod.order.name]
        self._release(node)

    def taken(self, node: Node) -> None:
        """A node with a worker on it is gone; another one comes in a while."""
        pod = self._of_node.pop(node.index)
        pod.was_taken, pod.life = True, 0
        if pod.is_leaving:
            del self._pods[pod.order.name]
        self._clock.after(self._back_ms, self._release, node)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _place(self) -> None:
        for pod in self._pods.values():
            if not self._free:
                return
            if pod.node is None:
                fitting = [node for node in self._free if self.worker_class(node) == pod.order.worker_class]
                if fitting:
                    pod.node = fitting[0]
                    self._free.remove(pod.node)
                    self._clock.after(self._made_ms, self._made, pod)

    def _made(self, pod: _Pod) -> None:
        if self._pods.get(pod.order.name) is not pod:
            return
        assert pod.node is not None
        self._of_node[pod.node.index] = pod
        self._run(pod.node, pod.order.name)
        pod.life = pod.node.life
        self.most = max(self.most, len(self._of_node))

    def _force(self, pod: _Pod) -> None:
        if pod.node is not None and pod.life and pod.node.life == pod.life:
            pod.node.kill()
            self.ended(pod.node, 128 + 9)

    def _forget(self, pod: _Pod) -> None:
        del self._pods[pod.order.name]
        if pod.node is not None and not pod.has_ended:
            self._release(pod.node)

    def _release(self, node: Node) -> None:
        self._free.append(node)
        self._place()


class Staff:
    """The workers of a job while it lasts: a controller for each reign, over the same pods."""

    def __init__(self, clock: Clock, scaling: Scaling, master: Master, pods: Pods) -> None:
        self._clock = clock
        self._scaling = scaling
        self._master = master
        self._pods = pods
        self._account = Account(0.0, {})
        self._elastic: Elastic | None = None
        self._epoch = 0
        self._kept_at = 0
        self.failure = ""
        """Why the job was given up for want of workers."""

    def begin(self) -> None:
        self._turn(None)

    def _turn(self, _: object) -> None:
        if self._master.is_over:
            if self._elastic is not None:
                self._elastic.clear()
            return
        if self._master.is_ruling:
            elastic = self._of_reign()
            elastic.turn(self._clock.now)
            if self._clock.now - self._kept_at >= _KEEP_MS:
                self._kept_at, self._account = self._clock.now, elastic.account
        self._clock.after(_TURN_MS, self._turn)

    def _of_reign(self) -> Elastic:
        if self._elastic is None or self._epoch != self._master.epoch:
            self._epoch = self._master.epoch
            desired = replace(self._scaling.desired, prefix=f"w-{self._epoch}")
            around = Surroundings(look=self._look, post=self._post, fail=self._fail, broken=_raise, troubles=Troubles())
            self._elastic = Elastic(self._pods, desired, self._account, around, self._keep)
        return self._elastic

    def _look(self) -> JobSight:
        engine = self._master.engine
        assert engine is not None
        return look(engine, self._master.committed, self._pods.rows_of)

    def _post(self, make: MakeEvent) -> None:
        self._master.post(make(self._clock.now))

    def _fail(self, error: UserError) -> None:
        self.failure = error.text

    def _keep(self, account: Account) -> None:
        self._account = account


def _raise(error: BaseException) -> None:
    raise error
