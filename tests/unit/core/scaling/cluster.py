"""A cluster in virtual time, small but not kind: it drives the controller in a closed loop.

It behaves as real clusters were seen to: a pod is first said to be disrupted and only later deleted; one on a node that is lost stays for
ever; what was asked for shows late; actions get lost. Workers take rows, commit now and then, and lose what they had not committed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise

from antinfer.core.scaling import actions as act
from antinfer.core.scaling.facts import ConditionFacts, ContainerFacts, NodeState, PodFacts
from antinfer.core.scaling.measures import Meter
from antinfer.core.scaling.memory import Memory
from antinfer.core.scaling.planning import Controller
from antinfer.core.scaling.pods import worker_seen
from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED, Desired, Observed, WorkerClass, WorkerSeen, WorkerState

STEP_MS = 1_000
DRAIN_MS = 3_000
GIB = 2**30
BAD_MESSAGE = "0/9 nodes are available: 9 Insufficient nvidia.com/gpu."
IMAGE_WAITING = ContainerFacts("worker", waiting="ImagePullBackOff", message="manifest for r/x:1 not found")


@dataclass
class Node:
    name: str
    worker_class: str
    slots: int = 2
    state: NodeState = NodeState.READY
    lost_at: int | None = None
    crashes: bool = False
    """Workers crash on it soon after their start."""


@dataclass
class Pod:
    facts: PodFacts
    since: int
    visible_at: int
    memory_bytes: int
    placed_at: int | None = None
    ready_at: int | None = None
    held: float = 0.0
    done: float = 0.0
    """Of the rows held, computed and not committed."""
    task_ends_at: int = 0
    committed_at: int = 0
    leave_at: int | None = None
    """When it will have drained."""
    idle_since: int | None = None
    state: WorkerState = WorkerState.PENDING

    @property
    def runs(self) -> bool:
        own = self.facts.worker
        return bool(self.facts.node) and (own is None or own.exit_code is None) and self.facts.phase in ("Pending", "Running")


@dataclass
class Cluster:
    desired: Desired
    rows: float
    rng: random.Random
    capacity: dict[str, int]
    """Places by class, two on each node."""
    rate: dict[str, float] = field(default_factory=lambda: {PROTECTED: 0.05, PREEMPTIBLE: 0.05})
    startup_ms: int = 20_000
    commit_ms: int = 15_000
    task_rows: float = 1_000.0
    drops: float = 0.0
    """Share of the actions that get lost."""
    lives_ms: float | None = None
    """Mean time after which a preemptible worker is taken away; None: never."""
    oom_below: int = 0
    image_fails_until: int = 0
    crash_code: int | None = None
    """Every worker ends with this soon after its start."""
    now: int = 0

    def __post_init__(self) -> None:
        self.pool = self.rows
        self.committed = 0.0
        self.pods: dict[str, Pod] = {}
        self.nodes: dict[str, Node] = {}
        self.names: set[str] = set()
        self.meter = Meter()
        self.worked: dict[str, Counter[str]] = {}
        self.controller = Controller()
        self.failed: act.FailJob | None = None
        self.told: list[tuple[int, act.Tell]] = []
        self.totals: list[int] = []
        self.counts: Counter[str] = Counter()
        self.most_active = self.most_counted = 0
        self.preempted = 0
        self.done_at: int | None = None
        self.avoided: dict[str, int] = {}
        self.placements: list[tuple[int, str, str]] = []
        self.cost_ms: Counter[str] = Counter()
        self._grow_nodes()

    # -- what happens to it ---------------------------------------------------------------------------------------------------------
    def set_capacity(self, worker_class: str, places: int) -> None:
        """Nodes come empty, and only empty ones go."""
        self.capacity[worker_class] = places
        self._grow_nodes()

    def _grow_nodes(self) -> None:
        for worker_class, places in self.capacity.items():
            have = [node for node in self.nodes.values() if node.worker_class == worker_class and node.state is NodeState.READY]
            used = {pod.facts.node for pod in self.pods.values()}
            for node in [node for node in have if node.name not in used][: max(0, len(have) - -(-places // 2))]:
                del self.nodes[node.name]
            for _ in range(-(-places // 2) - len(have)):
                name = f"{worker_class}-node-{len(self.names)}"
                self.names.add(name)
                self.nodes[name] = Node(name, worker_class)

    def alive(self, worker_class: str | None = None) -> list[Pod]:
        states = (WorkerState.STARTING, WorkerState.READY)
        return [p for p in self.pods.values() if p.state in states and worker_class in (None, p.facts.worker_class)]

    def preempt(self, pod: Pod, how: str) -> None:
        """Take a pod away in one of the ways that clusters have."""
        self.preempted += 1
        self.counts[how] += 1
        match how:
            case "scheduler" | "eviction" | "taint" | "kubelet":
                reason = {
                    "scheduler": "PreemptionByScheduler", "eviction": "EvictionByEvictionAPI",
                    "taint": "DeletionByTaintManager", "kubelet": "TerminationByKubelet",
                }[how]  # fmt: skip
                self._facts(pod, conditions=(ConditionFacts("DisruptionTarget", True, reason),))
                pod.leave_at = self.now + 2 * STEP_MS + DRAIN_MS
            case "evicted":
                self._end(pod, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
            case "killed":
                self._facts(pod, conditions=(ConditionFacts("DisruptionTarget", True, "PreemptionByScheduler"),), is_deleting=True)
                self._end(pod, code=137, reason="Error")
            case "signal":
                pod.leave_at = self.now + DRAIN_MS  # told by its node alone
            case "node_deleted":
                self.nodes.pop(pod.facts.node, None)
                for other in [p for p in self.pods.values() if p.facts.node == pod.facts.node]:
                    self.preempted += other is not pod and other.runs
                    self._lose(other)
                    self._facts(other, node_state=NodeState.DELETED)
            case _:
                raise AssertionError(how)

    def lose_node(self, name: str) -> None:
        """The kubelet is gone; its pods stay as they are."""
        node = self.nodes[name]
        node.state, node.lost_at = NodeState.LOST, self.now
        for pod in [p for p in self.pods.values() if p.facts.node == name]:
            self._lose(pod)
            self._facts(pod, node_state=NodeState.LOST)

    def delete_pods(self, pods: list[Pod]) -> None:
        for pod in pods:
            self._facts(pod, is_deleting=True)
            pod.leave_at = self.now + DRAIN_MS

    # -- time -----------------------------------------------------------------------------------------------------------------------
    def run(self, until: int, each: object = None) -> Cluster:
        """Let time pass until `until` (ms), or until the job is done or has failed; `each` is called before every step."""
        while self.now < until and self.done_at is None and self.failed is None:
            if callable(each):
                each(self)
            self.step()
        return self

    def step(self) -> None:
        self.now += STEP_MS
        self._schedule()
        self.worked = defaultdict(Counter)
        for pod in list(self.pods.values()):
            self._live(pod)
        # Once for all of a class, as the controller of a master does.
        for worker_class, done in self.worked.items():
            self.meter.note_work(worker_class, worker_ms=round(done["workers"]) * STEP_MS, rows=round(done["rows"]), ms=STEP_MS)
        self._preempt_some()
        seen = self.observe()
        if seen.is_done and self.done_at is None:
            self.done_at = self.now
        active = [w for w in seen.workers if w.state in (WorkerState.PENDING, WorkerState.STARTING, WorkerState.READY)]
        leaving = [w for w in seen.workers if w.state is WorkerState.LEAVING]
        self.most_active = max(self.most_active, len(active))
        surge = len(leaving) if self.desired.surge is None else self.desired.surge
        self.most_counted = max(self.most_counted, len(active) + max(0, len(leaving) - surge))
        for worker in (*active, *leaving):
            if worker.state is not WorkerState.PENDING:
                self.cost_ms[worker.worker_class] += STEP_MS
        for action in self.controller.turn(self.desired, seen, self.now):
            if self.drops == 0 or isinstance(action, act.Tell | act.FailJob) or self.rng.random() >= self.drops:
                self._do(action)
        self.totals.append(self.controller.memory.aim.total)

    def observe(self) -> Observed:
        workers = [self._seen(pod) for pod in self.pods.values() if pod.visible_at <= self.now]
        self.rng.shuffle(workers)
        held = sum(pod.held for pod in self.pods.values())
        remaining = round(self.pool + held)
        return Observed(
            tuple(workers), remaining, round(self.pool), round(self.committed), measures=self.meter.measures(), is_done=remaining == 0
        )

    def restart_controller(self, prefix: str) -> None:
        """A new master: it knows what is stored, and what it sees."""
        self.controller = Controller(Memory(self.controller.memory.used_ms))
        self.desired = replace(self.desired, prefix=prefix)
        # It begins with a list, which shows everything that was created: only a watch lags behind.
        for pod in self.pods.values():
            pod.visible_at = min(pod.visible_at, self.now)

    # -- inside ---------------------------------------------------------------------------------------------------------------------
    def _facts(self, pod: Pod, **changes: object) -> None:
        pod.facts = replace(pod.facts, **changes)

    def _seen(self, pod: Pod) -> WorkerSeen:
        worker = worker_seen(pod.facts, since=pod.since, ready_at=pod.ready_at, uncommitted_rows=round(pod.held), idle_since=pod.idle_since)
        if worker.state is not pod.state:
            pod.state, pod.since = worker.state, self.now
            worker = replace(worker, since=self.now)
        return worker

    def _schedule(self) -> None:
        used = Counter(pod.facts.node for pod in self.pods.values() if pod.runs)
        for pod in self.pods.values():
            facts = pod.facts
            if facts.node or facts.is_deleting:
                continue
            places = [
                node for node in self.nodes.values()
                if node.worker_class == facts.worker_class and node.state is NodeState.READY and used[node.name] < node.slots
                and self.avoided.get(node.name, 0) <= self.now
            ]  # fmt: skip
            busy = sum(used[node.name] for node in self.nodes.values() if node.worker_class == facts.worker_class)
            if not places or busy >= self.capacity.get(facts.worker_class, 0):
                self._facts(pod, conditions=(ConditionFacts("PodScheduled", False, "Unschedulable", BAD_MESSAGE),))
                continue
            # Those that crash first: schedulers like a node whose pods do not last.
            node = max(places, key=lambda node: (node.crashes, node.name))
            used[node.name] += 1
            self._facts(pod, node=node.name, conditions=(ConditionFacts("PodScheduled", True),), node_state=NodeState.READY)
            pod.placed_at = self.now
            self.placements.append((self.now, facts.name, node.name))

    def _live(self, pod: Pod) -> None:
        facts = pod.facts
        node = self.nodes.get(facts.node)
        if node is not None and node.lost_at is not None and self.now - node.lost_at == 60_000:
            self._facts(pod, is_deleting=True, conditions=(ConditionFacts("DisruptionTarget", True, "DeletionByTaintManager"),))
        if facts.node_state is NodeState.DELETED and self.now - pod.since >= 30_000:
            del self.pods[facts.name]
            return
        if facts.node_state in (NodeState.LOST, NodeState.DELETED):
            return
        if facts.is_deleting and not pod.runs:
            del self.pods[facts.name]
            return
        if not pod.runs:
            return
        if pod.facts.disruption is not None and not facts.is_deleting:
            self._facts(pod, is_deleting=True)
        if pod.leave_at is not None and self.now >= pod.leave_at:
            self._commit(pod)
            self._end(pod, code=75)
        elif pod.ready_at is None:
            self._start(pod, node)
        elif self.crash_code is not None or (node is not None and node.crashes and self.now - pod.ready_at > 3_000):
            self._end(pod, code=139 if self.crash_code is None else self.crash_code)
        else:
            self._work(pod)

    def _start(self, pod: Pod, node: Node | None) -> None:
        placed = self.now if pod.placed_at is None else pod.placed_at
        if self.now < self.image_fails_until:
            self._facts(pod, containers=(ContainerFacts("sidecar"), IMAGE_WAITING))
            pod.placed_at = self.now
        elif pod.memory_bytes and pod.memory_bytes < self.oom_below and self.now - placed >= 5_000:
            self._end(pod, code=137, reason="OOMKilled")
        elif self.now - placed >= self.startup_ms:
            self._facts(
                pod, phase="Running", has_session=True, was_ready=True, containers=(ContainerFacts("sidecar"), ContainerFacts("worker"))
            )
            pod.ready_at = pod.committed_at = self.now
            self.meter.note_start(pod.facts.worker_class, self.now - pod.facts.created_at)
        elif self.crash_code is not None and self.now - placed >= 5_000:
            self._end(pod, code=self.crash_code)

    def _work(self, pod: Pod) -> None:
        speed = self.rate[pod.facts.worker_class] * STEP_MS
        if pod.done >= pod.held - 1e-9 and pod.leave_at is None:
            self._commit(pod)
            pod.held = min(self.task_rows, self.pool)
            self.pool -= pod.held
        if pod.held <= 0:
            pod.idle_since = self.now if pod.idle_since is None else pod.idle_since
            return
        pod.idle_since = None
        rows = min(speed * self.rng.uniform(0.8, 1.2), pod.held - pod.done)
        pod.done += rows
        self.worked[pod.facts.worker_class]["workers"] += 1
        self.worked[pod.facts.worker_class]["rows"] += rows
        if self.now - pod.committed_at >= self.commit_ms or pod.done >= pod.held - 1e-9:
            self._commit(pod)

    def _commit(self, pod: Pod) -> None:
        self.committed += pod.done
        pod.held, pod.done, pod.committed_at = pod.held - pod.done, 0.0, self.now

    def _lose(self, pod: Pod) -> None:
        """What it had not committed is for others to do."""
        if pod.ready_at is not None and pod.facts.has_session:
            self.meter.note_taken(pod.facts.worker_class, round(pod.done))
        self.pool += pod.held
        pod.held = pod.done = 0.0
        self._facts(pod, has_session=False)

    def _end(self, pod: Pod, *, code: int | None = None, reason: str = "Error", phase: str = "Running", message: str = "") -> None:
        self._lose(pod)
        own = () if code is None else (ContainerFacts("sidecar"), ContainerFacts("worker", exit_code=code, reason=reason))
        self._facts(pod, containers=own, phase=phase, reason=reason if code is None else "", message=message)

    def _preempt_some(self) -> None:
        if self.lives_ms is None:
            return
        for pod in self.alive(PREEMPTIBLE):
            if pod.state is WorkerState.READY and pod.runs and pod.leave_at is None and self.rng.random() < STEP_MS / self.lives_ms:
                self.preempt(pod, self.rng.choice(["scheduler", "eviction", "taint", "kubelet", "evicted", "killed", "signal"]))

    def _do(self, action: act.Action) -> None:
        self.counts[type(action).__name__] += 1
        match action:
            case act.StartWorkers(worker_class, names, memory, avoid):
                self.avoided |= dict.fromkeys(avoid, self.now + STEP_MS * 10_000)
                for name in names:
                    if name in self.pods:
                        continue  # 409: it is there
                    assert name not in self.names, f"{name} is used twice"
                    self.names.add(name)
                    self.counts["started"] += 1
                    facts = PodFacts(name, worker_class, self.now, memory_bytes=memory)
                    self.pods[name] = Pod(facts, self.now, self.now + self.rng.choice((0, 1_000, 2_000)), memory)
            case act.DrainWorker(name):
                pod = self.pods.get(name)
                if pod is not None and pod.runs and pod.leave_at is None:
                    self._facts(pod, was_asked=True)
                    pod.leave_at = self.now + DRAIN_MS
            case act.DeleteWorker(name):
                pod = self.pods.get(name)
                if pod is None:
                    return
                if not pod.facts.node:
                    del self.pods[name]
                else:
                    self._facts(pod, is_deleting=True)
                    pod.leave_at = pod.leave_at if pod.leave_at is not None else self.now + DRAIN_MS
            case act.FailJob():
                self.failed = action
            case act.Tell():
                self.told.append((self.now, action))
            case act.AvoidNode():
                self.counts["avoided"] += 1


def desired(**changes: object) -> Desired:
    """Return what a small job wants; `changes` replace fields."""
    about = {
        name: WorkerClass(gpus=1, price=price, memory_bytes=4 * GIB, max_memory_bytes=8 * GIB)
        for name, price in ((PROTECTED, 3.0), (PREEMPTIBLE, 1.0))
    }
    given: dict[str, object] = {"prefix": "job-1", "least": 1, "most": 10, "classes": about, **changes}
    return Desired(**given)  # type: ignore[arg-type]


def reversals(totals: list[int]) -> int:
    """Return how often a row of numbers turns from growing to shrinking or back."""
    changes = [after - before for before, after in pairwise(totals) if after != before]
    return sum((one > 0) != (other > 0) for one, other in pairwise(changes))
