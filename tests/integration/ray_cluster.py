"""A Ray cluster of several nodes on this machine, in a process of its own: Ray leaves threads, warnings and signal handlers behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "60"}
"""Of all processes that have to do with it."""
_HASTY = {"health_check_period_ms": 300, "health_check_failure_threshold": 4, "health_check_initial_delay_ms": 1_000}
"""A node that was killed is found dead after about a second and not after twenty."""


class RayCluster:
    """A head without cores, and nodes that come and go; use as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str]
        self.address = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.ray_cluster"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._process.stdin, self._process.stdout:
            self._process.stdin.close()
            self._process.wait(60)

    @property
    def pid(self) -> int:
        """Process that all nodes descend from."""
        return self._process.pid

    def add(self, **resources: Any) -> str:
        """Add a node; return its id."""
        return self._ask("add", resources)

    def kill(self, node: str) -> None:
        """Kill all processes of a node at once."""
        self._ask("kill", node)

    def drain(self, node: str, seconds: float) -> None:
        """Tell a node that it will be taken away in so many seconds."""
        self._ask("drain", node, seconds)

    def free(self) -> Mapping[str, float]:
        """Return what nobody uses now."""
        return self._ask("free")

    def wait_free(self, name: str, amount: float, seconds: float = 30) -> None:
        """Wait until so much of a resource is unused. Nothing of a job is left on the nodes then."""
        until = time.monotonic() + seconds
        while (found := self.free().get(name, 0.0)) < amount:
            assert time.monotonic() < until, f"only {found} {name} are free after {seconds} s"
            time.sleep(0.1)

    def _ask(self, *order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return json.loads(line)


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    say = os.fdopen(os.dup(1), "w")
    # Ray prints there what happens on any node, tens of lines each time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _HASTY})
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    nodes: dict[str, Any] = {}

    def add(resources: dict[str, Any]) -> str:
        node = cluster.add_node(**resources)
        nodes[node.node_id] = node
        return str(node.node_id)

    def kill(node: str) -> None:
        cluster.remove_node(nodes.pop(node), allow_graceful=False)

    def drain(node: str, seconds: float) -> None:
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        client = ray._private.worker.global_worker.gcs_client
        until = int((time.time() + seconds) * 1_000)
        accepted, why = client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "taken away by a test", until)
        assert accepted, why

    orders: dict[str, Callable[..., Any]] = {"add": add, "kill": kill, "drain": drain, "free": ray.available_resources}

    def answer(value: Any) -> None:
        say.write(json.dumps(value) + "\n")
        say.flush()

    answer(cluster.address)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer(orders[name](*arguments))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
