"""What fsspec knows as pyarrow reads it, without fsspec's habit of leaving out a folder that could not be listed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import fs as pafs

from antinfer.storage.drivers import DriverError, Drivers, told
from antinfer.storage.ranged import open_ranged


def open_filesystem(drivers: Drivers) -> pafs.FileSystem:
    """Return the file system that `drivers` reach, to be read by any number of threads. It raises OSError for all that goes wrong."""
    return pafs.PyFileSystem(_Handler(drivers))


class _Handler(pafs.FSSpecHandler):  # type: ignore[misc]
    def __init__(self, drivers: Drivers) -> None:
        super().__init__(drivers)
        self._drivers = drivers

    def get_type_name(self) -> str:
        return f"fsspec+{self._drivers.scheme}"

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        with _translated():
            found = [(path, self._drivers.info(path)) for path in paths]
        return [pafs.FileInfo(path, pafs.FileType.NotFound) if info is None else self._create_file_info(path, info) for path, info in found]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        try:
            with _translated():
                return list(self._below(selector.base_dir, selector.recursive))
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise

    def open_input_file(self, path: str) -> pa.NativeFile:
        with _translated():
            info = self._drivers.info(path)
            if info is None:
                raise FileNotFoundError(path)
            # A web server need not say how long a page is.
            if info["size"] is None:
                return pa.PythonFile(io.BytesIO(self._drivers.read(path)), mode="r")
        fetch = self._drivers.fetch(path)

        def fetch_translated(start: int, stop: int) -> bytes:
            with _translated():
                return fetch(start, stop)

        return pa.PythonFile(open_ranged(int(info["size"]), fetch_translated), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def _below(self, folder: str, is_recursive: bool) -> Iterator[pafs.FileInfo]:
        for info in self._drivers.list(folder):
            path = info["name"].rstrip("/")
            yield self._create_file_info(path, info)
            if is_recursive and info["type"] == "directory":
                yield from self._below(path, is_recursive)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise told(error).input_error() from error
