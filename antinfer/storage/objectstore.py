"""An output place on S3 or a compatible store.

A staged object is a multipart upload that is not completed: invisible, but durable. Completing it is one atomic call, and aborting it
makes sure that nobody, not even a master that was asleep, completes it later. A marker object in ``_antinfer/staging`` names every staged
upload, so that staging can be listed and collected by name. The finished object carries its staged name in its metadata, which makes
publication repeatable.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast
from uuid import uuid4

from antinfer import faultpoints
from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import InternalError, JobFileError, OutputError
from antinfer.storage import failures, layout, s3client
from antinfer.storage.place import StoredObject
from antinfer.storage.placebase import RemotePlace, claim_text

_log = logging.getLogger("antinfer.storage")
STAGED_KEY: Final = "antinfer-staged"
"""Metadata key of a published object: the staged name it was published from."""

_PART_BYTES: Final = 16 << 20
_MAX_PARTS: Final = 9_000
"""Below the 10,000 that the protocol allows."""
_UPLOAD_THREADS: Final = 4
_DELETE_BATCH: Final = 1_000
_CLAIM_TRIES: Final = 5


class ObjectPlace(RemotePlace):
    """`OutputPlace` on ``s3://bucket/prefix``; see the module for how it stages and publishes."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        """Make a client; touches nothing yet. Raises `JobFileError` for a bad URI or option, `UsageError` without boto3."""
        super().__init__()
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        if not bucket:
            raise JobFileError(f"output {uri}: no bucket in the URI", hint="Write s3://bucket/folder.")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._client, self._errors = s3client.connect(uri, options)

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}" if self._prefix else f"s3://{self._bucket}"

    def check_writable(self) -> None:
        name = f"{layout.HIDDEN}/check-{uuid4().hex}"
        self.write(name, b"")
        if self.read(name) is None:
            raise OutputError(f"output {self.uri}: an object just written cannot be read back")
        with self._wrapped("checking multipart uploads"):
            upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key(name))["UploadId"]
            self._abort(self._key(name), upload)
        self.remove((name,))

    # -- epochs ------------------------------------------------------------------------------------------------------------------------

    def claim_epoch(self, epoch: int, owner: str) -> bool:
        name = layout.epoch_name(epoch)
        claim = claim_text(epoch, owner)
        with self._wrapped(f"claiming epoch {epoch}"):
            faultpoints.hit("storage.claim", epoch=epoch)
            for _ in range(_CLAIM_TRIES):
                try:
                    self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=claim, IfNoneMatch="*")
                    return True
                except self._errors.ClientError as error:
                    if s3client.code(error) not in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                        raise
                found = self.read(name)
                if found is not None:
                    # The client repeats a put whose answer was lost, and is then refused because of its own object.
                    return found == claim
        raise OutputError(f"output {self.uri}: epoch {epoch} could not be claimed: the store reports a conflict each time")

    # -- staging -----------------------------------------------------------------------------------------------------------------------

    def stage(self, staged: StagedName, kind: ObjectKind, final: str, source: str) -> StagedObject:
        key = self._key(final)
        with self._wrapped(f"staging {staged}"):
            faultpoints.hit("storage.stage", staged=staged, kind=kind)
            upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, Metadata={STAGED_KEY: staged})["UploadId"]
            # Before the data: an upload whose worker dies half-way is found by its marker.
            self.write(layout.staged_path(staged, kind), json.dumps({"key": key, "upload": upload}).encode())
            try:
                etags = self._upload_parts(key, upload, source)
            except FileNotFoundError as error:
                self._let_go(key, upload)
                raise self._vanished(staged, source) from error
            except BaseException:
                self._let_go(key, upload)
                raise
            Path(source).unlink(missing_ok=True)
        return StagedObject(kind, json.dumps({"upload": upload, "etags": etags}, separators=(",", ":")))

    def publish(self, record: CommitRecord, suffix: str) -> None:
        super().publish(record, suffix)
        with self._wrapped(f"clearing up after {record.staged}"):
            self._delete([self._key(layout.staged_path(record.staged, staged.kind)) for staged in record.objects])

    def collect(self, staged: tuple[str, ...]) -> None:
        markers = [layout.staged_path(name, kind) for name in staged for kind in layout.KINDS]
        with self._wrapped("collecting staged objects"), ThreadPoolExecutor(s3client.CONNECTIONS) as pool:
            for marker in filter(None, pool.map(self._marker, markers)):
                self._abort(marker["key"], marker["upload"])
            self._delete([self._key(marker) for marker in markers])

    def sweep(self, before: int, keep: tuple[str, ...]) -> None:
        kept = frozenset(keep)
        names = [stored.name for stored in self.list_objects(layout.STAGING)]
        doomed = [name for name in names if layout.is_swept(name, before, kept)]
        with self._wrapped("sweeping staging"), ThreadPoolExecutor(s3client.CONNECTIONS) as pool:
            alive = {marker["upload"] for marker in filter(None, pool.map(self._marker, sorted(set(names) - set(doomed))))}
            for key, upload in self._uploads():
                if upload not in alive:
                    self._abort(key, upload)
            self._delete([self._key(name) for name in doomed])

    # -- final names -------------------------------------------------------------------------------------------------------------------

    def list_parts(self) -> list[StoredObject]:
        return [stored for stored in self._list(layout.PART_PREFIX) if layout.is_part(stored.name)]

    def list_objects(self, folder: str) -> list[StoredObject]:
        return self._list(f"{layout.folder(folder)}/")

    def remove(self, names: tuple[str, ...]) -> None:
        with self._wrapped("removing"):
            faultpoints.hit("storage.remove", objects=len(names))
            self._delete([self._key(name) for name in names])

    def clear(self) -> None:
        with self._wrapped("removing everything"):
            for key, upload in self._uploads():
                self._abort(key, upload)
            pages = self._client.get_paginator("list_objects_v2")
            above = len(self._key(""))
            # Page by page: what is deleted before the next one is asked for is not missed in it.
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key("")):
                keys = [item["Key"] for item in page.get("Contents", ())]
                self._delete([key for key in keys if layout.is_ours(key[above:])])

    # -- whole small objects -------------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        with self._wrapped(f"reading {name}"):
            faultpoints.hit("storage.read", object=name)
            try:
                return cast(bytes, self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read())
            except self._errors.ClientError as error:
                if s3client.code(error) in ("NoSuchKey", "404"):
                    return None
                raise

    def write(self, name: str, data: bytes) -> None:
        with self._wrapped(f"writing {name}"):
            faultpoints.hit("storage.write", object=name)
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    def open(self, name: str) -> BinaryIO:
        with self._wrapped(f"opening {name}"):
            return s3client.open_object(self._client, self._errors, self._bucket, self._key(name), name)

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _upload_parts(self, key: str, upload: str, source: str) -> list[str]:
        """Upload the file in parts, several at a time; returns their ETags in order."""
        size = os.path.getsize(source)
        length = max(_PART_BYTES, -(-size // _MAX_PARTS))

        def one(offset: int) -> str:
            with open(source, "rb") as file:
                file.seek(offset)
                body = file.read(length)
            answer = self._client.upload_part(Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=offset // length + 1, Body=body)
            return cast(str, answer["ETag"])

        offsets = range(0, max(size, 1), length)
        if len(offsets) == 1:
            return [one(0)]
        with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
            return list(pool.map(one, offsets))

    def _publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> None:
        token = json.loads(staged.token)
        uploaded = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(token["etags"], 1)]
        try:
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=self._key(final), UploadId=token["upload"], MultipartUpload={"Parts": uploaded}
            )
        except self._errors.ClientError as error:
            # Whatever the store answered: it is the object that tells whether an earlier call has done it.
            owner = self._owner(final)
            if owner == record.staged:
                return
            if self._is_open(self._key(final), token["upload"]):
                raise
            state = f"was published from {owner}" if owner is not None else "was not published"
            raise InternalError(
                f"output {self.uri}: {record.staged} is committed, but its {staged.kind} is not staged any more and {final} {state}"
            ) from error

    def _is_open(self, key: str, upload: str) -> bool:
        """Tell whether the upload is neither completed nor aborted."""
        try:
            self._client.list_parts(Bucket=self._bucket, Key=key, UploadId=upload, MaxParts=1)
        except self._errors.ClientError as error:
            if s3client.code(error) not in ("NoSuchUpload", "404"):
                raise
            return False
        return True

    def _owner(self, name: str) -> str | None:
        """Return the staged name that the published object came from, empty for a foreign object, None when there is none."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
        except self._errors.ClientError as error:
            if s3client.code(error) in ("404", "NoSuchKey"):
                return None
            raise
        return str(head["Metadata"].get(STAGED_KEY, ""))

    def _marker(self, name: str) -> dict[str, str] | None:
        data = self.read(name)
        return None if data is None else json.loads(data)

    def _let_go(self, key: str, upload: str) -> None:
        """Abort an upload that cannot be finished; where the store is away, its marker has it collected with all other staging."""
        try:
            self._abort(key, upload)
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            _log.debug("an unfinished upload is left for the master: %s", error, extra={"action": "abort_upload"})

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except self._errors.ClientError as error:
            if s3client.code(error) not in ("NoSuchUpload", "404"):
                raise

    def _uploads(self) -> Iterator[tuple[str, str]]:
        """Yield (key, upload id) of every multipart upload of this place that is neither completed nor aborted.

        Below the same prefix there may be other outputs, and anybody's files: an upload is ours only by its name.
        """
        above = len(self._key(""))
        pages = self._client.get_paginator("list_multipart_uploads")
        for start in (self._key(layout.PART_PREFIX), self._key(f"{layout.HIDDEN}/")):
            for page in pages.paginate(Bucket=self._bucket, Prefix=start):
                for upload in page.get("Uploads", ()):
                    key: str = upload["Key"]
                    # Not every store heeds the prefix.
                    if key.startswith(start) and layout.is_ours(key[above:]):
                        yield key, upload["UploadId"]

    def _delete(self, keys: list[str]) -> None:
        for at in range(0, len(keys), _DELETE_BATCH):
            batch = [{"Key": key} for key in keys[at : at + _DELETE_BATCH]]
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})
            for failed in answer.get("Errors", ()):
                if failed.get("Code") != "NoSuchKey":
                    raise OutputError(f"output {self.uri}: deleting {failed['Key']}: {failed.get('Message', failed.get('Code'))}")

    def _list(self, start: str) -> list[StoredObject]:
        """List the objects whose name begins with `start` and has no further ``/``, in name order."""
        found: list[StoredObject] = []
        with self._wrapped(f"listing {start}"):
            faultpoints.hit("storage.list", folder=start)
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(start), Delimiter="/"):
                for item in page.get("Contents", ()):
                    # Some stores show folders as objects of their own.
                    if not item["Key"].endswith("/"):
                        found.append(StoredObject(item["Key"][len(self._key("")) :], item["Size"]))
        return sorted(found, key=lambda stored: stored.name)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextmanager
    def _wrapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            raise s3client.output_error(error, self.uri, doing) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            # Of a local file on its way there.
            raise failures.output_error(error, self.uri, doing) from error
