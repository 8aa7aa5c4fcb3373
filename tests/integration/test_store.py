"""The store port: the same promises from memory and from a real Valkey, and clear words when a server is unfit."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from antinfer.errors import FencedError, StoreError
from antinfer.master.store.base import Applied, Batch, DiscontinuityError, Durability, Fence, Store
from antinfer.master.store.faults import RIGHTS
from antinfer.master.store.keys import Keys
from antinfer.master.store.memory import MemoryStore, Server
from antinfer.master.store.redis import RedisStore
from antinfer.testing.chaos.servers import ValkeyServer, free_port, valkey

Scenario = Callable[["Backend"], Awaitable[None]]


class Backend:
    """Something that makes stores on one server, and does to the server what the world does."""

    def __init__(self, make: Callable[[], Store], restart: Callable[[], None], wipe: Callable[[], None]) -> None:
        self.make, self.restart, self.wipe = make, restart, wipe

    async def master(self, epoch: int, owner: str = "") -> Store:
        store = self.make()
        await store.open()
        await store.claim(epoch, owner or f"master {epoch}")
        return store


def redis_program() -> str:
    """Return the program of a real Redis; skips the test where none is given."""
    program = os.environ.get("ANTINFER_TEST_REDIS", "")
    if not program:
        pytest.skip("ANTINFER_TEST_REDIS names no redis-server")
    return program


@pytest.fixture(params=["memory", "always", "waitaof", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        server = Server()
        yield Backend(lambda: MemoryStore(server), server.restart, server.wipe)
        return
    policy = "everysec" if request.param == "waitaof" else "always"
    program = redis_program() if request.param == "redis" else ""
    with valkey(tmp_path / "server", program=program, appendfsync=policy) as real:
        yield Backend(lambda: RedisStore(real.url, "job"), real.restart, real.wipe)


def run(backend: Backend, scenario: Scenario) -> None:
    asyncio.run(asyncio.wait_for(_closing(backend, scenario), 30))  # type: ignore[arg-type]


async def _closing(backend: Backend, scenario: Scenario) -> None:
    made: list[Store] = []
    make = backend.make

    def noted() -> Store:
        made.append(make())
        return made[-1]

    backend.make = noted
    try:
        await scenario(backend)
    finally:
        for store in made:
            await store.close()


def batch(epoch: int, expected: int, token: str, **changes: Any) -> Batch:
    return Batch(epoch, expected, token, **{"puts": {"k": token}, **changes})


def test_puts_and_deletes_are_applied_together(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        assert await store.persist(batch(1, 0, "a", puts={"x": "1", "y": "2", "żółw": "ø"})) is Applied.NOW
        assert await store.persist(batch(1, 1, "b", puts={"x": "3"}, deletes={"y", "never there"})) is Applied.NOW
        loaded = await store.load()
        assert (loaded.documents, loaded.seq) == ({"x": "3", "żółw": "ø"}, 2)

    run(backend, scenario)


def test_a_batch_larger_than_the_servers_stack_is_applied_whole(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        puts = {f"k{n}": str(n) for n in range(20_000)}
        await store.persist(batch(1, 0, "a", puts=puts))
        assert (await store.load()).documents == puts
        await store.persist(batch(1, 1, "b", puts={}, deletes=set(list(puts)[:-1])))
        assert (await store.load()).documents == {"k19999": "19999"}

    run(backend, scenario)


def test_nothing_persisted_is_told_from_no_documents(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        assert (await store.load()).documents is None
        await store.persist(batch(1, 0, "a", puts={}))
        assert (await store.load()).documents == {}

    run(backend, scenario)


def test_replace_drops_everything_else(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        await store.persist(batch(1, 0, "a", puts={"old": "1"}))
        await store.persist(batch(1, 1, "b", puts={"new": "2"}, replace=True))
        assert (await store.load()).documents == {"new": "2"}

    run(backend, scenario)


def test_a_repeat_is_recognised_by_its_token_and_applied_once(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        assert await store.persist(batch(1, 0, "a")) is Applied.NOW
        assert await store.persist(batch(1, 0, "a")) is Applied.BEFORE
        assert (await store.load()).seq == 1

    run(backend, scenario)


def test_another_batch_of_the_same_number_is_not_applied(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        await store.persist(batch(1, 0, "a"))
        with pytest.raises(DiscontinuityError):
            await store.persist(batch(1, 0, "b"))
        with pytest.raises(DiscontinuityError):
            await store.persist(batch(1, 2, "c"))
        assert (await store.load()).documents == {"k": "a"}

    run(backend, scenario)


def test_a_higher_epoch_fences_the_lower_one(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        old = await backend.master(1, "old one")
        await old.persist(batch(1, 0, "a"))
        new = await backend.master(2, "new one")
        with pytest.raises(FencedError, match=r"epoch 2 \(new one\)"):
            await old.persist(batch(1, 1, "b"))
        assert await new.persist(batch(2, 1, "c")) is Applied.NOW
        with pytest.raises(FencedError):
            await old.claim(1, "old one")
        assert await new.fence() == Fence(2, 2, "new one")

    run(backend, scenario)


def test_one_epoch_has_one_owner_who_may_claim_again(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        mine = await backend.master(3, "me")
        await mine.claim(3, "me")
        with pytest.raises(FencedError, match="me"):
            await backend.master(3, "somebody else")

    run(backend, scenario)


def test_a_repeat_of_a_fenced_batch_is_refused_although_it_was_applied(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        old = await backend.master(1)
        await old.persist(batch(1, 0, "a"))
        await backend.master(2)
        with pytest.raises(FencedError):
            await old.persist(batch(1, 0, "a"))

    run(backend, scenario)


@pytest.mark.parametrize("wiped", [False, True], ids=["restarted", "wiped"])
def test_a_server_that_started_again_ends_the_reign(backend: Backend, wiped: bool) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        await store.load()
        await store.persist(batch(1, 0, "a", replace=True))
        (backend.wipe if wiped else backend.restart)()
        with pytest.raises(DiscontinuityError):
            await store.persist(batch(1, 1, "b"))
        await store.claim(2, "master 2")
        loaded = await store.load()
        assert (loaded.documents, loaded.whole) == (None if wiped else {"k": "a"}, False)

    run(backend, scenario)


def test_a_claim_after_another_stores_reign_makes_the_documents_doubtful_for_good(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        store = await backend.master(1)
        await store.load()
        await store.persist(batch(1, 0, "a", replace=True))
        await store.claim(3, "master 3", unbroken=False)
        assert not (await store.load()).whole
        await store.claim(4, "master 4")
        assert not (await store.load()).whole, "nobody has rebuilt them in between"
        await store.persist(batch(4, 1, "b", replace=True))
        await store.claim(5, "master 5")
        assert (await store.load()).whole

    run(backend, scenario)


def test_documents_are_trusted_when_rebuilt_and_written_to_this_run(backend: Backend) -> None:
    async def scenario(backend: Backend) -> None:
        first = await backend.master(1)
        assert not (await first.load()).whole
        await first.persist(batch(1, 0, "a"))
        second = await backend.master(2)
        assert not (await second.load()).whole, "the first reign died before it had rebuilt the state"
        await second.persist(batch(2, 1, "b", replace=True))
        await second.persist(batch(2, 2, "c"))
        third = await backend.master(3)
        assert (await third.load()).whole
        await third.persist(batch(3, 3, "d"))
        assert (await (await backend.master(4)).load()).whole, "what a reign adds to trusted documents is trusted"
        backend.restart()
        fifth = await backend.master(5)
        assert not (await fifth.load()).whole
        await fifth.persist(batch(5, 4, "e"))
        assert not (await (await backend.master(6)).load()).whole

    run(backend, scenario)


def test_jobs_on_one_server_do_not_meet(tmp_path: Path) -> None:
    async def scenario(server: ValkeyServer) -> None:
        one, two = RedisStore(server.url, "one"), RedisStore(server.url, "two")
        for store in (one, two):
            await store.open()
            await store.claim(1, "me")
        await one.persist(batch(1, 0, "a"))
        assert (await two.load()).documents is None
        await one.close()
        await two.close()

    with valkey(tmp_path) as server:
        asyncio.run(scenario(server))


def test_scripts_that_the_server_forgot_are_loaded_again(tmp_path: Path) -> None:
    async def scenario(server: ValkeyServer) -> None:
        store = RedisStore(server.url, "job")
        await store.open()
        await store.claim(1, "me")
        redis.Redis.from_url(server.url).script_flush()
        assert await store.persist(batch(1, 0, "a")) is Applied.NOW
        await store.close()

    with valkey(tmp_path) as server:
        asyncio.run(scenario(server))


def test_a_connection_cut_in_flight_is_made_again_and_the_batch_counted_once(tmp_path: Path) -> None:
    async def scenario(server: ValkeyServer) -> None:
        store = RedisStore(server.url, "job")
        await store.open()
        await store.claim(1, "me")
        admin = redis.Redis.from_url(server.url)
        for n in range(20):
            cut = asyncio.get_running_loop().run_in_executor(None, lambda: admin.client_kill_filter(_type="normal", skipme=True))
            await store.persist(batch(1, n, f"t{n}"))
            await cut
        assert (await store.load()).seq == 20
        await store.close()

    with valkey(tmp_path) as server:
        asyncio.run(scenario(server))


def _open(url: str, **options: Any) -> Durability:
    async def scenario() -> Durability:
        store = RedisStore(url, "job", start_patience_s=0.2, patience_s=0.2, **options)
        try:
            await store.open()
            await store.claim(1, "me")
            await store.persist(batch(1, 0, "a"))
            return store.durability
        finally:
            await store.close()

    return asyncio.run(scenario())


DURABILITY = [
    ("always", {}, Durability.ALWAYS),
    ("everysec", {"appendfsync": "everysec"}, Durability.WAITAOF),
    ("always, CONFIG forbidden", {"user": "default;on;nopass;~*;+@all;-config"}, Durability.WAITAOF),
]


@pytest.mark.parametrize(("settings", "expected"), [case[1:] for case in DURABILITY], ids=[case[0] for case in DURABILITY])
def test_durability_is_found_out(tmp_path: Path, settings: dict[str, str], expected: Durability) -> None:
    with valkey(tmp_path, **settings) as server:
        assert _open(server.url) is expected


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_the_rights_that_are_asked_for_are_enough(tmp_path: Path, kind: str) -> None:
    program = redis_program() if kind == "redis" else ""
    rights = RIGHTS.removesuffix(" +waitaof") if program and _version(program) < (7, 2) else RIGHTS
    with valkey(tmp_path, program=program, user=f"ann;on;>pw;{rights.replace(' ', ';')}") as server:
        assert _open(server.url.replace("//", "//ann:pw@")) is Durability.ALWAYS


def _version(program: str) -> tuple[int, ...]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, told.partition("v=")[2].split()[0].split(".")))


def test_redis_before_7_2_has_to_show_its_settings(tmp_path: Path) -> None:
    """It has no WAITAOF, by which others tell what they are like."""
    program = redis_program()
    with valkey(tmp_path, program=program, user="default;on;nopass;~*;+@all;-config") as server:
        if _version(program) >= (7, 2):
            assert _open(server.url) is Durability.WAITAOF
            return
        with pytest.raises(StoreError, match="does not promise to keep") as caught:
            _open(server.url)
        assert "+config|get" in caught.value.hint


NOT_DURABLE = [
    ("no file", {"appendonly": "no"}),
    ("never synced", {"appendfsync": "no"}),
    ("no file, CONFIG forbidden", {"appendonly": "no", "user": "default;on;nopass;~*;+@all;-config"}),
    ("CONFIG and WAITAOF forbidden", {"user": "default;on;nopass;~*;+@all;-config;-waitaof"}),
]


@pytest.mark.parametrize("settings", [case[1] for case in NOT_DURABLE], ids=[case[0] for case in NOT_DURABLE])
def test_a_server_that_promises_nothing_is_refused_unless_wished(tmp_path: Path, settings: dict[str, str]) -> None:
    with valkey(tmp_path, **settings) as server:
        with pytest.raises(StoreError, match="does not promise to keep") as caught:
            _open(server.url)
        assert ("+config|get" in caught.value.hint) is ("user" in settings)
        assert _open(server.url, durability="publish") is Durability.PUBLISH


@contextmanager
def _replica(tmp_path: Path) -> Iterator[str]:
    with valkey(tmp_path / "a") as primary, valkey(tmp_path / "b", replicaof=f"127.0.0.1;{primary.port}") as replica:
        yield replica.url


@contextmanager
def _server(tmp_path: Path, **settings: str) -> Iterator[str]:
    with valkey(tmp_path, **settings) as server:
        yield server.url


@contextmanager
def _plain_text_server() -> Iterator[str]:
    def greet(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"-ERR this is no TLS\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        try:
            yield f"rediss://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def _url(url: str) -> Iterator[str]:
    yield url


UNFIT: list[tuple[str, Callable[[Path], AbstractContextManager[str]], Callable[[str], str], str]] = [
    ("nobody listens", lambda _: _url(f"redis://127.0.0.1:{free_port()}/0"), str, r"redis://127.0.0.1:\d+/0 cannot be reached"),
    ("no such host", lambda _: _url("redis://no-such-host.invalid:6379/0"), str, "no-such-host.invalid:6379/0 cannot be reached"),
    ("not a URL", lambda _: _url("http://127.0.0.1:6379"), str, "not a store URL: 'http://127.0.0.1:6379'"),
    ("password missing", lambda p: _server(p, requirepass="secret"), str, "refuses our user or password|wants a password"),
    (
        "password wrong",
        lambda p: _server(p, requirepass="secret"),
        lambda url: url.replace("//", "//:hunter2@"),
        "refuses our user or password",
    ),
    (
        "user unknown",
        lambda p: _server(p, requirepass="secret"),
        lambda url: url.replace("//", "//ann:hunter2@"),
        r"ann@127.0.0.1:\d+/0 refuses our user",
    ),
    ("user without rights", lambda p: _server(p, user="default;on;nopass;~other:*;+@all"), str, "forbids us a command or a key"),
    ("replica", _replica, str, "is read-only"),
    ("out of memory", lambda p: _server(p, maxmemory="1mb"), str, "is out of memory"),
    ("TLS to a plain port", lambda _: _plain_text_server(), str, "TLS with the store .* failed"),
]


@pytest.mark.parametrize(("serve", "address", "message"), [case[1:] for case in UNFIT], ids=[case[0] for case in UNFIT])
def test_an_unfit_server_is_named_with_the_cause(
    tmp_path: Path, serve: Callable[[Path], AbstractContextManager[str]], address: Callable[[str], str], message: str
) -> None:
    with serve(tmp_path) as url, pytest.raises(StoreError, match=message) as caught:
        _open(address(url))
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_keys_of_a_job_share_a_slot() -> None:
    keys = Keys("a-1")
    assert (keys.fence, keys.documents) == ("antinfer:{a-1}:fence", "antinfer:{a-1}:docs")
