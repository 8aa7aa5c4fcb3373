"""How a pod is ended: preStop hooks, SIGTERM, the grace period, SIGKILL."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from tests.k8s.double.events import Recorder
from tests.k8s.double.kubelet.runs import Ending, PodRun
from tests.k8s.double.loop import Loop
from tests.k8s.double.objects import dig, uid_of

if TYPE_CHECKING:
    from tests.k8s.double.kubelet.kubelet import Kubelets
    from tests.k8s.double.kubelet.starting import Starter


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
        if not run.running:
            self._close_hooks(ending)
            if all(hook.exit_code is not None for hook in ending.hooks):
                ending.stage = "over"
            return None
        if ending.stage == "begun":
            self._run_hooks(run, ending)
            ending.stage = "hooks"
        if ending.stage == "hooks" and all(hook.exit_code is not None for hook in ending.hooks):
            for each in run.running:
                assert each.process is not None
                each.process.terminate()
            ending.stage = "told"
        left = ending.kills_at - time.monotonic()
        if left > 0:
            return left
        if ending.stage != "killed":
            ending.stage = "killed"
            self._close_hooks(ending)
            for each in run.running:
                assert each.process is not None
                each.process.kill()
        return None

    def _run_hooks(self, run: PodRun, ending: Ending) -> None:
        for each in run.running:
            self._events.record(run.pod, "Killing", f"Stopping container {each.name}")
            command = dig(each.spec, "lifecycle", "preStop", "exec", "command")
            if command and not run.pretend:
                look = functools.partial(self._loop.look, self._kubelets, uid_of(run.pod))
                hook = self._starter.start_hook(run, each, command, look)
                ending.hooks.append(hook)

    @staticmethod
    def _close_hooks(ending: Ending) -> None:
        for hook in ending.hooks:
            if hook.exit_code is None:
                hook.kill()
