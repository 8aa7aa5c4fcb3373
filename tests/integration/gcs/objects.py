"""One object as it is kept, and its resource as it is told."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import google_crc32c

from tests.integration.gcs.errors import invalid, not_implemented

WRITABLE = frozenset(
    {"cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType", "customTime", "metadata", "storageClass"}
)
# Clients send whole resources back; the service passes over what it alone sets.
READ_ONLY = frozenset(
    {"bucket", "componentCount", "crc32c", "etag", "generation", "id", "kind", "md5Hash", "mediaLink", "metageneration", "name", "selfLink"}
    | {"size", "timeCreated", "timeFinalized", "timeStorageClassUpdated", "updated"}
)


@dataclass(frozen=True)
class StoredObject:
    bucket: str
    name: str
    data: bytes
    generation: int
    metageneration: int
    created: datetime
    updated: datetime
    attributes: Mapping[str, Any]
    md5: str
    crc32c: str

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    def resource(self, url: str) -> dict[str, Any]:
        """Return what the service tells of the object; `url` is that of the service."""
        path = f"storage/v1/b/{self.bucket}/o/{quote(self.name, safe='')}"
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{url}/{path}",
            "mediaLink": f"{url}/download/{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": timestamp(self.created),
            "updated": timestamp(self.updated),
            "timeStorageClassUpdated": timestamp(self.created),
            "timeFinalized": timestamp(self.created),
            **self.attributes,
        }


def timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def md5_of(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc32c_of(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def check_hashes(data: bytes, told: Mapping[str, str]) -> None:
    """Raise ApiError when the data are not those that the client's ``md5Hash`` or ``crc32c`` tell of."""
    for name, function in (("md5Hash", md5_of), ("crc32c", crc32c_of)):
        if told.get(name) and told[name] != function(data):
            raise invalid(f"Provided {name} {told[name]!r} doesn't match calculated {function(data)!r}.")


def check_name(name: str) -> None:
    """Raise ApiError for what may not be the name of an object."""
    if not 1 <= len(name.encode()) <= 1024 or "\n" in name or "\r" in name or name in (".", "..") or name.startswith(".well-known/acme-"):
        raise invalid(f"Invalid object name: {name!r}", "name")


def attributes_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client may set, of a resource that it sent; raises ApiError for fields that the double does not know."""
    if unknown := resource.keys() - WRITABLE - READ_ONLY:
        raise not_implemented(f"The fields {sorted(unknown)} of an object are not implemented")
    found = {name: value for name, value in resource.items() if name in WRITABLE}
    if found.get("contentEncoding") or found.get("storageClass") not in (None, "STANDARD"):
        raise not_implemented("Encodings and other storage classes are not implemented")
    metadata = found.get("metadata")
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(each, str | None) for each in metadata.values())):
        raise invalid("Custom metadata are strings", "metadata")
    return found


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes after a patch: null removes a field, or one entry of the custom metadata."""
    new = {**old, **patch}
    if isinstance(patch.get("metadata"), dict):
        entries = {**(old.get("metadata") or {}), **patch["metadata"]}
        new["metadata"] = {key: value for key, value in entries.items() if value is not None} or None
    return {name: value for name, value in new.items() if value is not None}
