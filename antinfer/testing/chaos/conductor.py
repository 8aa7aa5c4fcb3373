"""Runs a job on a stage while a schedule of faults strikes it, until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from antinfer.errors import AntinferError, InfraError
from antinfer.testing.chaos.happenings import Chronicle, Fault, Recovery
from antinfer.testing.chaos.hits import Armed, Hit
from antinfer.testing.chaos.schedule import Schedule, Strike
from antinfer.testing.chaos.stage import Stage
from antinfer.testing.chaos.watching import Sample, Watcher

_POLL_S: Final = 0.02


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

    def __init__(self, stage: Stage, schedule: Schedule, rows: int, say: Callable[[str], None]) -> None:
        """
        Args:
            stage: not started.
            schedule: what shall happen.
            rows: of the input.
            say: is told of every fault.
        """
        self._stage = stage
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
        stage = self._stage
        stage.start()
        with Watcher(stage.ask, stage.published) as watcher:
            began = self._first_lease(watcher, give_up_s)
            while not stage.tend():
                if time.monotonic() - began > give_up_s:
                    done = watcher.last.published
                    raise InfraError(f"after {give_up_s:.0f} s, {done:,} of {self._rows:,} rows were done: gave up\n{stage.last_words()}")
                self._strike(watcher.last, began)
                self._look_at_points(watcher.last, began)
                self._look(watcher)
                time.sleep(_POLL_S)
            ended = time.monotonic()
        self._look_at_points(watcher.last, began)
        self._look(watcher)
        left = stage.end() if stage.failure is None else []
        chronicle = self._chronicle
        chronicle.missed += [(what, "the job was done before") for what in (*self._schedule.never_due(), *(w for _, w in self._waiting))]
        chronicle.missed += [(what, "nobody came to the point") for what, _ in self._armed]
        chronicle.surprises += stage.surprises
        chronicle.spans = [(each.name, each.started_at - began, (each.ended_at or ended) - began) for each in stage.lives()]
        return Run(began, ended - began, self._rows, watcher.samples, chronicle, stage.failure, left, stage.bugs())

    def _first_lease(self, watcher: Watcher, give_up_s: float) -> float:
        deadline = time.monotonic() + give_up_s
        while True:
            over, last = self._stage.tend(), watcher.last
            if over or last.published or (last.status is not None and last.status.rows_leased):
                return time.monotonic()
            if time.monotonic() > deadline:
                raise InfraError(f"no row was leased within {give_up_s:.0f} s\n{self._stage.last_words()}")
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
                if at - since < self._stage.patience_s:
                    left.append((since, what))
                else:
                    self._chronicle.missed.append((what, "there was nobody whom it could meet"))
        self._waiting = left

    def _meet(self, what: Strike, now: Sample, began: float) -> bool:
        at = time.monotonic()
        done = self._stage.strike(what, now)
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
        if not self._armed:
            return
        proofs = self._stage.proofs()
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
