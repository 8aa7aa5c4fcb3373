"""The store on a Redis or Valkey server, ours or somebody else's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, TypeVar

from redis import exceptions as redis_errors

from antinfer.errors import StoreError
from antinfer.master.store.base import Applied, Batch, DiscontinuityError, Durability, Fence, Loaded, fenced
from antinfer.master.store.faults import PassingError, translate
from antinfer.master.store.keys import Keys
from antinfer.master.store.link import OLDEST, Greeting, Link
from antinfer.master.store.scripts import script
from antinfer.master.troubles import Troubles

_log = logging.getLogger("antinfer.store")
_SYNC_MS: Final = 5_000
"""How long one WAITAOF waits; below the connection's own time-out."""
_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_SETTINGS: Final = "Set `appendonly yes` and `appendfsync always` at the server, or `durability: publish` under `store` in the job file."

Wish = Literal["auto", "always", "waitaof", "publish"]
T = TypeVar("T")


class OwnServer(Protocol):
    """A server that we started ourselves, on a directory that nobody else can use."""

    def ensure(self) -> None:
        """Start the server again if it has died. Raises `StoreError`."""
        ...


class RedisStore:
    """The store port over one connection. A lost one is made anew only here, where run id and claim are looked at again."""

    def __init__(
        self,
        url: str,
        job: str,
        *,
        durability: Wish = "auto",
        server: OwnServer | None = None,
        start_patience_s: float = 3.0,
        patience_s: float = 600.0,
        troubles: Troubles | None = None,
    ) -> None:
        """Prepare; `open` connects.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``, with user and password where needed.
            job: Job id.
            durability: What the user wants of the server; ``auto`` takes the best that it offers and refuses one that offers nothing.
            server: Our own server behind `url`; it is started again when it dies, and its restarts do not count as a new run.
            start_patience_s: How long to try at the start, in seconds.
            patience_s: How long a store that was there may be away, in seconds.
            troubles: Told what is waited for.
        """
        self._link = Link(url)
        self._keys = Keys(job)
        self._wanted = durability
        self._server = server
        self._patience_s = start_patience_s
        self._later_patience_s = patience_s
        self._troubles = troubles
        self._durability = Durability.ALWAYS
        self._run = ""
        self._claim: Fence | None = None
        self._claimed_run = ""
        self._vouched = False
        """The documents are whole: trusted when loaded, or rebuilt since. Only then is the run that they are written to noted with them."""

    @property
    def name(self) -> str:
        return "embedded" if self._server else self._link.name

    @property
    def durability(self) -> Durability:
        return self._durability

    async def open(self) -> None:
        await self._patiently(self._detect)

    async def fence(self) -> Fence:
        epoch, seq, owner = await self._patiently(lambda: self._link.call("HMGET", self._keys.fence, "epoch", "seq", "owner"))
        return Fence(int(epoch or 0), int(seq or 0), owner or "")

    async def claim(self, epoch: int, owner: str, *, unbroken: bool = True) -> None:
        self._claim = None

        async def take() -> list[str]:
            answer: list[str] = await self._durably("claim", [self._keys.fence], [str(epoch), owner, "next" if unbroken else "later"])
            return answer

        verdict, *rest = await self._patiently(take)
        holder = _fence(*rest)
        if verdict == "held":
            raise fenced(self.name, epoch, holder)
        self._claim, self._claimed_run, self._vouched = holder, self._run, False
        # A store that takes no write at the start is the wrong one; one that took ours is worth waiting for.
        self._patience_s = self._later_patience_s

    async def load(self) -> Loaded:
        async def read() -> Loaded:
            seq, run = await self._link.call("HMGET", self._keys.fence, "seq", "run")
            documents = await self._link.call("HGETALL", self._keys.documents)
            number = int(seq or 0)
            return Loaded(documents if number else None, number, run or "", self._claimed_run, self._server is not None)

        loaded = await self._patiently(read)
        self._vouched = loaded.whole
        return loaded

    async def persist(self, batch: Batch) -> Applied:
        self._vouched = self._vouched or batch.replace
        run = self._claimed_run if self._vouched else ""
        arguments = [str(batch.epoch), str(batch.expected), batch.token, run, "replace" if batch.replace else "merge", str(len(batch.puts))]
        for key, text in batch.puts.items():
            arguments += (key, text)
        arguments += batch.deletes

        async def apply() -> list[str]:
            answer: list[str] = await self._durably("persist", [self._keys.fence, self._keys.documents], arguments)
            return answer

        verdict, *rest = await self._patiently(apply)
        match verdict:
            case "applied":
                return Applied.NOW
            case "repeated":
                return Applied.BEFORE
            case "fenced":
                raise fenced(self.name, batch.epoch, _fence(*rest))
            case _:
                raise self._lost(batch.epoch, batch.expected, _fence(*rest))

    async def close(self) -> None:
        await self._link.drop()

    async def _durably(self, name: str, keys: list[str], arguments: list[str]) -> Any:
        """Run a script and wait until what it wrote is durable. Only its own connection can tell (WAITAOF), so both go out together."""
        command = ["EVALSHA", script(name).sha, str(len(keys)), *keys, *arguments]
        if self._durability is not Durability.WAITAOF:
            return await self._link.call(*command)
        sync = ["WAITAOF", "1", "0", str(_SYNC_MS)]
        answer, synced = await self._link.calls([command, sync])
        if isinstance(answer, Exception):
            raise answer
        while isinstance(synced, Exception) or int(synced[0]) < 1:
            if isinstance(synced, Exception):
                raise synced
            _log.warning("the store is slow to sync its file", extra={"action": "store_sync_slow", "store": self.name})
            synced = await self._link.call(*sync)
        return answer

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` on a checked connection, again after errors that may pass, until the patience is over."""
        started = time.monotonic()
        tries = 0
        try:
            while True:
                try:
                    if not self._link.connected:
                        await self._connect()
                    return await work()
                except (redis_errors.RedisError, OSError, PassingError) as error:
                    fault = error if isinstance(error, PassingError) else translate(error, self.name)
                    await self._link.drop()
                    if not isinstance(fault, PassingError) or time.monotonic() - started > self._patience_s:
                        if fault is error:
                            raise
                        raise fault from error
                    if tries == 0:
                        _log.warning("%s; trying again", fault, extra={"action": "store_lost", "store": self.name})
                    if self._troubles is not None:
                        self._troubles.note(self, fault.text)
                    await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                    tries += 1
        finally:
            if self._troubles is not None:
                self._troubles.clear(self)

    async def _connect(self) -> None:
        if self._server is not None:
            self._server.ensure()
        greeting = await self._link.connect()
        self._check(greeting)
        self._run = greeting.run
        for name in ("claim", "persist"):
            await self._link.call("SCRIPT", "LOAD", script(name).text)
        if self._claim is not None:
            await self._check_claim(self._claim)

    def _check(self, greeting: Greeting) -> None:
        if greeting.version < OLDEST:
            version = ".".join(map(str, greeting.version))
            raise StoreError(f"the store {self.name} is too old: version {version}", hint="Use Redis 7.0 or later, or Valkey.")
        if greeting.replica:
            raise redis_errors.ReadOnlyError("it is a replica")

    async def _check_claim(self, claim: Fence) -> None:
        """Look again at what was known of the store before the connection was lost (rule 9)."""
        if self._run != self._claimed_run and self._server is None:
            raise DiscontinuityError(f"the store {self.name} was restarted")
        epoch, seq, owner = await self._link.call("HMGET", self._keys.fence, "epoch", "seq", "owner")
        holder = _fence(epoch or "0", seq or "0", owner or "")
        if holder.epoch > claim.epoch:
            raise fenced(self.name, claim.epoch, holder)
        if (holder.epoch, holder.owner) != (claim.epoch, claim.owner):
            raise self._lost(claim.epoch, claim.seq, holder)

    async def _detect(self) -> None:
        """Find out what the server promises about durability."""
        policy, asked, waited = await self._link.calls(
            [("CONFIG", "GET", "appendfsync"), ("CONFIG", "GET", "appendonly"), ("WAITAOF", "0", "0", "1")]
        )
        known = {} if isinstance(policy, Exception) or isinstance(asked, Exception) else _pairs(policy) | _pairs(asked)
        always = known.get("appendonly") == "yes" and known.get("appendfsync") == "always"
        waits = not isinstance(waited, Exception) and known.get("appendfsync", "everysec") != "no" and await self._has_file(known)
        if always and self._wanted in ("auto", "always"):
            self._durability = Durability.ALWAYS
        elif waits and self._wanted in ("auto", "waitaof"):
            self._durability = Durability.WAITAOF
        elif self._wanted == "publish":
            self._durability = Durability.PUBLISH
        else:
            wish = "" if self._wanted == "auto" else f" in the way asked for (store.durability: {self._wanted})"
            raise StoreError(
                f"the store {self.name} does not promise to keep what it has confirmed{wish}",
                hint=_SETTINGS if known else f"We may not see how it is set: grant the ACL user +config|get. {_SETTINGS}",
            )

    async def _has_file(self, known: dict[str, str]) -> bool:
        """Tell whether the server appends to a file at all. A server that forbids CONFIG tells by how it takes a WAITAOF that waits."""
        if known:
            return known.get("appendonly") == "yes"
        (answer,) = await self._link.calls([("WAITAOF", "1", "0", "1")])
        return not isinstance(answer, Exception)

    def _lost(self, epoch: int, expected: int, holder: Fence) -> DiscontinuityError:
        return DiscontinuityError(
            f"the store {self.name} lost its state: it is at batch {holder.seq} of epoch {holder.epoch}, not {expected} of {epoch}"
        )


def _fence(epoch: str, seq: str, owner: str) -> Fence:
    return Fence(int(epoch), int(seq), owner)


def _pairs(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {str(key): str(value) for key, value in answer.items()}
    return dict(zip(answer[::2], answer[1::2], strict=True))
