"""The embedded server: durable, locked, and gone with its master."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from antinfer.errors import StoreError
from antinfer.master.store.base import Applied, Batch
from antinfer.master.store.embedded import EmbeddedServer
from antinfer.master.store.redis import RedisStore


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "state")
    server.start()
    yield server
    server.stop()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _alive(pid)


def test_a_directory_that_its_last_user_removes_is_made_again_for_who_waits(server: EmbeddedServer) -> None:
    follower = EmbeddedServer(server.directory)
    with ThreadPoolExecutor(1) as pool:
        # It dies with the thread that has started it.
        waiting = pool.submit(follower.start)
        time.sleep(0.2)
        assert not waiting.done(), "it waits for the lock"
        server.remove()
        waiting.result(10)
        assert sorted(each.name for each in server.directory.iterdir() if each.name == "lock") == ["lock"]
        follower.remove()
    assert not server.directory.exists()


def test_what_was_confirmed_survives_kill_9_and_is_served_again_without_a_new_reign(server: EmbeddedServer) -> None:
    async def scenario() -> None:
        told: list[str] = []
        store = RedisStore(server.url, "job", server=server, was_away=told.append)
        await store.open()
        await store.claim(1, "me")
        await store.load()
        for n in range(50):
            await store.persist(Batch(1, n, f"t{n}", {f"k{n}": "x" * 100}))
            if n % 10 == 5:
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
        loaded = await store.load()
        await store.close()
        assert loaded.documents is not None
        assert len(told) == 5 and all("cannot be reached" in words for words in told), told
        assert sorted(loaded.documents) == sorted(f"k{n}" for n in range(50))
        assert loaded.seq == 50

    asyncio.run(scenario())


def test_a_reply_lost_with_the_server_is_recognised_by_its_token(server: EmbeddedServer) -> None:
    async def scenario() -> None:
        store = RedisStore(server.url, "job", server=server)
        await store.open()
        await store.claim(1, "me")
        await store.load()
        batch = Batch(1, 0, "t", {"a": "1"})
        assert await store.persist(batch) is Applied.NOW
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await store.persist(batch) is Applied.BEFORE
        await store.close()

    asyncio.run(scenario())


def test_a_torn_last_write_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    async def fill(server: EmbeddedServer) -> None:
        store = RedisStore(server.url, "job", server=server)
        await store.open()
        await store.claim(1, "me")
        await store.load()
        for n in range(3):
            await store.persist(Batch(1, n, f"t{n}", {f"k{n}": "x" * 100}))
        await store.close()

    async def read(server: EmbeddedServer) -> dict[str, str]:
        store = RedisStore(server.url, "job", server=server)
        await store.open()
        await store.claim(2, "me again")
        loaded = await store.load()
        await store.close()
        assert loaded.documents is not None
        return loaded.documents

    server = EmbeddedServer(tmp_path / "state")
    server.start()
    asyncio.run(fill(server))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    (file,) = (tmp_path / "state" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 7)
    server.start()
    try:
        assert sorted(asyncio.run(read(server))) == ["k0", "k1"]
    finally:
        server.stop()


def test_a_second_server_on_the_same_directory_is_refused(server: EmbeddedServer) -> None:
    with pytest.raises(StoreError, match=f"another master uses the embedded store in .*process {os.getpid()} "):
        EmbeddedServer(server.directory).start()


def test_the_lock_is_held_by_the_server_itself(tmp_path: Path) -> None:
    """Rule 17: even with every descriptor of the master gone, the directory stays locked while the server lives."""
    server = EmbeddedServer(tmp_path / "state")
    server.start()
    lock = server._lock
    assert lock is not None
    os.close(lock)
    try:
        with pytest.raises(StoreError, match="another master uses"):
            EmbeddedServer(server.directory).start()
    finally:
        server._lock = None
        server.stop()
    after = EmbeddedServer(server.directory)
    after.start()
    after.stop()


MASTER = """
import sys, time
from antinfer.master.store.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1])
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_the_server_dies_with_its_master(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MASTER, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        pid = int(master.stdout.readline())
        assert _alive(pid)
        master.kill()
    assert _wait_gone(pid)
    successor = EmbeddedServer(tmp_path / "state")
    successor.start()
    successor.stop()


def test_it_opens_no_tcp_port(server: EmbeddedServer) -> None:
    inodes = {os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")}
    listening = [line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]]
    assert not [entry for entry in listening if entry[3] == "0A" and f"socket:[{entry[9]}]" in inodes]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"cannot use its directory {tmp_path}/file/state"):
        EmbeddedServer(tmp_path / "file" / "state").start()


def test_a_damaged_file_is_reported_with_the_servers_own_words(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(StoreError, match="did not start"):
        EmbeddedServer(tmp_path / "state").start()
