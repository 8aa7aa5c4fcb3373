"""Plain HTTP towards the double, for tests that look at the answers themselves."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

PODS = "/api/v1/namespaces/default/pods"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
PATIENCE_S = 20


@dataclass(frozen=True)
class Reply:
    code: int
    body: Any
    headers: http.client.HTTPMessage


@dataclass(frozen=True)
class Talk:
    """Requests to one server, with a token or without."""

    url: str
    token: str = ""

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)

    def _headers(self, kind: str) -> dict[str, str]:
        headers = {"Content-Type": kind, "User-Agent": "talk/1"}
        return {**headers, "Authorization": f"Bearer {self.token}"} if self.token else headers

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: Any) -> Reply:
        text = json.dumps(body) if body is not None else None
        with closing(self._connect()) as connection:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, text, self._headers(kind))
            answer = connection.getresponse()
            content = answer.read()
            if answer.headers["Content-Type"] == "application/json":
                return Reply(answer.status, json.loads(content), answer.headers)
            return Reply(answer.status, content.decode(), answer.headers)

    def get(self, path: str, **query: Any) -> Any:
        reply = self.ask("GET", path, **query)
        assert reply.code == 200, reply
        return reply.body

    def create(self, path: str, body: Any, **query: Any) -> Any:
        reply = self.ask("POST", path, body, **query)
        assert reply.code == 201, reply
        return reply.body

    def patch(self, path: str, body: Any, kind: str = "merge-patch+json", **query: Any) -> Reply:
        return self.ask("PATCH", path, body, kind=f"application/{kind}", **query)

    def apply(self, path: str, body: Any, manager: str, **query: Any) -> Reply:
        return self.patch(path, body, "apply-patch+yaml", fieldManager=manager, **query)

    def delete(self, path: str, options: Any = None, **query: Any) -> Reply:
        return self.ask("DELETE", path, options, **query)

    @contextmanager
    def watch(self, path: str, **query: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of a watch, until the server ends it."""
        with closing(self._connect()) as connection:
            connection.request("GET", f"{path}?{urlencode({'watch': 'true', **query})}", headers=self._headers("application/json"))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield ((event["type"], event["object"]) for event in map(json.loads, answer))


def pod(name: str = "", **spec: Any) -> dict[str, Any]:
    """A pod with one container, `main`; `spec` is merged into its spec."""
    metadata = {"name": name} if name else {"generateName": "pod-"}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "image:1"}], **spec}}


def config(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


def names(listed: Any) -> list[str]:
    return [each["metadata"]["name"] for each in listed["items"]]
