"""Watches: order, selectors, bookmarks, ends, and histories that are forgotten."""

from __future__ import annotations

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import CONFIGMAPS, Talk, config


def test_a_watch_goes_on_from_the_version_of_a_list(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    talk.create(CONFIGMAPS, config("old"))
    version = talk.get(CONFIGMAPS)["metadata"]["resourceVersion"]
    talk.create(CONFIGMAPS, config("new", v="1"))

    with talk.watch(CONFIGMAPS, resourceVersion=version) as events:
        assert [next(events)[1]["metadata"]["name"]] == ["new"]
        talk.patch(f"{CONFIGMAPS}/new", {"data": {"v": "2"}})
        kind, changed = next(events)
        assert (kind, changed["data"]) == ("MODIFIED", {"v": "2"})
        talk.delete(f"{CONFIGMAPS}/new")
        kind, gone = next(events)
        assert kind == "DELETED" and int(gone["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


def test_a_watch_without_a_version_begins_with_what_there_is(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    talk.create(CONFIGMAPS, config("a", {"k": "v"}))

    with talk.watch(CONFIGMAPS, labelSelector="k=v") as events:
        assert [(kind, each["metadata"]["name"]) for kind, each in [next(events)]] == [("ADDED", "a")]


def test_an_object_that_stops_matching_is_deleted_for_the_watcher(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    version = talk.create(CONFIGMAPS, config("a"))["metadata"]["resourceVersion"]

    with talk.watch(CONFIGMAPS, resourceVersion=version, labelSelector="k=v") as events:
        for labels in ({"k": "v"}, {"k": "w"}):
            talk.patch(f"{CONFIGMAPS}/a", {"metadata": {"labels": labels}})
        assert [next(events)[0], next(events)[0]] == ["ADDED", "DELETED"]


def test_bookmarks_come_and_can_be_resumed_from(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    version = talk.get(CONFIGMAPS)["metadata"]["resourceVersion"]
    talk.create("/api/v1/namespaces/default/secrets", {"metadata": {"name": "other"}})

    with talk.watch(CONFIGMAPS, resourceVersion=version, allowWatchBookmarks="true") as events:
        kind, mark = next(events)
    assert kind == "BOOKMARK" and int(mark["metadata"]["resourceVersion"]) > int(version)
    cluster.compact()
    talk.create(CONFIGMAPS, config("a"))
    with talk.watch(CONFIGMAPS, resourceVersion=talk.get(CONFIGMAPS)["metadata"]["resourceVersion"]) as events:
        talk.create(CONFIGMAPS, config("b"))
        assert next(events)[1]["metadata"]["name"] == "b"


def test_a_watch_ends_after_its_timeout(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    with talk.watch(CONFIGMAPS, resourceVersion=cluster.store.revision, timeoutSeconds=1) as events:
        assert list(events) == []


def test_a_forgotten_version_ends_the_watch_with_an_error_event(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    version = talk.get(CONFIGMAPS)["metadata"]["resourceVersion"]
    talk.create(CONFIGMAPS, config("a"))
    cluster.compact()

    with talk.watch(CONFIGMAPS, resourceVersion=version) as events:
        told = list(events)
    assert [(kind, each["code"], each["reason"]) for kind, each in told] == [("ERROR", 410, "Expired")]
    assert "too old resource version" in told[0][1]["message"]


def test_history_is_compacted_by_itself() -> None:
    with Cluster(history_limit=20) as cluster:
        talk = Talk(cluster.url)
        version = talk.create(CONFIGMAPS, config("a"))["metadata"]["resourceVersion"]
        for number in range(25):
            talk.patch(f"{CONFIGMAPS}/a", {"data": {"n": str(number)}})
        with talk.watch(CONFIGMAPS, resourceVersion=version) as events:
            assert next(events)[0] == "ERROR"


def test_open_watches_survive_a_compaction_and_end_when_they_are_cut(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    with talk.watch(CONFIGMAPS, resourceVersion=cluster.store.revision) as events:
        talk.create(CONFIGMAPS, config("a"))
        next(events)
        cluster.compact()
        talk.create(CONFIGMAPS, config("b"))
        assert next(events)[1]["metadata"]["name"] == "b"
        cluster.cut_watches()
        assert next(events, None) is None


def test_initial_events_end_with_a_marked_bookmark(cluster: Cluster) -> None:
    talk = Talk(cluster.url)
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    with talk.watch(CONFIGMAPS, **query) as events:
        kind, each = next(events)
        assert (kind, each["metadata"]["name"]) == ("ADDED", "kube-root-ca.crt")
        kind, each = next(events)
        assert (kind, each["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})
