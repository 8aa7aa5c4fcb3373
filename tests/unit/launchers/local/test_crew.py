"""How many workers a single machine has, in virtual time: what ends is started again for as long as that is not in vain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import exits
from antinfer.core.scaling.facts import ContainerFacts, PodFacts
from antinfer.core.scaling.values import Obstacle, Severity
from antinfer.errors import InfraError
from antinfer.launchers.local.crew import LocalCrew, order
from antinfer.launchers.port import Sight, WorkerOrder

KILLED = exits.SIGNALLED + 9


class Machine:
    """A launcher whose workers end when the test says so."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pods: dict[str, PodFacts] = {}
        self.refused: dict[str, Obstacle] = {}
        self.is_full = False
        self.started: list[tuple[float, str]] = []
        self.drained: list[str] = []
        self.is_closed = False

    def open(self, on_change: Callable[[], None]) -> None:
        raise NotImplementedError

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        for each in workers:
            if self.is_full:
                self.refused[each.name] = Obstacle(Cause.NO_CAPACITY, Severity.WAITING, "no process can be started")
            elif each.name not in self.pods:
                self.started.append((self.at, each.name))
                self.pods[each.name] = PodFacts(each.name, each.worker_class, 0, phase="Running")

    def stop(self, name: str, *, drain: bool) -> None:
        if drain:
            self.drained.append(name)
        else:
            self.pods.pop(name)

    def observe(self) -> Sight:
        refused, self.refused = self.refused, {}
        return Sight(tuple(self.pods.values()), refused)

    def close(self) -> None:
        self.is_closed = True

    def end(self, name: str, code: int) -> None:
        self.pods[name] = replace(self.pods[name], containers=(ContainerFacts("worker", exit_code=code, message="oh\nno"),))


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def crew(machine: Machine) -> LocalCrew:
    crew = LocalCrew(machine, now=lambda: machine.at)
    crew.hire("local-1", "local-2")
    return crew


def live(crew: LocalCrew, machine: Machine, seconds: float) -> None:
    until = machine.at + seconds
    while machine.at < until:
        machine.at += 0.02
        crew.tend()


def test_only_who_has_ended_is_started_again_after_a_pause(crew: LocalCrew, machine: Machine) -> None:
    live(crew, machine, 1)
    machine.end("local-2", KILLED)
    live(crew, machine, 1)
    assert machine.started[:2] == [(0.0, "local-1"), (0.0, "local-2")]
    ((at, name),) = machine.started[2:]
    assert name == "local-2" and 1.05 < at < 1.2
    assert crew.is_charged
    crew.progressed()
    assert not crew.is_charged


def test_one_that_was_there_already_is_taken_on(machine: Machine) -> None:
    machine.start([order("local-1")])
    crew = LocalCrew(machine, now=lambda: machine.at)
    crew.hire("local-1", "local-2")
    assert [name for _, name in machine.started] == ["local-1", "local-2"]


def test_one_that_ended_well_is_not_needed_at_once(crew: LocalCrew, machine: Machine) -> None:
    machine.end("local-1", exits.DONE)
    live(crew, machine, 2.9)
    assert len(machine.started) == 2
    live(crew, machine, 0.3)
    assert len(machine.started) == 3


def test_workers_that_a_master_sends_away_while_it_finishes_do_not_fail_the_job(crew: LocalCrew, machine: Machine) -> None:
    """All rows are committed, and publishing the last ones takes ten minutes."""
    while machine.at < 600:
        for name in list(machine.pods):
            machine.end(name, exits.DONE)
        live(crew, machine, 1)
    assert 2 * 150 < len(machine.started) < 2 * 201
    assert not crew.is_charged


def test_one_that_keeps_dying_is_given_up_with_its_last_words(crew: LocalCrew, machine: Machine) -> None:
    for _ in range(8):
        machine.end("local-1", KILLED)
        live(crew, machine, 7)
    assert len(machine.started) == 2 + 8
    machine.end("local-1", KILLED)
    with pytest.raises(InfraError, match=r"the worker local-1 keeps dying, at last with killed by SIGKILL(.|\n)*  oh\n  no"):
        crew.tend()


def test_rows_that_are_committed_between_make_good_for_any_number_of_deaths(crew: LocalCrew, machine: Machine) -> None:
    for _ in range(50):
        machine.end("local-1", KILLED)
        live(crew, machine, 0.2)
        crew.progressed()
    assert len(machine.started) == 52


def test_a_full_machine_is_asked_again_and_not_for_ever(crew: LocalCrew, machine: Machine) -> None:
    machine.is_full = True
    machine.end("local-1", KILLED)
    live(crew, machine, 0.5)
    machine.is_full = False
    live(crew, machine, 1)
    assert [name for _, name in machine.started] == ["local-1", "local-2", "local-1"]
    machine.is_full = True
    machine.end("local-1", KILLED)
    with pytest.raises(InfraError, match="no process can be started"):
        live(crew, machine, 60)


def test_nobody_is_started_once_all_are_to_leave(crew: LocalCrew, machine: Machine) -> None:
    machine.end("local-1", KILLED)
    crew.drain()
    assert machine.drained == ["local-2"]
    assert crew.is_alive
    machine.end("local-2", exits.TAKEN_AWAY)
    assert not crew.is_alive
    crew.end()
    assert machine.is_closed and len(machine.started) == 2


def test_who_was_told_to_drain_is_ended_by_a_second_word(crew: LocalCrew, machine: Machine) -> None:
    crew.drain()
    assert machine.drained == ["local-1", "local-2"]
    for name, pod in machine.pods.items():
        machine.pods[name] = replace(pod, is_deleting=True)
    crew.end()
    assert machine.pods == {}, "without draining"
