"""Addresses of services, by the names that cluster DNS would resolve.

Nothing can be added to the name service of the machine that the double runs on. So where a service's name stands in the command or the
variables of a container, it is replaced by its address, which stays the same for as long as the double lives: as a real name does,
it can be told before the service exists, and leads to another pod after the first has been replaced.
"""

from __future__ import annotations

import re
import threading
from typing import Final

_NAME: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_HOST: Final = re.compile(rf"(?<![\w.\-])(?:{_NAME}\.)?({_NAME})\.({_NAME})\.svc(?:\.cluster\.local)?(?![\w\-])")
_SERVICES: Final = range(1, 51)
_PODS: Final = range(51, 255)


class Addresses:
    """Gives addresses out of one loopback network, 127.A.B.0/24. `net` is `127.A.B`.

    Clusters that live at the same time must have networks of their own; the port of the API server tells them apart.
    """

    def __init__(self) -> None:
        self.net = ""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}
        self._pods: set[int] = set()

    @staticmethod
    def net_of(port: int) -> str:
        """The network of the cluster whose API server has this port."""
        return f"127.{port >> 8}.{port & 255}"

    def of(self, namespace: str, name: str) -> str:
        """The address of a service, whether it exists or not. Raises IndexError when there are none left."""
        with self._lock:
            if (namespace, name) not in self._known:
                self._known[namespace, name] = f"{self.net}.{_SERVICES[len(self._known)]}"
            return self._known[namespace, name]

    def take(self) -> str:
        """An address for a pod, until it is given back. Raises IndexError when there are none left."""
        with self._lock:
            free = [number for number in _PODS if number not in self._pods]
            self._pods.add(free[0])
            return f"{self.net}.{free[0]}"

    def give_back(self, address: str) -> None:
        """End a pod's right to its address."""
        with self._lock:
            self._pods.discard(int(address.rsplit(".", 1)[1]))

    def resolve(self, text: str) -> str:
        """`text` with the names of services (`NAME.NAMESPACE.svc`, with or without `.cluster.local` or a pod's name before it) replaced."""
        return _HOST.sub(lambda match: self.of(match.group(2), match.group(1)), text)
