"""The handle that tests have on a double."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import yaml

from tests.k8s.double.controllers.budgets import Budgets
from tests.k8s.double.controllers.garbage import GarbageCollector
from tests.k8s.double.controllers.namespaces import Namespaces
from tests.k8s.double.faults import Calls, Fault
from tests.k8s.double.kinds import NAMESPACES
from tests.k8s.double.loop import Loop
from tests.k8s.double.rbac import Authorizer
from tests.k8s.double.registry import Registry
from tests.k8s.double.requests import Requests
from tests.k8s.double.server import ApiServer
from tests.k8s.double.store import Store
from tests.k8s.double.timing import Timing

PATIENCE_S: Final = 20.0
Answer = TypeVar("Answer")


class NotInTime(AssertionError):
    """What a test waited for did not happen."""


class Cluster:
    """A cluster that lives as long as its `with` block."""

    def __init__(self, *, timing: Timing | None = None, anonymous_is_admin: bool = True, history_limit: int = 20_000) -> None:
        self.timing = timing or Timing()
        self.store = Store(history_limit)
        self.registry = Registry(self.store)
        self.authorizer = Authorizer(self.store, anonymous_is_admin=anonymous_is_admin)
        self.requests = Requests(self.registry, self.authorizer, bookmark_interval_s=self.timing.of(self.timing.bookmark))
        self.server = ApiServer(self.requests)
        self.loop = Loop(self.store)
        self._namespaces = Namespaces(self.registry)
        for controller in (GarbageCollector(self.registry, self.timing), self._namespaces, Budgets(self.registry)):
            self.loop.add(controller)

    def __enter__(self) -> Self:
        for name in ("default", "kube-system"):
            self.registry.create(NAMESPACES, "", {"metadata": {"name": name}})
            self._namespaces.furnish(name)
        self.server.start()
        self.loop.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.stop()
        self.server.stop()
        failures = [*self.loop.failures, *self.server.failures]
        if failures and exception[0] is None:
            raise AssertionError(f"the double failed: {failures}")

    # ---- reaching it

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def calls(self) -> Calls:
        """What clients have asked so far, by verb and resource."""
        return self.server.calls

    def kubeconfig(self, path: Path, *, token: str | None = None, namespace: str = "default") -> Path:
        """Write a kubeconfig to `path`; without `token` it is the administrator's. Returns `path`."""
        context = {"cluster": "double", "user": "user", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": {"token": token or self.authorizer.admin_token()}}],
            "contexts": [{"name": "double", "context": context}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def service_account_token(self, namespace: str, name: str) -> str:
        """A token with the rights of a service account."""
        return self.authorizer.service_account_token(namespace, name)

    # ---- faults of the API server

    def inject(self, verb: str = "*", resource: str = "*", **what: Any) -> Fault:
        """Have requests fail or be slow; fields of `Fault`. The answer counts how often that happened."""
        return self.server.faults.add(Fault(verb, resource, **what))

    def withdraw(self, fault: Fault) -> None:
        """End a fault."""
        self.server.faults.withdraw(fault)

    def compact(self) -> None:
        """Forget the history: every watch from an earlier version is answered with 410, as after a restart of the API server."""
        self.store.compact()

    def cut_watches(self) -> None:
        """Break every open watch."""
        self.server.cut_watches()

    # ---- waiting

    def wait(self, condition: Callable[[], Answer], what: str, *, seconds: float = PATIENCE_S) -> Answer:
        """Look after every change until `condition` gives something true, and return it. Raises `NotInTime` naming `what`."""
        deadline = time.monotonic() + seconds
        with self.store.changed:
            while not (answer := condition()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NotInTime(f"not in {seconds} s: {what}")
                self.store.changed.wait(min(left, 0.05))
        return answer
