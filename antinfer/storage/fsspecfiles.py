"""The files of a folder that an fsspec driver reaches: SFTP, and whatever moves a file in one step on its server.

fsspec promises little: how a driver moves, whether that replaces, and what it raises is its own affair. So little is asked of one:
``put_file``, ``pipe_file``, ``mv`` that replaces, ``mkdir`` that refuses what is there, ``info``, ``ls``, ``cat_file``, ``rm_file``,
``rmdir`` and ``rm``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from antinfer.errors import JobFileError, OutputError, UsageError
from antinfer.storage import layout
from antinfer.storage.drafts import DraftedFiles
from antinfer.storage.drivers import SSH, DriverError, Drivers, told
from antinfer.storage.filesystems import canonical_uri, server_of
from antinfer.storage.place import StoredObject
from antinfer.storage.ranged import Fetch

DECLARED: Final = "atomic_move"
"""Storage option: the driver's ``mv`` is one step on the server, and replaces a file that is there."""

_KNOWN: Final = SSH
"""Schemes of which that is known (``posix-rename@openssh.com``)."""
_COPYING: Final = frozenset({"abfs", "abfss", "az", "http", "https"})
"""Schemes of which it is known that nothing moves there in one step."""
_TAKEN: Final = ".taken"


class FsspecFiles(DraftedFiles):
    """`renaming.Files` at a URI of fsspec."""

    errors = (OSError,)

    def __init__(self, uri: str, options: Mapping[str, Any]) -> None:
        """Connect to nothing yet.

        Args:
            uri: of the folder.
            options: those of the driver, and `DECLARED`.

        Raises:
            JobFileError: A scheme that fsspec does not know or that has no atomic move, or what `server_of` finds; or no path.
            UsageError: fsspec or the driver's package is not installed.
        """
        super().__init__()
        self._uri = canonical_uri(uri)
        server = server_of(self._uri)
        scheme, _, path = self._uri.partition("://")
        if not path.partition("/")[2].strip("/"):
            raise JobFileError(f"output {uri}: no folder in the URI", hint=f"Write {scheme}://host/folder.")
        if scheme in _COPYING:
            raise _copying(self._uri)
        self._drivers = _drivers(self._uri, server, {key: value for key, value in options.items() if key != DECLARED})
        self._root = self._drivers.path(self._uri)
        self._is_declared = scheme in _KNOWN or options.get(DECLARED) is True
        self._is_proven = scheme in _KNOWN
        """What somebody has said of the driver was seen to be true."""
        self._folders: set[str] = set()
        """Folders that are known to be there."""

    @property
    def uri(self) -> str:
        return self._uri

    def output_error(self, error: Exception, doing: str) -> OutputError:
        return told(error).output_error(self._uri, doing)

    def send(self, name: str, source: str) -> str:
        self._require_moves()
        # A server may go on with an upload that was given up here: that must not touch the file which the next attempt has made.
        with self._draft() as draft:
            with self._lend_below(draft) as driver:
                driver.put_file(source, self._path(draft))
            self._rename(draft, name, overwrite=True)
        return ""

    def create(self, name: str, data: bytes) -> bool:
        # Few drivers create a file only where there is none; a folder is made once everywhere. Who dies right behind that leaves a name
        # that is taken and says by whom nowhere, which `list` tells as well.
        self._require_moves()
        taken = self._path(f"{name}{_TAKEN}")
        self._make_folder(taken.rpartition("/")[0])
        if not self._mkdir(taken):
            return False
        self._write(name, data, overwrite=True)
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._require_moves()
        self._write(name, data, overwrite=True)

    def rename(self, source: str, target: str, token: str = "") -> None:
        self._require_moves()
        self._rename(source, target, overwrite=False)

    def delete(self, names: tuple[str, ...]) -> None:
        for name in names:
            with suppress(FileNotFoundError), self._drivers.lend() as driver:
                driver.rm_file(self._path(name))

    def clear(self) -> None:
        self._folders.clear()
        with suppress(FileNotFoundError), self._drivers.lend() as driver:
            driver.rm(self._root, recursive=True)

    def list(self, folder: str) -> list[StoredObject]:
        try:
            found = self._drivers.list(self._path(folder))
        except FileNotFoundError:
            return []
        below = f"{folder}/" if folder else ""
        sizes: dict[str, int] = {}
        for each in found:
            name = f"{below}{each['name'].rstrip('/').rpartition('/')[2]}"
            if each["type"] != "directory":
                sizes[name] = int(each["size"])
            elif name.endswith(_TAKEN):
                sizes.setdefault(name.removesuffix(_TAKEN), 0)
        return self._without_drafts(StoredObject(name, size) for name, size in sizes.items())

    def exists(self, name: str, token: str = "") -> bool:
        return self._drivers.info(self._path(name)) is not None

    def read(self, name: str) -> bytes | None:
        try:
            return self._drivers.read(self._path(name))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> tuple[int, Fetch]:
        path = self._path(name)
        info = self._drivers.info(path)
        if info is None:
            raise FileNotFoundError(name)
        return int(info["size"]), self._drivers.fetch(path)

    def _put(self, name: str, data: bytes) -> None:
        with self._lend_below(name) as driver:
            driver.pipe_file(self._path(name), data)

    def _rename(self, source: str, target: str, *, overwrite: bool) -> None:
        # Between the question and the move another master may publish the same object, from the same source: then there is none any more.
        if not overwrite and self.exists(target):
            raise FileExistsError(target)
        with self._lend_below(target) as driver:
            driver.mv(self._path(source), self._path(target))

    @contextmanager
    def _lend_below(self, name: str) -> Iterator[Any]:
        """Give a driver for a call that needs the folder of `name`."""
        folder = self._path(name).rpartition("/")[0]
        self._make_folder(folder)
        try:
            with self._drivers.lend() as driver:
                yield driver
        except FileNotFoundError:
            # Perhaps it is the folder that somebody has removed: the next attempt makes it again.
            self._folders.discard(folder)
            raise

    def _make_folder(self, path: str) -> None:
        # One by one: a driver's own `makedirs` fails where two make the same folders at the same time.
        if path in self._folders or not path.strip("/"):
            return
        found = self._drivers.info(path)
        if found is None:
            self._make_folder(path.rpartition("/")[0])
            self._mkdir(path)
        elif found["type"] != "directory":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        self._folders.add(path)

    def _mkdir(self, path: str) -> bool:
        """Make a folder in one that is there. Return False where somebody has made it: perhaps this very call, and its answer was lost."""
        try:
            with self._drivers.lend() as driver:
                driver.mkdir(path, create_parents=False)
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            self._folders.clear()
            raise OSError(f"the folder of {path} is gone") from error
        except DriverError:
            # Most servers refuse without saying why.
            if self._drivers.info(path) is None:
                raise
            return False
        return True

    def _require_moves(self) -> None:
        """Refuse to write where a part could be seen before it is whole. Reading asks nobody."""
        from fsspec.spec import AbstractFileSystem

        if self._drivers.kind.mv is AbstractFileSystem.mv:
            raise _copying(self._uri)
        if not self._is_declared:
            hint = f"Where its move is one step on the server, and replaces what is there: options: {{storage: {{{DECLARED}: true}}}}."
            raise JobFileError(f"{_no_step(self._uri)}, as far as is known", hint=hint)
        if not self._is_proven:
            self._prove()
            self._is_proven = True

    def _prove(self) -> None:
        """Try what is taken for granted of a driver: two masters would rule at once on one whose ``mkdir`` takes what is there."""
        source, target, folder = (f"{layout.HIDDEN}/proof-{uuid4().hex}" for _ in range(3))
        try:
            for name in (source, target):
                self._put(name, name.encode())
            with suppress(FileExistsError):
                self._rename(source, target, overwrite=True)
            if self.exists(source) or self.read(target) != source.encode():
                raise JobFileError(f"{_no_step(self._uri)}: its mv does not replace a file that is there")
            if self._mkdir(self._path(folder)) and self._mkdir(self._path(folder)):
                raise JobFileError(f"{_no_step(self._uri)}: its mkdir takes a folder that is there for a new one")
        finally:
            with suppress(OSError):
                self.delete((source, target))
            with suppress(OSError), self._drivers.lend() as driver:
                driver.rmdir(self._path(folder))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _no_step(uri: str) -> str:
    return f"output {uri}: results cannot be published atomically to {uri.partition('://')[0]}://"


def _copying(uri: str) -> JobFileError:
    hint = "Its driver moves by copying. Write to a local or mounted path, s3:// (any S3-compatible store), gs://, hdfs:// or sftp://."
    return JobFileError(_no_step(uri), hint=hint)


def _drivers(uri: str, server: str, options: Mapping[str, Any]) -> Drivers:
    scheme = uri.partition("://")[0]
    try:
        return Drivers(server, options)
    except ImportError as error:
        package = "'antinfer[sftp]'" if scheme in SSH else "fsspec, and what its driver needs"
        raise UsageError(f"output {uri}: a package is not installed: {error}", hint=f"pip install {package}.") from error
    except ValueError as error:
        known = "local paths, s3, gs, hdfs, sftp, and what fsspec moves files on in one step"
        raise JobFileError(f"output {uri}: the scheme {scheme!r} is not known", hint=f"Known: {known}.") from error
