"""Trouble that tests ask of the double of Cloud Storage."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("google.cloud.storage")

from google.api_core.exceptions import Forbidden, ServiceUnavailable

from tests.integration.gcs.clients import OBJECTS, UPLOAD, ask, client_of, filesystem_of
from tests.integration.gcs.server import GcsServer, gcs_server


@pytest.fixture(scope="module")
def running() -> Iterator[GcsServer]:
    with gcs_server("data") as server:
        yield server


@pytest.fixture
def server(running: GcsServer) -> Iterator[GcsServer]:
    """The server without a rule, and with one object."""
    running.store.insert("data", "a", b"x")
    running.log.clear()
    yield running
    running.trouble.clear()
    for name in running.store.names("data"):
        running.store.delete("data", name)


@pytest.mark.parametrize(("status", "reason"), [(503, "backendError"), (429, "rateLimitExceeded"), (500, "internalError")])
def test_requests_fail_before_they_act(server: GcsServer, status: int, reason: str):
    rule = server.trouble.fail(status, method="DELETE", path="/o/a", times=2)
    assert ask(server.url, "GET", f"{OBJECTS}/a").status == 200
    assert ask(server.url, "DELETE", f"{OBJECTS}/a").reason == reason
    assert ask(server.url, "DELETE", f"{OBJECTS}/a").status == status
    assert server.store.get("data", "a").data == b"x"

    assert ask(server.url, "DELETE", f"{OBJECTS}/a").status == 204
    assert rule.hits() == 2
    assert [each.status for each in server.log.matching("DELETE")] == [status, status, 204]


def test_a_reply_is_lost(server: GcsServer):
    server.trouble.lose_reply(503, path="/moveTo/")
    assert ask(server.url, "POST", f"{OBJECTS}/a/moveTo/o/b").status == 503
    assert server.store.names("data") == ["b"]

    server.trouble.lose_reply(method="DELETE")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server.url, "DELETE", f"{OBJECTS}/b")
    assert server.store.names("data") == []
    assert [each.status for each in server.log.matching()] == [503, None]


def test_a_connection_breaks_before_anything_is_done(server: GcsServer):
    server.trouble.fail(None, method="DELETE")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server.url, "DELETE", f"{OBJECTS}/a")
    assert server.store.names("data") == ["a"]


def test_requests_wait(server: GcsServer):
    rule = server.trouble.hold(method="GET", path="alt=media")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, server.url, "GET", f"{OBJECTS}/a?alt=media")
        rule.await_arrival()
        server.store.insert("data", "a", b"newer")
        assert not waiting.done()
        rule.release()
        assert waiting.result().body == b"newer"


def test_writes_are_forbidden(server: GcsServer):
    bucket = client_of(server.url).bucket("data")
    rule = server.trouble.refuse_writes()
    with pytest.raises(Forbidden):
        bucket.blob("b").upload_from_string(b"x")
    with pytest.raises(Forbidden), bucket.client.batch():
        bucket.delete_blob("a")
    assert bucket.blob("a").download_as_bytes() == b"x"

    rule.release()
    bucket.delete_blob("a")


def test_names_of_uploads_are_seen_wherever_they_are(server: GcsServer):
    rule = server.trouble.fail(503, path="name=here/it is", times=2)
    blob = client_of(server.url).bucket("data").blob("here/it is")
    with pytest.raises(ServiceUnavailable):
        blob.upload_from_string(b"x", retry=None)
    begin = f"{UPLOAD}?uploadType=resumable"
    assert ask(server.url, "POST", begin, {"name": blob.name}).status == 503
    assert ask(server.url, "POST", begin, {"name": blob.name}).status == 200
    assert rule.hits() == 2


def test_clients_try_again(server: GcsServer):
    lost = server.trouble.lose_reply(503, method="PUT", path="name=arrow")
    refused = server.trouble.fail(503, method="GET", path="/o/arrow?")
    with filesystem_of(server.url).open_output_stream("data/arrow") as stream:
        stream.write(b"whole")
    assert filesystem_of(server.url).open_input_file("data/arrow").read() == b"whole"
    assert (lost.hits(), refused.hits()) == (1, 1)
