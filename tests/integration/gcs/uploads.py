"""What an upload in one request carries: data, and perhaps a document of metadata beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.gcs.errors import required
from tests.integration.gcs.messages import Request, document
from tests.integration.gcs.multipart import related
from tests.integration.gcs.objects import attributes_of


@dataclass(frozen=True)
class Upload:
    """`hashes` are of the data, where the client told them: ``md5Hash`` and ``crc32c``."""

    name: str
    attributes: dict[str, Any]
    hashes: dict[str, str]
    data: bytes = b""

    @classmethod
    def of(cls, request: Request, metadata: Mapping[str, Any], content_type: str | None, data: bytes = b"") -> Upload:
        name = request.query.get("name") or metadata.get("name")
        if not name:
            raise required("name")
        attributes = attributes_of(metadata)
        if content_type:
            attributes.setdefault("contentType", content_type)
        hashes = {kind: metadata[kind] for kind in ("md5Hash", "crc32c") if kind in metadata}
        return cls(name, attributes, {**hashes, **header_hashes(request)}, data)


def simple(request: Request) -> Upload:
    return Upload.of(request, {}, request.headers.get("Content-Type"), request.body)


def multipart(request: Request) -> Upload:
    """Read a body of multipart/related: a JSON document, then the data; raises ApiError for any other."""
    first, second = related(request)
    return Upload.of(request, document(first.body), second.headers.get("Content-Type"), second.body)


def beginning(request: Request) -> Upload:
    """Read the request that begins a resumable upload."""
    return Upload.of(request, request.json(), request.headers.get("X-Upload-Content-Type"))


def hidden_name(request: Request) -> str:
    """Return the name of an object to upload where the body alone has it, else nothing: what tests look for besides the target."""
    if request.method != "POST" or not request.path.startswith("/upload/") or "name" in request.query:
        return ""
    match request.query.get("uploadType"):
        case "multipart":
            metadata = document(related(request)[0].body)
        case "resumable":
            metadata = request.json()
        case _:
            metadata = {}
    return f"&name={metadata.get('name', '')}"


def header_hashes(request: Request) -> dict[str, str]:
    """Return the hashes that the header X-Goog-Hash tells, by their names in a resource."""
    told = dict(each.strip().split("=", 1) for each in request.headers.get("X-Goog-Hash", "").split(",") if "=" in each)
    names = {"md5": "md5Hash", "crc32c": "crc32c"}
    return {names[kind]: value for kind, value in told.items() if kind in names}
