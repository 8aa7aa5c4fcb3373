"""Who may connect to whom: the NetworkPolicies of a job. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

SUBMITTER: Final = "submitter"
"""Component that a pod must say it is, by its label, to reach the master from inside."""
_DNS: Final = 53
_API_PORTS: Final = (443, 6_443, 8_443, 16_443)
"""Where API servers listen: behind their service, in clusters of kubeadm and k3s, of minikube, of microk8s. Object stores: 443."""
_STORE_PORT: Final = 6_379
_URL: Final = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.\-]*)://(?:[^/\s\"'@]*@)?(?:\[[^\]]*\]|[^/\s\"':,]+)(?::(?P<port>\d{1,5})\b)?")
_PORTS: Final = {"http": 80, "sftp": 22, "ssh": 22}


def ports_in(text: str) -> set[int]:
    """Return the ports of all URLs in a text."""
    found = (match.group("port") or _PORTS.get(match.group("scheme")) for match in _URL.finditer(text))
    return {int(port) for port in found if port is not None}


def master_ports(texts: Iterable[str], store_url: str, more: Iterable[int]) -> list[int]:
    """Return the ports that a master has to reach.

    Args:
        texts: where the URLs of its input and output may stand.
        store_url: of its store; empty: it is in the pod.
        more: others.
    """
    ports = {*_API_PORTS, *more}
    for text in texts:
        ports |= ports_in(text)
    parts = urlsplit(store_url)
    if parts.hostname:
        ports.add(parts.port or _STORE_PORT)
    return sorted(ports)


def ingress_to_master(worker: dict[str, str], submitter: dict[str, str]) -> list[dict[str, Any]]:
    """Return who reaches a master: pods with the labels of its workers, and of those who ask it from inside."""
    peers = [{"podSelector": {"matchLabels": labels}} for labels in (worker, submitter)]
    return [{"from": peers, "ports": [{"port": "grpc"}]}]


def egress_of_master(ports: Iterable[int]) -> list[dict[str, Any]]:
    """Return where a master may connect to. Addresses are not known: names resolve to many, and those of an API server are rewritten."""
    names = [{"port": _DNS, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [{"ports": names}, {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}]
