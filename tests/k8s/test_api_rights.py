"""Rights, disruption budgets, ordered faults, and the count of calls."""

from __future__ import annotations

import http.client
import time

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import CONFIGMAPS, PODS, Talk, config, pod

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
READY = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


def test_a_service_account_may_do_what_its_roles_allow(cluster: Cluster) -> None:
    admin = Talk(cluster.url)
    worker = Talk(cluster.url, cluster.service_account_token("default", "default"))

    refused = worker.ask("GET", PODS)
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["message"] == (
        'pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" '
        'in the namespace "default"'
    )
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    admin.create(f"{RBAC}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]
    admin.create(f"{RBAC}/rolebindings", {"metadata": {"name": "reader"}, "roleRef": reference, "subjects": subjects})

    assert worker.get(PODS)["items"] == []
    named = worker.ask("DELETE", f"{PODS}/p")
    assert 'pods "p" is forbidden: User "system:serviceaccount:default:default" cannot delete resource "pods"' in named.body["message"]
    assert worker.ask("GET", "/api/v1/nodes").body["message"].endswith("at the cluster scope")
    assert worker.ask("PATCH", f"{PODS}/p/status", {}, kind="application/merge-patch+json").code == 403, (
        "a subresource is a right of its own"
    )


def test_one_can_ask_what_one_may(cluster: Cluster) -> None:
    worker = Talk(cluster.url, cluster.service_account_token("default", "default"))
    place = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    question = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}}

    assert worker.create(place, question)["status"]["allowed"] is False
    assert Talk(cluster.url).create(place, question)["status"]["allowed"] is True


def test_unknown_and_revoked_tokens_are_no_ones(cluster: Cluster) -> None:
    token = cluster.service_account_token("default", "default")
    assert Talk(cluster.url, "made-up").ask("GET", PODS).code == 401
    cluster.authorizer.revoke(token)
    assert Talk(cluster.url, token).ask("GET", PODS).body["reason"] == "Unauthorized"


def test_without_a_token_one_is_nobody_where_that_is_asked_for() -> None:
    with Cluster(anonymous_is_admin=False) as cluster:
        assert 'User "system:anonymous" cannot list resource "pods"' in Talk(cluster.url).ask("GET", PODS).body["message"]


def test_an_eviction_marks_and_then_deletes(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    talk.create(PODS, pod("p", nodeName="somewhere"))
    version = talk.patch(f"{PODS}/p/status", READY).body["metadata"]["resourceVersion"]

    with talk.watch(PODS, resourceVersion=version) as events:
        assert talk.ask("POST", f"{PODS}/p/eviction", {"kind": "Eviction", "metadata": {"name": "p"}}).code == 201
        marked, deleted = next(events)[1], next(events)[1]
    targets = [each for each in marked["status"]["conditions"] if each["type"] == "DisruptionTarget"]
    assert [each["reason"] for each in targets] == ["EvictionByEvictionAPI"]
    assert ("deletionTimestamp" in marked["metadata"], "deletionTimestamp" in deleted["metadata"]) == (False, True)


def test_a_budget_forbids_evictions(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    labelled = pod("p", nodeName="somewhere")
    labelled["metadata"]["labels"] = {"app": "a"}
    talk.create(PODS, labelled)
    talk.patch(f"{PODS}/p/status", READY)
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    talk.create(budgets, {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}})

    refused = talk.ask("POST", f"{PODS}/p/eviction", {})

    assert (refused.code, refused.body["message"]) == (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    told = "The disruption budget b needs 1 healthy pods and has 1 currently"
    assert refused.body["details"]["causes"] == [{"reason": "DisruptionBudget", "message": told}]
    talk.patch(f"{budgets}/b", {"spec": {"minAvailable": 0}})
    assert talk.ask("POST", f"{PODS}/p/eviction", {}).code == 201


@pytest.mark.parametrize("status", [429, 500])
def test_ordered_refusals_come_as_often_as_ordered(cluster: Cluster, status: int) -> None:
    talk = Talk(cluster.url)
    fault = cluster.inject("create", "configmaps", status=status, retry_after_s=7, times=2)

    codes = [talk.ask("POST", CONFIGMAPS, config(f"c{n}")) for n in range(3)]

    assert [each.code for each in codes] == [status, status, 201]
    assert codes[0].headers["Retry-After"] == "7" and fault.fired == 2


def test_a_lost_answer_is_no_lost_write(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    cluster.inject("create", "configmaps", cuts=True, after=True, times=1)

    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        talk.create(CONFIGMAPS, config("a"))
    assert talk.get(f"{CONFIGMAPS}/a")


def test_latency_is_suffered(cluster: Cluster) -> None:
    fault = cluster.inject("get", latency_s=0.2)
    begun = time.monotonic()
    Talk(cluster.url).ask("GET", f"{CONFIGMAPS}/none")
    assert time.monotonic() - begun >= 0.2 and fault.fired == 1
    cluster.withdraw(fault)


def test_calls_are_counted_by_verb_and_resource(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    talk.create(PODS, pod("p"))
    talk.get(PODS)
    talk.patch(f"{PODS}/p/status", READY)
    before = cluster.calls.snapshot()
    talk.get(PODS)

    assert cluster.calls.of("patch", "pods/status") == 1 and cluster.calls.of("create") == 1
    assert cluster.calls.snapshot() - before == {("list", "pods"): 1}
