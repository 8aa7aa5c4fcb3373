"""How a pod is ended: preStop hooks, SIGTERM, the grace period, SIGKILL. Each container goes through it by itself."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final

from tests.k8s.double.events import Recorder
from tests.k8s.double.kubelet.runs import ContainerRun, Ending, PodRun
from tests.k8s.double.loop import Loop
from tests.k8s.double.objects import dig, uid_of

if TYPE_CHECKING:
    from tests.k8s.double.kubelet.kubelet import Kubelets
    from tests.k8s.double.kubelet.starting import Starter

_AFTER_HOOK_S: Final = 2.0
"""What a container has left after its hook, however much of the grace period that took."""


class Endings:
    """Takes pods that are ending one step further."""

    def __init__(self, starter: Starter, events: Recorder, loop: Loop, kubelets: Kubelets) -> None:
        self._starter = starter
        self._events = events
        self._loop = loop
        self._kubelets = kubelets

    def step(self, run: PodRun) -> float | None:
        """Do what is due. Returns the seconds until the next thing is."""
        ending = run.ending
        assert ending is not None
        for each in run.containers:
            if not each.is_running and each.ever_started:
                each.waiting = ("", "")
        if ending.stage == "begun":
            self._run_hooks(run, ending)
            ending.stage = "hooks"
        self._watch_hooks(run, ending)
        if not run.running:
            if all(hook.exit_code is not None for hook in ending.hooks.values()):
                ending.stage = "over"
            return None
        due = [at for each in run.running if (at := self._end(each, ending)) is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _run_hooks(self, run: PodRun, ending: Ending) -> None:
        for each in run.running:
            self._events.record(run.pod, "Killing", f"Stopping container {each.name}")
            command = dig(each.spec, "lifecycle", "preStop", "exec", "command")
            if command and not run.pretend and not ending.is_forced:
                look = functools.partial(self._loop.look, self._kubelets, uid_of(run.pod))
                ending.hooks[each.name] = self._starter.start_hook(run, each, command, look)

    def _watch_hooks(self, run: PodRun, ending: Ending) -> None:
        for name, hook in ending.hooks.items():
            if hook.exit_code is None and not run.find(name).is_running:
                # It is a process of its container, and ends with that.
                hook.kill()
            if hook.exit_code and name not in ending.failed_hooks:
                ending.failed_hooks.add(name)
                self._events.record(run.pod, "FailedPreStopHook", "PreStopHook failed", kind="Warning")

    @staticmethod
    def _end(container: ContainerRun, ending: Ending) -> float | None:
        """Take one container further. Returns when there is more to do (monotonic); None when something has to happen before."""
        name, now = container.name, time.monotonic()
        process, hook = container.process, ending.hooks.get(container.name)
        assert process is not None
        if name not in ending.told_at:
            if hook is not None and hook.exit_code is None and now < ending.kills_at:
                return ending.kills_at
            process.terminate()
            ending.told_at[name] = now
        ends_at = ending.kills_at if hook is None or ending.is_forced else max(ending.kills_at, ending.told_at[name] + _AFTER_HOOK_S)
        if now < ends_at:
            return ends_at
        if name not in ending.killed:
            ending.killed.add(name)
            process.kill()
        return None
