"""HDFS as pyarrow reads it: an fsspec file system, without its habit of taking a file that it cannot ask for to be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from antinfer.storage import hdfs
from antinfer.storage.ranged import open_ranged


def open_filesystem(authority: str, properties: Mapping[str, str]) -> pafs.FileSystem:
    """Return the file system at ``hdfs://host:port``; connects to nothing yet.

    It raises OSError for all that goes wrong later, ConnectionError for what may pass. Raises ImportError without hdfs-native.
    """
    from hdfs_native.fsspec import HdfsFileSystem, ViewfsFileSystem

    scheme, _, host_port = authority.partition("://")
    host, _, port = host_port.partition(":")
    kind = HdfsFileSystem if scheme == "hdfs" else ViewfsFileSystem
    return pafs.PyFileSystem(_Handler(kind(host or None, int(port) if port else None, **properties)))


class _Handler(pafs.FSSpecHandler):  # type: ignore[misc]
    def get_file_info(self, paths: list[str]) -> Any:
        with _translated():
            return super().get_file_info(paths)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> Any:
        with _translated():
            return super().get_file_info_selector(selector)

    def open_input_file(self, path: str) -> pa.NativeFile:
        with _translated():
            reader = self.fs.client.read(path)

        def fetch(start: int, stop: int) -> bytes:
            with _translated():
                return bytes(reader.read_range(start, stop - start))

        return pa.PythonFile(open_ranged(len(reader), fetch), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except hdfs.ERRORS as error:
        raise hdfs.told(error).input_error() from error
