"""Connections of fsspec drivers, lent to one thread at a time: nothing says that a driver can be shared, and the one for SFTP cannot."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from antinfer.storage.failures import Told
from antinfer.storage.ranged import Fetch

SSH: Final = frozenset({"sftp", "ssh"})
CONNECTIONS: Final = 8
"""At once, to one place; more threads wait. An SSH server begins to refuse when ten come at the same moment."""

_WEB: Final = frozenset({"http", "https"})
_WEB_ERROR: Final = "ClientResponseError"
"""Class of what aiohttp raises for an answer that says no; it knows the status, and the words with it."""
_PASSING_STATUS: Final = frozenset({408, 425, 429, *range(500, 600)})
_REFUSING_STATUS: Final = frozenset({401, 403, 407, 451})
_ANSWERS: Final = (FileNotFoundError, FileExistsError)
"""What a driver says of a file, and not of itself."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_CAUSES: Final = {
    "PermissionError": ("permission denied", "Give this user write permission there, or choose another output."),
    "AuthenticationException": ("the server does not accept the credentials", "Check user name, password or key."),
    "PasswordRequiredException": ("the private key is encrypted", "Give its passphrase, or use an agent."),
    "BadHostKeyException": ("the server's host key is not the one that is known", "Check the server, and the known hosts of this user."),
    "NoValidConnectionsError": ("the server cannot be reached", "Check host and port."),
    "ConnectionRefusedError": ("the server cannot be reached", "Check host and port."),
    "gaierror": ("the host is not known", "Check its name."),
    "TimeoutError": ("the server does not answer", "A job that runs waits for it."),
}
_LASTING: Final = frozenset(
    # The last two come of options.
    {"PermissionError", "AuthenticationException", "PasswordRequiredException", "BadHostKeyException", "TypeError", "ValueError"}
)
_NO_REASON: Final = ("the server refuses, and does not say why", "Has its disk room? Its log may tell.")
"""All that SFTP has for most of what can go wrong."""


class DriverError(OSError):
    """A driver failed. The cause is its own exception, which may be of any class."""


class Drivers:
    """The connections to the server of one URI. Made when they are needed, kept, given up when one of them fails."""

    def __init__(self, uri: str, options: Mapping[str, Any]) -> None:
        """Connect to nothing yet.

        Args:
            uri: of the server.
            options: of the driver.

        Raises:
            ImportError: fsspec or the driver's package is not installed.
            ValueError: fsspec does not know the scheme.
        """
        self._uri = uri
        self.scheme = uri.partition("://")[0]
        self.kind = _kind(self.scheme)
        """The driver's class."""
        self._options = dict(options)
        self._idle: deque[Any] = deque()
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def path(self, uri: str) -> str:
        """Return what the driver calls a URI of its scheme."""
        return str(self.kind._strip_protocol(uri)).rstrip("/") or "/"

    @contextmanager
    def lend(self) -> Iterator[Any]:
        """Give a driver for the calls of the block, which raise `DriverError`, FileNotFoundError or FileExistsError."""
        with self._free:
            driver = self._take()
            try:
                # What it remembers is of no use where others write as well.
                driver.invalidate_cache()
                yield driver
            except Exception as error:
                meant = self._meant(error)
                if isinstance(meant, _ANSWERS):
                    self._idle.append(driver)
                    raise
                # Those that wait go to the same server: most likely they are broken as well.
                self._close(driver)
                while self._idle:
                    with suppress(IndexError):
                        self._close(self._idle.pop())
                raise DriverError(_words(meant)) from meant
            self._idle.append(driver)

    def info(self, path: str) -> Mapping[str, Any] | None:
        """Return size, type and name of a file or folder as fsspec does; None where there is none. Unlike its `exists`, tells trouble."""
        try:
            with self.lend() as driver:
                found: Mapping[str, Any] = driver.info(path)
                return found
        except FileNotFoundError:
            return None

    def list(self, path: str) -> list[Mapping[str, Any]]:
        """List what is directly inside a folder. Raises FileNotFoundError."""
        with self.lend() as driver:
            found = driver.ls(path, detail=True)
        # Some list a folder as one of its own, and a file as itself.
        return [self._followed(each) for each in found if each["name"].strip("/") != path.strip("/")]

    def read(self, path: str) -> bytes:
        """Return a file whole. Raises FileNotFoundError."""
        with self.lend() as driver:
            return bytes(driver.cat_file(path))

    def fetch(self, path: str) -> Fetch:
        """Return what reads ranges of a file."""

        whole: bytes | None = None

        def fetch(start: int, stop: int) -> bytes:
            nonlocal whole
            if whole is None:
                with self.lend() as driver:
                    data = bytes(driver.cat_file(path, start=start, end=stop))
                if len(data) <= stop - start:
                    return data
                # A web server may answer with all of a file, whatever was asked for.
                whole = data
            return whole[start:stop]

        return fetch

    def _meant(self, error: Exception) -> Exception:
        """Return what went wrong. On the web fsspec says that a page is not there whatever the server has answered, or if it has not."""
        cause = error.__cause__
        if self.scheme not in _WEB or not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
            return error
        if type(cause).__name__ == _WEB_ERROR:
            return cause if getattr(cause, "status", None) in _PASSING_STATUS | _REFUSING_STATUS else error
        return error if isinstance(cause, (FileNotFoundError, ValueError)) else cause

    def _followed(self, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a link leads to, by the link's name; the link where that is nothing."""
        return (self.info(info["name"]) or info) if info["type"] == "link" else info

    def _take(self) -> Any:
        while self._idle:
            with suppress(IndexError):
                driver = self._idle.pop()
                # One that lay about for long may have been closed by the server.
                if self.scheme not in SSH or driver.is_connected:
                    return driver
                self._close(driver)
        try:
            return self.kind(**{**self.kind._get_kwargs_from_urls(self._uri), **self._options}, skip_instance_cache=True)
        except Exception as error:
            raise DriverError(_words(error)) from error

    def _close(self, driver: Any) -> None:
        if self.scheme in SSH:
            driver.close()


def _kind(scheme: str) -> Any:
    if scheme in SSH:
        from antinfer.storage.sftp import Sftp

        return Sftp
    from fsspec import get_filesystem_class

    return get_filesystem_class(scheme)


def told(error: Exception) -> Told:
    """Say what a `DriverError` means, or an OSError of this machine."""
    cause = error.__cause__ if isinstance(error, DriverError) and error.__cause__ is not None else error
    number = cause.errno if isinstance(cause, OSError) else None
    name = "PermissionError" if number in _REFUSED else type(cause).__name__
    if name == _WEB_ERROR:
        return _of_web(cause)
    words, hint = _CAUSES.get(name, _NO_REASON if str(cause) == "Failure" else (_words(cause), ""))
    return Told(words, hint, lasting=name in _LASTING, full=number in _FULL)


def _of_web(error: Any) -> Told:
    return Told(f"{error.message.lower() or 'refused'} (HTTP {error.status})", "", lasting=error.status not in _PASSING_STATUS, full=False)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
