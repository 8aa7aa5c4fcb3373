"""The files of an HDFS folder, through hdfs-native: no Java, no native Hadoop libraries.

HDFS renames atomically and refuses a name that is taken, but a file can be seen while it is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from antinfer.errors import JobFileError, OutputError, UsageError
from antinfer.storage.drafts import DraftedFiles
from antinfer.storage.failures import Told
from antinfer.storage.place import StoredObject
from antinfer.storage.ranged import Fetch

_WRITE_BYTES: Final = 8 << 20
_MODE: Final = 0o755
_PATIENCE: Final = {
    # An unreachable name node is told after some seconds; whoever called has more patience, and says what he waits for.
    "dfs.client.failover.max.attempts": "6",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "2000",
}
_NOT_TAKEN: Final = ("could only be replicated", "Failed to complete file", "All nodes failed for write")
_CAUSES: Final[tuple[tuple[str, str, str], ...]] = (
    ("AccessControlException", "permission denied", "Give this user the right to write there, or set HADOOP_USER_NAME."),
    ("QuotaExceededException", "a quota of the folder is used up", "Raise it: a job that runs goes on by itself."),
    ("SafeModeException", "the name node is in safe mode", "It leaves that by itself after a start: a job that runs waits for it."),
    ("All DataNodes failed", "no data node answers", "Check the data nodes: a job that runs waits for them."),
    *((sign, "the data nodes take nothing", "Are they up, and have they room?") for sign in _NOT_TAKEN),
    ("onnection refused", "the name node cannot be reached", "Check host and port, or HADOOP_CONF_DIR."),
    ("lookup address", "the host of the name node is not known", "Check the name, or HADOOP_CONF_DIR."),
    ("rasure", "the folder is erasure-coded, where writes cannot be made durable", "Set it to replication: hdfs ec -setPolicy -replicate."),
)
_LASTING: Final = re.compile("AccessControlException|QuotaExceededException|rasure")

ERRORS: Final[tuple[type[Exception], ...]] = (RuntimeError, OSError)
"""What the client raises."""


class HdfsFiles(DraftedFiles):
    """`renaming.Files` below ``hdfs://host:port/folder``; without a host, on the file system that the Hadoop configuration names."""

    errors = ERRORS

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        """Make a client; connects to nothing yet.

        Args:
            uri: of the folder.
            options: properties of a Hadoop configuration, which win over those in ``HADOOP_CONF_DIR``.

        Raises:
            JobFileError: A URI without a path, or an option that is no property.
            UsageError: hdfs-native is not installed.
        """
        super().__init__()
        authority, path = split(uri)
        if path == "/":
            raise JobFileError(f"output {uri}: no folder in the URI", hint="Write hdfs://host:port/folder.")
        self._root = path
        self._uri = f"{authority}{path}"
        self._client = _connect(authority, options)

    @property
    def uri(self) -> str:
        return self._uri

    def output_error(self, error: Exception, doing: str) -> OutputError:
        return told(error).output_error(self._uri, doing)

    def send(self, name: str, source: str) -> str:
        with open(source, "rb") as file, self._create(name) as writer:
            while data := file.read(_WRITE_BYTES):
                writer.write(data)
            writer.hsync()
        return ""

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._write(name, data, overwrite=False)
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._write(name, data, overwrite=True)

    def rename(self, source: str, target: str, token: str = "") -> None:
        self._rename(source, target, overwrite=False)

    def delete(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._client.delete(self._path(name))

    def clear(self) -> None:
        self._client.delete(self._root, True)

    def list(self, folder: str) -> list[StoredObject]:
        try:
            found = list(self._client.list_status(self._path(folder)))
        except FileNotFoundError:
            return []
        below = f"{folder}/" if folder else ""
        files = (StoredObject(f"{below}{each.path.rpartition('/')[2]}", each.length) for each in found if not each.isdir)
        return self._without_drafts(files)

    def exists(self, name: str, token: str = "") -> bool:
        try:
            self._client.get_file_info(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._client.read(self._path(name)).read())
        except FileNotFoundError:
            return None

    def open(self, name: str) -> tuple[int, Fetch]:
        reader = self._client.read(self._path(name))
        return len(reader), lambda start, stop: bytes(reader.read_range(start, stop - start))

    def _put(self, name: str, data: bytes) -> None:
        with self._create(name) as writer:
            writer.write(data)
            writer.hsync()

    def _rename(self, source: str, target: str, *, overwrite: bool) -> None:
        self._client.mkdirs(self._path(target).rpartition("/")[0], _MODE, True)
        self._client.rename(self._path(source), self._path(target), overwrite)

    def _create(self, name: str) -> Any:
        from hdfs_native import WriteOptions

        return self._client.create(self._path(name), WriteOptions(overwrite=True, create_parent=True))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def told(error: Exception) -> Told:
    """Say what one of `ERRORS` means."""
    # With the stack of the server after the first line.
    text = str(error).partition("\\n\\tat ")[0].partition("\n\tat ")[0]
    cause, hint = next(((cause, hint) for sign, cause, hint in _CAUSES if sign in text), (text, ""))
    return Told(cause, hint, lasting=bool(_LASTING.search(text)), full="QuotaExceeded" in text)


def split(uri: str) -> tuple[str, str]:
    """Split a URI into scheme and host (``hdfs://host:port``) and the path, each in its one spelling."""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme.lower()}://{host}", "/" + re.sub("/{2,}", "/", path).strip("/")


def configuration(what: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the properties for a client. Raises `JobFileError` for an option that is none."""
    for key in options:
        if "." not in key:
            raise JobFileError(f"{what}: storage option {key!r} is no property of a Hadoop configuration", hint="Such as fs.defaultFS.")
    return {**_PATIENCE, **{key: str(value) for key, value in options.items()}}


def _connect(authority: str, options: Mapping[str, str]) -> Any:
    try:
        import hdfs_native
    except ImportError as error:
        raise UsageError(
            f"output {authority}: hdfs-native is not installed", hint="Install it with: pip install 'antinfer[hdfs]'"
        ) from error
    try:
        return hdfs_native.Client(None if authority.endswith("://") else authority, configuration(f"output {authority}", options))
    except (RuntimeError, ValueError, OSError) as error:
        raise JobFileError(f"output {authority}: {error}", hint="Check the host, and HADOOP_CONF_DIR.") from error
