"""fsspec's driver for SFTP, where it takes a hung server, a failed write or an unknown host too lightly."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import weakref
from typing import Any, BinaryIO, Final

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

_CONNECT_S: Final = 45.0
"""To have a session that answers."""
_ANSWER_S: Final = 60.0
"""A server that says nothing for so long is taken for gone."""
_KEEP_ALIVE_S: Final = 30
_PATIENCE: Final = {"timeout": 10, "banner_timeout": 10, "auth_timeout": 20}
"""In seconds; whoever called has more patience, and says what he waits for."""
_WRITE_BYTES: Final = 1 << 15
"""What goes into one request."""
_URI: Final = re.compile(r"(?:sftp|ssh)://[^/]*(.*)", re.DOTALL | re.IGNORECASE)
_LOG: Final = "antinfer.paramiko"
# What goes wrong is raised as well: it would be told twice, with tracebacks.
logging.getLogger(_LOG).setLevel(logging.CRITICAL)


class Sftp(SFTPFileSystem):  # type: ignore[misc]
    """One connection, for one thread at a time."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        # In a path a question mark is one, in names and in patterns.
        found = _URI.match(path)
        return path if found is None else found[1] or "/"

    @property
    def is_connected(self) -> bool:
        transport = self.client.get_transport()
        return transport is not None and bool(transport.is_active())

    def close(self) -> None:
        """Close the connection: its thread goes on for as long as nobody does."""
        self.client.close()

    def put_file(self, lpath: str, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        with open(lpath, "rb") as source:
            self._fill(rpath, source)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._fill(path, io.BytesIO(value))

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.set_log_channel(_LOG)
        # The thread of a connection knows its client and not us: it would go on for a place that nobody has any more.
        weakref.finalize(self, self.client.close).atexit = False
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(self.host_key_policy)
        is_over = threading.Event()

        def give_up() -> None:
            is_over.set()
            self.client.close()

        # A server that falls silent between the password and the first answer is waited for without end.
        watch = threading.Timer(_CONNECT_S, give_up)
        watch.daemon = True
        watch.start()
        try:
            self.client.connect(self.host, **{**_PATIENCE, **self.ssh_kwargs})
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(_ANSWER_S)
            self.client.get_transport().set_keepalive(_KEEP_ALIVE_S)
        except Exception as error:
            self.client.close()
            if is_over.is_set():
                raise TimeoutError from error
            raise
        finally:
            watch.cancel()

    def _fill(self, path: str, source: BinaryIO) -> None:
        # Requests are sent ahead of their answers, as paramiko's `put` does. But that leaves the last hundred answers unread: a write among
        # them that failed leaves a hole. The last request waits for its answer, and takes in those of all before it.
        with self.ftp.open(path, "wb") as target:
            target.set_pipelined(True)
            data = source.read(_WRITE_BYTES)
            while ahead := source.read(_WRITE_BYTES):
                target.write(data)
                data = ahead
            target.set_pipelined(False)
            target.write(data)
        size = self.ftp.stat(path).st_size
        if size != source.tell():
            raise OSError(f"{os.path.basename(path)} has {size:,} bytes there, not {source.tell():,}")
