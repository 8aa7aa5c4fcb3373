"""The kubelets of all nodes: they run what is bound to their node, and report."""

from __future__ import annotations

import itertools
import shutil
import time
import uuid
from collections.abc import Hashable, Iterable
from pathlib import Path

from tests.k8s.double.events import Recorder
from tests.k8s.double.kinds import PODS
from tests.k8s.double.kubelet.endings import Endings
from tests.k8s.double.kubelet.machines import Machine, Machines
from tests.k8s.double.kubelet.runs import ContainerRun, Ending, PodRun
from tests.k8s.double.kubelet.starting import Starter
from tests.k8s.double.kubelet.volumes import NotMounted
from tests.k8s.double.loop import Controller, Loop
from tests.k8s.double.objects import Object, is_finished, is_terminating, name_of, namespace_of, uid_of
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change
from tests.k8s.double.timing import Timing


class Kubelets(Controller):
    """Keys are the uids of pods that have a node."""

    def __init__(self, registry: Registry, loop: Loop, timing: Timing, machines: Machines, starter: Starter, root: Path) -> None:
        self._registry = registry
        self._loop = loop
        self._timing = timing
        self._machines = machines
        self._starter = starter
        self._root = root
        self._events = Recorder(registry, "kubelet")
        self._endings = Endings(starter, self._events, loop, self)
        self._names: dict[str, tuple[str, str]] = {}
        self._ips = itertools.count(1)
        self.runs: dict[str, PodRun] = {}

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is not PODS or not change.now.obj["spec"].get("nodeName"):
            return []
        uid = uid_of(change.now.obj)
        self._names[uid] = change.key
        return [uid]

    def look_at_node(self, name: str) -> None:
        """Have every pod of a node looked at."""
        for uid, run in list(self.runs.items()):
            if run.pod["spec"]["nodeName"] == name:
                self._loop.look(self, uid)
        for pod in self._registry.store.each(PODS):
            if pod["spec"].get("nodeName") == name:
                self._loop.look(self, uid_of(pod))

    # ---- one pod

    def reconcile(self, key: Hashable) -> float | None:
        uid = str(key)
        pod = self._registry.look(PODS, *self._names[uid])
        if pod is not None and uid_of(pod) != uid:
            pod = None
        run = self.runs.get(uid)
        known = pod or (run.pod if run else None)
        machine = self._machines.get(known["spec"]["nodeName"]) if known else None
        if known is None or machine is None or not machine.is_reachable:
            return None
        if run is None:
            if pod is None or is_finished(pod) or pod["metadata"].get("deletionGracePeriodSeconds") == 0:
                self._forget_object(pod)
                return None
            run = self.runs[uid] = self._new_run(pod, machine)
        if pod is not None:
            run.pod = pod
        again_s = self._sync(run, machine, exists=pod is not None)
        if pod is not None:
            self._report(run)
        if run.ending is not None and run.ending.stage == "over":
            self._finish(uid, run, pod)
            return None
        return again_s

    def _forget_object(self, pod: Object | None) -> None:
        """A pod that finished long ago and is being deleted needs no more than its removal."""
        if pod is not None and is_terminating(pod):
            self._registry.delete_pod(pod, grace_s=0)

    def _new_run(self, pod: Object, machine: Machine) -> PodRun:
        number = next(self._ips)
        spec = pod["spec"]
        inits = [ContainerRun(each, waiting=("PodInitializing", "")) for each in spec.get("initContainers") or []]
        waiting = ("PodInitializing" if inits else "ContainerCreating", "")
        mains = [ContainerRun(each, waiting=waiting) for each in spec["containers"]]
        folder = self._root / "pods" / uid_of(pod)
        folder.mkdir(parents=True)
        pretend = machine.node.pretend
        # Nothing listens in a pretended pod: its address is one that leads nowhere.
        ip = f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}" if pretend else self._registry.addresses.take()
        return PodRun(pod, folder, ip, inits, mains, pretend=pretend, holds_address=not pretend)

    def _sync(self, run: PodRun, machine: Machine, *, exists: bool) -> float | None:
        self._notice_ends(run)
        if run.ending is None:
            self._begin_ending(run, exists=exists)
        elif exists and is_terminating(run.pod):
            # A second, shorter grace period counts.
            ends = time.monotonic() + float(run.pod["metadata"]["deletionGracePeriodSeconds"])
            run.ending.kills_at = min(run.ending.kills_at, ends)
        elif not exists:
            run.ending.kills_at, run.ending.is_forced = time.monotonic(), True
        if run.ending is not None:
            return self._endings.step(run)
        if run.volumes is None and not self._mount(run):
            return self._timing.of(self._timing.mount_retry)
        if not run.has_network and not self._make_sandbox(run, machine):
            return self._timing.of(self._timing.sync)
        return _soonest(self._start_what_is_due(run), self._until_deadline(run))

    def _begin_ending(self, run: PodRun, *, exists: bool) -> None:
        now = time.monotonic()
        deadline = run.pod["spec"].get("activeDeadlineSeconds")
        if not exists:
            run.ending = Ending(now, is_forced=True)
        elif is_terminating(run.pod):
            run.ending = Ending(now + float(run.pod["metadata"]["deletionGracePeriodSeconds"]))
        elif deadline is not None and time.time() - run.started_at >= deadline:
            run.fate = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            run.ending = Ending(now + float(run.pod["spec"]["terminationGracePeriodSeconds"]))
        elif run.phase() in ("Failed", "Succeeded"):
            run.ending = Ending(now, is_forced=True)

    def _until_deadline(self, run: PodRun) -> float | None:
        deadline = run.pod["spec"].get("activeDeadlineSeconds")
        return None if deadline is None else max(0.001, run.started_at + deadline - time.time())

    def _mount(self, run: PodRun) -> bool:
        if run.pretend:
            run.volumes = {}
            return True
        try:
            run.volumes = self._starter.mount(run)
        except NotMounted as error:
            self._events.record(run.pod, "FailedMount", str(error), kind="Warning", host=run.pod["spec"]["nodeName"])
            return False
        return True

    def _make_sandbox(self, run: PodRun, machine: Machine) -> bool:
        if machine.network_trouble:
            # Each try is another sandbox, so that each event is another one too.
            failed = f'failed to setup network for sandbox "{uuid.uuid4().hex}": plugin failed (add): {machine.network_trouble}'
            message = f"Failed to create pod sandbox: rpc error: code = Unknown desc = {failed}"
            self._events.record(run.pod, "FailedCreatePodSandBox", message, kind="Warning", host=machine.node.name)
            return False
        run.has_network = True
        return True

    def _notice_ends(self, run: PodRun) -> None:
        for each in run.containers:
            if each.process is None or each.process.exit_code is None:
                continue
            lasted = time.time() - each.started_at
            each.end(run.log(each.name, each.restarts))
            restarts = run.policy == "Always" or (run.policy == "OnFailure" and each.exit_code != 0)
            if each in run.inits and each.exit_code == 0:
                restarts = False
            if not restarts or run.ending is not None:
                each.waiting = ("", "")
                continue
            each.failures = 1 if lasted > self._timing.back_off_reset else each.failures + 1
            # The first restart comes at once; the message names what a real cluster would wait.
            delay = self._timing.back_off(each.failures - 1) if each.failures > 1 else 0.0
            each.not_before = time.monotonic() + delay
            shown = round(delay / self._timing.scale) if delay else 0
            where = f"{name_of(run.pod)}_{namespace_of(run.pod)}({uid_of(run.pod)})"
            message = f"back-off {shown}s restarting failed container={each.name} pod={where}"
            each.waiting = ("CrashLoopBackOff", message) if delay else ("ContainerCreating", "")
            if delay:
                self._events.record(run.pod, "BackOff", f"Back-off restarting failed container {each.name}", kind="Warning")

    def _start_what_is_due(self, run: PodRun) -> float | None:
        again: float | None = None
        for each in run.inits:
            if not (each.is_done and each.exit_code == 0):
                return None if each.is_running or each.is_done else self._start(run, each)
        for each in run.mains:
            if not each.is_running and not each.is_done:
                again = _soonest(again, self._start(run, each))
        return again

    def _start(self, run: PodRun, container: ContainerRun) -> float | None:
        left = container.not_before - time.monotonic()
        if left > 0:
            return left
        return self._starter.start(run, container, self._events, lambda: self._loop.look(self, uid_of(run.pod)))

    def _report(self, run: PodRun) -> None:
        self._registry.edit_status(PODS, run.pod, lambda pod: run.write_status(pod))

    def _finish(self, uid: str, run: PodRun, pod: Object | None) -> None:
        self._give_address_back(run)
        if pod is not None and not is_terminating(pod):
            return
        if pod is not None:
            self._registry.delete_pod(pod, grace_s=0)
        del self.runs[uid]
        shutil.rmtree(run.folder)

    def _give_address_back(self, run: PodRun) -> None:
        if run.holds_address:
            run.holds_address = False
            self._registry.addresses.give_back(run.ip)

    # ---- what tests do

    def run_of(self, namespace: str, name: str) -> PodRun:
        """The run of a pod. Raises KeyError where there is none."""
        for run in list(self.runs.values()):
            if (namespace_of(run.pod), name_of(run.pod)) == (namespace, name):
                return run
        raise KeyError(f"no kubelet runs {namespace}/{name}")

    def kill_machine(self, name: str) -> None:
        """Have all processes of a node vanish, as with a loss of power."""
        for run in list(self.runs.values()):
            if run.pod["spec"]["nodeName"] == name:
                for each in run.running:
                    if each.process is not None:
                        each.process.kill()

    def drop_machine(self, name: str) -> None:
        """Have a node's processes vanish, and forget them."""
        for uid, run in list(self.runs.items()):
            if run.pod["spec"]["nodeName"] == name:
                del self.runs[uid]
                self._close(run)
                self._give_address_back(run)

    def close(self) -> None:
        """End every process there is."""
        for run in self.runs.values():
            self._close(run)

    @staticmethod
    def _close(run: PodRun) -> None:
        for each in run.running:
            assert each.process is not None
            each.process.close()
        for hook in run.ending.hooks.values() if run.ending else ():
            hook.close()


def _soonest(*times: float | None) -> float | None:
    known = [each for each in times if each is not None]
    return min(known) if known else None
