"""The driver of a Ray cluster as the crew of a supervisor: one process that sees to it that others work."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from antinfer.errors import InfraError
from antinfer.launchers.children import Child
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.processes import keeps_dying
from antinfer.launchers.supervisor import RESUMES

_END_S: Final = 5.0


class DriverCrew:
    """Keeps the driver. See `antinfer.launchers.supervisor.Crew`."""

    def __init__(self, driver: Child, outcome: Callable[[], Outcome | None]) -> None:
        """`outcome`: returns what the driver said of its end, if it said anything."""
        self._driver = driver
        self._outcome = outcome

    def tend(self) -> None:
        driver = self._driver
        driver.start_if_due()
        code = driver.poll()
        if code is None:
            return
        outcome, said = self._outcome(), driver.last_words
        if outcome is not None:
            raise outcome.to_error()
        if not driver.restart_later():
            raise InfraError(keeps_dying(driver.name, code, said), hint=RESUMES)

    def progressed(self) -> None:
        self._driver.progressed()

    @property
    def is_charged(self) -> bool:
        return self._driver.is_charged

    def drain(self) -> None:
        self._driver.forget_restart()
        self._driver.send(signal.SIGTERM)

    @property
    def is_alive(self) -> bool:
        return self._driver.is_alive

    def end(self) -> None:
        self.drain()
        self._driver.end(_END_S)
