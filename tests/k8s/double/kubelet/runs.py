"""What a kubelet remembers of a pod that it runs, and the status that follows from it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.k8s.double.kubelet.processes import Process
from tests.k8s.double.objects import Object, dig, is_finished, set_condition, stamp

_MOST_LINES: Final = 80
_MOST_BYTES: Final = 2048


@dataclass
class ContainerRun:
    """One container over all its starts."""

    spec: Object
    process: Process | None = None
    started_at: float = 0.0
    restarts: int = 0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    terminated: Object | None = None
    """The state that the present or, while it waits for a restart, the last start ended with."""
    last: Object | None = None
    """The end of the start before the present one."""
    failures: int = 0
    """Ends in a row, for the back-off."""
    not_before: float = 0.0
    """When it may be started, or its image pulled, again (monotonic)."""
    pull_failures: int = 0
    out_of_memory: bool = False
    container_id: str = ""
    ever_started: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def is_done(self) -> bool:
        """Ended, and not waiting for another start."""
        return self.process is None and self.terminated is not None and not self.waiting[0]

    @property
    def exit_code(self) -> int | None:
        return None if self.terminated is None else int(self.terminated["exitCode"])

    def begin(self, process: Process) -> None:
        """Note that a start has been made."""
        if self.ever_started:
            self.restarts += 1
            self.last = self.terminated
        self.ever_started = True
        self.process, self.terminated, self.waiting = process, None, ("", "")
        self.started_at = time.time()
        self.container_id = f"double://{uuid.uuid4().hex}"
        self.out_of_memory = False

    def end(self, log: Path) -> None:
        """Note that the process, whose output is in `log`, has ended."""
        assert self.process is not None and self.process.exit_code is not None
        code, failure = self.process.exit_code, self.process.failure
        message = failure
        if code and not failure and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = _last_words(log)
        reason = "Completed" if code == 0 else "Error"
        if failure:
            reason = "StartError"
        elif self.out_of_memory:
            reason = "OOMKilled"
        self.terminated = {
            "exitCode": code,
            "reason": reason,
            **({"message": message} if message else {}),
            "startedAt": stamp(self.started_at),
            "finishedAt": stamp(),
            "containerID": self.container_id,
        }
        self.process = None

    def status(self) -> Object:
        """The container's part of the pod's status."""
        state: Object
        last: Object = {"terminated": self.last} if self.last else {}
        if self.is_running:
            state = {"running": {"startedAt": stamp(self.started_at)}}
        elif self.waiting[0]:
            reason, message = self.waiting
            state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
            last = {"terminated": self.terminated} if self.terminated else last
        else:
            state = {"terminated": self.terminated}
        shown: Object = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "" if not self.ever_started else f"double://{self.spec['image']}",
            "ready": self.is_running,
            "started": self.is_running,
            "restartCount": self.restarts,
            "state": state,
            "lastState": last,
        }
        if self.container_id:
            shown["containerID"] = self.container_id
        return shown


@dataclass
class Ending:
    """A pod is being ended: by its deletion, its deadline, or the kubelet's own decision."""

    kills_at: float
    """When what is left gets SIGKILL (monotonic)."""
    is_forced: bool = False
    """Nothing is run or waited for any more."""
    stage: Literal["begun", "hooks", "over"] = "begun"
    hooks: dict[str, Process] = field(default_factory=dict)
    """By container."""
    failed_hooks: set[str] = field(default_factory=set)
    told_at: dict[str, float] = field(default_factory=dict)
    """When a container got its SIGTERM (monotonic)."""
    killed: set[str] = field(default_factory=set)


@dataclass
class PodRun:
    """One pod on its node."""

    pod: Object
    """The last known state of its object."""
    folder: Path
    ip: str
    inits: list[ContainerRun]
    mains: list[ContainerRun]
    pretend: bool = False
    holds_address: bool = False
    """Whether `ip` is still this pod's own: another may have it after the end."""
    volumes: dict[str, Path] | None = None
    """None until they are all there."""
    has_network: bool = False
    """Whether its sandbox was made, which it keeps."""
    kubeconfig: Path | None = None
    started_at: float = field(default_factory=time.time)
    ending: Ending | None = None
    fate: tuple[str, str] | None = None
    """Reason and message of a Failed that no container's exit code explains."""

    @property
    def policy(self) -> str:
        return str(self.pod["spec"]["restartPolicy"])

    @property
    def containers(self) -> list[ContainerRun]:
        return [*self.inits, *self.mains]

    @property
    def running(self) -> list[ContainerRun]:
        return [each for each in self.containers if each.is_running]

    def find(self, container: str) -> ContainerRun:
        return next(each for each in self.containers if each.name == container)

    def log(self, container: str, start: int) -> Path:
        """Where the output of a container's `start`-th start (from 0) goes."""
        return self.folder / f"{container}.{start}.log"

    def phase(self) -> str:
        """The pod's phase, from its containers."""
        if self.fate is not None and not self.running:
            return "Failed"
        if any(each.is_done and each.exit_code for each in self.inits):
            return "Failed"
        if all(each.is_done for each in self.mains):
            return "Failed" if any(each.exit_code for each in self.mains) else "Succeeded"
        if self.ending is not None and not self.running and any(each.ever_started for each in self.containers):
            # Ended before its time: what waited for a restart gets none.
            return "Failed" if any(each.exit_code for each in self.mains) else "Succeeded"
        return "Running" if any(each.ever_started for each in self.mains) else "Pending"

    def write_status(self, pod: Object) -> None:
        """Write what is known into a copy of the pod."""
        status = pod["status"]
        if is_finished(pod):
            return
        phase = self.phase()
        status["phase"] = phase
        status.update({"hostIP": "127.0.0.1", "podIP": self.ip, "podIPs": [{"ip": self.ip}], "startTime": stamp(self.started_at)})
        if self.fate is not None and phase == "Failed":
            status["reason"], status["message"] = self.fate
        if self.inits:
            status["initContainerStatuses"] = [each.status() for each in self.inits]
        # A kubelet sorts them by name, however the spec has them.
        status["containerStatuses"] = [each.status() for each in sorted(self.mains, key=lambda run: run.name)]
        self._conditions(pod, phase)

    def _conditions(self, pod: Object, phase: str) -> None:
        initialized = all(each.is_done and each.exit_code == 0 for each in self.inits)
        done = "PodCompleted" if phase == "Succeeded" else "PodFailed" if phase == "Failed" else ""
        ready = phase == "Running" and all(each.is_running for each in self.mains)
        missing = [each.name for each in self.mains if not each.is_running]
        told = {"reason": done or "ContainersNotReady", "message": "" if done else f"containers with unready status: [{' '.join(missing)}]"}
        alive = self.volumes is not None and phase in ("Pending", "Running")
        set_condition(pod, "PodReadyToStartContainers", "True" if alive else "False")
        pending = [each.name for each in self.inits if not (each.is_done and each.exit_code == 0)]
        incomplete = {"reason": "ContainersNotInitialized", "message": f"containers with incomplete status: [{' '.join(pending)}]"}
        set_condition(pod, "Initialized", "True" if initialized else "False", **({} if initialized else incomplete))
        for kind in ("Ready", "ContainersReady"):
            set_condition(pod, kind, "True" if ready else "False", **({} if ready else told))


def _last_words(log: Path) -> str:
    """What a kubelet keeps of the output of a container that failed."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    return b"".join(lines[-_MOST_LINES:])[-_MOST_BYTES:].decode("utf-8", "replace")


def container_named(pod: Object, name: str) -> Object:
    """A container's spec. Raises KeyError."""
    for each in [*dig(pod, "spec", "containers", default=[]), *dig(pod, "spec", "initContainers", default=[])]:
        if each["name"] == name:
            return dict(each)
    raise KeyError(name)
