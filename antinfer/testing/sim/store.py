"""The task store, modelled: a server with an append-only file, and the client that a master speaks to it through.

Mirrors ``master/store/lua/*.lua`` and ``master/store/redis.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from antinfer.master.store.base import Batch, DiscontinuityError, Durability, Fence, fenced
from antinfer.testing.sim.world import Party, Run, World

if TYPE_CHECKING:
    from antinfer.testing.sim.scenario import Switches

Sync = Literal["always", "waitaof", "publish"]
T = TypeVar("T")
_BEHIND_MS = (30, 120)
"""How long a command on a broken connection may lie before the server reads it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the append-only file: a claim (no batch), or a batch with the run id it was written under."""

    epoch: int
    owner: str = ""
    unbroken: bool = True
    batch: Batch | None = None
    run: str = ""


@dataclass(slots=True)
class File:
    """An append-only file; more than one server may have it open where nothing keeps them apart (rule 17)."""

    entries: list[Entry] = field(default_factory=list)
    synced: int = 0
    """Entries that survive a crash."""
    locked_by: Server | None = None
    runs: int = 0


@dataclass(slots=True)
class State:
    """What a server holds in memory: the file, replayed."""

    fence: Fence = field(default_factory=lambda: Fence(0, 0, ""))
    token: str = ""
    run: str = ""
    """Run id under which the documents were written; empty when they may not be whole."""
    documents: dict[str, str] = field(default_factory=dict)

    def apply(self, entry: Entry) -> None:
        batch = entry.batch
        if batch is None:
            self.fence = Fence(entry.epoch, self.fence.seq, entry.owner)
            self.run = self.run if entry.unbroken else ""
            return
        if batch.replace:
            self.documents.clear()
        self.documents.update(batch.puts)
        for key in batch.deletes:
            self.documents.pop(key, None)
        self.fence = replace(self.fence, seq=self.fence.seq + 1)
        self.token, self.run = batch.token, entry.run


class Server(Party):
    """A server process."""

    def __init__(self, world: World, name: str, file: File, sync: Sync) -> None:
        super().__init__(world, name, "store")
        self.file = file
        self.durability = Durability(sync)
        self.state = State()
        self.run = ""

    def start(self) -> None:
        """Read the file and serve; a new run id."""
        self.begin()
        self.file.runs += 1
        self.run = f"run-{self.file.runs}"
        self.state = State()
        for entry in self.file.entries:
            self.state.apply(entry)
        self.world.note(self.name, "serves as {} from {}", self.run, self.state.fence)

    def on_gone(self) -> None:
        """Lose what was not synced, or all but some of it."""
        kept = self.world.rng.randint(self.file.synced, len(self.file.entries))
        del self.file.entries[kept:]

    def write(self, entry: Entry) -> None:
        self.file.entries.append(entry)
        self.state.apply(entry)
        if self.durability is Durability.ALWAYS:
            self.sync()

    def sync(self) -> None:
        self.file.synced = len(self.file.entries)

    def restart(self) -> None:
        self.crash()
        self.start()

    def restart_from_old_file(self) -> None:
        """Come back with an earlier state, as from a backup: what had been confirmed is gone."""
        self.crash()
        del self.file.entries[self.world.rng.randint(0, len(self.file.entries)) :]
        self.file.synced = len(self.file.entries)
        self.start()

    def wipe(self) -> None:
        """Come back with nothing."""
        self.crash()
        self.file.entries.clear()
        self.file.synced = 0
        self.start()


@dataclass(frozen=True, slots=True)
class Found:
    """What a reign finds in the store."""

    documents: dict[str, str] | None
    seq: int
    written_run: str
    """Run of the server that the documents were written to; empty while nobody has vouched that they are whole."""
    run: str
    """Run of the server now."""


class LostError(Exception):
    """The connection is gone; what became of the command is unknown."""


class StoreClient:
    """The store port of one master process, as steps. A lost connection is made anew only where run id and claim are looked at again."""

    def __init__(self, master: Party, server: Server, *, own: bool, switches: Switches) -> None:
        """
        Args:
            master: the process it belongs to.
            server: whom it talks to.
            own: it is our embedded server; its restarts do not count as a new run.
            switches: which checks of rule 8 are on.
        """
        self._world = master.world
        self._server = server
        self._own = own
        self._switches = switches
        self._life = 0
        """Of the server, when the connection was made; 0: not connected."""
        self._run = ""
        self._claim: Fence | None = None
        self._claimed_run = ""
        self._vouched = False

    @property
    def durability(self) -> Durability:
        return self._server.durability

    @property
    def is_own(self) -> bool:
        return self._own

    def disconnect(self) -> None:
        """The connection breaks."""
        self._life = 0

    # -- the port ----------------------------------------------------------------------------------------------------------------
    def fence(self) -> Run[Fence]:
        return (yield from self._patiently(lambda: self._call(lambda: self._server.state.fence)))

    def claim(self, epoch: int, owner: str, *, unbroken: bool) -> Run[None]:
        """Take the store. Raises FencedError."""
        self._claim = None

        def take() -> bool:
            held = self._server.state.fence
            if held.epoch > epoch or (held.epoch == epoch and held.owner != owner):
                return False
            self._server.write(Entry(epoch, owner, unbroken))
            return True

        if not (yield from self._patiently(lambda: self._durably(take))):
            raise fenced("sim", epoch, self._server.state.fence)
        self._claim, self._claimed_run, self._vouched = Fence(epoch, 0, owner), self._run, False

    def load(self) -> Run[Found]:
        """Return the documents. Only after `claim`."""

        def read() -> Found:
            state = self._server.state
            # In an order of their own: the one in which they were put is that of sets of strings, which the seed does not decide.
            documents = dict(sorted(state.documents.items())) if state.fence.seq else None
            return Found(documents, state.fence.seq, state.run, self._claimed_run)

        found = yield from self._patiently(lambda: self._call(read))
        self._vouched = bool(found.written_run) and (self._own or found.written_run == found.run)
        return found

    def persist(self, batch: Batch) -> Run[None]:
        """Apply `batch` durably. Raises FencedError and DiscontinuityError."""
        self._vouched = self._vouched or batch.replace
        run = self._claimed_run if self._vouched else ""

        def apply() -> str:
            state = self._server.state
            if state.fence.epoch > batch.epoch:
                return "fenced"
            if self._switches.checks_batches:
                if state.fence.epoch != batch.epoch:
                    return "lost"
                if state.token == batch.token:
                    return "repeated"
                if state.fence.seq != batch.expected:
                    return "lost"
            self._server.write(Entry(batch.epoch, batch=batch, run=run))
            return "applied"

        verdict = yield from self._patiently(lambda: self._durably(apply))
        if verdict == "fenced":
            raise fenced("sim", batch.epoch, self._server.state.fence)
        if verdict == "lost":
            raise DiscontinuityError(f"the store is at {self._server.state.fence}, not at batch {batch.expected} of {batch.epoch}")

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _patiently(self, work: Callable[[], Run[T]]) -> Run[T]:
        while True:
            try:
                if not self._life:
                    yield from self._connect()
                return (yield from work())
            except LostError:
                self._life = 0
                yield 20

    def _connect(self) -> Run[None]:
        while not self._server.is_awake:
            if self._own and not self._server.is_alive:
                self._server.start()
            else:
                yield 20
        self._life, self._run = self._server.life, self._server.run
        yield "connected to the store"
        if self._claim is not None and self._switches.checks_connection:
            self._check_claim(self._claim)

    def _check_claim(self, claim: Fence) -> None:
        """Look again at what was known of the store before the connection was lost (rule 9)."""
        if self._run != self._claimed_run and not self._own:
            raise DiscontinuityError("the store was restarted")
        holder = self._server.state.fence
        if holder.epoch > claim.epoch:
            raise fenced("sim", claim.epoch, holder)
        if (holder.epoch, holder.owner) != (claim.epoch, claim.owner):
            raise DiscontinuityError(f"the store is claimed by {holder}, not by {claim}")

    def _call(self, work: Callable[[], T]) -> Run[T]:
        """Have the server do something: the connection may break before, or before the answer is here."""
        life = self._life
        yield "sent to the store"
        if not self._life and self._server.life == life:
            # The server may read what was sent on the broken connection when it has read what comes on the next one.
            self._world.after(self._world.rng.randint(*_BEHIND_MS), lambda: self._read_late(work), self._server)
        self._check_connection()
        answer = work()
        yield "applied in the store"
        self._check_connection()
        return answer

    def _read_late(self, work: Callable[[], object]) -> None:
        self._world.note(self._server.name, "reads what was sent before the connection broke")
        work()

    def _durably(self, work: Callable[[], T]) -> Run[T]:
        answer = yield from self._call(work)
        if self.durability is Durability.WAITAOF:
            yield "waits for the sync"
            yield self._world.rng.randint(1, 30)
            if not self._switches.checks_connection and self._life != self._server.life:
                # A new connection has written nothing that WAITAOF could wait for.
                self._life = self._server.life
                return answer
            self._check_connection()
            self._server.sync()
            yield "synced in the store"
        return answer

    def _check_connection(self) -> None:
        if not self._life or self._life != self._server.life or not self._server.is_awake:
            raise LostError
