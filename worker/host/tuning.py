"""The hand of the tuner: reads what the stages did, asks the policies, and resizes the pools."""

from __future__ import annotations

import logging
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from antinfer.rpc.values import KEPT_DECISIONS
from antinfer.worker.host.flow import Flow
from antinfer.worker.host.machine import PROCESS_BYTES, MachineReader, cpu_seconds, resident_bytes
from antinfer.worker.host.pools import Pools, StagePool
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.graph import Call, Node
from antinfer.worker.pipeline.statistics import NodeStats
from antinfer.worker.tuning.degrees import Tuner
from antinfer.worker.tuning.shares import SharePolicy, Work
from antinfer.worker.tuning.values import Decision, Machine, StageSignal
from antinfer.worker.tuning.workersas import Counters, Verdict, WorkersTrial

_LOG = logging.getLogger("antinfer.tuning")

_STEP_SECONDS: Final = 1.0


class Tuning:
    """Sets how many executors each stage has, and of which kind. To be used from the thread that uses the pools."""

    def __init__(self, nodes: Sequence[Node], flow: Flow, pools: Pools, machine: MachineReader) -> None:
        self._flow = flow
        self._pools = pools
        self._machine = machine
        self._seen = machine.read()
        self._tuner = Tuner()
        routes = graph.routes(nodes)
        self._last_calls = {at for at, node in enumerate(nodes) if isinstance(node, Call) and not routes.outlets[at]}
        self._trials: dict[int, WorkersTrial] = {}
        self._shares = {pool.node: SharePolicy(pool.call.name, pool.call.gpu_share) for pool in pools if _has_choice(pool.call)}
        """Predictor behind a hybrid stage -> how it finds its aim."""
        self._before: list[NodeStats] | None = None
        self._stepped_at = 0.0
        self._computed: dict[int, dict[int | None, float]] = {}
        """Node -> what each of its processes, and under None all of its threads, had computed at the last step, in seconds."""
        self.decisions: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT_DECISIONS))
        """Node -> what was decided about it, the latest."""
        for pool in pools:
            if _is_open(pool.call):
                self._open_trial(pool, pool.call.degree)

    def tick(self, now: float) -> None:
        """Look whether something is to be changed. To be called several times a second."""
        stats = self._flow.statistics()
        for pool in self._pools:
            if pool.node in self._trials:
                if self._may_step(pool.node):
                    self._step_trial(now, pool, stats[pool.node])
                else:
                    self._trials[pool.node].pause()
        if now - self._stepped_at < _STEP_SECONDS:
            return
        self._seen = replace(self._machine.read(), killed=self._pools.killed)
        if any(trial.is_active for trial in self._trials.values()):
            # What others do now tells nothing about how they will do.
            self._tuner.pause()
            self._before = None
            for policy in self._shares.values():
                policy.pause()
        else:
            self._step_tuner(now, stats)
            self._step_shares(now, stats)
        self._stepped_at = now

    # -- threads or processes --------------------------------------------------------------------------------------------------------
    def _open_trial(self, pool: StagePool, degree: int, *, crowd: bool = False) -> None:
        """Have a trial from now on, or none when there is nothing to try."""
        self._trials.pop(pool.node, None)
        trial = WorkersTrial(degree, self._machine.cpus, processes=pool.call.processes, crowd=crowd)
        if trial.verdict is None:
            self._trials[pool.node] = trial

    def _may_step(self, node: int) -> bool:
        """One change at a time, or nobody knows what made the difference."""
        others = (trial for at, trial in self._trials.items() if at != node)
        return self._trials[node].is_active or not (self._tuner.is_trying or any(trial.is_active for trial in others))

    def _step_trial(self, now: float, pool: StagePool, stats: NodeStats) -> None:
        trial = self._trials[pool.node]
        wish = trial.wish
        if trial.watches_crowd and pool.degree != wish.threads:
            self._open_trial(pool, pool.degree, crowd=True)
            return
        idle = stats.starved_seconds + stats.blocked_seconds
        counters = Counters(stats.rows_done, stats.batches, stats.busy_seconds, idle, pool.cpu_seconds, self._machine.cpu_seconds())
        state = pool.state(threads=wish.threads, processes=wish.processes)
        trial.step(now, counters, state, room=self._room_for_processes())
        if trial.wish != wish:
            pool.resize(threads=trial.wish.threads, processes=trial.wish.processes, expendable=True)
            self._pools.share_cores()
        if trial.verdict is not None:
            del self._trials[pool.node]
            self._conclude(pool, trial.verdict)

    def _conclude(self, pool: StagePool, verdict: Verdict) -> None:
        _, most = self._bounds(pool)
        if verdict.grows and most > pool.degree:
            pool.resize(threads=most, processes=0)
        line = f"{pool.call.name} runs in {pool.degree} {verdict.mode}: {verdict.reason}"
        self._note(pool, "workers_as", line)
        if verdict.grows:
            self._open_trial(pool, pool.degree, crowd=True)

    def _room_for_processes(self) -> int | None:
        # The user code is in this process as well, so another one will hardly take more.
        return self._seen.room_for(max(PROCESS_BYTES, resident_bytes(os.getpid())))

    # -- how many --------------------------------------------------------------------------------------------------------------------
    def _step_tuner(self, now: float, stats: list[NodeStats]) -> None:
        before, self._before = self._before, stats
        if before is None:
            self._tuner.pause()
            before = stats
        machine = self._seen
        pools = {pool.call.name: pool for pool in self._pools}
        signals = [self._signal(pool, before[pool.node], stats[pool.node], machine) for pool in pools.values()]
        for decision in self._tuner.step(now, signals, machine):
            self._carry_out(pools[decision.stage], decision)

    def _carry_out(self, pool: StagePool, decision: Decision) -> None:
        if decision.degree != decision.before:
            threads, processes = (decision.degree, 0) if pool.mode == "threads" else (0, decision.degree)
            pool.resize(threads=threads, processes=processes)
            self._pools.share_cores()
        self._note(pool, "tune", decision.reason)

    def _signal(self, pool: StagePool, before: NodeStats, now: NodeStats, machine: Machine) -> StageSignal:
        pool.reap()
        fewest, most = self._bounds(pool)
        on_gpu = _num_gpus(pool.call) > 0
        predictors = pool.predictors()
        rows = self._flow.batch_rows(pool.node)
        return StageSignal(
            pool.call.name,
            pool.mode,
            pool.degree,
            pool.ready,
            fewest,
            most,
            rows=now.rows_done - before.rows_done,
            batches=now.batches - before.batches,
            busy_seconds=now.busy_seconds - before.busy_seconds,
            starved_seconds=now.starved_seconds - before.starved_seconds,
            blocked_seconds=now.blocked_seconds - before.blocked_seconds,
            cpu_seconds=self._newly_computed(pool),
            queued_batches=now.queue_rows / rows,
            batch_rows=rows,
            on_gpu=on_gpu,
            has_place=not on_gpu or self._pools.has_room(pool.node),
            ram_bytes=max((resident_bytes(predictor.pid) for predictor in predictors if predictor.pid is not None), default=0),
            gpu_bytes=machine.gpu_used // max(1, self._gpu_neighbours()) if on_gpu else 0,
            is_last=pool.node in self._last_calls,
        )

    def _newly_computed(self, pool: StagePool) -> float:
        """Return the seconds that the executors of `pool` have computed since this was last asked."""
        before = self._computed.get(pool.node, {})
        now: dict[int | None, float] = {pid: cpu_seconds(pid) for each in pool.predictors() if (pid := each.pid) is not None}
        self._computed[pool.node] = now = {**now, None: pool.cpu_seconds}
        return sum(max(0.0, seconds - before.get(key, seconds)) for key, seconds in now.items())

    def _bounds(self, pool: StagePool) -> tuple[int, int]:
        spec = pool.call.spec
        if spec is None or isinstance(spec.concurrency, int):
            return pool.degree, pool.degree
        if (trial := self._trials.get(pool.node)) is not None and not trial.watches_crowd:
            return pool.degree, pool.degree
        if spec.concurrency != "auto":
            return spec.concurrency
        if spec.num_gpus:
            return 1, pool.degree + self._pools.has_room(pool.node)
        return 1, max(pool.degree, int(self._machine.cpus / spec.num_cpus))

    def _gpu_neighbours(self) -> int:
        """Return about how many predictors share one GPU."""
        sharing = [pool for pool in self._pools if _num_gpus(pool.call) > 0]
        devices = {name for pool in sharing for predictor in pool.predictors() for name in predictor.devices or ()}
        count = sum(len(pool.predictors()) for pool in sharing)
        return -(-count // max(1, len(devices)))

    # -- who does what of a hybrid stage ---------------------------------------------------------------------------------------------
    def _step_shares(self, now: float, stats: list[NodeStats]) -> None:
        pools = {pool.node: pool for pool in self._pools}
        for node, policy in self._shares.items():
            pool, hybrid = pools[node], pools[node].call.hybrid
            assert hybrid is not None
            aim = policy.step(now, *_works(stats[hybrid], pools[hybrid].ready, stats[node], pool.ready))
            if aim is not None:
                self._flow.aim(node, aim.share)
                self._note(pool, "share", aim.reason)

    def _note(self, pool: StagePool, action: str, line: str) -> None:
        self.decisions[pool.node].append(line)
        _LOG.info("%s", line, extra={"action": action, "stage": pool.call.name, "degree": pool.degree, "workers_as": pool.mode})


def _num_gpus(call: Call) -> float:
    return 0.0 if call.spec is None else call.spec.num_gpus


def _has_choice(call: Call) -> bool:
    """Tell whether it is left to us which rows of the hybrid stage before it a predictor does."""
    return call.hybrid is not None and call.gpu_share not in (0, 1)


def _works(cores: NodeStats, copies: int, model: NodeStats, predictors: int) -> tuple[Work, Work, Work]:
    """Return what was done on the cores, and by predictors of rows that came ready and that came raw."""
    return (
        Work(cores.rows_done, cores.batches, cores.busy_seconds, copies),
        Work(
            model.rows_done - model.fused_done,
            model.batches - model.fused_batches,
            model.busy_seconds - model.fused_seconds,
            predictors,
        ),
        Work(model.fused_done, model.fused_batches, model.fused_seconds, predictors),
    )


def _is_open(call: Call) -> bool:
    """Tell whether it is left to us how the copies of a stage run."""
    return call.stage.kind != "predict" and not call.in_processes and call.spec is not None and call.spec.workers_as == "auto"
