"""The launcher: orders out to the API server, and what has become of them in from a watch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Final

from antinfer.core.scaling.facts import NodeState, PodFacts
from antinfer.core.scaling.obstacles import of_refusal
from antinfer.core.scaling.values import PROTECTED, Obstacle
from antinfer.launchers.kubernetes import complaints
from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.kubernetes.facts import CLASS_LABEL, given_back, node_state, pod_facts
from antinfer.launchers.kubernetes.manifests import JOB_LABEL, worker_pod
from antinfer.launchers.kubernetes.mirror import Mirror
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.port import Sight, WorkerOrder

_log = logging.getLogger("antinfer.launchers.kubernetes")
_AT_ONCE: Final = 16
_HURRIED_S: Final = 1
_PATIENCE_S: Final = 20.0
"""How long what was asked for at the end may take."""


class KubernetesLauncher:
    """Makes workers as bare pods. See `antinfer.launchers.port.Launcher`."""

    def __init__(self, api: Api, settings: KubernetesSettings, *, job: str, master: str, creating_ms: int = complaints.PATIENCE_MS) -> None:
        """
        Args:
            api: the server.
            settings: how workers are made.
            job: id of the job.
            master: where the master listens, for workers who are not told of a better address.
            creating_ms: how long a pod may be made before its events are looked at.
        """
        self._api = api
        self._settings = settings
        self._job = job
        self._master = settings.master or master
        self._path = f"/api/v1/namespaces/{settings.namespace}/pods"
        self._complaints = complaints.Complaints(api, settings.namespace, patience_ms=creating_ms)
        self._owner: Mapping[str, Any] | None = None
        self._guard = threading.Lock()
        self._refused: dict[str, Obstacle] = {}
        self._busy: set[tuple[str, str]] = set()
        """Requests under way: verb and name."""
        self._under_way: set[Future[None]] = set()
        self._fault: BaseException | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pods")
        self._on_change: Callable[[], None] = lambda: None
        self._pods: Mirror[PodFacts] | None = None
        self._nodes: Mirror[NodeState] | None = None
        self._jobs: Mirror[int] | None = None

    def open(self, on_change: Callable[[], None]) -> None:
        """Begin to look.

        Raises:
            ApiError: Our own pod, whose owner workers are to have, cannot be looked at.
            UsageError: No worker can be made by these settings.
        """
        self._on_change = on_change
        worker_pod(self._settings, WorkerOrder("worker", PROTECTED, 1, ("node",)), job=self._job, master=self._master)
        if self._settings.pod:
            self._owner = self._find_owner(self._settings.pod)
        made: dict[str, Any] = {"clock": _now_ms, "on_change": on_change}
        # The pod of the master has the job's label too, and is no worker.
        self._pods = Mirror(self._api, self._path, pod_facts, labelSelector=f"{JOB_LABEL}={self._job},{CLASS_LABEL}", **made)
        # Often forbidden, which only means that we hear of lost nodes later.
        self._nodes = Mirror(self._api, "/api/v1/nodes", node_state, is_needed=False, **made)
        self._pods.start()
        self._nodes.start()
        if self._owner is not None and self._owner["kind"] == "Job":
            jobs = f"/apis/batch/v1/namespaces/{self._settings.namespace}/jobs"
            named = f"metadata.name={self._owner['name']}"
            self._jobs = Mirror(self._api, jobs, given_back, is_needed=False, fieldSelector=named, **made)
            self._jobs.start()

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        for order in workers:
            self._soon("create", order.name, self._create, order)

    def stop(self, name: str, *, drain: bool) -> None:
        self._soon("delete", name, self._delete, name, None if drain else _HURRIED_S)

    def observe(self) -> Sight | None:
        pods, nodes = self._pods, self._nodes
        if pods is None or nodes is None:
            return None
        fault = self._fault or pods.fault or nodes.fault or (None if self._jobs is None else self._jobs.fault)
        if fault is not None:
            raise fault
        denied = pods.denied
        if not pods.is_synced and denied is None:
            return None
        if self._jobs is not None and not self._jobs.is_synced and self._jobs.denied is None:
            return None
        states = nodes.values() if nodes.is_synced else {}
        with self._guard:
            refused, self._refused = self._refused, {}
        known = pods.values().values()
        for pod in self._complaints.due(known, _now_ms()):
            self._soon("list events", pod.name, self._ask_about, pod)
        seen = tuple(self._placed(self._with_complaint(pod), states, nodes) for pod in known)
        wanted_back = 0 if self._jobs is None else sum(self._jobs.values().values())
        return Sight(seen, refused, "" if denied is None else str(denied), wanted_back)

    def close(self) -> None:
        with self._guard:
            under_way = list(self._under_way)
        wait(under_way, _PATIENCE_S)
        # What is still tried again by now is given up: whatever stays goes with its owner.
        self._api.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _with_complaint(self, pod: PodFacts) -> PodFacts:
        complaint = self._complaints.of(pod.name)
        return pod if complaint is None else replace(pod, complaint=complaint)

    def _ask_about(self, pod: PodFacts) -> None:
        if self._complaints.ask(pod):
            self._on_change()

    @staticmethod
    def _placed(pod: PodFacts, states: Mapping[str, NodeState], nodes: Mirror[NodeState]) -> PodFacts:
        """Return a pod with what is known of its node."""
        if not pod.node:
            return pod
        state = states.get(pod.node)
        if state is None:
            # A node that we have not heard of may be one that has only just come.
            state = NodeState.DELETED if nodes.was_deleted(pod.node) else NodeState.UNKNOWN
        return pod if state is NodeState.UNKNOWN else replace(pod, node_state=state)

    def _soon(self, verb: str, name: str, call: Callable[..., None], *arguments: Any) -> None:
        key = verb, name
        with self._guard:
            if key in self._busy:
                return
            self._busy.add(key)

        def ended(done: Future[None]) -> None:
            with self._guard:
                self._busy.discard(key)
                self._under_way.discard(done)
                if not done.cancelled():
                    self._fault = self._fault or done.exception()

        future = self._pool.submit(call, *arguments)
        with self._guard:
            self._under_way.add(future)
        future.add_done_callback(ended)

    def _create(self, order: WorkerOrder) -> None:
        pod = worker_pod(self._settings, order, job=self._job, master=self._master, owner=self._owner)
        try:
            self._api.ask("POST", self._path, pod)
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return  # our own earlier request, whose answer we did not hear
            _log.warning("cannot start worker %s: %s", order.name, error, extra={"action": "start_refused", "worker": order.name})
            with self._guard:
                self._refused[order.name] = of_refusal(error.status, str(error))
            self._on_change()

    def _delete(self, name: str, grace_s: int | None) -> None:
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._api.ask("DELETE", f"{self._path}/{name}", options)
        except ApiError as error:
            if error.status != 404:
                _log.warning("cannot delete worker %s: %s", name, error, extra={"action": "delete_refused", "worker": name})

    def _find_owner(self, pod: str) -> Mapping[str, Any]:
        """Return a reference to what the pod `pod` belongs to, so that workers outlive it but not that; to the pod where it is its own."""
        found = self._api.ask("GET", f"{self._path}/{pod}")
        for owner in found["metadata"].get("ownerReferences") or ():
            if owner.get("controller"):
                return {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
        return {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["metadata"]["uid"]}


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
