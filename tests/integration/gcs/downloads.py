"""Data of an object, whole or a range of it."""

from __future__ import annotations

import re

from tests.integration.gcs.errors import ApiError, not_implemented
from tests.integration.gcs.messages import Response
from tests.integration.gcs.objects import StoredObject


def download(found: StoredObject, asked: str | None) -> Response:
    """Answer with the data, or the range that the header Range asks for; raises ApiError, 416, for one outside of them."""
    headers = {
        "Content-Type": found.attributes.get("contentType", "application/octet-stream"),
        "ETag": found.etag,
        "Accept-Ranges": "bytes",
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Hash": f"crc32c={found.crc32c},md5={found.md5}",
        "X-Goog-Stored-Content-Length": str(len(found.data)),
        "X-Goog-Stored-Content-Encoding": "identity",
        "X-Goog-Storage-Class": "STANDARD",
    }
    span = None if asked is None else span_of(asked, len(found.data))
    if span is None:
        return Response(200, found.data, headers)
    start, stop = span
    return Response(206, found.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(found.data)}"})


def span_of(asked: str, size: int) -> tuple[int, int] | None:
    """Return start and stop of what a Range header asks for; None for one that a server has to pass over, as it says nothing valid.

    Raises:
        ApiError: None of it is in the object (416), or there are several ranges (501).
    """
    if "," in asked:
        raise not_implemented("Several ranges in one request are not implemented", "Range")
    read = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
    if read is None or read.groups() == ("", "") or (all(read.groups()) and int(read[1]) > int(read[2])):
        return None
    if read[1]:
        start, stop = int(read[1]), min(int(read[2]) + 1, size) if read[2] else size
    else:
        start, stop = max(size - int(read[2]), 0), size
    if start >= stop:
        raise ApiError(
            416, "requestedRangeNotSatisfiable", f"Requested range not satisfiable: {asked}", "Range", {"Content-Range": f"bytes */{size}"}
        )
    return start, stop
