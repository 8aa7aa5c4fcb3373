"""What went wrong between us and the store, said so that a user can act on it."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from redis import exceptions as redis_errors

from antinfer.errors import StoreError

RIGHTS: Final = "~antinfer:* +@hash +del +eval +evalsha +script|load +info +client|setname +config|get +waitaof"
"""What a master does on a server, as a rule of its access control list."""


class PassingError(StoreError):
    """A store error that may pass by itself: the same call can be made again."""


def safe_url(url: str) -> str:
    """Return `url` without password and query, fit for logs and messages."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    place = f"{host}:{parts.port}" if parts.port else host
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit((parts.scheme, user + place, parts.path, "", ""))


def translate(error: Exception, store: str) -> StoreError:
    """Return the error to raise for what the client library raised; `PassingError` where trying again may help.

    Args:
        error: An error of redis-py or of the socket.
        store: The server's address without secrets.
    """
    text = str(error)
    if _is_tls(error):
        return StoreError(
            f"TLS with the store {store} failed: {text}",
            hint="Check the certificate (ssl_ca_certs=<file> in the URL), the host name, and that the port speaks TLS.",
        )
    match error:
        case redis_errors.AuthenticationError() | redis_errors.AuthenticationWrongNumberOfArgsError():
            return StoreError(
                f"the store {store} refuses our user or password: {text}",
                hint="Write them into the URL: rediss://USER:PASSWORD@HOST:PORT/0 (percent-encode special characters).",
            )
        case redis_errors.AuthorizationError() | redis_errors.NoPermissionError():
            return StoreError(
                f"the store {store} forbids us a command or a key: {text}",
                hint=f"Grant the ACL user: {RIGHTS} (Redis before 7.2 has no waitaof).",
            )
        case redis_errors.BusyLoadingError():
            return PassingError(f"the store {store} is still loading its data")
        case redis_errors.OutOfMemoryError():
            return PassingError(f"the store {store} is out of memory: {text}", hint="Raise its maxmemory; a job needs some ten megabytes.")
        case redis_errors.ReadOnlyError():
            return PassingError(f"the store {store} is read-only: {text}", hint="Give the address of the primary, not of a replica.")
        case redis_errors.MovedError() | redis_errors.AskError():
            return StoreError(f"the store {store} is a node of a cluster, and not ours: {text}", hint="Give the address of a plain server.")
        case redis_errors.NoScriptError():
            return PassingError(f"the store {store} has forgotten our scripts")
        case redis_errors.TimeoutError() | TimeoutError():
            return PassingError(
                f"the store {store} does not answer: {text}",
                hint="Check host and port of the store URL; with rediss://, that the port speaks TLS.",
            )
        case redis_errors.ConnectionError() | OSError():
            return PassingError(
                f"the store {store} cannot be reached: {text}",
                hint="Check host and port of the store URL (redis://HOST:PORT/0, rediss:// for TLS), and that the server runs.",
            )
        case _:
            return _from_text(text, store)


def _from_text(text: str, store: str) -> StoreError:
    if "MISCONF" in text:
        return PassingError(f"the store {store} cannot write its data: {text}", hint="Look for a full disk at the server.")
    if "NOAUTH" in text:
        return StoreError(f"the store {store} wants a password", hint="Write it into the URL: redis://:PASSWORD@HOST:PORT/0.")
    if "CLUSTERDOWN" in text or "MASTERDOWN" in text:
        return PassingError(f"the store {store} has no primary: {text}")
    return StoreError(f"the store {store} refused a command: {text}")


def _is_tls(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, ssl.SSLError) or "SSL:" in str(error) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
