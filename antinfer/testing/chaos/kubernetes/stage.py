"""One run of a job on Kubernetes: submitted as `antinfer submit` does, watched and disturbed through the API server, removed at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from antinfer.errors import AntinferError, InfraError, OutputError, UsageError
from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.kubernetes.jobs import Jobs, SubmittedJob
from antinfer.launchers.kubernetes.submission import Submission
from antinfer.launchers.kubernetes.submit import submit
from antinfer.rpc.values import Status
from antinfer.storage.place import OutputPlace
from antinfer.testing.chaos import logs
from antinfer.testing.chaos.happenings import Condition
from antinfer.testing.chaos.hits import Armed, Hit, has_no_leases, publishes
from antinfer.testing.chaos.kubernetes.line import Line
from antinfer.testing.chaos.kubernetes.logs import PodLogs
from antinfer.testing.chaos.kubernetes.pods import Pod, Pods
from antinfer.testing.chaos.points import Proof
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.stage import Life
from antinfer.testing.chaos.watching import Sample, rows_behind

_LOOK_S: Final = 0.25
"""Between two looks at the Job: what a run lasts is known to that."""
_LOG_S: Final = 5.0
_LEAVE_S: Final = 20.0
"""Beyond the grace period of a worker."""
_VISIBLE_S: Final = 90.0
"""How late a shared file system may show what a pod has written: NFS keeps what it knows of a folder for a minute."""
_GONE: Final = (404, 409)


@dataclass
class _Victim:
    pod: Pod
    struck_at: float
    proof: dict[str, Any]


class KubernetesStage:
    """See `antinfer.testing.chaos.stage.Stage`."""

    patience_s = 90.0

    def __init__(self, api: Api, what: Submission, place: OutputPlace, kept: PodLogs, say: Callable[[str], None]) -> None:
        """
        Args:
            api: of the cluster; is closed here.
            what: the job.
            place: its output, as it is reached from here.
            kept: for the logs of pods.
            say: is told what becomes of the job in the cluster.
        """
        self._api = api
        self._what = what
        self._place = place
        self._kept = kept
        self._say = say
        self._jobs = Jobs(api, what.namespace)
        self._job = SubmittedJob(what.name, what.namespace, what.job, "running")
        self._line = Line(self._jobs, self._job)
        self._pods = Pods(api, what.namespace, what.job)
        self._seen: list[Pod] = []
        self._victims: list[_Victim] = []
        self._next_look = 0.0
        self._ruled_at: float | None = None
        self._is_visible = False
        self._told = ""
        self._is_begun = self._is_over = False
        self.surprises: list[str] = []
        self.failure: AntinferError | None = None

    # -- as time goes --------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Submit the job. Raises as `submit`."""
        self._is_begun = True
        try:
            submit(self._api, self._what)
        except UsageError:
            # Nothing of ours is there, and what bears our name is somebody else's.
            self._is_begun = False
            raise
        self._say(f"submitted as job {self._what.name} in namespace {self._what.namespace}")
        self._pods.start()

    def tend(self) -> bool:
        """Raises `ApiError` when the API server is away or refuses, `UsageError` when somebody else has removed the job."""
        ended = {pod.uid for pod in self._seen if pod.ended_at is not None}
        self._seen = self._pods.look()
        for pod in self._seen:
            if pod.started_at is not None:
                self._kept.follow(pod.name, pod.component)
            if pod.ended_at is not None and pod.uid not in ended and pod.fell_by_itself:
                self.surprises.append(f"{pod.name} ended by itself: {_end_of(pod)}")
        self._complete_proofs()
        self._say_why_nobody_rules()
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            found = self._jobs.find(self._what.name)
            self._is_over = found.phase != "running"
            if found.phase == "failed":
                self.failure = InfraError(f"the job failed in the cluster: {found.reason}\n{self._words_of_master()}")
        return self._is_over

    def ask(self) -> Status | None:
        status = self._line.status()
        if status is not None and not self._is_visible:
            self._check_visible()
        return status

    def published(self) -> int:
        return rows_behind(part.name for part in self._place.list_parts())

    def proofs(self) -> list[Proof]:
        """No fault point is armed here."""
        return []

    def lives(self) -> list[Life]:
        return [Life(pod.title, pod.started_at, pod.ended_at) for pod in self._seen if pod.started_at is not None]

    def last_words(self) -> str:
        return f"{self._line.trouble}\n{logs.last_words(self._kept.folder)}"

    def bugs(self) -> list[str]:
        return logs.bugs(self._kept.folder)

    # -- faults --------------------------------------------------------------------------------------------------------------------------
    def strike(self, what: Strike, now: Sample) -> Hit | Armed | None:
        is_master = what.rule.target == "master"
        found = [pod for pod in self._seen if pod.is_whole and (pod.component == "master") == is_master]
        if is_master:
            victims = found[-1:] if now.rules else []
        else:
            victims = [pod for pod in found if now.leases_of(pod.name)]
        if not victims:
            return None
        victim = victims[what.pick(len(victims))]
        grace_s = 0 if what.rule.kind == "kill" else None if what.rule.grace_s is None else math.ceil(what.rule.grace_s)
        if not self._delete(victim, grace_s):
            return None
        victim.doomed = True
        proof: dict[str, Any] = {"pod": victim.name, "uid": victim.uid, "grace_s": grace_s}
        self._victims.append(_Victim(victim, time.monotonic(), proof))
        return Hit(victim.title, proof, _next_reign(now) if is_master else [has_no_leases(victim.name)])

    def _delete(self, pod: Pod, grace_s: int | None) -> bool:
        """Delete a pod; False when it is gone already. Without `grace_s` it has its own grace period."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._api.ask("DELETE", f"/api/v1/namespaces/{self._what.namespace}/pods/{pod.name}", options)
        except ApiError as error:
            if error.status not in _GONE:
                raise
            return False
        return True

    def _complete_proofs(self) -> None:
        for victim in self._victims:
            pod = victim.pod
            if pod.ended_at is not None and "gone_s" not in victim.proof:
                victim.proof |= {"gone_s": pod.ended_at - victim.struck_at, "exit_code": pod.exit_code}

    # -- the end -------------------------------------------------------------------------------------------------------------------------
    def end(self) -> list[str]:
        until = time.monotonic() + self._what.grace_s + _LEAVE_S
        while (left := self._running()) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        self._complete_proofs()
        self.surprises += [f"{each.pod.name} was deleted and never went" for each in self._victims if "gone_s" not in each.proof]
        self._kept.finish(_LOG_S)
        return left

    def _running(self) -> list[str]:
        self._seen = self._pods.look()
        return [pod.name for pod in self._seen if pod.ended_at is None]

    def close(self) -> None:
        if self._is_begun:
            self._remove()
        self._line.close()
        self._api.close()

    def _remove(self) -> None:
        if not self._is_over:
            self._say(f"removing job {self._what.name}")
            try:
                # Else every worker waits for a master that is gone until its grace period is over.
                self._line.cancel("the chaos run was ended")
            except AntinferError as error:
                self._say(f"its master could not be told, so that workers take their time to go: {error}")
        self._jobs.cancel(self._job, forget=True)

    # -- what is said --------------------------------------------------------------------------------------------------------------------
    def _say_why_nobody_rules(self) -> None:
        """Images take their time, and people wait."""
        trouble = self._line.trouble
        if self._ruled_at is None and trouble not in ("", self._told):
            self._told = trouble
            self._say(trouble)

    def _check_visible(self) -> None:
        """Whoever rules has claimed the output before: once that is seen from here, the output is one and the same place."""
        self._ruled_at = self._ruled_at or time.monotonic()
        if self._place.highest_epoch() is not None:
            self._is_visible = True
        elif time.monotonic() - self._ruled_at > _VISIBLE_S:
            raise OutputError(
                f"the job in the cluster writes to {self._place.uri}, and nothing of that is seen here",
                hint="Both have to reach one place: a bucket, HDFS, or a volume that is mounted at the same path here and in all pods.",
            )

    def _words_of_master(self) -> str:
        self._kept.finish(_LOG_S)
        masters = [pod.name for pod in self._seen if pod.component == "master"]
        return self._kept.tail(masters[-1]) if masters else "its master had no pod"


def _next_reign(now: Sample) -> list[Condition]:
    """Another master rules, and results are published again."""
    epoch = now.status.epoch if now.status else 0
    return [lambda sample: sample.rules and sample.status is not None and sample.status.epoch > epoch, *publishes(now)]


def _end_of(pod: Pod) -> str:
    reasons = [each.reason for each in pod.facts.containers if each.name == pod.component and each.reason]
    told = [f"exit code {pod.exit_code}", *reasons, *filter(None, [pod.facts.reason, pod.facts.message])]
    return ", ".join(told)
