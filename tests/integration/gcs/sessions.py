"""Resumable uploads: sessions that gather an object chunk by chunk, over requests that may be lost."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.integration.gcs.conditions import Conditions
from tests.integration.gcs.errors import ApiError, invalid, not_found
from tests.integration.gcs.messages import Request
from tests.integration.gcs.objects import StoredObject, check_hashes
from tests.integration.gcs.state import Store
from tests.integration.gcs.uploads import Upload, header_hashes

CHUNK = 256 * 1024


@dataclass
class Session:
    bucket: str
    upload: Upload
    conditions: Conditions
    size: int | None
    data: bytearray = field(default_factory=bytearray)
    done: StoredObject | None = None


@dataclass(frozen=True)
class Chunk:
    """The place of a body in the object: no `start` for a request without data, no `size` while the client does not know it."""

    start: int | None
    stop: int
    size: int | None


class Sessions:
    """The sessions of one service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, bucket: str, upload: Upload, conditions: Conditions, headers: Mapping[str, str]) -> str:
        """Return the id of a new session; raises ApiError when the object could not be put now."""
        self._store.check(bucket, upload.name, conditions)
        told = headers.get("X-Upload-Content-Length")
        upload_id = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[upload_id] = Session(bucket, upload, conditions, None if told is None else int(told))
        return upload_id

    def cancel(self, bucket: str, upload_id: str) -> None:
        with self._lock:
            self._session(bucket, upload_id)
            del self._sessions[upload_id]

    def put(self, bucket: str, upload_id: str, request: Request) -> tuple[StoredObject | None, int]:
        """Take a chunk, or a question how far the upload is; return the object once it is whole, and how many bytes there are.

        Raises:
            ApiError: The session is unknown, the chunk does not fit, a hash differs, or a precondition does not hold at the end.
        """
        with self._lock:
            session = self._session(bucket, upload_id)
            if session.done is None:
                chunk = chunk_of(request.headers.get("Content-Range"), len(request.body))
                _check(session, chunk)
                if chunk.start is not None:
                    # What is kept already is passed over, as a client that lost an answer sends it again.
                    session.data += request.body[len(session.data) - chunk.start :]
                if chunk.size == len(session.data):
                    session.done = self._finish(session, header_hashes(request))
            return session.done, len(session.data)

    def _session(self, bucket: str, upload_id: str) -> Session:
        session = self._sessions.get(upload_id)
        if session is None or session.bucket != bucket:
            raise not_found(f"No such upload: {upload_id}")
        return session

    def _finish(self, session: Session, hashes: dict[str, str]) -> StoredObject:
        data, upload = bytes(session.data), session.upload
        check_hashes(data, {**upload.hashes, **hashes})
        return self._store.insert(session.bucket, upload.name, data, upload.attributes, conditions=session.conditions)


def chunk_of(content_range: str | None, length: int) -> Chunk:
    """Read the header Content-Range of a body of `length` bytes; without one the body is all of the object."""
    if content_range is None:
        return Chunk(0, length, length)
    read = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\*|\d+)", content_range.strip())
    if read is None:
        raise _bad_range(content_range)
    size = None if read[3] == "*" else int(read[3])
    if read[1] is None:
        chunk = Chunk(None, 0, size)
        fits = length == 0
    else:
        chunk = Chunk(int(read[1]), int(read[2]) + 1, size)
        fits = chunk.stop - int(read[1]) == length > 0 and (size is None or chunk.stop <= size)
    if not fits:
        raise _bad_range(f"{content_range} with {length} bytes")
    return chunk


def _check(session: Session, chunk: Chunk) -> None:
    kept = len(session.data)
    if chunk.size is not None:
        if session.size not in (None, chunk.size) or chunk.size < kept:
            raise _bad_range(f"{chunk.size} bytes in all, after {session.size} were told and {kept} came")
        session.size = chunk.size
    if chunk.start is None:
        return
    if chunk.start > kept:
        raise _bad_range(f"bytes from {chunk.start} on, when {kept} are kept")
    if chunk.stop != chunk.size and (chunk.stop - chunk.start) % CHUNK:
        raise invalid(f"Every chunk but the last is a multiple of {CHUNK} bytes, not {chunk.stop - chunk.start}", "Content-Range")


def _bad_range(what: str) -> ApiError:
    return invalid(f"Invalid Content-Range: {what}", "Content-Range")
