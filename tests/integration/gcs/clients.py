"""Clients for a double of Cloud Storage: Google's own and Arrow's, which share no code, and bare HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

# Where the objects of the bucket "data" are, for requests of bare HTTP.
OBJECTS = "/storage/v1/b/data/o"
UPLOAD = "/upload" + OBJECTS


def client_of(url: str) -> Any:
    """Return a client of google-cloud-storage."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    return storage.Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


def filesystem_of(url: str) -> fs.GcsFileSystem:
    """Return Arrow's file system, which gives up after some seconds of trouble."""
    patience = timedelta(seconds=5)
    return fs.GcsFileSystem(endpoint_override=urlsplit(url).netloc, scheme="http", anonymous=True, retry_time_limit=patience)


def environment_of(url: str) -> dict[str, str]:
    """Return the variables by which both find the double, in processes that a test starts."""
    return {"STORAGE_EMULATOR_HOST": url, "CLOUD_STORAGE_EMULATOR_ENDPOINT": url}


@dataclass(frozen=True)
class Answer:
    """What came back for a request of bare HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """What the service calls the error."""
        reason: str = self.json["error"]["errors"][0]["reason"]
        return reason


def ask(url: str, method: str, target: str, body: bytes | dict[str, Any] = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request, whose body may be a document; raises http.client's errors when no answer comes."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, target, data, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()
