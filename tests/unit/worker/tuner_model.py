"""A pipeline in the steady state on a machine with limits, for the tuner to be tried on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from antinfer.worker.tuning.degrees import Tuner
from antinfer.worker.tuning.values import Decision, Limits, Machine, StageSignal

GIB = 1 << 30


@dataclass
class Stage:
    """What one stage costs."""

    name: str
    seconds: float
    """Of one copy, for one row."""
    start: int = 1
    fewest: int = 1
    most: int = 8
    serves: float = 0.0
    """Copies that one GPU serves at full speed; 0: computes on the CPU."""
    waits: bool = False
    """Its copies wait, and leave the cores alone."""
    penalty: float = 0.0
    """Loss for each copy more than the GPU serves."""
    bytes: int = GIB // 4
    gpu_bytes: int = 0
    """GPU memory of one copy."""
    loads: float = 0.0
    """Seconds until a new copy is ready."""

    def capacity(self, degree: int) -> float:
        if not self.serves:
            return degree / self.seconds
        return min(degree, self.serves) / self.seconds * (1 - self.penalty) ** max(0.0, degree - self.serves)


@dataclass
class Model:
    """A pipeline in the steady state: the slowest stage sets the rate, the stages share the cores and the GPU.

    4 GiB of the memory of the machine and 1 GiB of that of its GPU are taken by others.
    """

    stages: list[Stage]
    cpus: float = 8.0
    ram: int = 64 * GIB
    gpu: int = 0
    """Memory of its GPU; 0: not known."""
    places: int | None = None
    """So many copies may use the GPU; None: any number."""
    noise: float = 0.0
    seed: int = 0
    now: float = 0.0
    done: float = 0.0
    changes: list[tuple[float, Decision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.degrees = {stage.name: stage.start for stage in self.stages}
        self.least = {stage.name: max(stage.fewest, stage.start) for stage in self.stages}
        self.loading: dict[str, float] = {}
        self.random = random.Random(self.seed)
        self.tuner = Tuner()

    def rate(self, degrees: dict[str, int] | None = None) -> float:
        degrees = degrees or self.degrees
        cost = sum(stage.seconds for stage in self.stages if not stage.serves and not stage.waits)
        return min([stage.capacity(degrees[stage.name]) for stage in self.stages] + ([self.cpus / cost] if cost else []))

    def best(self) -> float:
        """Return the highest rate that the guards allow."""
        names = [stage.name for stage in self.stages]
        choices = product(*[range(stage.fewest, stage.most + 1) for stage in self.stages])
        return max(
            self.rate(each) for each in (dict(zip(names, degrees, strict=True)) for degrees in choices) if not any(self.passed(each))
        )

    def machine(self) -> Machine:
        cost = sum(stage.seconds for stage in self.stages if not stage.serves and not stage.waits)
        ram, gpu = self.taken(self.degrees)
        return Machine(self.cpus, self.rate() * cost, self.ram, ram, self.gpu, gpu if self.gpu else 0)

    def taken(self, degrees: dict[str, int]) -> tuple[int, int]:
        """Return how much memory of the machine and of its GPU is taken with so many copies."""
        ram = sum(degrees[stage.name] * stage.bytes for stage in self.stages)
        return 4 * GIB + ram, GIB + sum(degrees[stage.name] * stage.gpu_bytes for stage in self.stages if stage.serves)

    @property
    def is_roomy(self) -> bool:
        """True when every stage may have as many copies as it likes."""
        return not any(self._passed({stage.name: stage.most for stage in self.stages}, dict.fromkeys(self.degrees, 0)))

    def passed(self, degrees: dict[str, int]) -> Iterator[str]:
        """Yield what there is too little of for so many copies, unless it was so from the start."""
        return self._passed(degrees, self.least)

    def _passed(self, degrees: dict[str, int], least: dict[str, int]) -> Iterator[str]:
        (ram, gpu), (least_ram, least_gpu) = self.taken(degrees), self.taken(least)
        if ram > max(Limits().ram_share * self.ram, least_ram):
            yield "memory"
        if self.gpu and gpu > max(Limits().gpu_share * self.gpu, least_gpu):
            yield "GPU memory"
        if self.places is not None and self._on_gpu(degrees) > max(self.places, self._on_gpu(least)):
            yield "places"

    def _on_gpu(self, degrees: dict[str, int]) -> int:
        return sum(degrees[stage.name] for stage in self.stages if stage.serves)

    def signals(self) -> list[StageSignal]:
        steady = self.rate()
        rate = steady * (1 + self.noise * self.random.gauss(0, 1))
        capacities = {stage.name: stage.capacity(self.degrees[stage.name]) for stage in self.stages}
        # When there are too few cores, all that computes takes longer, until somebody is at work all the time.
        busiest = max(steady / capacity for capacity in capacities.values())
        found = []
        slowest_seen = False
        for stage in self.stages:
            share = steady / capacities[stage.name]
            share = share / busiest if not stage.serves and not stage.waits else share
            degree, idle = self.degrees[stage.name], 1 - share
            found.append(
                StageSignal(
                    stage.name,
                    "processes" if stage.serves or stage.loads else "threads",
                    degree,
                    degree - (self.loading.get(stage.name, 0.0) > self.now),
                    stage.fewest,
                    stage.most,
                    rows=round(rate),
                    batches=20,
                    busy_seconds=share * degree,
                    # Before the slowest stage everybody is held up, behind it everybody waits.
                    starved_seconds=idle * degree if slowest_seen else 0.0,
                    blocked_seconds=0.0 if slowest_seen else idle * degree,
                    cpu_seconds=0.0 if stage.serves or stage.waits else steady * stage.seconds,
                    queued_batches=0.0 if slowest_seen else 4.0,
                    on_gpu=stage.serves > 0,
                    has_place=not stage.serves or self.places is None or self._on_gpu(self.degrees) < self.places,
                    ram_bytes=stage.bytes,
                    gpu_bytes=stage.gpu_bytes if stage.serves else 0,
                    is_last=stage is self.stages[-1],
                )
            )
            slowest_seen = slowest_seen or share > 0.99
        return found

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.done += self.rate()
            machine = self.machine()
            for decision in self.tuner.step(self.now, self.signals(), machine):
                stage = next(each for each in self.stages if each.name == decision.stage)
                assert decision.before == self.degrees[decision.stage] and decision.reason
                assert stage.fewest <= decision.degree <= stage.most
                if decision.degree > decision.before:
                    self.loading[stage.name] = self.now + stage.loads
                    # One that proved to be needed comes back whatever the cores do: with it they did the same before.
                    is_new = "for fewer do less" not in decision.reason and "another size" not in decision.reason
                    assert not is_new or stage.serves or machine.cpu_used < Limits().cpu_share * machine.cpus, f"past the cores: {decision}"
                self.degrees[decision.stage] = decision.degree
                if decision.degree != decision.before:
                    self.changes.append((self.now, decision))
                assert not list(self.passed(self.degrees)), f"past a guard: {decision}"
