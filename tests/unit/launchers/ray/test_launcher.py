"""What a master hears of the driver of a cluster, and what that hears of it; over a real socket, with the test as the driver."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.launchers.port import Sight, WorkerOrder
from antinfer.launchers.ray.facts import ActorFacts
from antinfer.launchers.ray.launcher import RayLauncher


class Driver:
    """The other end."""

    def __init__(self, address: Path) -> None:
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(address))
            server.listen()
            server.settimeout(10)
            self._master, _ = server.accept()
        self._lines = self._master.makefile("rb")

    def tell(self, actors: Sequence[ActorFacts], refused: dict[str, Any] | None = None) -> None:
        told = {"actors": [each.to_json() for each in actors], "refused": refused or {}}
        self._master.sendall(json.dumps(told).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        line = self._lines.readline()
        return json.loads(line) if line else None

    def die(self) -> None:
        self._lines.close()
        self._master.close()


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "driver.sock"


@pytest.fixture
def changes() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture
def launcher(address: Path, changes: threading.Semaphore) -> Iterator[RayLauncher]:
    launcher = RayLauncher(str(address))
    launcher.open(changes.release)
    yield launcher
    launcher.close()


def seen(launcher: RayLauncher, condition: Callable[[Sight], bool]) -> Sight:
    until = time.monotonic() + 10
    while (sight := launcher.observe()) is None or not condition(sight):
        assert time.monotonic() < until, sight
        time.sleep(0.01)
    return sight


def test_nothing_is_seen_until_the_driver_has_said_something(launcher: RayLauncher, address: Path, changes: threading.Semaphore) -> None:
    assert launcher.observe() is None
    driver = Driver(address)
    driver.tell([])
    assert changes.acquire(timeout=10)
    assert launcher.observe() == Sight()
    driver.die()


def test_orders_go_out_and_what_was_refused_is_seen_once(launcher: RayLauncher, address: Path, changes: threading.Semaphore) -> None:
    driver = Driver(address)
    driver.tell([ActorFacts("w-1", "protected", 5, node="n1")])
    assert changes.acquire(timeout=10)
    sight = launcher.observe()
    assert sight is not None and [(pod.name, pod.phase, pod.node) for pod in sight.pods] == [("w-1", "Running", "n1")]
    order = WorkerOrder("w-2", "preemptible", 1 << 30, ("n1",))
    launcher.start([order])
    launcher.stop("w-1", drain=True)
    assert driver.hear() == {"start": [{**asdict(order), "avoid": ["n1"]}]}
    assert driver.hear() == {"stop": ["w-1"], "drain": True}
    driver.tell([], {"w-2": {"cause": "config_error", "severity": "invalid", "detail": "no such option"}})
    assert changes.acquire(timeout=10)
    assert launcher.observe() == Sight(refused={"w-2": Obstacle(Cause.CONFIG_ERROR, Severity.INVALID, "no such option")})
    assert launcher.observe() == Sight()
    driver.die()


def test_what_was_ordered_last_is_heard_before_the_end(address: Path) -> None:
    launcher = RayLauncher(str(address))
    launcher.open(lambda: None)
    driver = Driver(address)
    driver.tell([])
    seen(launcher, lambda sight: True)
    launcher.stop("w-1", drain=True)
    ending = threading.Thread(target=launcher.close)
    ending.start()
    assert driver.hear() == {"stop": ["w-1"], "drain": True}
    assert driver.hear() is None
    driver.die()
    ending.join(10)
    assert not ending.is_alive()


def test_a_driver_that_comes_back_is_found_and_believed(launcher: RayLauncher, address: Path) -> None:
    first = Driver(address)
    first.tell([ActorFacts("w-1", "protected", 5, node="n1")])
    seen(launcher, lambda sight: len(sight.pods) == 1)
    first.die()
    launcher.stop("w-1", drain=True)  # nobody hears it, and nothing breaks
    second = Driver(address)
    second.tell([])
    seen(launcher, lambda sight: not sight.pods)
    launcher.start([WorkerOrder("w-2", "protected")])
    heard = second.hear()
    assert heard is not None and heard["start"][0]["name"] == "w-2"
    second.die()


def test_what_cannot_be_understood_is_a_fault_and_not_an_empty_cluster(address: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: failed.set())
    launcher = RayLauncher(str(address))
    launcher.open(lambda: None)
    driver = Driver(address)
    driver.tell([], {"w-1": {}})
    assert failed.wait(10)
    with pytest.raises(KeyError):
        launcher.observe()
    driver.die()
    launcher.close()
