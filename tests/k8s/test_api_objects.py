"""Objects over HTTP: what is created, read, changed and refused."""

from __future__ import annotations

import base64

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import CONFIGMAPS, JOBS, PODS, Talk, config, names, pod


def test_a_new_object_has_uid_version_time_and_a_name(talk: Talk) -> None:
    first, second = talk.create(PODS, pod()), talk.create(PODS, pod())

    assert first["metadata"]["name"].startswith("pod-") and len(first["metadata"]["name"]) == len("pod-") + 5
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert int(first["metadata"]["resourceVersion"]) < int(second["metadata"]["resourceVersion"])
    assert first["metadata"]["creationTimestamp"].endswith("Z")
    assert first["status"]["phase"] == "Pending" and first["spec"]["restartPolicy"] == "Always"


def test_versions_are_counted_over_all_resources(talk: Talk) -> None:
    versions = [
        int(talk.create(where, body)["metadata"]["resourceVersion"]) for where, body in ((CONFIGMAPS, config("a")), (PODS, pod("b")))
    ]
    assert versions[0] < versions[1] <= int(talk.get(CONFIGMAPS)["metadata"]["resourceVersion"])


def test_the_second_of_a_name_and_a_lost_one(talk: Talk) -> None:
    talk.create(CONFIGMAPS, config("a"))

    again, lost = talk.ask("POST", CONFIGMAPS, config("a")), talk.ask("GET", f"{CONFIGMAPS}/none")

    assert (again.code, again.body["reason"], again.body["message"]) == (409, "AlreadyExists", 'configmaps "a" already exists')
    assert (lost.code, lost.body["reason"], lost.body["message"]) == (404, "NotFound", 'configmaps "none" not found')


def test_put_with_a_stale_version_is_a_conflict(talk: Talk) -> None:
    old = talk.create(CONFIGMAPS, config("a", v="1"))
    talk.patch(f"{CONFIGMAPS}/a", {"data": {"v": "2"}})

    stale = talk.ask("PUT", f"{CONFIGMAPS}/a", {**old, "data": {"v": "3"}})

    assert (stale.code, stale.body["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in stale.body["message"]
    del old["metadata"]["resourceVersion"]
    assert talk.ask("PUT", f"{CONFIGMAPS}/a", {**old, "data": {"v": "3"}}).body["data"] == {"v": "3"}


def test_a_write_that_changes_nothing_makes_no_version(talk: Talk) -> None:
    old = talk.create(CONFIGMAPS, config("a", v="1"))
    assert talk.patch(f"{CONFIGMAPS}/a", {"data": {"v": "1"}}).body["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]


def test_status_and_the_rest_are_written_apart(talk: Talk) -> None:
    created = talk.create(PODS, {**pod("p"), "status": {"phase": "Running"}})
    assert created["status"]["phase"] == "Pending"

    main = talk.patch(f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Failed"}}).body
    status = talk.patch(f"{PODS}/p/status", {"spec": {"nodeName": "x"}, "status": {"phase": "Running"}}).body

    assert (main["metadata"]["labels"], main["status"]["phase"]) == ({"a": "b"}, "Pending")
    assert (status["status"]["phase"], "nodeName" in status["spec"]) == ("Running", False)


def test_generation_counts_changes_of_the_spec_alone(talk: Talk) -> None:
    job = {"metadata": {"name": "j"}, "spec": {"suspend": True, "template": {"spec": {**pod()["spec"], "restartPolicy": "Never"}}}}
    assert talk.create(JOBS, job)["metadata"]["generation"] == 1

    assert talk.patch(f"{JOBS}/j", {"metadata": {"labels": {"a": "b"}}}).body["metadata"]["generation"] == 1
    assert talk.patch(f"{JOBS}/j", {"spec": {"parallelism": 0}}).body["metadata"]["generation"] == 2


def test_selectors_and_pages(talk: Talk) -> None:
    for number in range(7):
        talk.create(CONFIGMAPS, config(f"c{number}", {"odd": str(number % 2)}))
    assert names(talk.get(CONFIGMAPS, labelSelector="odd=1")) == ["c1", "c3", "c5"]
    assert names(talk.get(CONFIGMAPS, fieldSelector="metadata.name=c2")) == ["c2"]

    first = talk.get(CONFIGMAPS, labelSelector="odd", limit=3)
    talk.delete(f"{CONFIGMAPS}/c4")
    second = talk.get(CONFIGMAPS, limit=3, **{"continue": first["metadata"]["continue"]})

    assert (names(first), first["metadata"]["remainingItemCount"]) == (["c0", "c1", "c2"], 4)
    assert names(second) == ["c3", "c4", "c5"], "a later page shows the version of the first"
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_page_of_a_forgotten_list_has_expired(cluster: Cluster, talk: Talk) -> None:
    for number in range(3):
        talk.create(CONFIGMAPS, config(f"c{number}"))
    token = talk.get(CONFIGMAPS, limit=1)["metadata"]["continue"]
    talk.create(CONFIGMAPS, config("later"))
    cluster.compact()

    late = talk.ask("GET", CONFIGMAPS, limit=1, **{"continue": token})

    assert (late.code, late.body["reason"]) == (410, "Expired")


def test_a_dry_run_answers_and_stores_nothing(talk: Talk) -> None:
    assert talk.create(CONFIGMAPS, config("a"), dryRun="All")["metadata"]["uid"]
    assert talk.ask("GET", f"{CONFIGMAPS}/a").code == 404
    talk.create(CONFIGMAPS, config("a"))
    assert talk.delete(f"{CONFIGMAPS}/a", dryRun="All").code == 200
    assert talk.get(f"{CONFIGMAPS}/a")


def test_bad_objects_are_refused_field_by_field(talk: Talk) -> None:
    lacking = talk.ask("POST", PODS, {"metadata": {"name": "Bad_Name"}, "spec": {"containers": [{"name": "a"}]}})
    assert lacking.code == 422
    assert {each["field"] for each in lacking.body["details"]["causes"]} == {"metadata.name", "spec.containers[0].image"}

    unknown = talk.ask("POST", PODS, pod("p", contaners=[]), fieldValidation="Strict")
    assert (unknown.code, 'unknown field "spec.contaners"' in unknown.body["message"]) == (400, True)
    warned = talk.ask("POST", PODS, pod("p", contaners=[]))
    assert warned.code == 201 and "unknown field" in warned.headers["Warning"] and "contaners" not in warned.body["spec"]

    number = {"name": "main", "image": "i", "env": [{"name": "A", "value": 1}]}
    wrong = talk.ask("POST", PODS, pod("q", containers=[number]))
    assert (wrong.code, "cannot unmarshal number" in wrong.body["message"]) == (400, True)


def test_what_a_pod_refers_to_must_exist(talk: Talk) -> None:
    nobody = talk.ask("POST", PODS, pod("p", serviceAccountName="nobody"))
    assert nobody.body["message"] == (
        'pods "p" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found'
    )
    urgent = talk.ask("POST", PODS, pod("p", priorityClassName="urgent"))
    assert urgent.body["message"] == 'pods "p" is forbidden: no PriorityClass with name urgent was found'
    nowhere = talk.ask("POST", "/api/v1/namespaces/nowhere/pods", pod("p"))
    assert (nowhere.code, nowhere.body["message"]) == (404, 'namespaces "nowhere" not found')


def test_a_running_pods_spec_stays(talk: Talk) -> None:
    talk.create(PODS, pod("p"))
    refused = talk.patch(f"{PODS}/p", {"spec": {"containers": [{"name": "main", "command": ["x"]}]}}, "strategic-merge-patch+json")
    assert (refused.code, "pod updates may not change fields other than" in refused.body["message"]) == (422, True)
    image = talk.patch(f"{PODS}/p", {"spec": {"containers": [{"name": "main", "image": "new"}]}}, "strategic-merge-patch+json")
    assert image.body["spec"]["containers"][0]["image"] == "new"


def test_a_config_map_ends_at_a_mebibyte_and_a_secret_is_base64(talk: Talk) -> None:
    assert talk.ask("POST", CONFIGMAPS, config("big", a="x" * 2**20)).code == 201
    large = talk.ask("POST", CONFIGMAPS, config("bigger", a="x" * (2**20 + 1)))
    assert (large.code, "may not be more than 1048576 bytes" in large.body["message"]) == (422, True)

    secrets = "/api/v1/namespaces/default/secrets"
    made = talk.create(secrets, {"metadata": {"name": "s"}, "stringData": {"token": "abc"}})
    assert made["data"] == {"token": base64.b64encode(b"abc").decode()} and made["type"] == "Opaque"
    assert talk.ask("POST", secrets, {"metadata": {"name": "t"}, "data": {"a": "?"}}).code == 400


def test_a_quota_refuses_what_exceeds_it(talk: Talk) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "2", "pods": "5"}}}
    talk.create("/api/v1/namespaces/default/resourcequotas", quota)
    wants = {"name": "main", "image": "i", "resources": {"requests": {"cpu": "1500m"}}}
    talk.create(PODS, pod("a", containers=[wants]))

    over = talk.ask("POST", PODS, pod("b", containers=[wants]))
    silent = talk.ask("POST", PODS, pod("c"))

    assert over.code == 403
    assert over.body["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=1500m, used: requests.cpu=1500m, limited: requests.cpu=2'
    )
    assert silent.body["message"] == 'pods "c" is forbidden: failed quota: q: must specify requests.cpu for: main'


def test_paths_and_verbs_that_do_not_exist(talk: Talk) -> None:
    assert talk.ask("GET", "/apis/example.com/v1/things").code == 404
    assert talk.ask("GET", "/api/v1/namespaces/default/widgets").code == 404
    assert talk.ask("PATCH", PODS, {}).code == 405
    assert talk.ask("POST", CONFIGMAPS, config("x"), kind="text/plain").code == 415
