"""The pods of one job: each from the moment it is seen first to its end, and what it ended with."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from antinfer.core.scaling.facts import PodFacts
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.facts import pod_facts
from antinfer.launchers.kubernetes.manifests import JOB_LABEL
from antinfer.launchers.kubernetes.mirror import Mirror

_COMPONENT: Final = "app.kubernetes.io/component"


@dataclass
class Pod:
    """One pod, there or gone."""

    uid: str
    component: str
    """``worker`` or ``master``; the name of its container too."""
    facts: PodFacts
    """The last that was heard of it."""
    seen_at: float
    """Monotonic seconds, as all times here."""
    started_at: float | None = None
    ended_at: float | None = None
    doomed: bool = False
    """We have deleted it."""

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def title(self) -> str:
        """What it is called in a report: a worker by its own name."""
        return f"master {self.name.rpartition('-')[2]}" if self.component == "master" else self.name

    @property
    def is_whole(self) -> bool:
        """It works, and nobody has told it to go."""
        return self.facts.phase == "Running" and self.ended_at is None and not self.doomed and not self.facts.is_deleting

    @property
    def exit_code(self) -> int | None:
        """Of its master or worker; None: it runs, or nobody ever said."""
        return next((each.exit_code for each in self.facts.containers if each.name == self.component), None)

    @property
    def fell_by_itself(self) -> bool:
        """It failed although neither we nor the cluster nor its master wanted it to go."""
        taken = self.facts.is_deleting or any(each.type == "DisruptionTarget" and each.is_true for each in self.facts.conditions)
        return self.facts.phase == "Failed" and not taken and not self.doomed


class Pods:
    """Watches the pods of a job. Its methods are for one thread."""

    def __init__(self, api: Api, namespace: str, job: str) -> None:
        """`job`: its id."""
        self._known: dict[str, Pod] = {}
        self._guard = threading.Lock()
        self._mirror = Mirror(
            api,
            f"/api/v1/namespaces/{namespace}/pods",
            self._see,
            clock=lambda: time.monotonic_ns() // 1_000_000,
            on_change=lambda: None,
            labelSelector=f"{JOB_LABEL}={job}",
        )

    def start(self) -> None:
        self._mirror.start()

    def look(self) -> list[Pod]:
        """Return all pods that there ever were, in the order in which they came. Raises `ApiError` when we may not see them."""
        if self._mirror.fault is not None:
            raise self._mirror.fault
        if self._mirror.denied is not None:
            raise self._mirror.denied
        with self._guard:
            found = list(self._known.values())
        now = time.monotonic()
        for pod in found:
            if pod.ended_at is None and (pod.facts.phase in ("Succeeded", "Failed") or self._mirror.was_deleted(pod.name)):
                pod.ended_at = now
        return found

    def _see(self, obj: Mapping[str, Any], created_at: int) -> PodFacts:
        """Take in what is said of a pod, on the thread of the mirror."""
        facts, uid, now = pod_facts(obj, created_at), str(obj["metadata"]["uid"]), time.monotonic()
        with self._guard:
            pod = self._known.setdefault(uid, Pod(uid, obj["metadata"]["labels"].get(_COMPONENT, ""), facts, now))
            pod.facts = facts
            if pod.started_at is None and facts.phase != "Pending":
                pod.started_at = now
        return facts
