"""Services: which pods are behind them, and the proxies that lead there while there are any."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tests.k8s.double.addresses import Addresses
from tests.k8s.double.kinds import PODS, SERVICES
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import Object, condition_of, dig, is_terminating
from tests.k8s.double.proxies import Proxy, Target
from tests.k8s.double.registry import Registry
from tests.k8s.double.selectors import matches_labels
from tests.k8s.double.store import Change, Key

Place = tuple[Key, int]


class Services(Controller):
    """Keys are namespaces. A port without a ready pod behind it refuses connections, as a real one does."""

    def __init__(self, registry: Registry, addresses: Addresses) -> None:
        self._registry = registry
        self._addresses = addresses
        self._proxies: dict[Place, Proxy] = {}
        self._retired: list[Proxy] = []
        self._targets: dict[Place, list[Target]] = {}

    def concerns(self, change: Change) -> Iterable[Hashable]:
        return [change.key[0]] if change.resource in (PODS, SERVICES) else []

    def reconcile(self, key: Hashable) -> float | None:
        namespace = str(key)
        services = self._registry.store.everything(SERVICES, namespace)
        wanted: dict[Place, list[Target]] = {}
        pods = [each.obj for each in self._registry.store.everything(PODS, namespace)] if services else []
        for version in services:
            service = version.obj
            for port in service["spec"].get("ports") or []:
                place = ((namespace, service["metadata"]["name"]), int(port["port"]))
                wanted[place] = targets_of(service, port, pods)
        for place in [each for each in self._proxies if each[0][0] == namespace and not wanted.get(each)]:
            proxy = self._proxies.pop(place)
            proxy.stop_listening()
            self._retired.append(proxy)
        for place, targets in wanted.items():
            self._targets[place] = targets
            if targets and place not in self._proxies:
                address = self._addresses.of(*place[0])
                self._proxies[place] = Proxy(address, place[1], lambda place=place: self._targets[place])  # type: ignore[misc]
        return None

    def close(self) -> None:
        """Break every connection."""
        for proxy in [*self._proxies.values(), *self._retired]:
            proxy.close()


def targets_of(service: Object, port: Object, pods: Iterable[Object]) -> list[Target]:
    """Where a port of a service leads: addresses and ports of the ready pods that it selects."""
    selector = service["spec"].get("selector")
    if not selector:
        return []
    found = []
    for pod in pods:
        chosen = matches_labels({"matchLabels": selector}, pod["metadata"].get("labels") or {})
        ready = dig(condition_of(pod, "Ready"), "status") == "True" or service["spec"].get("publishNotReadyAddresses")
        number = _number(port["targetPort"], pod)
        if chosen and ready and not is_terminating(pod) and number and dig(pod, "status", "podIP"):
            found.append((str(pod["status"]["podIP"]), number))
    return found


def _number(target: int | str, pod: Object) -> int | None:
    """The number of a port that may be given by the name that a container's port has."""
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == target:
                return int(port["containerPort"])
    return None
