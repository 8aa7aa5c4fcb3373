"""Why the containers of a pod are still being made: what stands in the way of a volume, or of its network, is said in events alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from antinfer.core.scaling.facts import EventFacts, PodFacts
from antinfer.core.scaling.obstacles import TOLD_IN_EVENTS
from antinfer.launchers.kubernetes.api import Api, ApiError

_log = logging.getLogger("antinfer.launchers.kubernetes")
PATIENCE_MS: Final = 10_000
"""How long a pod may be made before anybody asks why; also the least time between two questions about it."""
_AT_ONCE: Final = 5
_GATHER_MS: Final = 1_000
"""So many pods are asked about in this time at most: a server looks through all events of a namespace for each."""
_LATER: Final = frozenset(("Pulling", "Pulled", "Created", "Started", "Failed"))
"""What a kubelet comes to when volumes and network are there. An image may then be pulled for as long as it takes."""
_NO_NEWS: Final = "timed out waiting for the condition"
"""What a kubelet says in the end, and when its own cache is behind, instead of what is wrong."""


@dataclass(slots=True)
class _Case:
    """A pod whose containers are being made."""

    since: int
    asked_at: int | None = None
    complaint: EventFacts | None = None

    def ask_at(self, patience_ms: int) -> int:
        """Return when to ask: a complaint may be over at any time; where there is none, what takes long takes longer."""
        if self.asked_at is None:
            return self.since + patience_ms
        return self.asked_at + (patience_ms if self.complaint else max(patience_ms, self.asked_at - self.since))


class Complaints:
    """Asks about pods that are being made for long. Times in ms; may be called by any thread."""

    def __init__(self, api: Api, namespace: str, *, patience_ms: int = PATIENCE_MS) -> None:
        """
        Args:
            api: the server.
            namespace: of the pods.
            patience_ms: see `PATIENCE_MS`.
        """
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/events"
        self._patience_ms = patience_ms
        self._guard = threading.Lock()
        self._cases: dict[str, _Case] = {}
        self._asked_at: int | None = None
        self._is_forbidden = False

    def due(self, pods: Iterable[PodFacts], now: int) -> list[PodFacts]:
        """Return the pods that are to be asked about now. `pods`: all that there are; those that are not being made are forgotten."""
        being_made = {pod.name: pod for pod in pods if pod.is_being_made}
        with self._guard:
            self._cases = {name: self._cases.get(name) or _Case(now) for name in being_made}
            if self._is_forbidden or (self._asked_at is not None and now - self._asked_at < _GATHER_MS):
                return []
            waited = {name: now - case.ask_at(self._patience_ms) for name, case in self._cases.items()}
            names = sorted((name for name, ms in waited.items() if ms >= 0), key=lambda name: -waited[name])[:_AT_ONCE]
            for name in names:
                self._asked_at = self._cases[name].asked_at = now
            return [being_made[name] for name in names]

    def of(self, name: str) -> EventFacts | None:
        """Return what keeps a pod from being made; None: nothing, as far as was said."""
        with self._guard:
            case = self._cases.get(name)
            return None if case is None else case.complaint

    def ask(self, pod: PodFacts) -> bool:
        """Ask about a pod; True when the answer is another one than before. Waits for the server."""
        try:
            found = self._api.ask("GET", self._path, fieldSelector=f"involvedObject.uid={pod.uid}").get("items") or []
        except ApiError as error:
            self._note(error)
            return False
        complaint = complaint_in(found)
        with self._guard:
            case = self._cases.get(pod.name)
            if case is None or case.complaint == complaint:
                return False
            case.complaint = complaint
        return True

    def _note(self, error: ApiError) -> None:
        """Do without where it is not ours to see; what else goes wrong is tried again in its time."""
        if error.status in (401, 403):
            self._is_forbidden = True
            _log.info("cannot look at events, where missing volumes and networks are told: %s", error, extra={"action": "events_denied"})


def complaint_in(events: Iterable[Mapping[str, Any]]) -> EventFacts | None:
    """Return what the events of a pod say keeps it from being made; None: nothing, or nothing any more."""
    found = list(events)
    if any(event.get("reason") in _LATER for event in found):
        return None
    told = [event for event in found if event.get("type") == "Warning" and event.get("reason") in TOLD_IN_EVENTS]
    if not told:
        return None
    last = max(told, key=lambda event: (_NO_NEWS not in (event.get("message") or ""), last_time(event)))
    return EventFacts(last["reason"], last.get("message") or "")


def last_time(event: Mapping[str, Any]) -> str:
    """Return when an event happened last, to the second: texts of that kind sort as their times do."""
    series = event.get("series") or {}
    found = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return f"{found[:19]}Z"
