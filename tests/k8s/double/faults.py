"""Faults that a test orders, and the count of what clients asked."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.k8s.double.errors import ApiError


@dataclass
class Fault:
    """What to do to the next requests that match; `*` matches everything. `fired` counts how often it happened."""

    verb: str = "*"
    resource: str = "*"
    status: int | None = None
    """HTTP code of the refusal; None lets the request through, after `latency_s`."""
    message: str = ""
    retry_after_s: int | None = None
    latency_s: float = 0.0
    together: threading.Barrier | None = None
    """Goes on with a request when as many are under way as it has parties, and refuses them where they do not come in its time."""
    cuts: bool = False
    """Break the connection: before the request is looked at, or with `after` when it has been done and before its answer."""
    after: bool = False
    """Refuse or cut only once the request has been carried out, as when an answer is lost on its way."""
    times: int | None = None
    """How often; None: until it is withdrawn."""
    fired: int = 0

    def matches(self, verb: str, resource: str) -> bool:
        left = self.times is None or self.fired < self.times
        return left and self.verb in ("*", verb) and self.resource in ("*", resource)

    def error(self) -> ApiError | None:
        """The refusal, if it is one. May wait for other requests."""
        if self.together is not None:
            try:
                self.together.wait()
            except threading.BrokenBarrierError:
                return ApiError(504, "the other requests did not come")
        if self.status is None:
            return None
        messages = {
            429: "The server has received too many requests and has asked us to try again later",
            500: "Internal error occurred: injected fault",
            503: "the server is currently unable to handle the request",
        }
        message = self.message or messages.get(self.status, "injected fault")
        return ApiError(self.status, message, retry_after_s=self.retry_after_s)


@dataclass
class Faults:
    """The faults in force."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _active: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._active.append(fault)
        return fault

    def withdraw(self, fault: Fault) -> None:
        with self._lock:
            self._active.remove(fault)

    def clear(self) -> None:
        with self._lock:
            self._active.clear()

    def take(self, verb: str, resource: str) -> list[Fault]:
        """Every fault that this request meets; each has then fired once more."""
        with self._lock:
            met = [fault for fault in self._active if fault.matches(verb, resource)]
            for fault in met:
                fault.fired += 1
        return met


class Calls:
    """How often clients asked for what: verb and resource (with subresource, as `pods/status`), discovery as (`get`, path)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, verb: str, resource: str) -> None:
        with self._lock:
            self._counts[verb, resource] += 1

    def snapshot(self) -> Counter[tuple[str, str]]:
        """The counts so far; subtract an earlier snapshot for those since."""
        with self._lock:
            return Counter(self._counts)

    def of(self, verb: str = "*", resource: str = "*") -> int:
        """How many calls match; `*` matches everything."""
        counts = self.snapshot()
        return sum(n for (each, what), n in counts.items() if verb in ("*", each) and resource in ("*", what))

    def reset(self) -> None:
        with self._lock:
            self._counts.clear()
