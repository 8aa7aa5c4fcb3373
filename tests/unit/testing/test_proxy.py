"""The network between two ends: late, held back, broken, but never wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.testing.chaos.proxy import Proxy


class Echo:
    """A server that sends back whatever it is sent."""

    def __init__(self, family: int, address: str | tuple[str, int]) -> None:
        self._socket = socket.socket(family)
        self._socket.bind(address)
        self._socket.listen()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._socket.accept()
                self._ends.append(end)
                threading.Thread(target=self._echo, args=(end,), daemon=True).start()

    def _echo(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := end.recv(65536):
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        for each in (self._socket, *self._ends):
            each.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo(socket.AF_INET, ("127.0.0.1", 0))
    with Proxy(f"127.0.0.1:{echo.port}") as proxy:
        yield proxy
    echo.close()


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def receive(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := end.recv(count - len(data))):
        data += more
    return data


def test_bytes_go_through_unchanged_and_ends_are_carried_on(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 8192
    with connect(proxy) as end:
        threading.Thread(target=lambda: (end.sendall(sent), end.shutdown(socket.SHUT_WR)), daemon=True).start()
        assert receive(end, len(sent)) == sent
        assert end.recv(1) == b""
    assert (proxy.carried("up"), proxy.carried("down")) == (len(sent), len(sent))


def test_unix_sockets(tmp_path: Path) -> None:
    echo = Echo(socket.AF_UNIX, str(tmp_path / "a"))
    with Proxy(f"unix://{tmp_path}/a", f"unix://{tmp_path}/b") as proxy, socket.socket(socket.AF_UNIX) as end:
        end.settimeout(10)
        end.connect(str(tmp_path / "b"))
        end.sendall(b"hello")
        assert receive(end, 5) == b"hello"
        proxy.refuse()
        with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "b"))
    echo.close()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_partition_holds_back_and_loses_nothing(proxy: Proxy, direction: str) -> None:
    with connect(proxy) as end:
        end.sendall(b"one")
        assert receive(end, 3) == b"one"
        proxy.hold(direction)  # type: ignore[arg-type]
        end.sendall(b"two")
        end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            end.recv(1)
        assert proxy.carried("up") == (3 if direction == "up" else 6)
        proxy.release()
        end.settimeout(10)
        assert receive(end, 3) == b"two"


def test_a_new_connection_in_a_partition_waits(proxy: Proxy) -> None:
    proxy.hold()
    with connect(proxy) as end:
        end.sendall(b"x")
        end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            end.recv(1)
        proxy.release()
        end.settimeout(10)
        assert receive(end, 1) == b"x"


def test_delay_keeps_order(proxy: Proxy) -> None:
    proxy.delay(0.1, 0.1, "up")
    with connect(proxy) as end:
        began = time.monotonic()
        for number in range(20):
            end.sendall(bytes([number]))
        assert receive(end, 20) == bytes(range(20))
        assert time.monotonic() - began >= 0.1


def test_reset_breaks_what_is_open_and_nothing_else(proxy: Proxy) -> None:
    with connect(proxy) as end, connect(proxy) as other:
        for each in (end, other):
            each.sendall(b"x")
            assert receive(each, 1) == b"x"
        assert proxy.reset() == 2
        for each in (end, other):
            with pytest.raises(ConnectionResetError):
                receive(each, 1)
    with connect(proxy) as again:
        again.sendall(b"y")
        assert receive(again, 1) == b"y"
    assert (proxy.connections, proxy.resets) == (3, 2)


def test_cut_in_the_middle_of_a_message(proxy: Proxy) -> None:
    proxy.cut_after(1_000, "up")
    with connect(proxy) as end, contextlib.suppress(ConnectionError):
        end.sendall(b"x" * 100_000)
        while end.recv(65536):
            pass
    assert proxy.carried("up") == 1_000
    assert proxy.resets == 1


def test_refused_then_accepted_at_the_same_address(proxy: Proxy) -> None:
    with connect(proxy) as old:
        old.sendall(b"x")
        assert receive(old, 1) == b"x"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        old.sendall(b"y")
        assert receive(old, 1) == b"y"
        proxy.accept()
        with connect(proxy) as new:
            new.sendall(b"z")
            assert receive(new, 1) == b"z"


def test_nobody_at_the_far_end() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Proxy(f"127.0.0.1:{free.getsockname()[1]}") as proxy, pytest.raises(ConnectionResetError), connect(proxy) as end:
            end.recv(1)
