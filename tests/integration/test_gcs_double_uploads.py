"""Uploads to the double of Cloud Storage over bare HTTP: in several parts of a body, and in several requests."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

pytest.importorskip("google_crc32c")

from tests.integration.gcs.clients import OBJECTS, UPLOAD, Answer, ask
from tests.integration.gcs.server import GcsServer, gcs_server

CHUNK = 256 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with gcs_server("data") as server:
        yield server


@pytest.fixture
def session(server: GcsServer) -> str:
    """The target of a resumable upload that has begun, for an object that is not there yet."""
    begun = ask(server.url, "POST", f"{UPLOAD}?uploadType=resumable&ifGenerationMatch=0", {"name": uuid4().hex})
    return begun.headers["Location"].removeprefix(server.url)


def name_of(session: str) -> str:
    return parse_qs(urlsplit(session).query)["name"][0]


def put(server: GcsServer, session: str, content_range: str, data: bytes = b"", **headers: str) -> Answer:
    return ask(server.url, "PUT", session, data, {"Content-Range": content_range, **headers})


def multipart(document: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    body = f"--sep\r\nContent-Type: application/json\r\n\r\n{document}\r\n--sep\r\nContent-Type: text/plain\r\n\r\n".encode() + data
    return body + b"\r\n--sep--", {"Content-Type": 'multipart/related; boundary="sep"'}


@pytest.mark.parametrize("told", ['"md5Hash": "AAAA"', '"crc32c": "AAAAAA=="'])
def test_hashes_are_held_against_the_data(server: GcsServer, told: str):
    name = uuid4().hex
    body, headers = multipart(f'{{"name": "{name}", {told}}}', b"data")
    assert ask(server.url, "POST", f"{UPLOAD}?uploadType=multipart", body, headers).status == 400
    assert ask(server.url, "GET", f"{OBJECTS}/{name}").status == 404


def test_multipart_data_may_look_like_parts(server: GcsServer):
    name = uuid4().hex
    data = b"\r\n--se\r\n--sep-\r\n\r\n--\n\r"
    body, headers = multipart(f'{{"name": "{name}"}}', data)
    assert ask(server.url, "POST", f"{UPLOAD}?uploadType=multipart", body, headers).json["contentType"] == "text/plain"
    assert ask(server.url, "GET", f"{OBJECTS}/{name}?alt=media").body == data
    assert ask(server.url, "POST", f"{UPLOAD}?uploadType=multipart", body.removesuffix(b"--"), headers).status == 400


def test_a_resumable_upload_goes_on_where_it_was(server: GcsServer, session: str):
    name = name_of(session)
    data = bytes(CHUNK) + b"more"
    nothing = put(server, session, "bytes */*")
    assert (nothing.status, nothing.headers["Range"]) == (308, None)
    first = put(server, session, f"bytes 0-{CHUNK - 1}/*", data[:CHUNK])
    assert (first.status, first.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    assert put(server, session, f"bytes */{len(data)}").headers["Range"] == f"bytes=0-{CHUNK - 1}"
    assert ask(server.url, "GET", f"{OBJECTS}/{name}").status == 404

    whole = put(server, session, f"bytes 0-{len(data) - 1}/{len(data)}", data)

    assert (whole.status, whole.json["size"]) == (200, str(len(data)))
    assert put(server, session, "bytes */*").json == whole.json
    assert server.store.get("data", name).data == data


def test_a_resumable_upload_may_end_without_data(server: GcsServer, session: str):
    put(server, session, f"bytes 0-{CHUNK - 1}/*", bytes(CHUNK))
    assert put(server, session, f"bytes */{CHUNK}").json["size"] == str(CHUNK)


@pytest.mark.parametrize(
    ("content_range", "size"),
    [
        ("bytes 0-99/*", 100),
        (f"bytes {CHUNK}-{2 * CHUNK - 1}/*", CHUNK),
        ("bytes 0-99/100", 99),
        ("bytes 0-99/50", 100),
        ("bytes */*", 1),
        ("0-99/100", 100),
    ],
)
def test_chunks_that_do_not_fit_are_refused(server: GcsServer, session: str, content_range: str, size: int):
    assert put(server, session, content_range, bytes(size)).status == 400
    assert put(server, session, "bytes */*").headers["Range"] is None


def test_a_resumable_upload_may_come_too_late(server: GcsServer, session: str):
    name = name_of(session)
    server.store.insert("data", name, b"other")
    assert put(server, session, "bytes 0-3/4", b"mine").status == 412
    assert server.store.get("data", name).data == b"other"
    begun = ask(server.url, "POST", f"{UPLOAD}?uploadType=resumable&ifGenerationMatch=0&name={name}")
    assert begun.status == 412


def test_hashes_of_a_resumable_upload(server: GcsServer, session: str):
    assert put(server, session, "bytes 0-3/4", b"data", **{"X-Goog-Hash": "crc32c=AAAAAA=="}).status == 400


def test_a_resumable_upload_may_be_given_up(server: GcsServer, session: str):
    assert ask(server.url, "DELETE", session).status == 499
    assert put(server, session, "bytes */*").status == 404


def test_chunked_bodies_are_read(server: GcsServer):
    name = uuid4().hex
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request("POST", f"{UPLOAD}?uploadType=media&name={name}", iter([b"ab", b"cd"]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert server.store.get("data", name).data == b"abcd"
