"""A copy of some objects of an API server that is kept up to date: listed once, then watched."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from antinfer.launchers.kubernetes.api import Api, ApiError, pause_s

_log = logging.getLogger("antinfer.launchers.kubernetes")
T = TypeVar("T")
_PAGE: Final = 500
_WATCH_S: Final = (240, 300)
"""How long a watch may last; drawn, so that not all of them begin anew at once."""
_EXPIRED: Final = 410
_LEAST_MS: Final = 1_000
"""Time between the beginnings of two watches."""
_DENIED_S: Final = 30.0
"""Time between two tries of what is not ours to see."""


class Mirror(Generic[T]):
    """Values made of objects, by name. A thread of its own keeps it; the rest may be called from any thread."""

    def __init__(
        self,
        api: Api,
        path: str,
        make: Callable[[dict[str, Any], int], T],
        *,
        clock: Callable[[], int],
        on_change: Callable[[], None],
        is_needed: bool = True,
        **query: str,
    ) -> None:
        """
        Args:
            api: the server.
            path: of the collection.
            make: makes the value of an object, given when it was created (ms on `clock`).
            clock: monotonic, in ms.
            on_change: is called after each change.
            is_needed: somebody should know when nothing can be seen.
            query: selectors.
        """
        self._is_needed = is_needed
        self._api, self._path, self._make, self._clock, self._on_change, self._query = api, path, make, clock, on_change, query
        self._guard = threading.Lock()
        self._values: dict[str, T] = {}
        self._created: dict[str, int] = {}
        """By uid."""
        self._gone: set[str] = set()
        self._version = ""
        self._synced = False
        self._trouble: ApiError | None = None
        self._failures = 0
        """In a row; a list alone is no success, as long as no watch goes on from it."""
        self.fault: BaseException | None = None
        """A bug that has ended the watch."""
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_synced(self) -> bool:
        """True once all objects have been seen."""
        return self._synced

    @property
    def denied(self) -> ApiError | None:
        """Why nothing can be seen, when trying again will not help; None: something can, or might."""
        trouble = self._trouble
        return trouble if trouble is not None and not trouble.may_pass and trouble.status != _EXPIRED else None

    def values(self) -> dict[str, T]:
        """Return a copy."""
        with self._guard:
            return dict(self._values)

    def was_deleted(self, name: str) -> bool:
        """Tell whether there was an object of this name, and is none."""
        with self._guard:
            return name in self._gone

    # -- the thread --------------------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:
            self.fault = error
            self._on_change()
            raise

    def _follow(self) -> None:
        while not self._api.is_closed:
            try:
                if not self._version:
                    self._list()
                began = self._clock()
                self._watch()
                if self._clock() - began < _LEAST_MS:
                    # Something on the way ends watches as soon as they begin.
                    self._api.wait(_LEAST_MS / 1_000)
            except ApiError as error:
                if error.status == _EXPIRED:
                    # The server has forgotten where we were: everything is looked at again.
                    self._version = ""
                if error.status != _EXPIRED or self._failures:
                    self._note(error)
                    self._api.wait(_DENIED_S if self.denied is not None else pause_s(self._failures, error.retry_after_s))
                self._failures += 1

    def _note(self, error: ApiError) -> None:
        if self._api.is_closed:
            return
        if self._trouble is None or str(self._trouble) != str(error):
            level = logging.WARNING if self._is_needed else logging.INFO
            _log.log(level, "cannot look at %s: %s", self._path, error, extra={"action": "watch_broken"})
        self._trouble = error
        self._on_change()

    def _list(self) -> None:
        found: dict[str, T] = {}
        created: dict[str, int] = {}
        page: dict[str, Any] = {}
        more = ""
        while True:
            page = self._api.ask("GET", self._path, limit=_PAGE, **({"continue": more} if more else {}), **self._query)
            for obj in page.get("items") or ():
                uid = obj["metadata"]["uid"]
                created[uid] = self._created.get(uid, self._clock() - _age_ms(obj, page["date"]))
                found[obj["metadata"]["name"]] = self._make(obj, created[uid])
            more = page["metadata"].get("continue") or ""
            if not more:
                break
        with self._guard:
            self._gone = (self._gone | self._values.keys()) - found.keys()
            self._values, self._created = found, created
        self._version = page["metadata"]["resourceVersion"]
        self._synced, self._trouble = True, None
        self._on_change()

    def _watch(self) -> None:
        lasting = random.randint(*_WATCH_S)
        query = {"resourceVersion": self._version, "allowWatchBookmarks": "true", "timeoutSeconds": lasting, **self._query}
        for event in self._api.watch(self._path, **query):
            obj = event["object"]
            self._version, self._trouble, self._failures = obj["metadata"]["resourceVersion"], None, 0
            if event["type"] != "BOOKMARK":
                self._take(event["type"], obj)
                self._on_change()

    def _take(self, kind: str, obj: dict[str, Any]) -> None:
        name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
        # Its age by our own clock: that of the server may be set otherwise.
        created_at = self._created.setdefault(uid, self._clock())
        with self._guard:
            if kind == "DELETED":
                self._values.pop(name, None)
                self._created.pop(uid, None)
                self._gone.add(name)
            else:
                self._values[name] = self._make(obj, created_at)
                self._gone.discard(name)


def _age_ms(obj: dict[str, Any], date: int | None) -> int:
    """Return how old an object is by its server's clock alone."""
    stamp = obj["metadata"].get("creationTimestamp")
    if date is None or not stamp:
        return 0
    return max(0, date - round(datetime.fromisoformat(stamp).timestamp() * 1_000))
