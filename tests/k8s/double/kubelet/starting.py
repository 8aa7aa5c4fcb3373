"""Starting a container: its image, its variables, its process."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tests.k8s.double.events import Recorder
from tests.k8s.double.kubelet.environment import Image, Launch, NotConfigured, host_name, launch_of
from tests.k8s.double.kubelet.processes import PretendProcess, Process, RealProcess
from tests.k8s.double.kubelet.runs import ContainerRun, PodRun
from tests.k8s.double.kubelet.variables import resolve
from tests.k8s.double.kubelet.volumes import Mounter
from tests.k8s.double.objects import Object, clone, dig, namespace_of
from tests.k8s.double.registry import Registry
from tests.k8s.double.timing import Timing

IGNORES_TERM: Final = "double/ignores-term"
"""Annotation of a pod on a pretend node whose containers do not heed SIGTERM."""


_EVERYWHERE: Final = re.compile(r"(?<![\w.])0\.0\.0\.0(?=:\d)")
"""All addresses: of a pod, that is its own."""


@dataclass
class Images:
    """The images that containers can name. One that is not known is there, and has nothing in it; a bad one cannot be pulled."""

    known: Mapping[str, Image] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    """Pattern of names to what the registry says; tests may change it."""

    def get(self, name: str) -> Image:
        return self.known.get(name, Image())

    def trouble(self, name: str) -> str | None:
        """Why an image cannot be pulled, in the words of a kubelet."""
        for pattern, why in self.bad.items():
            if fnmatchcase(name, pattern):
                return f'failed to pull and unpack image "{name}": {why}'
        return None


class Starter:
    """Starts containers. `kubeconfig` writes one for a token and returns its path."""

    def __init__(
        self,
        registry: Registry,
        timing: Timing,
        images: Images,
        mounter: Mounter,
        base_env: Mapping[str, str],
        kubeconfig: Callable[[Path, str, str], Path],
    ) -> None:
        self._registry = registry
        self._timing = timing
        self._images = images
        self._mounter = mounter
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self._base_env = {"PATH": path, **base_env}
        self._kubeconfig = kubeconfig

    def mount(self, run: PodRun) -> dict[str, Path]:
        """Set up the volumes of a pod, and a kubeconfig with its token. Raises `NotMounted`."""
        folder = run.folder / "volumes"
        volumes = self._mounter.mount(run.pod, folder)
        if any(dig(each, "projected") is not None for each in run.pod["spec"].get("volumes") or []):
            namespace, account = namespace_of(run.pod), run.pod["spec"]["serviceAccountName"]
            token = self._mounter.token(namespace, account)
            run.kubeconfig = self._kubeconfig(run.folder / "kubeconfig", token, namespace)
        return volumes

    def start(self, run: PodRun, container: ContainerRun, events: Recorder, on_end: Callable[[], None]) -> float | None:
        """Start a container, or say in its state why not. Returns after how many seconds to try again."""
        image = container.spec["image"]
        trouble = self._images.trouble(image)
        if trouble is not None:
            return self._not_pulled(run, container, trouble, events)
        container.pull_failures = 0
        if run.pretend:
            annotations = dig(run.pod, "metadata", "annotations", default={})
            container.begin(PretendProcess(on_end, ignores_term=annotations.get(IGNORES_TERM) == "true"))
            return None
        try:
            launch = self._launch(run, container)
        except NotConfigured as error:
            reason = "CreateContainerError" if str(error) == "no command specified" else "CreateContainerConfigError"
            container.waiting = (reason, str(error))
            events.record(run.pod, "Failed", f"Error: {error}", kind="Warning")
            return self._timing.of(self._timing.sync)
        events.record(run.pod, "Pulled", f'Container image "{image}" already present on machine')
        start = container.restarts + 1 if container.ever_started else 0
        container.begin(RealProcess(launch.argv, launch.env, launch.cwd, run.log(container.name, start), on_end))
        events.record(run.pod, "Started", f"Started container {container.name}")
        return None

    def _not_pulled(self, run: PodRun, container: ContainerRun, trouble: str, events: Recorder) -> float:
        """An attempt to pull that fails, and the wait before the next: two reasons that take turns."""
        if container.waiting[0] == "ErrImagePull":
            image = container.spec["image"]
            container.waiting = ("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {trouble}')
            wait_s = self._timing.back_off(container.pull_failures)
            container.not_before = time.monotonic() + wait_s
            events.record(run.pod, "BackOff", f'Back-off pulling image "{image}"')
            return wait_s
        container.pull_failures += 1
        container.waiting = ("ErrImagePull", trouble)
        events.record(run.pod, "Failed", f"Failed to pull image: {trouble}", kind="Warning")
        # Every report brings another look at once: what keeps the two reasons apart is the time.
        wait_s = self._timing.of(self._timing.back_off_first) / 2
        container.not_before = time.monotonic() + wait_s
        return wait_s

    def _launch(self, run: PodRun, container: ContainerRun) -> Launch:
        pod: Object = clone(run.pod)
        pod["status"].update({"podIP": run.ip, "hostIP": "127.0.0.1", "podIPs": [{"ip": run.ip}]})
        variables = resolve(self._registry, pod, container.spec)
        home = run.folder / "containers" / container.name
        home.mkdir(parents=True, exist_ok=True)
        base = {**self._base_env, "HOSTNAME": host_name(pod)}
        if run.kubeconfig is not None:
            base["KUBECONFIG"] = str(run.kubeconfig)
        assert run.volumes is not None
        launch = launch_of(container.spec, self._images.get(container.spec["image"]), variables, base, run.volumes, home)

        def resolve_names(text: str) -> str:
            return _EVERYWHERE.sub(run.ip, self._registry.addresses.resolve(text))

        env = {name: resolve_names(value) for name, value in launch.env.items()}
        return Launch(tuple(resolve_names(each) for each in launch.argv), env, launch.cwd)

    def start_hook(self, run: PodRun, container: ContainerRun, command: list[str], on_end: Callable[[], None]) -> Process:
        """Run a preStop command beside the container, with its variables and volumes."""
        hooked = ContainerRun({**container.spec, "command": command, "args": []})
        launch = self._launch(run, hooked)
        return RealProcess(launch.argv, launch.env, launch.cwd, run.folder / f"{container.name}.hook.log", on_end)
