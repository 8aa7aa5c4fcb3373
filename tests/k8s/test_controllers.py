"""Jobs and StatefulSets of one: what a master runs under."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, condition_of, dig, seconds_of
from tests.k8s.double.timing import Timing
from tests.k8s.scenes import handler, shell
from tests.k8s.talk import JOBS, PODS, Talk

SETS = "/apis/apps/v1/namespaces/default/statefulsets"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1")], timing=Timing(scale=0.003)) as cluster:
        yield cluster


def job(*containers: dict[str, Any], policy: str = "Never", **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": policy, "containers": list(containers), "terminationGracePeriodSeconds": 1}}
    return {"metadata": {"name": "j"}, "spec": {"template": template, **spec}}


def stateful(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "s"}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    return {
        "metadata": {"name": "s"},
        "spec": {"serviceName": "s", "selector": {"matchLabels": {"app": "s"}}, "template": template, **spec},
    }


def is_so(talk: Talk, kind: str) -> Object | None:
    found = condition_of(talk.get(f"{JOBS}/j"), kind)
    return found if found is not None and found["status"] == "True" else None


def test_a_job_completes(cluster: Cluster, talk: Talk) -> None:
    created = talk.create(JOBS, job(shell("exit 0")))
    cluster.wait(lambda: is_so(talk, "Complete"), "the job to complete")

    pods = talk.get(PODS, labelSelector="batch.kubernetes.io/job-name=j")["items"]
    assert talk.get(f"{JOBS}/j")["status"]["succeeded"] == 1
    assert [each["metadata"]["ownerReferences"][0]["uid"] for each in pods] == [created["metadata"]["uid"]]
    cluster.wait(lambda: "finalizers" not in talk.get(PODS)["items"][0]["metadata"], "the pod to be counted")


def test_a_job_tries_again_with_a_back_off_and_gives_up(cluster: Cluster, talk: Talk) -> None:
    talk.create(JOBS, job(shell("exit 1"), backoffLimit=2))
    failed = cluster.wait(lambda: is_so(talk, "Failed"), "the job to fail")
    assert (failed["reason"], failed["message"]) == ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert talk.get(f"{JOBS}/j")["status"]["failed"] == 3 and len(talk.get(PODS)["items"]) == 3


def test_a_job_whose_pod_a_quota_refuses_says_so_and_goes_on_when_there_is_room(cluster: Cluster, talk: Talk) -> None:
    quotas = "/api/v1/namespaces/default/resourcequotas"
    talk.create(quotas, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}})
    uid = talk.create(JOBS, job(shell("true")))["metadata"]["uid"]

    def refusals() -> list[Any]:
        events = talk.get("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.uid={uid},reason=FailedCreate")["items"]
        return [(each["type"], each["message"]) for each in events]

    kind, message = cluster.wait(refusals, "an event")[0]
    assert kind == "Warning" and message.startswith('Error creating: pods "') and "exceeded quota: few" in message
    assert talk.patch(f"{quotas}/few", {"spec": {"hard": {"pods": "1"}}}).code == 200
    cluster.wait(lambda: is_so(talk, "Complete"), "the job to go on")


def test_disruptions_are_ignored_where_the_policy_says_so(cluster: Cluster, talk: Talk) -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    talk.create(JOBS, job(handler(code=1), backoffLimit=0, podFailurePolicy={"rules": rules}))

    def running() -> Object | None:
        return next((each for each in talk.get(PODS)["items"] if each["status"]["phase"] == "Running"), None)

    first = cluster.wait(running, "the first pod")
    cluster.wait(lambda: "ready" in talk.ask("GET", f"{PODS}/{first['metadata']['name']}/log").body, "the handler")
    cluster.evict(first["metadata"]["name"])
    second = cluster.wait(lambda: (found := running()) and found["metadata"]["uid"] != first["metadata"]["uid"], "another pod")

    assert second and talk.get(f"{JOBS}/j")["status"].get("failed", 0) == 0 and is_so(talk, "Failed") is None


def test_an_exit_code_can_fail_a_job_at_once(cluster: Cluster, talk: Talk) -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    talk.create(JOBS, job(shell("exit 42"), podFailurePolicy={"rules": rules}))
    failed = cluster.wait(lambda: is_so(talk, "Failed"), "the job to fail")
    assert failed["reason"] == "PodFailurePolicy" and "failed with exit code 42 matching FailJob rule at index 0" in failed["message"]


def test_a_jobs_deadline_and_suspension(cluster: Cluster, talk: Talk) -> None:
    talk.create(JOBS, job(handler(), activeDeadlineSeconds=2, suspend=True))
    cluster.wait(lambda: is_so(talk, "Suspended"), "the suspension")
    assert talk.get(PODS)["items"] == [] and "startTime" not in talk.get(f"{JOBS}/j")["status"], "no deadline runs"
    talk.patch(f"{JOBS}/j", {"spec": {"suspend": False}})
    cluster.wait(lambda: talk.get(PODS)["items"], "a pod")
    assert cluster.wait(lambda: is_so(talk, "Failed"), "the deadline")["reason"] == "DeadlineExceeded"


def test_everything_a_job_started_goes_with_it(cluster: Cluster, talk: Talk) -> None:
    created = talk.create(JOBS, job(handler()))
    cluster.wait(lambda: talk.get(PODS)["items"], "the pod")
    worker: dict[str, Any] = {"metadata": {"name": "w"}, "spec": {"containers": [handler()], "terminationGracePeriodSeconds": 1}}
    worker["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": created["metadata"]["uid"]}]
    talk.create(PODS, worker)
    assert len(talk.get(PODS)["items"]) == 2
    talk.delete(f"{JOBS}/j", propagationPolicy="Background")
    cluster.wait(lambda: not talk.get(PODS)["items"], "all pods to go")
    assert talk.ask("GET", f"{JOBS}/j").code == 404


def test_a_finished_job_goes_after_its_time_to_live(cluster: Cluster, talk: Talk) -> None:
    talk.create(JOBS, job(shell("exit 0"), ttlSecondsAfterFinished=2))
    ended = seconds_of(cluster.wait(lambda: is_so(talk, "Complete"), "the job to complete")["lastTransitionTime"])
    cluster.wait(lambda: talk.ask("GET", f"{JOBS}/j").code == 404, "the job to go")
    assert time.time() >= ended + 2 and talk.get(PODS)["items"] == []


def test_a_set_of_one_comes_back_under_its_name_with_its_volume(cluster: Cluster, talk: Talk) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    script = "echo x >> /data/starts; wc -l < /data/starts; exec sleep 1000"
    container = shell(script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    talk.create(SETS, stateful(container, volumeClaimTemplates=[claim]))
    cluster.wait(lambda: talk.get(f"{SETS}/s")["status"].get("readyReplicas") == 1, "the set to be ready")
    first = cluster.pod("s-0")
    assert first is not None

    talk.delete(f"{PODS}/s-0")

    def second() -> Object | None:
        found = cluster.pod("s-0")
        return found if found and found["metadata"]["uid"] != first["metadata"]["uid"] else None

    again = cluster.wait(second, "the pod to come back")
    assert again["spec"]["hostname"] == "s-0" and again["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "s-0"
    cluster.wait(lambda: talk.ask("GET", f"{PODS}/s-0/log").body == "2\n", "the volume to have been kept")
    assert talk.get("/api/v1/namespaces/default/persistentvolumeclaims/data-s-0")["status"]["phase"] == "Bound"


def test_a_set_waits_for_the_old_pod_to_be_gone(cluster: Cluster, talk: Talk) -> None:
    cluster.add_node(Node("n2"))
    talk.create(SETS, stateful(handler()))
    cluster.wait(lambda: talk.get(f"{SETS}/s")["status"].get("readyReplicas") == 1, "the set to be ready")
    first = cluster.pod("s-0")
    assert first is not None

    cluster.lose_node(first["spec"]["nodeName"])

    cluster.wait(lambda: dig(cluster.pod("s-0"), "metadata", "deletionTimestamp"), "the pod to be deleted")
    assert dig(cluster.pod("s-0"), "metadata", "uid") == first["metadata"]["uid"], "never two of one name"
    talk.delete(f"{PODS}/s-0", gracePeriodSeconds=0)
    cluster.wait(lambda: dig(cluster.pod("s-0"), "status", "phase") == "Running", "its successor")
    assert dig(cluster.pod("s-0"), "spec", "nodeName") != first["spec"]["nodeName"]


def test_a_set_rolls_and_scales(cluster: Cluster, talk: Talk) -> None:
    talk.create(SETS, stateful(handler()))
    cluster.wait(lambda: talk.get(f"{SETS}/s")["status"].get("readyReplicas") == 1, "the set to be ready")
    first = cluster.pod("s-0")
    talk.patch(f"{SETS}/s", {"spec": {"template": {"metadata": {"annotations": {"new": "yes"}}}}})
    cluster.wait(lambda: dig(cluster.pod("s-0"), "metadata", "annotations", "new") == "yes", "the new template")
    assert first is not None and dig(cluster.pod("s-0"), "metadata", "uid") != first["metadata"]["uid"]
    assert talk.patch(f"{SETS}/s/scale", {"spec": {"replicas": 0}}).body["spec"] == {"replicas": 0}
    cluster.wait(lambda: cluster.pod("s-0") is None, "the pod to go")
