"""The files of a folder in Google Cloud Storage.

An object appears whole when its upload ends, an upload on condition that there is no such object yet claims a name, and ``objects.move``
renames one in one atomic step (https://cloud.google.com/storage/docs/json_api/v1/objects/move).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Final

from antinfer.errors import JobFileError, OutputError, UsageError
from antinfer.storage import layout
from antinfer.storage.filesystems import GS_OPTIONS, split_uri
from antinfer.storage.place import StoredObject
from antinfer.storage.ranged import Fetch

_BYTES: Final = "application/octet-stream"
_NEW: Final = 0
"""The generation of an object that is not there."""
_CHUNK_BYTES: Final = 16 << 20
"""Of a large file: kept in memory, and sent again where a request for it fails."""
_TIMEOUT_S: Final = (10, 60)
"""To connect, and between two answers."""
_RETRY_S: Final = 20.0
"""Whoever called has more patience, and says what he waits for."""
_CONNECTIONS: Final = 32
"""Kept; of more requests at once the client would complain."""

_RIGHTS: Final = "Allow this account to create, get, list, move and delete objects: the role Storage Object User."
_CAUSES: Final = {
    "Forbidden": ("access denied", _RIGHTS),
    "Unauthorized": ("the credentials are not accepted", "Renew them: gcloud auth application-default login."),
    "NoBucket": ("the bucket does not exist", "Create the bucket first, or correct its name."),
    "DefaultCredentialsError": ("no credentials", "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS."),
    "RefreshError": ("the credentials cannot be renewed", "gcloud auth application-default login."),
    "ConnectionError": ("the service cannot be reached", "Check the network, and the option endpoint_override."),
}
_NO_BUCKET: Final = "bucket does not exist"
"""What the service says then; with the same status it says that there is no such object or upload."""
_LASTING: Final = frozenset({"Forbidden", "Unauthorized", "NoBucket", "DefaultCredentialsError"})


class GcsFiles:
    """`renaming.Files` below ``gs://bucket/folder``."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        """Connect to nothing yet.

        Args:
            uri: of the folder.
            options: those of `filesystems.GS_OPTIONS`, as pyarrow takes them when it reads.

        Raises:
            JobFileError: A URI without a bucket, or an unknown option.
            UsageError: google-cloud-storage is not installed.
        """
        unknown = sorted(set(options) - set(GS_OPTIONS))
        if unknown:
            raise JobFileError(f"output {uri}: unknown storage option {unknown[0]!r}", hint=f"Allowed: {', '.join(GS_OPTIONS)}.")
        self._bucket_name, _, self._prefix = split_uri(uri)[1].partition("/")
        if not self._bucket_name:
            raise JobFileError(f"output {uri}: no bucket in the URI", hint="Write gs://bucket/folder.")
        self._options = options
        self.errors: tuple[type[Exception], ...] = _errors(uri)

    @property
    def uri(self) -> str:
        return f"gs://{self._bucket_name}/{self._prefix}" if self._prefix else f"gs://{self._bucket_name}"

    def output_error(self, error: Exception, doing: str) -> OutputError:
        # When all its time is used up, the client says so, and keeps to itself what went wrong.
        cause = getattr(error, "cause", None) or error
        said = "NoBucket" if _NO_BUCKET in str(cause) else type(cause).__name__
        words, hint = _CAUSES.get(said, (str(cause), ""))
        return OutputError(f"output {self.uri}: {doing}: {words}", hint=hint, lasting=said in _LASTING, remote=True)

    def send(self, name: str, source: str) -> str:
        # A request may be carried out when the next one has long been answered. It must not take the place of what that one has sent, and
        # what it sends behind a sweep must not be taken for it: the generation tells.
        blob = self._bucket.blob(self._key(name), chunk_size=_CHUNK_BYTES)
        try:
            blob.upload_from_filename(source, content_type=_BYTES, if_generation_match=_NEW, timeout=_TIMEOUT_S, retry=self._retry)
        except self._exceptions.PreconditionFailed:
            blob.reload(timeout=_TIMEOUT_S, retry=self._retry)
        return str(blob.generation)

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._upload(name, data, if_generation_match=_NEW)
        except self._exceptions.PreconditionFailed:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._upload(name, data)

    def rename(self, source: str, target: str, token: str = "") -> None:
        condition = {"if_source_generation_match": int(token)} if token else {}
        old, new = self._blob(source), self._key(target)
        try:
            with self._present(source):
                self._bucket.move_blob(old, new, if_generation_match=_NEW, timeout=_TIMEOUT_S, retry=self._retry, **condition)
        except self._exceptions.PreconditionFailed as error:
            raise FileExistsError(target) from error

    def delete(self, names: tuple[str, ...]) -> None:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(self._delete, names))

    def clear(self) -> None:
        above = len(self._key(""))
        found = self._client.list_blobs(
            self._bucket, prefix=self._key(""), fields="items(name),nextPageToken", timeout=_TIMEOUT_S, retry=self._retry
        )
        self.delete(tuple(name for blob in found if layout.is_ours(name := blob.name[above:])))

    def list(self, folder: str) -> list[StoredObject]:
        below = f"{folder}/" if folder else ""
        above = len(self._key(""))
        found = self._client.list_blobs(
            self._bucket,
            prefix=self._key(below),
            delimiter="/",
            fields="items(name,size),nextPageToken",
            timeout=_TIMEOUT_S,
            retry=self._retry,
        )
        # Some tools show folders as objects of their own.
        return [StoredObject(blob.name[above:], int(blob.size)) for blob in found if not blob.name.endswith("/")]

    def exists(self, name: str, token: str = "") -> bool:
        try:
            return token in ("", str(self._loaded(name).generation))
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes | None:
        try:
            with self._present(name):
                return bytes(self._blob(name).download_as_bytes(timeout=_TIMEOUT_S, retry=self._retry))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> tuple[int, Fetch]:
        blob = self._loaded(name)

        def fetch(start: int, stop: int) -> bytes:
            with self._present(f"{name} is gone, or another one now"):
                return bytes(blob.download_as_bytes(start=start, end=stop - 1, checksum=None, timeout=_TIMEOUT_S, retry=self._retry))

        return int(blob.size), fetch

    def _upload(self, name: str, data: bytes, **condition: int) -> None:
        self._blob(name).upload_from_string(data, content_type=_BYTES, timeout=_TIMEOUT_S, retry=self._retry, **condition)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._present(name):
            self._blob(name).delete(timeout=_TIMEOUT_S, retry=self._retry)

    def _loaded(self, name: str) -> Any:
        blob = self._blob(name)
        with self._present(name):
            blob.reload(timeout=_TIMEOUT_S, retry=self._retry)
        return blob

    @contextmanager
    def _present(self, name: str) -> Iterator[None]:
        """Raise FileNotFoundError instead of the client's own, unless it is the bucket that is not there."""
        try:
            yield
        except self._exceptions.NotFound as error:
            if _NO_BUCKET in str(error):
                raise
            raise FileNotFoundError(name) from error

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @property
    def _exceptions(self) -> Any:
        from google.api_core import exceptions

        return exceptions

    @cached_property
    def _retry(self) -> Any:
        from google.cloud.storage.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(_RETRY_S)

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self._bucket_name)

    @cached_property
    def _client(self) -> Any:
        # Made on first use: to find credentials it may have to ask the machine that it runs on.
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        make_anonymous: Any = AnonymousCredentials
        chosen = self._options
        host = chosen.get("endpoint_override")
        endpoint = {"api_endpoint": f"{chosen.get('scheme', 'https')}://{host}"} if host else {}
        credentials = make_anonymous() if chosen.get("anonymous", "false").lower() == "true" else None
        client = storage.Client(project=chosen.get("project_id"), credentials=credentials, client_options=endpoint)
        for adapter in client._http.adapters.values():
            adapter.init_poolmanager(_CONNECTIONS, _CONNECTIONS)
        return client


def _errors(uri: str) -> tuple[type[Exception], ...]:
    # Of the Python that runs it has an opinion, which it would tell in every process.
    warnings.filterwarnings("ignore", "You are using a Python version", FutureWarning, "google")
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests.exceptions import RequestException
    except ImportError as error:
        raise UsageError(
            f"output {uri}: google-cloud-storage is not installed", hint="Install it with: pip install 'antinfer[gcs]'"
        ) from error
    return (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, RequestException, OSError)
