"""Jobs that were submitted before: found by their name, reached, ended, submitted again."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from antinfer.errors import LAST_LINE, InfraError, MasterError, UsageError
from antinfer.launchers.kubernetes import masterpods, secret
from antinfer.launchers.kubernetes.api import Api, ApiError
from antinfer.launchers.kubernetes.complaints import complaint_in, last_time
from antinfer.launchers.kubernetes.forwarding import Forwarding
from antinfer.launchers.kubernetes.manifests import JOB_LABEL
from antinfer.launchers.kubernetes.submission import CONTAINER, PORT, server_names
from antinfer.launchers.kubernetes.submit import COLLECTIONS
from antinfer.rpc.channel import Tls
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Phase

_LOOK_S: Final = 0.5
_PATIENCE_S: Final = 120.0
"""How long the objects of a job may take to go: a worker has its grace period, and a lost node has as long as it likes."""
_REFUSED: Final = "FailedCreate"
"""Reason of the event of a Job whose pod was not to be created."""
_OURS: Final = "app.kubernetes.io/name=antinfer"


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """The Job object of a job, and what it says."""

    name: str
    namespace: str
    id: str
    phase: Phase
    """`running` until the cluster says otherwise."""
    reason: str = ""
    """Of the cluster, for the end."""
    uid: str = ""
    """Of the object."""


class Jobs:
    """The jobs in one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def find(self, name: str) -> SubmittedJob:
        """Return the job of that name.

        Raises:
            UsageError: There is none, or no such namespace.
            ApiError: The server refuses, or cannot be reached.
        """
        try:
            found = self.api.ask("GET", f"{self._path('Job')}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            raise self._missing(name) from error
        labels = found["metadata"].get("labels") or {}
        if JOB_LABEL not in labels:
            raise UsageError(f"Job {name} in namespace {self.namespace} is none that `antinfer submit` has made")
        for kind, phase in (("Complete", "done"), ("Failed", "failed")):
            for condition in (found.get("status") or {}).get("conditions") or ():
                if condition["type"] == kind and condition["status"] == "True":
                    return SubmittedJob(name, self.namespace, labels[JOB_LABEL], phase, condition.get("message") or "")  # type: ignore[arg-type]
        return SubmittedJob(name, self.namespace, labels[JOB_LABEL], "running", uid=found["metadata"]["uid"])

    def pods(self, job: SubmittedJob, component: str) -> list[dict[str, Any]]:
        """Return the pods of the master or of the workers, the newest last."""
        return self._listed(job, component)[0]

    def last_words(self, job: SubmittedJob) -> str:
        """Return what the last master said last, as far as its pod is there and says so; empty otherwise."""
        ends = [
            (each.get("state") or {}).get("terminated") or {}
            for pod in self.pods(job, "master")[-1:]
            for each in (pod.get("status") or {}).get("containerStatuses") or ()
            if each["name"] == CONTAINER
        ]
        said = "".join(end.get("message") or "" for end in ends)
        errors = [line.removeprefix(LAST_LINE) for line in said.splitlines() if line.startswith(LAST_LINE)]
        return errors[-1] if errors else ""

    def why_no_master(self, job: SubmittedJob) -> tuple[str, str]:
        """Say why no master runs, in the words of the cluster, and what can be done; the latter may be empty.

        Raises:
            ApiError: The server cannot be reached.
        """
        if job.phase != "running":
            return f"the job is {job.phase}" + (f" ({job.reason})" if job.reason else ""), ""
        pods, now_s = self._listed(job, "master")
        phase = (pods[-1].get("status") or {}).get("phase") if pods else None
        if not pods or phase in ("Succeeded", "Failed"):
            # None, or one that is over: its successor may be one that nobody lets the cluster create.
            since = pods[-1]["metadata"]["creationTimestamp"] if pods else ""
            refused = [event for event in self._events(job.uid) if event.get("reason") == _REFUSED and last_time(event) >= since]
            if refused:
                return f"it has no pod: {max(refused, key=last_time).get('message') or ''}", ""
        complaint = complaint_in(self._events(pods[-1]["metadata"]["uid"])) if phase == "Pending" else None
        return masterpods.why_none(pods, now_s, complaint)

    def secret(self, name: str) -> dict[str, bytes] | None:
        """Return the Secret of a job; None: it is gone."""
        found = self._look("Secret", name)
        return None if found is None else {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    def config_map(self, name: str) -> Mapping[str, bytes] | None:
        """Return what a job is submitted by again; None: it is gone."""
        found = self._look("ConfigMap", name)
        if found is None:
            return None
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return {key: text.encode() for key, text in (found.get("data") or {}).items()} | binary

    @contextmanager
    def reach(self, job: SubmittedJob) -> Iterator[AdminClient]:
        """Give a client of a job's master for the time of the block: at its service's address in the cluster, else by the API server.

        Raises:
            MasterError: No master runs, or it does not answer.
            ApiError: The server refuses, or cannot be reached.
        """
        content = self.secret(job.name)
        if content is None or "admin.key" not in content:
            raise UsageError(f"the Secret {job.name} in namespace {self.namespace} is gone, or not one of ours")
        # Certificates of one's own may be for another of the names.
        from antinfer.launchers.certificates import expected_name

        name = expected_name(content["master.crt"], server_names(job.name, self.namespace))
        tls = Tls(content["ca.crt"], content["admin.crt"], content["admin.key"], name)
        token = content["admin-token"].decode()
        if self.api.is_inside:
            service = self.api.ask("GET", f"{self._path('Service')}/{job.name}")
            with AdminClient(f"{service['spec']['clusterIP']}:{PORT}", token=token, tls=tls) as admin:
                yield admin
            return
        pod = self._running_master(job)
        with Forwarding(self.api, self.namespace, pod, PORT) as forwarding, AdminClient(forwarding.address, token=token, tls=tls) as admin:
            try:
                yield admin
            except MasterError as error:
                if not forwarding.error:
                    raise
                raise MasterError(
                    f"the master in pod {pod} does not answer: {forwarding.error}", hint="It may be starting; try again."
                ) from error

    def cancel(self, job: SubmittedJob, *, forget: bool = False) -> None:
        """Remove what belongs to a job, and wait until it is gone. The output stays, and, unless told to `forget`, what `resume` needs.

        Raises:
            ApiError: The server refuses, or cannot be reached.
            InfraError: Something does not go.
        """
        if not forget:
            # Whatever has no owner stays.
            self.api.ask("PATCH", f"{self._path('ConfigMap')}/{job.name}", {"metadata": {"ownerReferences": None}})
        self._delete("Job", job.name)
        until = time.monotonic() + _PATIENCE_S
        while left := self._left(job, forget=forget):
            if time.monotonic() > until:
                raise InfraError(
                    f"{', '.join(left[:3])} of job {job.name} still there after {_PATIENCE_S:.0f} s",
                    hint="A pod on a lost node stays until the node is back or deleted; the output is as it was committed.",
                )
            time.sleep(_LOOK_S)

    def forget(self, name: str) -> None:
        """Remove what `resume` needs of a job that was cancelled."""
        self._delete("ConfigMap", name)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _path(self, kind: str) -> str:
        return COLLECTIONS[kind].format(namespace=self.namespace)

    def _listed(self, job: SubmittedJob, component: str) -> tuple[list[dict[str, Any]], float]:
        """Return such pods, the newest last, and the time by the server's clock (s since 1970)."""
        selector = f"{JOB_LABEL}={job.id},app.kubernetes.io/component={component}"
        answer = self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
        found = sorted(answer.get("items") or [], key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
        return found, time.time() if answer["date"] is None else answer["date"] / 1_000

    def _look(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            return self.api.ask("GET", f"{self._path(kind)}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def _events(self, uid: str) -> list[dict[str, Any]]:
        """Return the events about an object, none where they are not ours to see."""
        try:
            found = self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=f"involvedObject.uid={uid}")
        except ApiError as error:
            if error.status != 403:
                raise
            return []
        return found.get("items") or []

    def _delete(self, kind: str, name: str) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            self.api.ask("DELETE", f"{self._path(kind)}/{name}", options)
        except ApiError as error:
            if error.status != 404:
                raise

    def _left(self, job: SubmittedJob, *, forget: bool) -> list[str]:
        """Return which objects of a job are still there. Of a kind that we may not see it is the cluster's to see to it."""
        left = []
        kinds = [kind for kind in COLLECTIONS if forget or kind != "ConfigMap"]
        for kind, path in [*((kind, self._path(kind)) for kind in kinds), ("Pod", f"/api/v1/namespaces/{self.namespace}/pods")]:
            try:
                found = self.api.ask("GET", path, labelSelector=f"{JOB_LABEL}={job.id}").get("items") or []
            except ApiError as error:
                if error.status != 403:
                    raise
                continue
            left += [f"{kind} {each['metadata']['name']}" for each in found]
        return left

    def _running_master(self, job: SubmittedJob) -> str:
        for pod in reversed(self.pods(job, "master")):
            if masterpods.runs(pod):
                return str(pod["metadata"]["name"])
        why, hint = self.why_no_master(job)
        raise MasterError(f"no master of job {job.name} runs: {why}", hint=hint or f"antinfer logs {job.name} -n {self.namespace}")

    def _missing(self, name: str) -> UsageError:
        try:
            self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}")
        except ApiError as error:
            # Often nobody may look at namespaces; then it is there as far as we know.
            if error.status == 404:
                return UsageError(f"there is no namespace {self.namespace}", hint="Name another by --namespace.")
        found = self.api.ask("GET", self._path("Job"), labelSelector=_OURS).get("items") or []
        names = ", ".join(sorted(each["metadata"]["name"] for each in found)[:5])
        if self._look("ConfigMap", name) is not None:
            return UsageError(f"job {name} was cancelled", hint=f"antinfer resume {name} -n {self.namespace}")
        return UsageError(
            f"there is no job {name} in namespace {self.namespace}",
            hint=f"There are: {names}." if names else "There is none of ours; name another namespace by --namespace.",
        )


def renewed(content: Mapping[str, bytes] | None, wanted: list[str], *, store_url: str) -> dict[str, str]:
    """Return the secrets of a job that cannot be made anew: as given now, else as its Secret had them.

    Args:
        content: of the Secret; None: it is gone.
        wanted: those that the job had.
        store_url: given now.

    Raises:
        UsageError: One is known nowhere.
    """
    kept = {key: (content or {}).get(key, b"").decode() for key in (secret.STORE_URL, secret.DOCUMENT)}
    kept[secret.STORE_URL] = store_url or kept[secret.STORE_URL]
    if secret.STORE_URL in wanted and not kept[secret.STORE_URL]:
        raise UsageError("the job has a store, whose URL was removed with its Secret", hint="Give it again: --store URL.")
    if secret.DOCUMENT in wanted and not kept[secret.DOCUMENT]:
        raise UsageError(
            "the job file holds credentials, which were removed with the Secret", hint="Submit the job file again; that resumes it."
        )
    return kept
