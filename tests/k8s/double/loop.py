"""The thread in which all controllers of the double run: keys that changed, keys whose time has come, one after the other."""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable

from tests.k8s.double.errors import ApiError
from tests.k8s.double.store import Change, Store


class Controller(ABC):
    """Brings what a key names to where it should be, from what is there now; it is told that something changed, never what."""

    @abstractmethod
    def concerns(self, change: Change) -> Iterable[Hashable]:
        """The keys that a change makes worth a look. Called under the store's lock: quick, and without writing."""

    @abstractmethod
    def reconcile(self, key: Hashable) -> float | None:
        """Look at `key` and act. Returns after how many seconds to look again, or None to wait for a change."""


Work = tuple[Controller, Hashable]


class Loop:
    """Runs controllers. A key that is due twice is looked at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._controllers: list[Controller] = []
        self._ready: dict[Work, None] = {}
        self._later: list[tuple[float, int, Work]] = []
        self._count = 0
        self._wake = threading.Condition()
        self._stopped = False
        self.failures: list[BaseException] = []
        """Defects of the double; a test that leaves any has shown nothing."""
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)
        store.listen(self._notice)

    def add(self, controller: Controller) -> None:
        self._controllers.append(controller)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the key in hand."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _notice(self, change: Change) -> None:
        found = [(each, key) for each in self._controllers for key in each.concerns(change)]
        if found:
            with self._wake:
                self._ready.update(dict.fromkeys(found))
                self._wake.notify()

    def look(self, controller: Controller, key: Hashable, *, after_s: float = 0.0) -> None:
        """Have `key` looked at, now or later. From any thread."""
        with self._wake:
            if after_s <= 0:
                self._ready[controller, key] = None
            else:
                self._count += 1
                heapq.heappush(self._later, (time.monotonic() + after_s, self._count, (controller, key)))
            self._wake.notify()

    def _next(self) -> Work | None:
        with self._wake:
            while not self._stopped:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready[heapq.heappop(self._later)[2]] = None
                if self._ready:
                    work = next(iter(self._ready))
                    del self._ready[work]
                    return work
                self._wake.wait(self._later[0][0] - now if self._later else None)
            return None

    def _run(self) -> None:
        while (work := self._next()) is not None:
            controller, key = work
            try:
                with self._store.lock:
                    again_s = controller.reconcile(key)
            except ApiError as error:
                # As in a real controller: the world has moved on, or refuses for now; the key is looked at again.
                if error.code not in (403, 404, 409, 422):
                    self._fail(error)
                again_s = 0.05
            except Exception as error:  # noqa: BLE001 - whatever it is, the test must fail with it and not hang
                self._fail(error)
                continue
            if again_s is not None:
                self.look(controller, key, after_s=max(again_s, 0.001))

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        traceback.print_exception(error)
