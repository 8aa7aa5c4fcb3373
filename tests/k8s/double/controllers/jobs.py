"""The Job controller: pods until enough have succeeded, or too many failed."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable

from tests.k8s.double.errors import ApiError
from tests.k8s.double.events import Recorder
from tests.k8s.double.kinds import JOBS, PODS
from tests.k8s.double.loop import Controller
from tests.k8s.double.objects import (
    Object,
    clone,
    condition_of,
    controller_of,
    dig,
    is_finished,
    is_terminating,
    name_of,
    namespace_of,
    owner_reference,
    seconds_of,
    set_condition,
    stamp,
    uid_of,
)
from tests.k8s.double.registry import Registry
from tests.k8s.double.store import Change
from tests.k8s.double.timing import Timing

TRACKING = "batch.kubernetes.io/job-tracking"


class Jobs(Controller):
    """Keys are (namespace, name) of jobs."""

    def __init__(self, registry: Registry, timing: Timing) -> None:
        self._registry = registry
        self._timing = timing
        self._events = Recorder(registry, "job-controller")
        self._failed_at: dict[str, tuple[int, float]] = {}
        """Failures in a row, and when the last was (monotonic)."""
        self._refusals: dict[str, int] = {}
        """How often in a row a pod was not to be created."""

    def concerns(self, change: Change) -> Iterable[Hashable]:
        if change.resource is JOBS:
            return [change.key]
        if change.resource is PODS and (owner := controller_of(change.now.obj)) and owner["kind"] == "Job":
            return [(change.key[0], owner["name"])]
        return []

    def reconcile(self, key: Hashable) -> float | None:
        assert isinstance(key, tuple)
        present = self._registry.look(JOBS, *key)
        owned = [each.obj for each in self._registry.store.everything(PODS, key[0])]
        if present is None:
            for pod in owned:
                if (owner := controller_of(pod)) and owner["kind"] == "Job" and owner["name"] == key[1]:
                    self._untrack(pod)
            return None
        job: Object = present
        pods = [pod for pod in owned if dig(controller_of(pod), "uid") == uid_of(job)]
        if _is_over(job):
            for pod in pods:
                self._untrack(pod)
            return self._time_to_live(job)
        self._count(job, pods)
        job = self._registry.get(JOBS, *key)
        if is_terminating(job):
            return None
        pods = [found for each in pods if (found := self._registry.still(PODS, each)) is not None]
        return self._decide(job, pods)

    def _untrack(self, pod: Object) -> None:
        if TRACKING in pod["metadata"].get("finalizers", []):
            self._registry.edit(PODS, namespace_of(pod), name_of(pod), lambda copy: copy["metadata"]["finalizers"].remove(TRACKING))

    def _count(self, job: Object, pods: list[Object]) -> None:
        """Count the pods that have ended since the last look, each once: the finalizer marks those not counted yet."""
        succeeded = failed = 0
        verdict = ""
        for pod in pods:
            if TRACKING not in pod["metadata"].get("finalizers", []):
                continue
            ended = is_finished(pod) or (is_terminating(pod) and not pod["spec"].get("nodeName"))
            if not ended:
                continue
            if dig(pod, "status", "phase") == "Succeeded":
                succeeded += 1
            else:
                action, why = _policy_on(job, pod)
                verdict = why if action == "FailJob" else verdict
                failed += action != "Ignore"
            self._untrack(pod)
        if failed:
            before, _ = self._failed_at.get(uid_of(job), (0, 0.0))
            self._failed_at[uid_of(job)] = (before + failed, time.monotonic())
        elif succeeded:
            self._failed_at.pop(uid_of(job), None)

        def change(copy: Object) -> None:
            status = copy["status"]
            for name, number in (("succeeded", succeeded), ("failed", failed)):
                if number:
                    status[name] = status.get(name, 0) + number
            if verdict:
                set_condition(copy, "FailureTarget", "True", reason="PodFailurePolicy", message=verdict)

        self._registry.edit_status(JOBS, job, change)

    def _decide(self, job: Object, pods: list[Object]) -> float | None:
        spec, status = job["spec"], job["status"]
        active = [pod for pod in pods if not is_finished(pod) and not is_terminating(pod)]
        terminating = [pod for pod in pods if is_terminating(pod) and not is_finished(pod)]
        succeeded = status.get("succeeded", 0)
        wanted = spec.get("completions")
        failure = self._failure(job)
        if failure:
            return self._fail(job, [*active, *terminating], *failure)
        if wanted is not None and succeeded >= wanted:
            return self._complete(job, active)
        if spec.get("suspend"):
            for pod in active:
                self._registry.delete_pod(pod)
            self._write(job, 0, 0, Suspended="True")
            return None
        room = spec["parallelism"] if wanted is None else min(spec["parallelism"], wanted - succeeded)
        holding = len(active) + (len(terminating) if spec["podReplacementPolicy"] == "Failed" else 0)
        wait_s = self._back_off(job)
        refused_s: float | None = None
        if holding < room and wait_s <= 0:
            made, refused_s = self._create_pods(job, room - holding)
            active += made
        for pod in active[room:]:
            self._registry.delete_pod(pod)
        self._write(job, len(active[:room]), len(terminating), Suspended="False" if condition_of(job, "Suspended") else "")
        due = [wait_s] if wait_s > 0 and holding < room else [] if refused_s is None else [refused_s]
        if spec.get("activeDeadlineSeconds"):
            started = seconds_of(self._registry.get(JOBS, namespace_of(job), name_of(job))["status"]["startTime"])
            due.append(max(0.001, started + spec["activeDeadlineSeconds"] - time.time()))
        return min(due) if due else None

    def _failure(self, job: Object) -> tuple[str, str] | None:
        target = condition_of(job, "FailureTarget")
        if target is not None:
            return target["reason"], target["message"]
        limit = job["spec"]["backoffLimit"]
        if job["status"].get("failed", 0) > limit:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        seconds = job["spec"].get("activeDeadlineSeconds")
        started = job["status"].get("startTime")
        if seconds and started and not job["spec"].get("suspend") and time.time() - seconds_of(started) >= seconds:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _back_off(self, job: Object) -> float:
        failures, since = self._failed_at.get(uid_of(job), (0, 0.0))
        if not failures:
            return 0.0
        return since + self._timing.back_off(failures, most=self._timing.job_back_off_most) - time.monotonic()

    def _create_pods(self, job: Object, count: int) -> tuple[list[Object], float | None]:
        """Returns the pods, and where one was refused after how many seconds to try again."""
        made: list[Object] = []
        for _ in range(count):
            try:
                made.append(self._create(job))
            except ApiError as error:
                self._events.record(job, "FailedCreate", f"Error creating: {error}", kind="Warning")
                refusals = self._refusals[uid_of(job)] = self._refusals.get(uid_of(job), 0) + 1
                return made, self._timing.of(min(2.0 ** (refusals - 1), self._timing.job_refused_most))
        self._refusals.pop(uid_of(job), None)
        return made, None

    def _create(self, job: Object) -> Object:
        template = clone(job["spec"]["template"])
        metadata = template.get("metadata") or {}
        metadata.update({"generateName": f"{name_of(job)}-", "finalizers": [TRACKING], "ownerReferences": [owner_reference(job)]})
        metadata.pop("creationTimestamp", None)
        pod = self._registry.create(PODS, namespace_of(job), {"metadata": metadata, "spec": template["spec"]})
        self._events.record(job, "SuccessfulCreate", f"Created pod: {name_of(pod)}")
        return pod

    def _write(self, job: Object, active: int, terminating: int, *, Suspended: str = "") -> None:
        def change(copy: Object) -> None:
            status = copy["status"]
            if Suspended == "True":
                # A job that is resumed begins anew, its deadline with it.
                status.pop("startTime", None)
            else:
                status.setdefault("startTime", stamp())
            status.update({"active": active, "ready": active, "terminating": terminating})
            if Suspended:
                set_condition(copy, "Suspended", Suspended, reason="JobSuspended" if Suspended == "True" else "JobResumed")

        self._registry.edit_status(JOBS, job, change)

    def _complete(self, job: Object, active: list[Object]) -> float | None:
        for pod in active:
            self._registry.delete_pod(pod)

        def change(copy: Object) -> None:
            copy["status"].update({"active": 0, "ready": 0, "terminating": 0, "completionTime": stamp()})
            set_condition(
                copy, "SuccessCriteriaMet", "True", reason="CompletionsReached", message="Reached expected number of succeeded pods"
            )
            set_condition(copy, "Complete", "True", reason="CompletionsReached", message="Reached expected number of succeeded pods")

        self._registry.edit_status(JOBS, job, change)
        self._events.record(job, "Completed", "Job completed")
        return None

    def _fail(self, job: Object, left: list[Object], reason: str, message: str) -> float | None:
        """Delete what still runs; the job has failed when it has ended."""
        for pod in left:
            if not is_terminating(pod):
                self._registry.delete_pod(pod)

        def change(copy: Object) -> None:
            set_condition(copy, "FailureTarget", "True", reason=reason, message=message)
            copy["status"].update({"active": 0, "ready": 0, "terminating": len(left)})
            if not left:
                set_condition(copy, "Failed", "True", reason=reason, message=message)

        self._registry.edit_status(JOBS, job, change)
        self._events.record(job, reason, message, kind="Warning")
        return None

    def _time_to_live(self, job: Object) -> float | None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None or is_terminating(job):
            return None
        ended = max(seconds_of(each["lastTransitionTime"]) for each in job["status"]["conditions"])
        left = float(ended + seconds - time.time())
        if left > 0:
            return left
        self._registry.delete(JOBS, namespace_of(job), name_of(job), {"propagationPolicy": "Foreground"})
        return None


def _is_over(job: Object) -> bool:
    return any(dig(condition_of(job, kind), "status") == "True" for kind in ("Complete", "Failed"))


def _policy_on(job: Object, pod: Object) -> tuple[str, str]:
    """What the job's podFailurePolicy says of a failed pod: an action, and for FailJob the message."""
    for index, rule in enumerate(dig(job, "spec", "podFailurePolicy", "rules", default=[])):
        if (wanted := rule.get("onExitCodes")) is not None:
            for each in dig(pod, "status", "containerStatuses", default=[]):
                code = dig(each, "state", "terminated", "exitCode", default=0)
                named = wanted.get("containerName") in (None, each["name"])
                if code and named and (code in wanted["values"]) == (wanted["operator"] == "In"):
                    told = f"Container {each['name']} for pod {namespace_of(pod)}/{name_of(pod)} failed with exit code {code}"
                    return rule["action"], f"{told} matching {rule['action']} rule at index {index}"
        for pattern in rule.get("onPodConditions") or []:
            found = condition_of(pod, pattern["type"])
            if found is not None and found["status"] == pattern.get("status", "True"):
                where = f"{namespace_of(pod)}/{name_of(pod)}"
                return rule["action"], f"Pod {where} has condition {pattern['type']} matching {rule['action']} rule at index {index}"
    return "Count", ""
