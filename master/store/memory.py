"""A store in this process's memory: the reference that the real one is compared with, and the fast one for simulations."""

from __future__ import annotations

from dataclasses import dataclass, field

from antinfer.master.store.base import Applied, Batch, DiscontinuityError, Durability, Fence, Loaded, fenced


@dataclass(slots=True)
class Server:
    """What a server process holds; several `MemoryStore`s may share one, as several masters share a Redis."""

    fence: Fence = field(default_factory=lambda: Fence(0, 0, ""))
    token: str = ""
    written_under: str = ""
    documents: dict[str, str] = field(default_factory=dict)
    starts: int = 1

    @property
    def run(self) -> str:
        """Changes with every start of the server."""
        return f"run-{self.starts}"

    def restart(self) -> None:
        """End and start again with everything that was written."""
        self.starts += 1

    def wipe(self) -> None:
        """Start again with nothing."""
        self.restart()
        self.fence, self.token, self.written_under = Fence(0, 0, ""), "", ""
        self.documents.clear()


class MemoryStore:
    """The store port on a `Server`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._run = ""
        self._vouched = False
        """The documents are whole: trusted when loaded, or rebuilt since."""

    @property
    def name(self) -> str:
        return "memory:"

    @property
    def durability(self) -> Durability:
        return Durability.ALWAYS

    async def open(self) -> None:
        self._run = self._server.run

    async def fence(self) -> Fence:
        return self._server.fence

    async def claim(self, epoch: int, owner: str, *, unbroken: bool = True) -> None:
        held = self._server.fence
        if held.epoch > epoch or (held.epoch == epoch and held.owner != owner):
            raise fenced(self.name, epoch, held)
        self._run = self._server.run
        self._server.fence = Fence(epoch, held.seq, owner)
        if not unbroken:
            self._server.written_under = ""

    async def load(self) -> Loaded:
        documents = dict(self._server.documents) if self._server.fence.seq else None
        loaded = Loaded(documents, self._server.fence.seq, self._server.written_under, self._run)
        self._vouched = loaded.whole
        return loaded

    async def persist(self, batch: Batch) -> Applied:
        server, held = self._server, self._server.fence
        if held.epoch > batch.epoch:
            raise fenced(self.name, batch.epoch, held)
        if self._run != server.run:
            raise DiscontinuityError("the store was restarted")
        if held.epoch == batch.epoch and server.token == batch.token:
            return Applied.BEFORE
        if held.epoch != batch.epoch or held.seq != batch.expected:
            raise DiscontinuityError(f"the store is at batch {held.seq} of epoch {held.epoch}, expected {batch.expected} of {batch.epoch}")
        if batch.replace:
            self._vouched = True
            server.documents.clear()
        server.documents.update(batch.puts)
        for key in batch.deletes:
            server.documents.pop(key, None)
        server.fence = Fence(held.epoch, held.seq + 1, held.owner)
        server.token, server.written_under = batch.token, self._run if self._vouched else ""
        return Applied.NOW

    async def close(self) -> None:
        self._vouched = False
