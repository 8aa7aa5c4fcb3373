"""From a URI to a file system: local paths, ``file://``, ``s3://``, ``gs://``, ``hdfs://``, ``abfs://``, and everything that fsspec knows.

Connections are made once per place and set of options, and shared by all threads (pyarrow's file systems allow that).
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from antinfer.errors import AntinferError, InfraError, JobFileError, SourceError
from antinfer.storage import fsspecinput, hdfs, hdfsinput
from antinfer.storage.drivers import SSH, Drivers

S3_OPTIONS: Final = ("endpoint_url", "endpoint_override", "region", "access_key", "secret_key", "session_token", "anonymous", "scheme")
GS_OPTIONS: Final = ("endpoint_override", "anonymous", "scheme", "project_id")
S3_ATTEMPTS: Final = 8
"""Tries of one S3 request; the SDK backs off between them."""

_AWS_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_AWS_PLACE_VARIABLES: Final = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE")
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://(.*)$", re.DOTALL)
_FSSPEC_PACKAGES: Final = {"az": "adlfs", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko"}
_PASSING: Final = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT|THROTTLING|timed? ?out|connection reset|curlCode"
    r"|HTTP response code: 5\d\d|broken pipe|temporarily unavailable",
    re.IGNORECASE,
)
_PASSING_ERRNO: Final = frozenset(
    {errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ESTALE, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
_DETAIL: Final = re.compile(r"\. Detail: \[errno \d+\] (.+)$")
_HINTS: Final = (
    (r"ACCESS_DENIED|Permission denied|HTTP status 403|Forbidden|Unauthorized", "Check the permissions of the user or of the credentials."),
    (r"NO_SUCH_BUCKET|bucket does not exist", "Check the name of the bucket."),
    (r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|credentials", "Check the access key and the secret key."),
    (r"HTTP response code: 301|PermanentRedirect|AUTHORIZATION_HEADER_MALFORMED", "Give the region of the bucket: storage: {region: ...}."),
)


@dataclass(frozen=True, slots=True)
class Location:
    """A path on an open file system, and the way back to its URI."""

    filesystem: pafs.FileSystem
    path: str
    """What the file system calls it; no trailing slash."""
    prefix: str
    """`prefix + path` is the canonical URI."""

    @property
    def uri(self) -> str:
        return self.uri_of(self.path)

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def uri_of(self, path: str) -> str:
        """Return the canonical URI of another path on the same file system."""
        return path if "://" in path else self.prefix + path


def resolve(uri: str, options: Mapping[str, Any] | None = None) -> tuple[pafs.FileSystem, str]:
    """Open the file system of `uri` and return it with the path inside it.

    Args:
        uri: A local path (relative ones count from the working directory), or ``scheme://...``.
        options: Options of the file system: for S3 those of `S3_OPTIONS`, for Google storage `GS_OPTIONS`, for HDFS properties of a Hadoop
            configuration; for others whatever fsspec's implementation takes. What is not given comes from the SDK's usual places
            (environment, profile, instance role).

    Raises:
        JobFileError: An option is unknown for this scheme.
        SourceError: No installed package knows the scheme.
        InfraError: The service cannot be reached.
    """
    location = locate(uri, options)
    return location.filesystem, location.path


def locate(uri: str, options: Mapping[str, Any] | None = None) -> Location:
    """Do what `resolve` does, and keep the way back from paths to URIs."""
    scheme, rest = split_uri(uri)
    options = dict(options or {})
    match scheme:
        case "file":
            _check_options("local paths", options, ())
            return Location(_local(), rest, "")
        case "s3":
            _check_options(scheme, options, S3_OPTIONS)
            if not options.get("endpoint_url") and not options.get("endpoint_override"):
                # pyarrow takes these from the environment for URIs only, and boto3, which writes the output, always does.
                endpoint = next((found for name in _AWS_ENDPOINT_VARIABLES if (found := os.environ.get(name))), "")
                options = {**options, "endpoint_url": endpoint} if endpoint else options
            return Location(_s3(rest.split("/", 1)[0], tuple(sorted(options.items()))), rest, "s3://")
        case "gs":
            _check_options(scheme, options, GS_OPTIONS)
            return Location(_gs(tuple(sorted(options.items()))), rest, "gs://")
        case "hdfs" | "viewfs":
            host, _, path = rest.partition("/")
            properties = hdfs.configuration(f"{scheme}://{host}", options)
            return Location(_hdfs(f"{scheme}://{host}", tuple(sorted(properties.items()))), "/" + path, f"{scheme}://{host}")
        case "abfs" | "abfss":
            _check_options(scheme, options, ())
            return _azure(f"{scheme}://{rest}")
        case _:
            return _fsspec(scheme, f"{scheme}://{rest}", options)


def canonical_uri(uri: str) -> str:
    """Return the one spelling of `uri`: absolute local path, or lower-case scheme, single slashes, no trailing slash."""
    scheme, rest = split_uri(uri)
    return rest if scheme == "file" else f"{scheme}://{rest}"


def split_uri(uri: str) -> tuple[str, str]:
    """Split into (scheme, path); the scheme of a local path is ``file``, the path is cleaned. Raises JobFileError for an empty one."""
    if not uri.strip():
        raise JobFileError("path is empty", hint="Give a local path or a URI such as s3://bucket/folder.")
    found = _SCHEME.match(uri)
    if found is None:
        return "file", os.path.abspath(os.path.expanduser(uri))
    scheme, rest = found[1].lower(), found[2]
    scheme = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}.get(scheme, scheme)
    if scheme == "file":
        return "file", os.path.abspath(unquote("/" + rest.partition("/")[2]))
    rest = re.sub(r"/{2,}", "/", rest).rstrip("/") if scheme in ("s3", "gs", "hdfs", "viewfs") else rest.rstrip("/")
    if not rest and scheme in ("s3", "gs"):
        raise JobFileError(f"path {uri!r} names no bucket", hint=f"Write {scheme}://bucket/folder.")
    return scheme, rest


def join(uri: str, *names: str) -> str:
    """Return the URI of `names` under the folder `uri`."""
    return posixpath.join(uri.rstrip("/") or "/", *names)


def server_of(uri: str) -> str:
    """Return the server part of a canonical URI that fsspec is to open.

    Raises:
        JobFileError: It holds a password, names no host where there must be one, or its port is no number.
    """
    parts = urlsplit(uri)
    scheme, place = parts.scheme, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    # To fsspec, who stands before the repository on GitHub is its owner.
    if parts.password is not None and scheme != "github":
        hint = "Write it into the job file: options: {storage: {password: ...}}."
        raise JobFileError(f"{place}: a password in a URI would be told in every message", hint=hint)
    try:
        is_whole = parts.port != 0 and (parts.hostname is not None or scheme not in SSH)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise JobFileError(
            f"path {uri}: host or port is missing or wrong", hint=f"Write {scheme}://host/folder or {scheme}://host:22/folder."
        )
    return f"{scheme}://{parts.netloc}"


def explain(cause: Exception, uri: str, doing: str, *, error: type[AntinferError] = SourceError) -> AntinferError:
    """Turn a file system's exception into ours; the caller raises it ``from cause``.

    Args:
        cause: An `OSError` or a pyarrow exception.
        uri: What was touched.
        doing: Verb for the message, such as ``read``.
        error: The class for a cause that stays (missing, forbidden, damaged). One that may pass (network, time-out, overload) becomes
            `InfraError` instead, unless `error` says infrastructure already.
    """
    text = " ".join(str(cause).split()) or type(cause).__name__
    if (detail := _DETAIL.search(text)) is not None:
        # What comes before says what was done, and names the path once more.
        text = detail[1].lower()
    missing = isinstance(cause, FileNotFoundError) or "does not exist" in text
    what = f"cannot {doing} {uri}: " + ("it does not exist" if missing and "bucket" not in text.lower() else text)
    if is_passing(cause) and not issubclass(error, InfraError):
        return InfraError(what, hint="The storage did not answer properly; trying again may help.")
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text, re.IGNORECASE)), "")
    return error(what, hint=hint)


def is_passing(cause: BaseException) -> bool:
    """Tell whether trying again may help: network, time-out, overload; not: missing, forbidden, damaged."""
    if isinstance(cause, (ConnectionError, TimeoutError)):
        return True
    if isinstance(cause, OSError) and cause.errno in _PASSING_ERRNO and not isinstance(cause, pa.ArrowInvalid):
        return True
    return bool(_PASSING.search(str(cause))) and not isinstance(cause, (FileNotFoundError, PermissionError))


def _check_options(what: str, options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in options:
        if key not in allowed:
            listed = ", ".join(allowed) if allowed else "none"
            raise JobFileError(f"storage option {key!r} is not known for {what}", hint=f"Allowed: {listed}.")


@lru_cache(maxsize=1)
def _local() -> pafs.FileSystem:
    # No memory maps: a file that shrinks while it is mapped kills the process with SIGBUS instead of raising.
    return pafs.LocalFileSystem(use_mmap=False)


@lru_cache(maxsize=64)
def _s3(bucket: str, options: tuple[tuple[str, Any], ...]) -> pafs.FileSystem:
    keywords = dict(options)
    # Two names for one thing: the SDKs' and pyarrow's.
    endpoint = keywords.pop("endpoint_url", None) or keywords.pop("endpoint_override", None)
    if endpoint:
        keywords["endpoint_override"] = endpoint
    if endpoint and "://" in endpoint:
        scheme, _, rest = endpoint.partition("://")
        keywords["endpoint_override"], keywords["scheme"] = rest.rstrip("/"), scheme
    # The SDK's own variables and profile win; only a bare machine needs the bucket to be asked where it lives.
    if not endpoint and "region" not in keywords and not any(os.environ.get(name) for name in _AWS_PLACE_VARIABLES):
        keywords["region"] = _opened(f"s3://{bucket}", lambda: pafs.resolve_s3_region(bucket))
    retry = pafs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
    return _opened(f"s3://{bucket}", lambda: pafs.S3FileSystem(retry_strategy=retry, **keywords))


@lru_cache(maxsize=64)
def _gs(options: tuple[tuple[str, Any], ...]) -> pafs.FileSystem:
    return _opened("gs://", lambda: pafs.GcsFileSystem(**dict(options)))


@lru_cache(maxsize=64)
def _hdfs(authority: str, properties: tuple[tuple[str, Any], ...]) -> pafs.FileSystem:
    try:
        return _opened(authority, lambda: hdfsinput.open_filesystem(authority, dict(properties)))
    except ImportError as cause:
        message = f"cannot open {authority}: the package hdfs-native is not installed"
        raise SourceError(message, hint="pip install 'antinfer[hdfs]'.") from cause


def _azure(uri: str) -> Location:
    filesystem, path = _opened(uri, lambda: pafs.FileSystem.from_uri(uri))
    return Location(filesystem, path, _prefix(uri, path, "abfs://"))


def _fsspec(scheme: str, uri: str, options: dict[str, Any]) -> Location:
    server = server_of(uri)
    try:
        filesystem, drivers = _driven(server, json.dumps(options, sort_keys=True))
    except ImportError as cause:
        hint = f"pip install fsspec {_FSSPEC_PACKAGES.get(scheme, '')}".rstrip() + "."
        raise SourceError(f"cannot open {uri}: scheme {scheme!r} needs a package that is not installed: {cause}", hint=hint) from cause
    except ValueError as cause:
        known = "local paths, file, s3, gs, hdfs, abfs, and those of fsspec"
        raise SourceError(f"cannot open {uri}: scheme {scheme!r} is not known", hint=f"Known: {known}.") from cause
    path = drivers.path(uri)
    return Location(filesystem, path, _prefix(uri, path, f"{scheme}://"))


@lru_cache(maxsize=64)
def _driven(server: str, options: str) -> tuple[pafs.FileSystem, Drivers]:
    drivers = Drivers(server, json.loads(options))
    return fsspecinput.open_filesystem(drivers), drivers


def _prefix(uri: str, path: str, default: str) -> str:
    return uri[: len(uri) - len(path)] if uri.endswith(path) else default


def _opened(uri: str, open_it: Callable[[], Any]) -> Any:
    try:
        return open_it()
    except (OSError, pa.ArrowException, ValueError) as cause:
        raise explain(cause, uri, "open") from cause
