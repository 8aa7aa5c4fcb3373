"""The double of Cloud Storage over bare HTTP: what clients seldom send, and what has to be refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("google_crc32c")

from tests.integration.gcs.clients import OBJECTS, UPLOAD, Answer, ask
from tests.integration.gcs.errors import ApiError
from tests.integration.gcs.server import GcsServer, gcs_server


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with gcs_server("data") as server:
        yield server


@pytest.fixture
def name() -> str:
    return uuid4().hex


def insert(server: GcsServer, name: str, data: bytes, query: str = "") -> Answer:
    return ask(server.url, "POST", f"{UPLOAD}?uploadType=media&name={name}{query}", data)


def test_an_object_tells_all_of_itself(server: GcsServer, name: str):
    first, second = insert(server, name, b"123456789").json, insert(server, name, b"123456789").json
    assert int(second["generation"]) > int(first["generation"]) > 1 << 40
    assert second["crc32c"] == base64.b64encode((0xE3069283).to_bytes(4, "big")).decode()
    assert second["md5Hash"] == base64.b64encode(hashlib.md5(b"123456789").digest()).decode()
    assert (second["size"], second["metageneration"], second["name"], second["bucket"]) == ("9", "1", name, "data")
    assert second["timeCreated"] == second["updated"] and second["timeCreated"].endswith("Z")
    assert ask(server.url, "GET", f"{OBJECTS}/{name}").json == second


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-100", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=0-1,3-4", 501, None, None),
    ],
)
def test_ranges(server: GcsServer, name: str, asked: str, status: int, body: bytes | None, content_range: str | None):
    insert(server, name, b"0123456789")
    for route in (OBJECTS, "/download" + OBJECTS):
        answer = ask(server.url, "GET", f"{route}/{name}?alt=media", headers={"Range": asked})
        assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
        assert body is None or answer.body == body


def test_conditions_on_a_missing_object(server: GcsServer, name: str):
    assert insert(server, name, b"", "&ifGenerationMatch=7").status == 412
    assert insert(server, name, b"", "&ifGenerationNotMatch=0").status == 304
    assert ask(server.url, "DELETE", f"{OBJECTS}/{name}?ifGenerationMatch=7").status == 404
    assert ask(server.url, "GET", f"{OBJECTS}/{name}?ifGenerationMatch=0").status == 404
    assert insert(server, name, b"", "&ifGenerationMatch=0").status == 200


def test_conditions_on_a_live_object(server: GcsServer, name: str):
    live = insert(server, name, b"x").json
    path, now, other = f"{OBJECTS}/{name}", int(live["generation"]), int(live["generation"]) + 1
    answers = {
        f"GET {path}?ifGenerationMatch={now}": 200,
        f"GET {path}?ifGenerationMatch={other}": 412,
        f"GET {path}?ifGenerationNotMatch={now}": 304,
        f"GET {path}?ifMetagenerationMatch=2": 412,
        f"GET {path}?ifMetagenerationNotMatch=1": 304,
        f"GET {path}?generation={other}": 404,
        f"GET {path}?ifGenerationMatch={now}&ifGenerationNotMatch={other}": 400,
        f"GET {path}?ifGenerationMatch=one": 400,
        f"PATCH {path}?ifGenerationMatch={other}": 412,
        f"POST {path}/moveTo/o/{name}2?ifSourceGenerationMatch={other}": 412,
        f"POST {path}/moveTo/o/{name}2?ifGenerationMatch={now}": 412,
        f"POST {path}/rewriteTo/b/data/o/{name}2?ifSourceMetagenerationMatch=2": 412,
        f"POST {path}/copyTo/b/data/o/{name}?ifGenerationMatch=0": 412,
        f"DELETE {path}?ifGenerationMatch={other}": 412,
        f"DELETE {path}?ifMetagenerationMatch=2": 412,
    }
    assert {line: ask(server.url, *line.split()).status for line in answers} == answers
    assert ask(server.url, "GET", path).json == live
    assert ask(server.url, "GET", path, headers={"If-None-Match": live["etag"]}).status == 304
    assert ask(server.url, "GET", path, headers={"If-Match": "other"}).status == 412
    assert ask(server.url, "DELETE", f"{path}?ifGenerationMatch={now}").status == 204


def test_errors_have_the_shape_of_the_service(server: GcsServer, name: str):
    insert(server, name, b"x")
    missed = insert(server, name, b"x", "&ifGenerationMatch=0")
    assert missed.json["error"]["code"] == missed.status == 412
    detail = {"domain": "global", "reason": "conditionNotMet", "locationType": "parameter", "location": "ifGenerationMatch"}
    assert missed.json["error"]["errors"] == [detail | {"message": missed.json["error"]["message"]}]
    assert ask(server.url, "GET", f"{OBJECTS}/none").reason == "notFound"
    assert ask(server.url, "GET", "/storage/v1/b/none/o").reason == "notFound"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", OBJECTS + "?perfix=a", 400),
        ("GET", OBJECTS + "?prefix=a&prefix=b", 400),
        ("GET", OBJECTS + "?maxResults=0", 400),
        ("GET", OBJECTS + "?pageToken=made-up", 400),
        ("GET", OBJECTS + "?alt=media", 400),
        ("GET", OBJECTS + "?versions=true", 501),
        ("GET", OBJECTS + "/a/b", 501),
        ("PUT", OBJECTS + "/a", 501),
        ("GET", "/storage/v2/b", 501),
        ("POST", OBJECTS + "/a/compose", 501),
        ("POST", OBJECTS + "/a/moveTo/o/a", 400),
        ("DELETE", OBJECTS + "/a?ifSourceGenerationMatch=1", 400),
        ("POST", UPLOAD + "?name=a", 400),
        ("POST", UPLOAD + "?uploadType=media", 400),
        ("POST", UPLOAD + "?uploadType=media&name=" + 1025 * "a", 400),
        ("POST", UPLOAD + "?uploadType=media&name=a%0Ab", 400),
        ("PUT", UPLOAD + "?upload_id=made-up", 404),
        ("POST", "/storage/v1/b?project=test", 400),
        ("GET", "/storage/v1/b", 400),
    ],
)
def test_what_is_not_known_is_refused(server: GcsServer, method: str, target: str, status: int):
    assert ask(server.url, method, target).status == status


def test_fields_select(server: GcsServer, name: str):
    for each in ("1", "2"):
        insert(server, f"{name}%2F{each}", b"x")
    found = ask(server.url, "GET", f"{OBJECTS}?prefix={name}&maxResults=1&fields=items(name,size)")
    assert found.json == {"items": [{"name": f"{name}/1", "size": "1"}]}
    found = ask(server.url, "GET", f"{OBJECTS}?prefix={name}&maxResults=1&fields=items/name,nextPageToken")
    assert found.json.keys() == {"items", "nextPageToken"}
    assert ask(server.url, "GET", f"{OBJECTS}?fields=items(name").status == 400


def test_offsets_and_folders_are_listed(server: GcsServer):
    ask(server.url, "POST", "/storage/v1/b?project=test", {"name": "listed"})
    for each in ("a", "b/", "b/1", "b/2", "c/d", "e"):
        server.store.insert("listed", each, b"")

    def listed(query: str) -> list[tuple[list[str], list[str]]]:
        pages, token = [], ""
        while True:
            page = ask(server.url, "GET", f"/storage/v1/b/listed/o?{query}&pageToken={token}").json
            pages.append(([each["name"] for each in page.get("items", [])], page.get("prefixes", [])))
            token = page.get("nextPageToken")
            if token is None:
                return pages

    assert listed("startOffset=b/1&endOffset=e") == [(["b/1", "b/2", "c/d"], [])]
    assert listed("delimiter=/") == [(["a", "e"], ["b/", "c/"])]
    assert listed("delimiter=/&includeTrailingDelimiter=true") == [(["a", "b/", "e"], ["b/", "c/"])]
    assert listed("delimiter=/&maxResults=2") == [(["a"], ["b/"]), (["e"], ["c/"])]
    assert listed("prefix=b/&delimiter=/&maxResults=2") == [(["b/", "b/1"], []), (["b/2"], [])]
    assert listed("prefix=zz") == [([], [])]


def test_tests_may_use_the_store_itself(server: GcsServer, name: str):
    kept = server.store.insert("data", name, b"x", {"contentType": "text/plain"})
    assert ask(server.url, "GET", f"{OBJECTS}/{name}").json == kept.resource(server.url)
    with pytest.raises(ApiError, match="404 notFound"):
        server.store.delete("data", name, generation=kept.generation + 1)
    with pytest.raises(ApiError, match="409 conflict"):
        server.store.create_bucket("data")


def test_one_of_many_wins(server: GcsServer, name: str):
    def attempt(number: int) -> int:
        server.store.insert("data", f"{name}-{number}", str(number).encode())
        return ask(server.url, "POST", f"{OBJECTS}/{name}-{number}/moveTo/o/{name}?ifGenerationMatch=0").status

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(16)))
    assert sorted(answers) == [200] + 15 * [412]
    assert server.store.get("data", name).data == str(answers.index(200)).encode()


def test_a_token_may_be_asked_for():
    def read(server: GcsServer, headers: dict[str, str]) -> Any:
        return ask(server.url, "GET", OBJECTS, headers=headers)

    with gcs_server("data", token="secret") as server:
        assert read(server, {}).reason == read(server, {"Authorization": "Bearer other"}).reason == "authError"
        assert read(server, {"Authorization": "Bearer secret"}).status == 200
