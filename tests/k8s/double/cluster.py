"""The handle that tests have on a double."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import yaml

from tests.k8s.double import eviction
from tests.k8s.double import nodes as taints
from tests.k8s.double.addresses import Addresses
from tests.k8s.double.controllers.budgets import Budgets
from tests.k8s.double.controllers.garbage import GarbageCollector
from tests.k8s.double.controllers.jobs import Jobs
from tests.k8s.double.controllers.lifecycle import NodeLifecycle, PodCollector, TaintEviction
from tests.k8s.double.controllers.namespaces import Namespaces
from tests.k8s.double.controllers.scheduler import Scheduler
from tests.k8s.double.controllers.services import Services
from tests.k8s.double.controllers.statefulsets import Claims, StatefulSets
from tests.k8s.double.errors import ApiError
from tests.k8s.double.faults import Calls, Fault
from tests.k8s.double.kinds import NAMESPACES, NODES, PODS
from tests.k8s.double.kubelet import logs
from tests.k8s.double.kubelet.environment import Image
from tests.k8s.double.kubelet.kubelet import Kubelets
from tests.k8s.double.kubelet.machines import Machines
from tests.k8s.double.kubelet.processes import PretendProcess, RealProcess
from tests.k8s.double.kubelet.runs import Ending
from tests.k8s.double.kubelet.starting import Images, Starter
from tests.k8s.double.kubelet.volumes import Mounter
from tests.k8s.double.loop import Loop
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, name_of, namespace_of, uid_of
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
    """A cluster that lives as long as its `with` block, and the processes of its pods with it."""

    def __init__(
        self,
        nodes: Sequence[Node] = (),
        *,
        timing: Timing | None = None,
        images: Mapping[str, Image] | None = None,
        env: Mapping[str, str] | None = None,
        anonymous_is_admin: bool = True,
        history_limit: int = 20_000,
    ) -> None:
        """`images` are those that containers may name without a command of their own; `env` is what every container gets."""
        self.timing = timing or Timing()
        self.store = Store(history_limit)
        self.registry = Registry(self.store, Addresses())
        self.authorizer = Authorizer(self.store, anonymous_is_admin=anonymous_is_admin)
        self.requests = Requests(self.registry, self.authorizer, bookmark_interval_s=self.timing.of(self.timing.bookmark))
        self.server = ApiServer(self.requests)
        self.registry.addresses.net = Addresses.net_of(self.server.server_address[1])
        self.loop = Loop(self.store)
        self.images = Images(images or {})
        self._first_nodes = nodes
        self._machines = Machines()
        self._folder = tempfile.TemporaryDirectory(prefix="double-")
        self.root = Path(self._folder.name)
        """Where the folders of pods and claims are."""
        registry, timing_ = self.registry, self.timing
        mounter = Mounter(registry, self.root, self.authorizer.service_account_token)
        starter = Starter(registry, timing_, self.images, mounter, env or {}, self._pods_kubeconfig)
        self.kubelets = Kubelets(registry, self.loop, timing_, self._machines, starter, self.root)
        self._namespaces = Namespaces(registry)
        self._services = Services(registry, registry.addresses)
        self._lifecycle = NodeLifecycle(registry, timing_, self._machines)
        for controller in (
            GarbageCollector(registry, timing_),
            self._namespaces,
            Budgets(registry),
            Scheduler(registry, timing_),
            self.kubelets,
            self._lifecycle,
            TaintEviction(registry, timing_),
            PodCollector(registry, timing_),
            Jobs(registry, timing_),
            StatefulSets(registry),
            Claims(registry),
            self._services,
        ):
            self.loop.add(controller)
        self.requests.logs = self._read_logs
        self.server.is_reachable = self._is_reachable

    def __enter__(self) -> Self:
        for name in ("default", "kube-system"):
            self.registry.create(NAMESPACES, "", {"metadata": {"name": name}})
            self._namespaces.furnish(name)
        for node in self._first_nodes:
            self.add_node(node)
        self.server.start()
        self.loop.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.stop()
        self.server.stop()
        self.kubelets.close()
        self._services.close()
        self._folder.cleanup()
        failures = [*self.loop.failures, *self.server.failures]
        if failures and exception[0] is None:
            raise AssertionError(f"the double failed: {failures}")

    def _pods_kubeconfig(self, path: Path, token: str, namespace: str) -> Path:
        return self.kubeconfig(path, token=token, namespace=namespace)

    def _is_reachable(self, node: str) -> bool:
        machine = self._machines.get(node)
        return machine is not None and machine.is_reachable

    def _read_logs(self, pod: Object, query: Mapping[str, str]) -> Iterator[bytes]:
        run = self.kubelets.runs.get(uid_of(pod))
        machine = self._machines.get(pod["spec"].get("nodeName"))
        if machine is not None and not machine.is_reachable:
            where = pod["spec"]["nodeName"]
            raise ApiError(500, f'Get "https://{where}:10250/containerLogs": dial tcp {where}:10250: connect: no route to host')
        return logs.read(pod, run, query, self.server.stopping)

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

    # ---- nodes

    def add_node(self, node: Node) -> None:
        """A machine joins."""
        with self.store.lock:
            self._machines.add(node)
            obj = self.registry.create(NODES, "", node.to_object())
            self.registry.edit_status(NODES, obj, lambda copy: copy.update(status=node.first_status()))

    def lose_node(self, name: str, *, power: bool = True) -> None:
        """Cut a node off: its kubelet is heard no more. Its processes go on unless the `power` goes as well."""
        with self.store.lock:
            machine = self._machines.by_name[name]
            machine.is_reachable, machine.lost_at = False, time.monotonic()
            if not power:
                self.kubelets.kill_machine(name)
        self.loop.look(self._lifecycle, "nodes")

    def heal_node(self, name: str) -> None:
        """A lost node is heard again."""
        with self.store.lock:
            self._machines.by_name[name].is_reachable = True
        self.loop.look(self._lifecycle, "nodes")
        self.kubelets.look_at_node(name)

    def break_network(self, name: str, why: str) -> None:
        """Have a node's network plugin fail for pods that are made from now on, until `mend_network`."""
        self._machines.by_name[name].network_trouble = why

    def mend_network(self, name: str) -> None:
        """Let a node give pods a network again."""
        self._machines.by_name[name].network_trouble = ""

    def delete_node(self, name: str) -> None:
        """The machine and its node object vanish, as when a cloud takes a preemptible one back without a word."""
        with self.store.lock:
            del self._machines.by_name[name]
            self.registry.delete(NODES, "", name)
        self.kubelets.drop_machine(name)

    def taint_node(self, name: str, key: str, effect: str, value: str = "") -> None:
        """Put a taint on a node."""
        self.registry.edit(NODES, "", name, lambda node: taints.add_taint(node, key, effect, value))

    def untaint_node(self, name: str, key: str) -> None:
        """Take the taints with this key off a node."""
        self.registry.edit(NODES, "", name, lambda node: taints.remove_taints(node, key))

    # ---- pods

    def pod(self, name: str, namespace: str = "default") -> Object | None:
        """A pod as it is now (not to be changed), or None."""
        return self.registry.look(PODS, namespace, name)

    def evict(self, name: str, namespace: str = "default") -> None:
        """Evict a pod by the API. Raises `ApiError` 429 where a budget forbids it."""
        eviction.evict(self.registry, namespace, name)

    def preempt(self, name: str, namespace: str = "default") -> None:
        """Take a pod's place away as the scheduler does for one of higher priority."""
        with self.store.lock:
            pod = self.registry.get(PODS, namespace, name)
            message = "default-scheduler: preempting to accommodate a higher priority pod"
            eviction.mark_disrupted(self.registry, pod, "PreemptionByScheduler", message)
            self.registry.delete_pod(pod)

    def evict_by_kubelet(self, name: str, namespace: str = "default", *, resource: str = "memory") -> None:
        """Have the kubelet evict a pod because its node runs low: Failed and Evicted, but not deleted."""
        message = f"The node was low on resource: {resource}. Threshold quantity: 100Mi, available: 50Mi. "
        self._fail(namespace, name, ("Evicted", message), message)

    def shut_node_down(self, name: str) -> None:
        """A graceful shutdown of a machine, as after a spot notice: its kubelet ends all pods, then falls silent by `lose_node`."""
        message = "Pod was terminated in response to imminent node shutdown."
        for run in list(self.kubelets.runs.values()):
            if run.pod["spec"]["nodeName"] == name:
                self._fail(namespace_of(run.pod), name_of(run.pod), ("Terminated", message), message)

    def _fail(self, namespace: str, name: str, fate: tuple[str, str], message: str) -> None:
        with self.store.lock:
            run = self.kubelets.run_of(namespace, name)
            eviction.mark_disrupted(self.registry, run.pod, "TerminationByKubelet", message)
            run.fate = fate
            run.ending = run.ending or Ending(time.monotonic() + run.pod["spec"]["terminationGracePeriodSeconds"])
        self.loop.look(self.kubelets, uid_of(run.pod))

    def oom_kill(self, name: str, container: str = "", namespace: str = "default") -> None:
        """The kernel kills a container because its memory is used up. Default: the pod's first one."""
        with self.store.lock:
            run = self.kubelets.run_of(namespace, name)
            found = run.find(container) if container else run.mains[0]
            if found.process is None:
                raise ValueError(f"container {found.name} of {name} does not run")
            found.out_of_memory = True
            found.process.kill()

    def finish(self, name: str, exit_code: int = 0, *, container: str = "", namespace: str = "default") -> None:
        """Have a container on a pretend node end. Default: the pod's first one."""
        with self.store.lock:
            run = self.kubelets.run_of(namespace, name)
            found = run.find(container) if container else run.mains[0]
        if not isinstance(found.process, PretendProcess):
            raise ValueError(f"container {found.name} of {name} is not one that is pretended to run")
        found.process.end(exit_code)

    def process_id(self, name: str, container: str = "", namespace: str = "default") -> int | None:
        """The process id of a container's first process while it runs. Default: the pod's first container."""
        run = self.kubelets.run_of(namespace, name)
        found = run.find(container) if container else run.mains[0]
        return found.process.pid if isinstance(found.process, RealProcess) else None

    # ---- waiting

    def wait(self, condition: Callable[[], Answer], what: str, *, seconds: float = PATIENCE_S) -> Answer:
        """Look after every change until `condition` gives something true, and return it. Raises `NotInTime` naming `what`."""
        deadline = time.monotonic() + seconds
        while True:
            # The condition may ask over HTTP, so it is never asked under the lock.
            seen = self.store.revision
            if answer := condition():
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotInTime(f"not in {seconds} s: {what}")
            with self.store.changed:
                if self.store.revision == seen:
                    self.store.changed.wait(min(left, 0.02))
