"""So many workers on this machine: one that ends is started again for as long as that is not in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from antinfer.core.scaling import exits
from antinfer.core.scaling.facts import PodFacts
from antinfer.core.scaling.values import PROTECTED
from antinfer.errors import InfraError
from antinfer.launchers.port import Launcher, WorkerOrder
from antinfer.launchers.processes import keeps_dying
from antinfer.launchers.restarts import RestartBudget
from antinfer.launchers.supervisor import POLL_S, RESUMES

_WELL_ENDED_S: Final = 3.0
"""One that ended well has heard that the job is over, and the master is about to end too; or it was drained, and is replaced."""
_END_S: Final = 5.0


def order(name: str) -> WorkerOrder:
    """Return the order for a worker of this machine, which nobody takes away."""
    return WorkerOrder(name, PROTECTED)


class LocalCrew:
    """Drives a launcher for a supervisor, by what it sees alone. See `antinfer.launchers.supervisor.Crew`."""

    def __init__(self, launcher: Launcher, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: the clock, in seconds."""
        self._launcher = launcher
        self._now = now
        self._wanted: dict[str, RestartBudget] = {}
        """Names of workers, and what each may still cost."""
        self._rests_until: dict[str, float] = {}
        """Times (s) before which those that ended are not started again."""

    def hire(self, *names: str) -> None:
        """Have workers of these names from now on; those that are there already are taken on."""
        self._wanted |= {name: RestartBudget(8, 60.0, name) for name in names}
        self._start(*names)

    def tend(self) -> None:
        """Start again who has ended. Raises `InfraError` for one that keeps ending."""
        sight, now = self._launcher.observe(), self._now()
        if sight is None:
            return
        for name, obstacle in sight.refused.items():
            self._ended(name, exits.NOT_RUN, obstacle.detail, now)
        for pod in sight.pods:
            if pod.name in self._wanted and pod.worker is not None and pod.worker.exit_code is not None:
                self._ended(pod.name, pod.worker.exit_code, pod.worker.message, now)
                self._launcher.stop(pod.name, drain=False)
        there = {pod.name for pod in sight.pods}
        self._start(*(name for name in self._wanted if name not in there and now >= self._rests_until.get(name, 0.0)))

    def progressed(self) -> None:
        for budget in self._wanted.values():
            budget.progressed()

    @property
    def is_charged(self) -> bool:
        return any(budget.is_charged for budget in self._wanted.values())

    def drain(self) -> None:
        self._wanted.clear()
        for pod in self._alive():
            self._launcher.stop(pod.name, drain=True)

    @property
    def is_alive(self) -> bool:
        return any(self._alive())

    def end(self) -> None:
        self._wanted.clear()
        for pod in self._alive():
            # A second word to those that were told before: they need not drain any more.
            self._launcher.stop(pod.name, drain=not pod.is_deleting)
        until = self._now() + _END_S
        while self.is_alive and self._now() < until:
            time.sleep(POLL_S)
        for pod in self._alive():
            self._launcher.stop(pod.name, drain=False)
        self._launcher.close()

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _start(self, *names: str) -> None:
        self._launcher.start([order(name) for name in names])

    def _ended(self, name: str, code: int, said: str, now: float) -> None:
        # One that ended well was sent away by its master, as often as that takes to end.
        pause_s = _WELL_ENDED_S if code == exits.DONE else self._wanted[name].ended(now, code)
        if pause_s is None:
            raise InfraError(keeps_dying(f"worker {name}", code, said), hint=RESUMES)
        self._rests_until[name] = now + pause_s

    def _alive(self) -> Iterator[PodFacts]:
        sight = self._launcher.observe()
        return (pod for pod in (sight.pods if sight is not None else ()) if pod.worker is None or pod.worker.exit_code is None)
