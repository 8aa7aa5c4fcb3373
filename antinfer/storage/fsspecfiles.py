"""The files of a folder that an fsspec driver reaches: SFTP, and whatever moves a file in one step on its server.

fsspec promises little: how a driver moves, whether that replaces, and what it raises is its own affair. So little is asked of one:
``put_file``, ``pipe_file``, ``mv`` that replaces, ``mkdir`` that refuses what is there, ``info``, ``ls``, ``cat_file``, ``rm_file``
and ``rm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from antinfer.errors import JobFileError, OutputError, UsageError
from antinfer.storage.drafts import DraftedFiles
from antinfer.storage.drivers import SSH, DriverError, Drivers, told
from antinfer.storage.filesystems import canonical_uri
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
            JobFileError: A scheme that fsspec does not know or that has no atomic move, a password in the URI, or no path.
            UsageError: fsspec or the driver's package is not installed.
        """
        super().__init__()
        self._uri = canonical_uri(uri)
        parts = urlsplit(self._uri)
        if parts.password is not None:
            hint = "Write it into the job file: options: {storage: {password: ...}}."
            raise JobFileError(f"output {parts.scheme}://{parts.hostname}: a password in a URI would be told in every message", hint=hint)
        if not parts.path.strip("/"):
            raise JobFileError(f"output {uri}: no folder in the URI", hint=f"Write {parts.scheme}://host/folder.")
        if parts.scheme in _COPYING:
            raise _copying(self._uri)
        self._drivers = _drivers(self._uri, {key: value for key, value in options.items() if key != DECLARED})
        self._root = self._drivers.path(self._uri)
        self._is_declared = parts.scheme in _KNOWN or options.get(DECLARED) is True
        self._folders: set[str] = set()
        """Folders that are known to be there."""

    @property
    def uri(self) -> str:
        return self._uri

    def output_error(self, error: Exception, doing: str) -> OutputError:
        return told(error).output_error(self._uri, doing)

    def send(self, name: str, source: str) -> str:
        self._require_moves()
        self._make_folder_of(name)
        with self._drivers.lend() as driver:
            driver.put_file(source, self._path(name))
        return ""

    def create(self, name: str, data: bytes) -> bool:
        # Few drivers create a file only where there is none; a folder is made once everywhere. Who dies right behind that leaves a name
        # that is taken and says by whom nowhere, which `list` tells as well.
        self._require_moves()
        self._make_folder_of(name)
        taken = self._path(f"{name}{_TAKEN}")
        try:
            with self._drivers.lend() as driver:
                driver.mkdir(taken, create_parents=False)
        except FileExistsError:
            return False
        except DriverError:
            # A server that does not say why refuses a folder that another has made just now; or it has made it, and its answer was lost.
            if not self.exists(f"{name}{_TAKEN}"):
                raise
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
        self._make_folder_of(name)
        with self._drivers.lend() as driver:
            driver.pipe_file(self._path(name), data)

    def _rename(self, source: str, target: str, *, overwrite: bool) -> None:
        # Between the question and the move another master may publish the same object, from the same source: then there is none any more.
        if not overwrite and self.exists(target):
            raise FileExistsError(target)
        self._make_folder_of(target)
        with self._drivers.lend() as driver:
            driver.mv(self._path(source), self._path(target))

    def _make_folder_of(self, name: str) -> None:
        folder = self._path(name).rpartition("/")[0]
        if folder in self._folders:
            return
        try:
            with self._drivers.lend() as driver:
                driver.makedirs(folder, exist_ok=True)
        except (DriverError, FileExistsError):
            # Another has made it, between the driver's question and its call.
            if self._drivers.info(folder) is None:
                raise
        self._folders.add(folder)

    def _require_moves(self) -> None:
        """Refuse to write where a part could be seen before it is whole. Reading asks nobody."""
        from fsspec.spec import AbstractFileSystem

        if self._drivers.kind.mv is AbstractFileSystem.mv:
            raise _copying(self._uri)
        if not self._is_declared:
            hint = f"Where its move is one step on the server, and replaces what is there: options: {{storage: {{{DECLARED}: true}}}}."
            raise JobFileError(f"{_no_step(self._uri)}, as far as is known", hint=hint)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _no_step(uri: str) -> str:
    return f"output {uri}: results cannot be published atomically to {uri.partition('://')[0]}://"


def _copying(uri: str) -> JobFileError:
    hint = "Its driver moves by copying. Write to a local or mounted path, s3:// (any S3-compatible store), gs://, hdfs:// or sftp://."
    return JobFileError(_no_step(uri), hint=hint)


def _drivers(uri: str, options: Mapping[str, Any]) -> Drivers:
    scheme = uri.partition("://")[0]
    try:
        return Drivers(uri, options)
    except ImportError as error:
        package = "'antinfer[sftp]'" if scheme in SSH else "fsspec, and what its driver needs"
        raise UsageError(f"output {uri}: a package is not installed: {error}", hint=f"pip install {package}.") from error
    except ValueError as error:
        known = "local paths, s3, gs, hdfs, sftp, and what fsspec moves files on in one step"
        raise JobFileError(f"output {uri}: the scheme {scheme!r} is not known", hint=f"Known: {known}.") from error
