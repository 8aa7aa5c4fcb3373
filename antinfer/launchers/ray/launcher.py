"""The launcher that a master uses: orders out to the driver of the cluster, and what it sees in, over a socket on this machine."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from antinfer.core.causes import Cause
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.launchers.port import Sight, WorkerOrder
from antinfer.launchers.ray.facts import ActorFacts, pod_facts

_log = logging.getLogger("antinfer.launchers.ray")
_RETRY_S: Final = 0.2
_CLOSE_S: Final = 5.0


class RayLauncher:
    """Makes workers as Ray actors. See `antinfer.launchers.port.Launcher`.

    The driver may go and come back, without its actors. Orders that it does not hear are lost, and given again by whoever does not see
    them carried out.
    """

    def __init__(self, address: str) -> None:
        """`address`: path of the driver's socket."""
        self._address = address
        self._on_change: Callable[[], None] = lambda: None
        self._guard = threading.Lock()
        self._driver: socket.socket | None = None
        self._actors: tuple[ActorFacts, ...] | None = None
        self._refused: dict[str, Obstacle] = {}
        self._fault: BaseException | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray driver", daemon=True)

    def open(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._thread.start()

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        self._order({"start": [asdict(order) for order in workers]})

    def stop(self, name: str, *, drain: bool) -> None:
        self._order({"stop": [name], "drain": drain})

    def observe(self) -> Sight | None:
        with self._guard:
            if self._fault is not None:
                raise self._fault
            if self._actors is None:
                return None
            refused, self._refused = self._refused, {}
            actors = self._actors
        return Sight(tuple(map(pod_facts, actors)), refused)

    def close(self) -> None:
        self._closed.set()
        with self._guard:
            if self._driver is not None:
                try:
                    # What was ordered is on its way; the driver reads it before it sees the end.
                    self._driver.shutdown(socket.SHUT_WR)
                except OSError as error:
                    _log.info("the Ray driver is gone: %s", error, extra={"action": "driver_away"})
        self._thread.join(_CLOSE_S)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _order(self, order: Mapping[str, Any]) -> None:
        with self._guard:
            if self._driver is None:
                return
            try:
                self._driver.sendall(json.dumps(order).encode() + b"\n")
            except OSError as error:
                _log.info("the Ray driver did not hear an order: %s", error, extra={"action": "driver_away"})

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                self._listen()
                self._closed.wait(_RETRY_S)
        except BaseException as error:
            with self._guard:
                self._fault = error
            self._on_change()
            raise

    def _listen(self) -> None:
        """Take in what the driver tells for as long as it lives."""
        with socket.socket(socket.AF_UNIX) as driver:
            try:
                driver.connect(self._address)
            except OSError:
                return  # it is being started
            with self._guard:
                self._driver = driver
            try:
                with driver.makefile("rb") as lines:
                    for line in lines:
                        self._take(json.loads(line))
            except ConnectionError as error:
                _log.info("the Ray driver is gone: %s", error, extra={"action": "driver_away"})
            finally:
                with self._guard:
                    self._driver = None

    def _take(self, told: Mapping[str, Any]) -> None:
        actors = tuple(map(ActorFacts.from_json, told["actors"]))
        refused = {name: Obstacle(Cause(why["cause"]), Severity(why["severity"]), why["detail"]) for name, why in told["refused"].items()}
        with self._guard:
            self._actors = actors
            self._refused |= refused
        self._on_change()
