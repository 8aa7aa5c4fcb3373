"""A copy of objects stays right when lists have pages, watches break or fall silent, and the server forgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antinfer.launchers.kubernetes import api as api_module
from antinfer.launchers.kubernetes import mirror as mirror_module
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.mirror import Mirror
from antinfer.master.loop import now_ms
from tests.k8s.double import kinds
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.timing import Timing
from tests.k8s.talk import CONFIGMAPS, Talk, config

NO_BOOKMARKS = Timing(bookmark=100_000)


class Listening(Api):
    """Remembers the last bookmark."""

    mark = 0

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        for event in super().watch(path, **query):
            yield event
            if event["type"] == "BOOKMARK":
                self.mark = int(event["object"]["metadata"]["resourceVersion"])


class Copy:
    """A mirror of the config maps with the label ``k=v``."""

    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self.cluster = cluster
        self.api = Listening.connect(str(kubeconfig))
        assert isinstance(self.api, Listening)
        self._changed = threading.Event()
        self.mirror: Mirror[str] = Mirror(
            self.api, CONFIGMAPS, lambda obj, _: obj["data"]["v"], clock=now_ms, on_change=self._changed.set, labelSelector="k=v"
        )

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.mirror.fault is None, self.mirror.fault
            assert time.monotonic() < until, f"not in {seconds} s: {what}"
            self._changed.wait(0.02)
            self._changed.clear()

    def shows(self, **wanted: str) -> None:
        self.wait(lambda: self.mirror.values() == wanted, f"to show {wanted}, not {self.mirror.values()}")

    def calls(self, verb: str) -> int:
        return self.cluster.calls.of(verb, "configmaps")


@contextmanager
def copied(cluster: Cluster, folder: Path) -> Iterator[Copy]:
    copy = Copy(cluster, cluster.kubeconfig(folder / "kubeconfig"))
    copy.mirror.start()
    try:
        copy.wait(lambda: copy.mirror.is_synced and copy.calls("watch"), "a first look")
        yield copy
    finally:
        copy.api.close()
        # It may sit in a watch, which ends with the connection.
        cluster.cut_watches()


def put(cluster: Cluster, name: str, value: str, labels: dict[str, str] | None = None) -> None:
    made = config(name, {"k": "v"} if labels is None else labels, v=value)
    cluster.registry.create(kinds.CONFIGMAPS, "default", made)


def test_all_pages_of_a_list_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_PAGE", 10)
    wanted = {f"c{n}": str(n) for n in range(21)}
    with Cluster() as cluster:
        for name, value in wanted.items():
            put(cluster, name, value)
        with copied(cluster, tmp_path) as copy:
            assert copy.mirror.values() == wanted
            assert copy.calls("list") == 3


def test_what_a_server_has_forgotten_is_looked_at_again(tmp_path: Path) -> None:
    with Cluster(timing=NO_BOOKMARKS) as cluster:
        for name in ("kept", "changed", "deleted"):
            put(cluster, name, "1")
        with copied(cluster, tmp_path) as copy:
            copy.shows(kept="1", changed="1", deleted="1")
            assert copy.calls("list") == 1
            away = cluster.inject("watch", "configmaps", status=503)
            # One that was asked for before the fault may begin behind a cut.
            copy.wait(lambda: cluster.cut_watches() or away.fired, "the watch to be refused")
            talk = Talk(cluster.url)
            assert talk.patch(f"{CONFIGMAPS}/changed", {"data": {"v": "2"}}).code == 200
            assert talk.delete(f"{CONFIGMAPS}/deleted").code == 200
            put(cluster, "new", "1")
            cluster.compact()
            cluster.withdraw(away)
            copy.shows(kept="1", changed="2", new="1")
            assert copy.mirror.was_deleted("deleted") and not copy.mirror.was_deleted("kept")
            assert copy.calls("list") == 2
            put(cluster, "newer", "1")
            copy.shows(kept="1", changed="2", new="1", newer="1")
            assert copy.calls("list") == 2


def test_bookmarks_keep_a_quiet_watch_from_being_forgotten(tmp_path: Path) -> None:
    with Cluster(timing=Timing(bookmark=5)) as cluster:
        put(cluster, "a", "1")
        with copied(cluster, tmp_path) as copy:
            for n in range(5):
                put(cluster, f"other{n}", "1", {"k": "w"})
            passed = cluster.store.revision
            copy.wait(lambda: copy.api.mark >= passed, "a bookmark after what others have changed")
            cluster.compact()
            cluster.cut_watches()
            put(cluster, "b", "1")
            copy.shows(a="1", b="1")
            assert copy.calls("list") == 1


def test_a_watch_that_has_fallen_silent_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose connection is gone without a word: only its silence tells."""
    assert 60 < api_module._SILENCE_S < 300, "longer than from bookmark to bookmark"
    monkeypatch.setattr(api_module, "_SILENCE_S", api_module._SILENCE_S / 200)
    with Cluster(timing=NO_BOOKMARKS) as cluster, copied(cluster, tmp_path) as copy:
        copy.wait(lambda: copy.calls("watch") >= 2, "another watch")
        put(cluster, "a", "1")
        copy.shows(a="1")
        assert copy.calls("list") == 1
