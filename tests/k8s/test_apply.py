"""Server-side apply: owners of fields, conflicts, force, and fields that are given up."""

from __future__ import annotations

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import CONFIGMAPS, PODS, Talk


def settings(**data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


def test_a_field_that_is_no_longer_applied_goes_unless_another_owns_it(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    place = f"{CONFIGMAPS}/x"

    assert talk.apply(place, settings(a="1", b="2", c="3"), "one").code == 201
    assert talk.apply(place, settings(b="2"), "two").code == 200
    assert talk.apply(place, settings(a="1"), "one").body["data"] == {"a": "1", "b": "2"}


def test_another_value_for_a_field_of_another_is_a_conflict_and_force_takes_it(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    place = f"{CONFIGMAPS}/x"
    talk.apply(place, settings(a="1"), "one")

    refused = talk.apply(place, settings(a="2"), "two")

    assert refused.code == 409
    assert refused.body["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert refused.body["details"]["causes"] == [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}]
    assert talk.apply(place, settings(a="2"), "two", force="true").body["data"] == {"a": "2"}
    assert talk.apply(place, settings(), "one").body["data"] == {"a": "2"}, "what was taken is no longer one's own"


def test_an_ordinary_update_owns_what_it_changes(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    place = f"{CONFIGMAPS}/x"
    talk.apply(place, settings(a="1", b="1"), "one")
    talk.patch(place, {"data": {"a": "9"}}, fieldManager="editor")

    refused = talk.apply(place, settings(a="1", b="1"), "one")

    assert refused.body["message"] == 'Apply failed with 1 conflict: conflict with "editor" using v1: .data.a'
    managers = {(each["manager"], each["operation"]) for each in talk.get(place)["metadata"]["managedFields"]}
    assert managers == {("one", "Apply"), ("editor", "Update")}


def test_items_of_keyed_lists_have_owners_of_their_own(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    place = f"{PODS}/p"
    base = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    main, side = {"name": "main", "image": "a"}, {"name": "side", "image": "b"}
    created = talk.apply(place, {**base, "spec": {"containers": [main, side]}}, "one")
    assert created.code == 201

    other = talk.apply(place, {**base, "spec": {"containers": [{"name": "side", "image": "c"}]}}, "two")

    assert other.code == 409
    assert 'containers[name="side"].image' in other.body["message"]


def test_applying_the_same_twice_changes_nothing(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    place = f"{CONFIGMAPS}/x"

    first = talk.apply(place, settings(a="1"), "one").body
    assert talk.apply(place, settings(a="1"), "one").body == first


def test_a_manager_is_required(cluster: Cluster) -> None:
    refused = Talk(cluster.url).patch(f"{CONFIGMAPS}/x", settings(a="1"), "apply-patch+yaml")
    assert (refused.code, "is required for apply patch" in refused.body["message"]) == (422, True)
