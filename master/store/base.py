"""The port of the task store, and what its implementations share."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from antinfer.errors import FencedError, StoreError


class Durability(Enum):
    """When a batch counts as durable."""

    ALWAYS = "always"
    """The server syncs its append-only file before it answers."""
    WAITAOF = "waitaof"
    """We wait for the sync of our own connection's writes."""
    PUBLISH = "publish"
    """The server promises nothing: a commit is answered only after its part is published."""


class Applied(Enum):
    """What became of a batch that was persisted."""

    NOW = "now"
    BEFORE = "before"
    """An earlier try of the same batch had been applied and only its answer was lost (rule 8)."""


class DiscontinuityError(StoreError):
    """The store no longer holds what this reign wrote: it was restarted, wiped or rolled back. A new reign must look at it afresh."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The claim on the store: who may write, and how far it has come."""

    epoch: int
    """0: never claimed."""
    seq: int
    """Number of the last batch applied; 0 before the first."""
    owner: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a reign finds in the store."""

    documents: dict[str, str] | None
    """None when nothing was ever persisted."""
    seq: int
    written_run: str
    """Run of the server that the documents were written to; empty while nobody has vouched that they are whole."""
    run: str
    """Run of the server now."""
    own_server: bool = False
    """It is our own server on its locked file: its restarts lose nothing."""

    @property
    def whole(self) -> bool:
        """True when no document can be missing that was ever written to this store (rule 11)."""
        return bool(self.written_run) and (self.own_server or self.written_run == self.run)


@dataclass(frozen=True, slots=True)
class Batch:
    """One change of the documents, applied as a whole or not at all."""

    epoch: int
    expected: int
    """Sequence number of the batch before this one."""
    token: str
    """Differs for every batch ever built, so that a repeat is known for what it is."""
    puts: Mapping[str, str]
    deletes: Set[str] = field(default_factory=frozenset)
    replace: bool = False
    """Drop all documents first: the state was rebuilt from the output place. From then on the documents are whole, and a later reign on
    the same run of the server may trust them."""


class Store(Protocol):
    """Documents of one job under a fence. One user at a time; methods wait for a lost server to come back, within their patience.

    All raise `StoreError` naming the server and the cause when it cannot be reached or refuses us.
    """

    @property
    def name(self) -> str:
        """The server's address without secrets, for messages and the owner string."""
        ...

    @property
    def durability(self) -> Durability:
        """When a batch counts as durable here; known after `open`."""
        ...

    async def open(self) -> None:
        """Connect, and check that the server is fit for the purpose."""
        ...

    async def fence(self) -> Fence:
        """Return the present claim."""
        ...

    async def claim(self, epoch: int, owner: str, *, unbroken: bool = True) -> None:
        """Take the store for `epoch`.

        Args:
            epoch: claimed in the output place before.
            owner: who claims.
            unbroken: nobody has ruled since the last claim of this store. Otherwise its documents are not whole any more, from now on and
                for every later reign, until they are replaced.

        Raises:
            FencedError: An epoch as high, of another owner, or a higher one has the store.
        """
        ...

    async def load(self) -> Loaded:
        """Return the documents. Only after `claim`."""
        ...

    async def persist(self, batch: Batch) -> Applied:
        """Apply `batch` if epoch and sequence number match exactly, and make it durable.

        Raises:
            FencedError: A higher epoch has claimed the store.
            DiscontinuityError: The store does not hold what this reign wrote.
        """
        ...

    async def close(self) -> None:
        """Let go of the server."""
        ...


def fenced(store: str, epoch: int, holder: Fence) -> FencedError:
    """Return the error for a master of `epoch` that met the claim `holder`."""
    return FencedError(
        f"another master rules this job: epoch {holder.epoch} ({holder.owner}) holds the store {store}; this one had epoch {epoch}",
        hint="Only one master runs a job at a time; stop the other one first if this one is to take over.",
    )
