"""One whole job from its first lease to its seal, and what it cost."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from antinfer.core import invariants
from antinfer.core.engine import Phase
from antinfer.core.scaling.values import PROTECTED
from antinfer.errors import InvariantViolation
from antinfer.testing.sim.fleet.books import Books
from antinfer.testing.sim.fleet.clock import Clock
from antinfer.testing.sim.fleet.conditions import Conditions
from antinfer.testing.sim.fleet.elastic import Pods, Staff
from antinfer.testing.sim.fleet.node import Node, World
from antinfer.testing.sim.fleet.reign import Master

_TELL_EVERY: Final = 200_000
"""Events between two looks at whoever watches."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a job. `(conditions, seed)` repeats it exactly, but for the last four figures."""

    seed: int
    problems: tuple[str, ...]
    makespan_s: float
    """Virtual time until the output was sealed."""
    ideal_s: float
    """Time that the workers would have needed if nothing had happened to any of them, ready from the first moment and busy to the last."""
    rows: int
    rows_computed: int
    rows_quarantined: int
    commits: int
    leases: int
    workers_started: int
    worker_s: float
    """Time that workers were there, all together."""
    preempted: int
    frozen: int
    parted: int
    masters: int
    counters: dict[str, int]
    """What the core of the last master counted."""
    most_staged: int
    store_bytes: int
    """Most bytes of documents that the store held at any time."""
    batches: int
    core_events: int
    events: int
    cpu_s: float
    peak_mib: float

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def wasted(self) -> float:
        """Share of the computed rows that were computed in vain."""
        return 1 - (self.rows - self.rows_quarantined) / self.rows_computed if self.rows_computed else 0.0

    @property
    def goodput(self) -> float:
        """Ideal time over time taken."""
        return self.ideal_s / self.makespan_s if self.makespan_s else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "wasted": self.wasted, "goodput": self.goodput}

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {count:,}" for name, count in self.counters.items() if count)
        lost = f"preempted {self.preempted:,}, frozen {self.frozen:,}, cut off {self.parted:,}"
        cost = f"{self.cpu_s:.1f} s of one core, {self.peak_mib:,.0f} MiB at peak"
        lines = [
            *(self.problems or ("no violation",)),
            f"makespan {self.makespan_s:,.0f} s, ideal {self.ideal_s:,.0f} s, goodput {self.goodput:.3f}",
            f"rows {self.rows:,}, computed {self.rows_computed:,} (wasted {self.wasted:.2%}), in quarantine {self.rows_quarantined:,}",
            f"commits {self.commits:,}, leases {self.leases:,}, batches {self.batches:,}",
            f"workers started {self.workers_started:,}, there for {self.worker_s:,.0f} s in all: {lost}; masters {self.masters}",
            counted,
            f"store {self.store_bytes / 1e6:.1f} MB at most, {self.most_staged:,} staged objects at most",
            f"{self.events:,} events, {self.core_events:,} of them in the core: {cost}",
        ]
        return "\n".join(lines)


class Job:
    """Everything of one run."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.conditions = conditions
        self.seed = seed
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.books = Books(conditions, self._draw_poison())
        self.master = Master(self.clock, conditions, self.books)
        self.world = World(self.clock, conditions, self.books, self.master, self.rng)
        self.nodes = [Node(self.world, index) for index in range(conditions.workers)]
        self.started = self.preempted = self.frozen = self.parted = 0
        self.masters = 1
        self.staff: Staff | None = None
        if (scaling := conditions.scaling) is not None:
            self.pods = Pods(self.clock, scaling, self.nodes, self._start, int(conditions.losses.replaced_after * 1000))
            self.staff = Staff(self.clock, scaling, self.master, self.pods)

    def _draw_poison(self) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for number in self.rng.sample(range(self.conditions.total_rows), self.conditions.poison):
            shard, offset = divmod(number, self.conditions.rows)
            rows.setdefault(shard, []).append(offset)
        return {shard: sorted(offsets) for shard, offsets in rows.items()}

    # -- what happens to workers -------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        self.master.start()
        if self.staff is not None:
            for node in self.nodes:
                node.on_exit = self.pods.ended
            self.staff.begin()
        else:
            for node in self.nodes:
                node.on_exit = self._replace
                self.clock.after(self.rng.randint(0, 2_000), self._start, node)
        losses = self.conditions.losses
        for at in losses.swept_at:
            self.clock.after(int(at * 1000), self._sweep, losses.swept)
        self._again(losses.parted_every, self._part)
        self._again(losses.master_dies_every, self._kill_master)

    def _again(self, mean_s: float, happens: Callable[[], None]) -> None:
        """Have something happen again and again, `mean_s` apart, give or take half."""
        if not mean_s:
            return

        def once(_: object) -> None:
            if not self.master.is_over:
                happens()
                self._again(mean_s, happens)

        self.clock.after(max(1, int(self.rng.uniform(0.5, 1.5) * mean_s * 1000)), once)

    def _wait_ms(self, mean_s: float) -> int:
        return max(1, int(self.rng.expovariate(1 / mean_s) * 1000))

    def _start(self, node: Node, name: str = "") -> None:
        if node.is_alive or self.master.ended_at is not None:
            return
        self.started += 1
        node.start(name)
        losses = self.conditions.losses
        if losses.preempted_every and not (self.staff is not None and self.pods.worker_class(node) == PROTECTED):
            self.clock.after(self._wait_ms(losses.preempted_every), self._preempt, (node, node.life))
        if losses.frozen_every:
            self.clock.after(self._wait_ms(losses.frozen_every), self._freeze, (node, node.life))

    def _preempt(self, planned: tuple[Node, int]) -> None:
        node, life = planned
        if node.life != life or not node.is_alive:
            return
        losses = self.conditions.losses
        self.preempted += 1
        if self.rng.random() < losses.notice_share:
            node.drain()
            self.clock.after(int(losses.notice * 1000), self._take, planned)
        else:
            self._take(planned)

    def _sweep(self, count: int) -> None:
        alive = [node for node in self.nodes if node.is_alive]
        for node in self.rng.sample(alive, min(count, len(alive))):
            self.preempted += 1
            self._take((node, node.life))

    def _take(self, planned: tuple[Node, int]) -> None:
        node, life = planned
        if node.life == life and node.is_alive:
            node.kill(silently=self.rng.random() < self.conditions.losses.silent_share)
            if self.staff is not None:
                self.pods.taken(node)
            else:
                self._replace(node)

    def _replace(self, node: Node, code: int = 0) -> None:
        self.clock.after(int(self.conditions.losses.replaced_after * 1000), self._start, node)

    def _freeze(self, planned: tuple[Node, int]) -> None:
        node, life = planned
        if node.life == life and node.is_alive:
            self.frozen += 1
            node.host.freeze(int(self.conditions.losses.frozen_for * 1000))

    def _part(self) -> None:
        losses = self.conditions.losses
        for node in self.rng.sample(self.nodes, max(1, int(losses.parted_share * len(self.nodes)))):
            self.parted += 1
            node.part(int(losses.parted_for * 1000 * self.rng.uniform(0.5, 1.5)))

    def _kill_master(self) -> None:
        if self.master.is_ruling and self.master.ended_at is None:
            self.masters += 1
            self.master.crash()
            self.clock.after(int(self.conditions.losses.master_back_after * 1000), self.master.start)

    # -- the run -----------------------------------------------------------------------------------------------------------------
    @property
    def ideal_s(self) -> float:
        """The time that one worker in each slot would need, as fast as the last one there."""
        conditions = self.conditions
        speed = sum(node.rate or conditions.speeds.mean for node in self.nodes)
        heavy = 1 + conditions.heavy_share * (conditions.heavy_factor - 1)
        return conditions.total_rows * heavy / speed

    def run(self, watch: Callable[[Job], None] = lambda job: None) -> Report:
        """Run to the end, or to the first violation."""
        began = time.process_time()
        self.begin()
        clock, master, world = self.clock, self.master, self.world
        while clock.now < 3_000:
            clock.turn()
        bound = int(1000 * (3_600 + self.conditions.patience * self.ideal_s))
        next_look = 0
        while not master.is_over and not master.problems and not world.problems and clock.now < bound:
            if not clock.turn():
                break
            if clock.events >= next_look:
                next_look = clock.events + _TELL_EVERY
                watch(self)
        return self._report(time.process_time() - began)

    def _problems(self) -> list[str]:
        master, engine = self.master, self.master.engine
        problems = [*master.problems, *self.world.problems]
        if self.staff is not None and self.staff.failure:
            problems.append(f"given up: {self.staff.failure}")
        if engine is not None and engine.failure:
            problems.append(f"given up: {engine.failure}")
        elif engine is None or engine.phase is not Phase.DONE:
            problems = problems or [f"stuck: the job has not ended after {self.clock.now / 1000:,.0f} s"]
        else:
            try:
                invariants.check(engine)
            except InvariantViolation as error:
                problems.append(f"partition: {error}")
            problems += self.books.audit(engine.progress().rows_done)
        return problems

    def _report(self, cpu_s: float) -> Report:
        master, engine = self.master, self.master.engine
        counters = engine.counters() if engine is not None else {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        return Report(
            seed=self.seed,
            problems=tuple(self._problems()),
            makespan_s=(master.ended_at or self.clock.now) / 1000,
            ideal_s=self.ideal_s,
            rows=self.conditions.total_rows,
            rows_computed=sum(node.host.rows_computed for node in self.nodes),
            rows_quarantined=self.books.rows_quarantined,
            commits=counters.pop("commits", 0),
            leases=master.leases + counters.pop("leases_granted", 0),
            workers_started=self.started,
            worker_s=sum(node.worked_ms for node in self.nodes) / 1000,
            preempted=self.preempted,
            frozen=self.frozen,
            parted=self.parted,
            masters=self.masters,
            counters=counters,
            most_staged=self.books.most_staged,
            store_bytes=master.most_document_bytes,
            batches=master.batches,
            core_events=master.stepped,
            events=self.clock.events,
            cpu_s=cpu_s,
            peak_mib=peak,
        )


def run(conditions: Conditions, seed: int, watch: Callable[[Job], None] = lambda job: None) -> Report:
    """Run one whole job with the chances that `seed` decides. Deterministic.

    Args:
        conditions: of the job.
        seed: decides everything that chance decides.
        watch: called now and then.
    """
    return Job(conditions, seed).run(watch)
