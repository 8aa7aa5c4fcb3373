"""The machines below the node objects: whether their kubelets can be reached, and what runs on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.k8s.double.nodes import Node


@dataclass
class Machine:
    """One machine."""

    node: Node
    is_reachable: bool = True
    """Whether its kubelet and the API server hear each other."""
    lost_at: float = 0.0
    """When it was lost (monotonic)."""
    network_trouble: str = ""
    """Why its network plugin cannot give new pods a network; empty: it can."""


@dataclass
class Machines:
    """All machines by name."""

    by_name: dict[str, Machine] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        self.by_name[node.name] = Machine(node)

    def get(self, name: str | None) -> Machine | None:
        return self.by_name.get(name or "")
