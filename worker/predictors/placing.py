"""Predictors for the stages of a job: each with its devices, its share of the cores and the batch size of its stage."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from antinfer.core.causes import Cause
from antinfer.rpc.values import KEPT_DECISIONS
from antinfer.spec.devices import Devices, Gpus, GpuWish, place
from antinfer.worker.host.machine import MachineReader
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.graph import Call, Node
from antinfer.worker.pipeline.leaks import lifetime
from antinfer.worker.pipeline.stagecalls import Standing
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.care import Care, Hears
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.predictor import Predictor
from antinfer.worker.predictors.sizing import Sizing
from antinfer.worker.predictors.ward import Start, Ward
from antinfer.worker.predictors.watch import Patience
from antinfer.worker.tuning.batchsize import slots_of

_LOG = logging.getLogger("antinfer.predictors")


class PredictorPlaces:
    """Makes predictors and knows which devices are taken. To be used from one thread."""

    def __init__(
        self,
        nodes: Sequence[Node],
        feed: Feed,
        cpus: int,
        gpus: Sequence[str],
        *,
        gpu_room: float = 1.0,
        probes: bool = True,
        start: Start | None = None,
        hears: Hears | None = None,
    ) -> None:
        """Find a place for every predictor that the stages start with. Nothing is started.

        Args:
            nodes: The pipeline.
            feed: Where batches come from.
            cpus: Cores of this worker.
            gpus: Its GPUs (`gpus.visible_gpus`).
            gpu_room: How much of each of them it may use (`gpus.gpu_room`).
            probes: Search for the best batch size of predictors that leave it open.
            start: Gives a thread to whatever runs suspects; None: their own process goes on with them.
            hears: Is told of every interruption, from any thread.

        Raises:
            UserError: There are fewer GPUs than the stages ask for.
        """
        self._feed = feed
        self._gpus = Gpus(gpus, gpu_room)
        self._calls = {index: node for index, node in enumerate(nodes) if isinstance(node, Call)}
        after = graph.routes(nodes).after
        self._lends = {index for index in self._calls if _uses_up(self._calls.get(after[index]))}
        """Nodes whose results are seen by nobody but the processes of the next one."""
        first = [index for index, call in self._calls.items() if call.in_processes]
        placed = place([_wish(self._calls[index]) for index in first], self._gpus)
        self._placed: dict[int, list[Devices]] = dict(zip(first, placed, strict=True))
        self._cpus = cpus
        self.threads = self.share(sum(map(len, placed)))
        """With how many threads the next processes compute."""
        self._sizing = {index: _sizing(index, call, feed, probes=probes) for index, call in self._calls.items()}
        self._hears = hears
        self.notes: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT_DECISIONS))
        """Node -> what happened to its processes, the latest."""
        self.killed = 0
        """Processes that the system has killed for want of memory."""
        self._care = {index: self._care_of(index, call, start) for index, call in self._calls.items()}
        for call in self._calls.values():
            if gpus and call.stage.kind == "predict" and not _share(call):
                _LOG.warning(
                    "%s has num_gpus: 0 and will not see the GPUs of this machine",
                    call.stage.where,
                    extra={"action": "placed", "stage": call.name},
                )

    def first(self, started: Sequence[spawn.Started] = ()) -> list[tuple[int, Predictor]]:
        """Return the predictors to start with and the node of each; `started` are processes for the first one of each stage, in order."""
        early = iter(started)
        made = []
        for index, places in self._placed.items():
            for number, devices in enumerate(places):
                made.append((index, self._make(index, devices, next(early, None) if number == 0 else None)))
        for unwanted in early:
            unwanted.discard()
        return made

    def share(self, processes: int) -> int:
        """Return how many threads each of so many processes shall compute with."""
        return max(1, self._cpus // max(1, processes))

    def has_room(self, node: int) -> bool:
        """Tell whether there is a device for one more predictor of `node`."""
        return self._gpus.has_room(_share(self._calls[node]))

    def another(self, node: int) -> Predictor | None:
        """Return one more predictor for `node`; None when its share of a GPU is nowhere free."""
        devices = self._gpus.take(_share(self._calls[node]), spread=True)
        return None if devices is None else self._make(node, devices, None)

    def gone(self, node: int, predictor: Predictor) -> None:
        """Take note that a predictor of `node` has left; its devices are free again."""
        self._gpus.give_back(predictor.devices or (), _share(self._calls[node]))

    def patience(self, node: int) -> Patience:
        """Return how long calls of `node` may take."""
        return self._care[node].patience

    def standing(self, node: int) -> Standing:
        """Return what the user code of `node` has shown so far."""
        return self._care[node].standing

    def _care_of(self, node: int, call: Call, start: Start | None) -> Care:
        timeout, longest = ("auto", "off") if call.spec is None else (call.spec.timeout, call.spec.max_lifetime)
        batches, seconds = lifetime(longest)
        care = Care(
            Patience(None if isinstance(timeout, str) else timeout),
            keeps_batches=call.limits.whole,
            lends=node in self._lends,
            most_batches=batches,
            most_seconds=seconds,
            note=self._hearer(node, call.stage.where),
        )
        if start is not None and not _share(call) and not _is_alone(call):
            # On a GPU a second copy of the model could take the memory that the first one lives in.
            care.ward = Ward(node, self._feed, partial(self._suspects, node), start, _has_memory_for)
        return care

    def _hearer(self, node: int, where: str) -> Hears:
        def hear(cause: Cause, words: str, call: Assembled | None = None) -> None:
            self.notes[node].append(words)
            self.killed += cause is Cause.OUT_OF_MEMORY
            if self._hears is not None:
                self._hears(cause, f"{where}: {words}", call)

        return hear

    def _suspects(self, node: int, feed: Feed) -> Predictor:
        call, care = self._calls[node], replace(self._care[node], ward=None)
        devices: Devices | None = () if self._gpus.names else None
        return Predictor(
            node, call.stage, feed, threads=self.threads, devices=devices, front=call.on_gpu, sizing=self._sizing[node], care=care
        )

    def _make(self, node: int, devices: Devices, started: spawn.Started | None) -> Predictor:
        call = self._calls[node]
        # Without GPUs on this machine there is nothing to hide, and libraries that count devices are left in peace.
        seen = devices if self._gpus.names else None
        return Predictor(
            node,
            call.stage,
            self._feed,
            threads=self.threads,
            started=started,
            devices=seen,
            front=call.on_gpu,
            sizing=self._sizing[node],
            care=self._care[node],
        )


def _has_memory_for(size_bytes: int) -> bool:
    room = MachineReader(()).read().room_for(size_bytes)
    return room is None or room > 0


def _uses_up(call: Call | None) -> bool:
    """Tell whether rows are copied into other processes by `call`, and not needed any more: what a filter lets through goes on."""
    return call is not None and call.in_processes and call.stage.kind != "filter"


def _share(call: Call) -> float:
    return 0.0 if call.spec is None else call.spec.num_gpus


def _is_alone(call: Call) -> bool:
    """Tell whether the user allows for one copy and no second one: they may hold something that there is but once."""
    return call.spec is not None and call.spec.concurrency == 1


def _wish(call: Call) -> GpuWish:
    share = _share(call)
    # Without a GPU the number of copies is a matter of cores, which the graph has decided.
    return GpuWish(call.name, share, call.degree if call.spec is None or not share else call.spec.concurrency)


def _sizing(node: int, call: Call, feed: Feed, *, probes: bool) -> Sizing:
    is_auto = probes and call.stage.kind == "predict" and call.limits.max_bytes is not None
    slots = slots_of(has_front=call.on_gpu is not None)
    return Sizing(node, call.stage, feed, max_bytes=call.limits.max_bytes, probes=is_auto, slots=slots)
