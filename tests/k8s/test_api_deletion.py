"""Deletion: grace, finalizers, preconditions, owners and what they own, collections, namespaces."""

from __future__ import annotations

from typing import Any

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.objects import seconds_of
from tests.k8s.talk import CONFIGMAPS, JOBS, PODS, Talk, config, names, pod


def owned(name: str, owner: dict[str, Any], **more: Any) -> dict[str, Any]:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"], **more}
    return {"metadata": {"name": name, "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}]}}


def job(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": {**pod()["spec"], "restartPolicy": "Never"}}}}


def is_gone(talk: Talk, path: str) -> bool:
    return talk.ask("GET", path).code == 404


def test_a_pod_without_a_node_goes_at_once_and_one_with_a_node_waits(talk: Talk) -> None:
    talk.create(PODS, pod("free"))
    talk.create(PODS, pod("bound", nodeName="somewhere", terminationGracePeriodSeconds=20))

    assert talk.delete(f"{PODS}/free").body["kind"] == "Pod"
    assert is_gone(talk, f"{PODS}/free")
    waiting = talk.delete(f"{PODS}/bound").body["metadata"]
    assert waiting["deletionGracePeriodSeconds"] == 20
    assert 15 < seconds_of(waiting["deletionTimestamp"]) - seconds_of(waiting["creationTimestamp"]) < 30
    assert talk.delete(f"{PODS}/bound", {"gracePeriodSeconds": 25}).body["metadata"]["deletionGracePeriodSeconds"] == 20
    assert talk.delete(f"{PODS}/bound", {"gracePeriodSeconds": 5}).body["metadata"]["deletionGracePeriodSeconds"] == 5
    talk.delete(f"{PODS}/bound", gracePeriodSeconds=0)
    assert is_gone(talk, f"{PODS}/bound")


def test_finalizers_hold_an_object(talk: Talk) -> None:
    held = config("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    talk.create(CONFIGMAPS, held)

    assert talk.delete(f"{CONFIGMAPS}/a").body["metadata"]["deletionTimestamp"]
    added = talk.patch(f"{CONFIGMAPS}/a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    assert (added.code, "no new finalizers can be added" in added.body["message"]) == (422, True)
    talk.patch(f"{CONFIGMAPS}/a", {"metadata": {"finalizers": []}})
    assert is_gone(talk, f"{CONFIGMAPS}/a")


def test_preconditions(talk: Talk) -> None:
    created = talk.create(CONFIGMAPS, config("a"))
    assert talk.delete(f"{CONFIGMAPS}/a", {"preconditions": {"uid": "other"}}).code == 409
    assert talk.delete(f"{CONFIGMAPS}/a", {"preconditions": {"uid": created["metadata"]["uid"]}}).body["status"] == "Success"


def test_dependents_go_after_their_owner(cluster: Cluster, talk: Talk) -> None:
    owner = talk.create(CONFIGMAPS, config("owner"))
    child = talk.create(CONFIGMAPS, owned("child", owner))
    talk.create(CONFIGMAPS, owned("grandchild", child))

    talk.delete(f"{CONFIGMAPS}/owner")

    cluster.wait(lambda: is_gone(talk, f"{CONFIGMAPS}/grandchild"), "the whole family to go")
    assert names(talk.get(CONFIGMAPS)) == ["kube-root-ca.crt"]


def test_a_dependent_of_an_owner_that_never_was_goes_alone(cluster: Cluster, talk: Talk) -> None:
    owner = talk.create(CONFIGMAPS, config("owner"))
    talk.create(CONFIGMAPS, owned("child", owner))
    owner["metadata"]["uid"] = "another"
    talk.create(CONFIGMAPS, owned("stray", owner))
    cluster.wait(lambda: is_gone(talk, f"{CONFIGMAPS}/stray"), "the child of another owner to go")
    assert names(talk.get(CONFIGMAPS)) == ["child", "kube-root-ca.crt", "owner"]


def test_foreground_waits_for_those_that_block(cluster: Cluster, talk: Talk) -> None:
    owner = talk.create(CONFIGMAPS, config("owner"))
    child = owned("child", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    talk.create(CONFIGMAPS, child)

    waiting = talk.delete(f"{CONFIGMAPS}/owner", {"propagationPolicy": "Foreground"}).body
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    cluster.wait(lambda: talk.get(f"{CONFIGMAPS}/child")["metadata"].get("deletionTimestamp"), "the child to be deleted")
    assert talk.get(f"{CONFIGMAPS}/owner")
    talk.patch(f"{CONFIGMAPS}/child", {"metadata": {"finalizers": None}})
    cluster.wait(lambda: is_gone(talk, f"{CONFIGMAPS}/owner"), "the owner to go after its child")


def test_orphans_stay_and_forget_their_owner(cluster: Cluster, talk: Talk) -> None:
    owner = talk.create(CONFIGMAPS, config("owner"))
    talk.create(CONFIGMAPS, owned("child", owner))

    talk.delete(f"{CONFIGMAPS}/owner", {"propagationPolicy": "Orphan"})

    cluster.wait(lambda: is_gone(talk, f"{CONFIGMAPS}/owner"), "the owner to go")
    assert "ownerReferences" not in talk.get(f"{CONFIGMAPS}/child")["metadata"]


def test_a_job_deleted_without_a_policy_leaves_its_pods_and_warns(cluster: Cluster, talk: Talk) -> None:
    created = talk.create(JOBS, job("a"))
    talk.create(PODS, {**pod(), **owned("child", created)})

    answer = talk.delete(f"{JOBS}/a")

    assert "child pods are preserved by default when jobs are deleted" in answer.headers["Warning"]
    cluster.wait(lambda: is_gone(talk, f"{JOBS}/a"), "the job to go")
    assert talk.get(f"{PODS}/child")


def test_a_job_deleted_in_the_background_takes_its_pods_along(cluster: Cluster, talk: Talk) -> None:
    created = talk.create(JOBS, job("a"))
    talk.create(PODS, {**pod(), **owned("child", created)})
    talk.delete(f"{JOBS}/a", propagationPolicy="Background")
    cluster.wait(lambda: is_gone(talk, f"{PODS}/child"), "the pod to go")
    assert is_gone(talk, f"{JOBS}/a")


def test_a_collection_goes_by_selector(talk: Talk) -> None:
    for name in ("a", "b", "c"):
        talk.create(CONFIGMAPS, config(name, {"go": str(name != "b")}))

    answer = talk.delete(CONFIGMAPS, labelSelector="go=True")

    assert (names(answer.body), names(talk.get(CONFIGMAPS))) == (["a", "c"], ["b", "kube-root-ca.crt"])


def test_a_namespace_takes_everything_along(cluster: Cluster, talk: Talk) -> None:
    talk.create("/api/v1/namespaces", {"metadata": {"name": "short"}})
    cluster.wait(lambda: not is_gone(talk, "/api/v1/namespaces/short/serviceaccounts/default"), "the service account")
    held = config("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    talk.create("/api/v1/namespaces/short/configmaps", held)

    talk.delete("/api/v1/namespaces/short")
    refused = talk.ask("POST", "/api/v1/namespaces/short/pods", pod("p"))
    assert (refused.code, "because it is being terminated" in refused.body["message"]) == (403, True)
    assert talk.get("/api/v1/namespaces/short")["status"]["phase"] == "Terminating"
    cluster.wait(lambda: talk.get("/api/v1/namespaces/short/configmaps/a")["metadata"].get("deletionTimestamp"), "the deletion")
    talk.patch("/api/v1/namespaces/short/configmaps/a", {"metadata": {"finalizers": None}})
    cluster.wait(lambda: is_gone(talk, "/api/v1/namespaces/short"), "the namespace to go")
