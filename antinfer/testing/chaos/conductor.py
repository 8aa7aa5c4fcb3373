"""Runs a job with real processes while a schedule of faults strikes them, until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from antinfer.errors import AntinferError, InfraError
from antinfer.testing.chaos.blows import Armed, Hit
from antinfer.testing.chaos.crew import Crew
from antinfer.testing.chaos.happenings import Chronicle, Fault, Recovery
from antinfer.testing.chaos.schedule import Schedule, Strike
from antinfer.testing.chaos.strikes import strike
from antinfer.testing.chaos.watching import Sample, Watcher

_POLL_S: Final = 0.02
_WAIT_FOR_VICTIM_S: Final = 10.0
"""Time in which somebody must turn up whom a fault can meet."""
_LEAVE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, undisturbed or not."""

    began: float
    """Monotonic seconds: the first lease. Everything else counts from there."""
    seconds: float
    """Until the master had ended."""
    rows: int
    samples: list[Sample]
    chronicle: Chronicle
    failure: AntinferError | None
    left_behind: list[str]
    """Processes that were still there when all should have gone."""
    bugs: list[str]
    """What only a bug makes a process say."""

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


class Conductor:
    """One run."""

    def __init__(self, crew: Crew, schedule: Schedule, rows: int, say: Callable[[str], None]) -> None:
        """
        Args:
            crew: not started.
            schedule: what shall happen.
            rows: of the input.
            say: is told of every fault.
        """
        self._crew = crew
        self._schedule = schedule
        self._rows = rows
        self._say = say
        self._waiting: list[tuple[float, Strike]] = []
        self._recoveries: list[Recovery] = []
        self._armed: list[tuple[Strike, Armed]] = []
        self._looked_at = 0
        self._chronicle = Chronicle()

    def run(self, give_up_s: float) -> Run:
        """Run the job to its end. Raises `InfraError` when it makes no start, or is not done after `give_up_s` seconds."""
        crew = self._crew
        crew.start()
        with Watcher(crew.addresses, crew.cluster.published) as watcher:
            began = self._first_lease(watcher, give_up_s)
            while not crew.tend():
                if time.monotonic() - began > give_up_s:
                    done = watcher.last.published
                    raise InfraError(f"after {give_up_s:.0f} s, {done:,} of {self._rows:,} rows were done: gave up\n{crew.cluster.logs()}")
                self._strike(watcher.last, began)
                self._look_at_points(watcher.last, began)
                self._look(watcher)
                time.sleep(_POLL_S)
            ended = time.monotonic()
        self._look_at_points(watcher.last, began)
        self._look(watcher)
        left = crew.end(_LEAVE_S) if crew.failure is None else []
        chronicle = self._chronicle
        chronicle.missed += [(what, "the job was done before") for what in (*self._schedule.never_due(), *(w for _, w in self._waiting))]
        chronicle.missed += [(what, "nobody came to the point") for what, _ in self._armed]
        chronicle.surprises += crew.surprises
        members = (*crew.masters, *crew.workers)
        chronicle.spans = [(each.name, each.started_at - began, (each.ended_at or ended) - began) for each in members]
        return Run(began, ended - began, self._rows, watcher.samples, chronicle, crew.failure, left, crew.cluster.bugs())

    def _first_lease(self, watcher: Watcher, give_up_s: float) -> float:
        deadline = time.monotonic() + give_up_s
        while True:
            over, last = self._crew.tend(), watcher.last
            if over or last.published or (last.status is not None and last.status.rows_leased):
                return time.monotonic()
            if time.monotonic() > deadline:
                raise InfraError(f"no row was leased within {give_up_s:.0f} s\n{self._crew.cluster.logs()}")
            time.sleep(_POLL_S)

    def _strike(self, now: Sample, began: float) -> None:
        at = time.monotonic()
        share = now.published / max(1, self._rows)
        self._waiting += [(at, what) for what in self._schedule.due(at - began, share)]
        left = []
        for since, what in self._waiting:
            if now.published >= self._rows:
                self._chronicle.missed.append((what, "all rows were done"))
            elif not self._meet(what, now, began):
                if at - since < _WAIT_FOR_VICTIM_S:
                    left.append((since, what))
                else:
                    self._chronicle.missed.append((what, "there was nobody whom it could meet"))
        self._waiting = left

    def _meet(self, what: Strike, now: Sample, began: float) -> bool:
        at = time.monotonic()
        done = strike(self._crew, what, now)
        if isinstance(done, Armed):
            self._armed.append((what, done))
        elif done is not None:
            self._note(what, done, at, now, began)
        return done is not None

    def _note(self, what: Strike, hit: Hit, at: float, now: Sample, began: float) -> None:
        rule = what.rule
        fault = Fault(
            rule.kind, rule.target, hit.victim, at - began, now.published / max(1, self._rows), str(what.moment), hit.proof, rule.lasts_s
        )
        self._chronicle.faults.append(fault)
        self._recoveries.append(Recovery(fault, at, hit.recovery))
        self._say(f"{fault.at_s:6.1f} s  {fault.share:4.0%}  {rule}: {hit.victim}")

    def _look_at_points(self, now: Sample, began: float) -> None:
        """Note the faults that somebody has come to since."""
        if self._crew.points is None or not self._armed:
            return
        proofs = self._crew.points.proofs()
        left = []
        for what, armed in self._armed:
            proof = next((proof for proof in proofs if proof.armed in armed.names), None)
            if proof is None:
                left.append((what, armed))
            else:
                self._note(what, armed.describe(proof, now), proof.monotonic, now, began)
        self._armed = left

    def _look(self, watcher: Watcher) -> None:
        new = watcher.samples[self._looked_at :]
        self._looked_at += len(new)
        for sample in new:
            self._recoveries = [each for each in self._recoveries if not each.look(sample)]
