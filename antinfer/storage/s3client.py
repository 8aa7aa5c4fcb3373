"""The one seam to boto3: the client, what its errors mean, and objects as files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, Final, cast

from antinfer.errors import JobFileError, OutputError, UsageError
from antinfer.storage.ranged import open_ranged

CONNECTIONS: Final = 32
"""Most requests in flight per place."""

_OPTIONS: Final = {
    "endpoint_url": "endpoint_url",
    "region": "region_name",
    "access_key": "aws_access_key_id",
    "secret_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}
_TAIL_BYTES: Final = 64 << 10

_RIGHTS: Final = "Allow these credentials to get, put, delete and list objects, and to abort and list multipart uploads."
_REFUSED: Final = frozenset({"AccessDenied", "403", "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
"""Trying again does not help until somebody acts."""
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})
_CAUSES: Final[dict[str, tuple[str, str]]] = {
    "NoSuchBucket": ("the bucket does not exist", "Create the bucket first, or correct its name."),
    "AccessDenied": ("access denied", _RIGHTS),
    "403": ("access denied", _RIGHTS),
    "InvalidAccessKeyId": ("the access key is not known", "Check the option access_key or the AWS environment."),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", "Check the option secret_key or the AWS environment."),
    "ExpiredToken": ("the session token has expired", "Renew the credentials, then run the same command again: it resumes."),
    "NoSuchUpload": ("the upload was aborted", "The work was given to somebody else; nothing is lost."),
    **dict.fromkeys(_FULL, ("no space left in the store", "Free some space or raise the quota: a job that runs goes on by itself.")),
    "NotImplemented": ("the store does not support a call we need", "Use a store with multipart uploads and If-None-Match."),
    "NoCredentialsError": ("no credentials", "Set the options access_key and secret_key, or the AWS environment."),
    "EndpointConnectionError": ("the endpoint cannot be reached", "Check the option endpoint_url and the network."),
}


def connect(uri: str, options: Mapping[str, str]) -> tuple[Any, Any]:
    """Return (client, module of exceptions). Raises `JobFileError` for an unknown option, `UsageError` without boto3."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise JobFileError(f"output {uri}: unknown storage option {unknown[0]!r}", hint=f"Allowed: {', '.join(_OPTIONS)}.")
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ImportError as error:
        raise UsageError(f"output {uri}: boto3 is not installed", hint="Install it with: pip install 'antinfer[s3]'") from error
    config = botocore.config.Config(
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        # Compatible stores may not know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client("s3", config=config, **{_OPTIONS[key]: value for key, value in options.items() if value})
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise JobFileError(f"output {uri}: {error}", hint="Check the storage options and the AWS environment.") from error
    return client, botocore.exceptions


def code(error: Any) -> str:
    """Return the store's error code, or the class name of an error that is not an answer of the store."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else type(error).__name__


def output_error(error: Exception, place: str, doing: str) -> OutputError:
    """Describe an error of boto3, met at `place` while `doing`."""
    said = code(error)
    cause, hint = _CAUSES.get(said, (str(error), ""))
    return OutputError(f"output {place}: {doing}: {cause}", hint=hint, lasting=said in _REFUSED, full=said in _FULL, remote=True)


def open_object(client: Any, errors: Any, bucket: str, key: str, name: str) -> BinaryIO:
    """Open an object for reading at any position. Raises FileNotFoundError when there is none."""
    where = {"Bucket": bucket, "Key": key}

    def fetch(start: int, stop: int) -> bytes:
        try:
            return cast(bytes, client.get_object(**where, Range=f"bytes={start}-{stop - 1}")["Body"].read())
        except (errors.ClientError, errors.BotoCoreError) as error:
            raise output_error(error, f"s3://{bucket}/{key}", "reading") from error

    try:
        # Its tail, where footers lie, comes with the request that tells its size.
        answer = client.get_object(**where, Range=f"bytes=-{_TAIL_BYTES}")
        tail = cast(bytes, answer["Body"].read())
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(tail)
    except errors.ClientError as error:
        if code(error) in ("NoSuchKey", "404"):
            raise FileNotFoundError(name) from error
        if code(error) not in ("InvalidRange", "416"):
            raise
        tail, size = b"", 0
    return open_ranged(size, fetch, tail)
