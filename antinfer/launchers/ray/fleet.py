"""The actors of one job on a cluster: made as ordered, followed until they end, and told of as plain facts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.errors import JobFileError
from antinfer.launchers.port import WorkerOrder
from antinfer.launchers.ray.cluster import RayCluster, explain_death
from antinfer.launchers.ray.facts import ActorFacts, Death, NodeFacts, node_state, why_waiting
from antinfer.launchers.ray.settings import RaySettings, request_of

_log = logging.getLogger("antinfer.launchers.ray")
_PATIENCE_MS: Final = 5_000
"""An actor that has no node for so long waits for one; before, its process may be starting."""
_BETWEEN_LINES_S: Final = 0.2
_LATE_S: Final = 10.0
"""Time after its grace period that a worker has before its actor is ended."""


@dataclass(slots=True)
class _Actor:
    """One actor, alive or not."""

    order: WorkerOrder
    handle: Any
    """None once it has ended: nobody holds it any more, so that Ray ends its process."""
    options: Mapping[str, Any]
    created_at: int
    node_id: str = ""
    is_leaving: bool = False
    exit_code: int | None = None
    death: Death | None = None
    words: str = ""
    following: asyncio.Task[None] | None = None


class Fleet:
    """All actors. To be used on one event loop."""

    def __init__(
        self, cluster: RayCluster, settings: RaySettings, on_change: Callable[[], None], say: Callable[[str, list[str]], None]
    ) -> None:
        """
        Args:
            cluster: joined.
            settings: how workers are made.
            on_change: is called when there is something new in `facts` or `refused`.
            say: takes the name of a worker and what it has said.
        """
        self._cluster = cluster
        self._settings = settings
        self._document = settings.to_json()
        self._on_change = on_change
        self._say = say
        self._actors: dict[str, _Actor] = {}
        self._nodes: Mapping[str, NodeFacts] = {}
        self._fault: BaseException | None = None
        self._is_closing = False
        self._refused: dict[str, Obstacle] = {}

    def start(self, order: WorkerOrder) -> None:
        """Start a worker, unless one is there already under its name."""
        if order.name in self._actors:
            return
        if self._is_closing:
            self._refuse(order, Obstacle(Cause.NO_CAPACITY, Severity.WAITING, "the launcher is being stopped"))
            return
        options = self._settings.options[order.worker_class]
        if order.memory_bytes:
            options = {**options, "memory": order.memory_bytes}
        try:
            handle = self._cluster.start(self._document, order.name, options, order.avoid)
        except JobFileError as error:
            _log.warning("cannot start worker %s: %s", order.name, error, extra={"action": "start_refused", "worker": order.name})
            self._refuse(order, Obstacle(Cause.CONFIG_ERROR, Severity.INVALID, error.text))
            return
        actor = self._actors[order.name] = _Actor(order, handle, options, _now_ms())
        actor.following = asyncio.create_task(self._follow(actor))
        actor.following.add_done_callback(self._ended)
        self._on_change()

    def stop(self, name: str, *, drain: bool) -> None:
        """Let a worker leave, in order if it may `drain`; forget one that has ended."""
        actor = self._actors.get(name)
        if actor is None:
            return
        if actor.handle is None:
            del self._actors[name]
        elif drain and actor.node_id:
            if not actor.is_leaving:
                actor.handle.stop.remote()
                asyncio.get_running_loop().call_later(self._settings.grace_s + _LATE_S, self._end, actor)
        else:
            self._end(actor)
        actor.is_leaving = True
        self._on_change()

    def close(self) -> None:
        """Let all workers leave in order, and start no more."""
        self._is_closing = True
        for name in list(self._actors):
            self.stop(name, drain=True)

    @property
    def is_empty(self) -> bool:
        """True when no worker is left that has not ended."""
        return all(actor.handle is None for actor in self._actors.values())

    async def look(self) -> None:
        """Look at the nodes."""
        nodes = await asyncio.to_thread(self._cluster.nodes)
        if nodes != self._nodes:
            self._nodes = nodes
            self._on_change()

    def facts(self) -> list[ActorFacts]:
        """Return what is known of each actor now. Raises what has kept us from following one."""
        if self._fault is not None:
            raise self._fault
        now = _now_ms()
        return [self._facts(actor, now) for actor in self._actors.values()]

    def take_refused(self) -> dict[str, Obstacle]:
        """Return the workers that could not be asked for since the last call, by name, and why."""
        refused, self._refused = self._refused, {}
        return refused

    # -- inside ------------------------------------------------------------------------------------------------------------------
    async def _follow(self, actor: _Actor) -> None:
        """Take in what an actor tells until it has ended, one way or the other."""
        try:
            while not self._hear(actor, await actor.handle.news.remote()):
                await asyncio.sleep(_BETWEEN_LINES_S)
        except self._cluster.error as error:
            actor.death, actor.words = explain_death(error)
        finally:
            actor.handle = None
            self._on_change()

    def _hear(self, actor: _Actor, news: Mapping[str, Any]) -> bool:
        """Take in what an actor tells; True when its worker has ended."""
        if news["lines"]:
            self._say(actor.order.name, news["lines"])
        if actor.node_id != news["node"]:
            actor.node_id = news["node"]
            self._on_change()
        if "exit_code" not in news:
            return False
        actor.exit_code, actor.words = news["exit_code"], news["words"]
        if news["problem"]:
            actor.death, actor.words = Death.NOT_STARTED, news["problem"]
        return True

    def _ended(self, following: asyncio.Task[None]) -> None:
        if not following.cancelled() and (error := following.exception()) is not None:
            self._fault = error
            self._on_change()

    def _end(self, actor: _Actor) -> None:
        if actor.handle is not None:
            self._cluster.kill(actor.handle)

    def _refuse(self, order: WorkerOrder, why: Obstacle) -> None:
        self._refused[order.name] = why
        self._on_change()

    def _facts(self, actor: _Actor, now: int) -> ActorFacts:
        node = self._nodes.get(actor.node_id)
        is_waiting = actor.handle is not None and not actor.node_id and now - actor.created_at >= _PATIENCE_MS
        return ActorFacts(
            name=actor.order.name,
            worker_class=actor.order.worker_class,
            created_at=actor.created_at,
            memory_bytes=int(actor.options.get("memory") or 0),
            # One that has come since the last look has no name yet.
            node=actor.node_id[:8] if node is None else node.name,
            node_state=node_state(node),
            waits=why_waiting(self._nodes.values(), request_of(actor.options)) if is_waiting else "",
            is_leaving=actor.is_leaving,
            exit_code=actor.exit_code,
            death=actor.death,
            words=actor.words,
        )


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
