"""Trouble on demand: requests that fail, wait, or are done without that their sender hears of it; and the log of all requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.integration.gcs.errors import of_status
from tests.integration.gcs.messages import Request, Response

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
PATIENCE_S = 60.0


class ConnectionLost(Exception):
    """The request gets no answer: its connection is closed."""


class Rule:
    """What happens to the next `times` requests of certain methods (any, when there are none) whose target has `path` in it.

    `status` None closes the connection. `acts`: what was asked for is done before. `holds`: it is done, but late.
    """

    def __init__(
        self, methods: frozenset[str], path: str, times: int | None, status: int | None = None, *, acts: bool = False, holds: bool = False
    ) -> None:
        self.status, self.acts, self.holds = status, acts, holds
        self._methods, self._path, self._times = methods, path, times
        self._hits = 0
        self._changed = threading.Condition()
        self._released = False

    def take(self, method: str, target: str) -> bool:
        """Return whether the rule is for this request, which then counts as one of its `times`."""
        with self._changed:
            fits = (not self._methods or method in self._methods) and self._path in target
            if not fits or self._released or self._hits == self._times:
                return False
            self._hits += 1
            self._changed.notify_all()
            return True

    def hits(self) -> int:
        """Return how many requests the rule has met."""
        with self._changed:
            return self._hits

    def await_arrival(self, hits: int = 1, patience_s: float = PATIENCE_S) -> None:
        """Return once the rule has met so many requests; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._hits >= hits, patience_s):
                raise TimeoutError(f"{self._hits} of {hits} requests came for {self._path!r}")

    def release(self) -> None:
        """End the rule: requests that it holds go on, and it meets no others."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def await_release(self) -> None:
        """Return once the rule has ended; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._released, PATIENCE_S):
                raise TimeoutError(f"nobody released the requests for {self._path!r}")


class Trouble:
    """The rules of one server, of which the first that fits a request meets it.

    `method` empty stands for any; `path` is part of the decoded path and query, to which the name of an object to upload belongs too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def fail(self, status: int | None = 503, *, method: str = "", path: str = "", times: int | None = 1) -> Rule:
        """Answer `times` requests (None: all) with an error, or none at all, before anything is done."""
        return self._add(Rule(_methods(method), path, times, status))

    def lose_reply(self, status: int | None = None, *, method: str = "", path: str = "", times: int | None = 1) -> Rule:
        """Do what `times` requests ask for, then close the connection, or answer with an error."""
        return self._add(Rule(_methods(method), path, times, status, acts=True))

    def hold(self, *, method: str = "", path: str = "", times: int | None = 1) -> Rule:
        """Let `times` requests wait before anything is done: `await_arrival` tells of the first, `release` lets them go on."""
        return self._add(Rule(_methods(method), path, times, holds=True))

    def refuse_writes(self, path: str = "") -> Rule:
        """Answer every write with 403, until the rule is released or all are cleared."""
        return self._add(Rule(WRITES, path or "/storage/v1/b", None, 403))

    def clear(self) -> None:
        with self._lock:
            for rule in self._rules:
                rule.release()
            self._rules.clear()

    def meet(self, request: Request, target: str, act: Callable[[], Response]) -> Response:
        """Let a request have its trouble; raises ApiError or ConnectionLost for it."""
        rule = self._next(request.method, target)
        if rule is None:
            return act()
        if rule.holds:
            rule.await_release()
            return act()
        if rule.acts:
            act()
        if rule.status is None:
            raise ConnectionLost
        raise of_status(rule.status)

    def _add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def _next(self, method: str, target: str) -> Rule | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.take(method, target)), None)


def _methods(method: str) -> frozenset[str]:
    return frozenset({method}) if method else frozenset()


@dataclass
class Logged:
    """A request that came: `status` is None until it is answered, and stays so when its connection was closed."""

    method: str
    target: str
    status: int | None = None


class RequestLog:
    """The requests of one server in the order of coming, those within batches among them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Logged] = []

    def begin(self, method: str, target: str) -> Logged:
        entry = Logged(method, target)
        with self._lock:
            self._entries.append(entry)
        return entry

    def matching(self, method: str = "", path: str = "") -> list[Logged]:
        """Return those of a method, or of any, whose decoded path and query have `path` in them."""
        with self._lock:
            return [each for each in self._entries if method in ("", each.method) and path in each.target]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
