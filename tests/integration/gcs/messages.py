"""Requests and responses as values, apart from sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.integration.gcs.errors import ApiError, invalid


@dataclass(frozen=True)
class Request:
    """`path` is percent-encoded as it was sent, `query` is decoded; `headers` do not mind the case of names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Take apart the target of a request line, which may be a whole URL; raises ApiError when a parameter comes twice."""
        url = urlsplit(target)
        pairs = parse_qsl(url.query, keep_blank_values=True)
        query = dict(pairs)
        if len(query) != len(pairs):
            raise invalid(f"A parameter is given twice: {url.query}")
        return cls(method, url.path, query, headers, body)

    @property
    def target(self) -> str:
        """Path and query, decoded: what tests look for."""
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        return unquote(self.path) + (f"?{query}" if query else "")

    def json(self) -> dict[str, Any]:
        """Return the document of the body, which may be left out; raises ApiError for anything but a JSON object."""
        return document(self.body)


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, resource: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return cls(status, json.dumps(resource).encode(), {"Content-Type": "application/json; charset=UTF-8", **(headers or {})})

    @classmethod
    def of_error(cls, error: ApiError) -> Response:
        if error.status == 304:
            return cls(304)
        return cls.json(error.body(), error.status, error.headers)


def document(data: bytes) -> dict[str, Any]:
    """Return a JSON object of a body or part, {} for none; raises ApiError for anything else."""
    if not data.strip():
        return {}
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ApiError(400, "parseError", f"Parse Error: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "parseError", "Parse Error: not a JSON object")
    return found
