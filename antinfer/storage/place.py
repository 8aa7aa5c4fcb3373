"""The output place: where results are staged, published and proved.

One implementation per way of making a name appear at once: `posix` (atomic rename), `renaming` (the same in a remote store: `hdfs`, `gcs`,
`fsspecfiles`)
and `objectstore` (uncompleted multipart upload, completed at publication). `open_place` picks by URI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import JobFileError


@dataclass(frozen=True, slots=True)
class EpochClaim:
    """Who rules, or ruled, under an epoch."""

    epoch: int
    owner: str
    """Store URL without secrets, host and process of the master; for messages only."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    """Relative to the output place, with ``/`` between folders."""
    size_bytes: int


class OutputPlace(Protocol):
    """All methods are safe to call again after a failure, block, and may be called from several threads.

    Every method raises `OutputError` when the place cannot be reached or written, naming the place and the cause (permission, full disk,
    missing bucket).
    """

    @property
    def uri(self) -> str:
        """Canonical URI of the place; the identity of the job."""
        ...

    def check_writable(self) -> None:
        """Prove that objects can be created, listed and deleted here."""
        ...

    def close(self) -> None:
        """Remove this process's spool folder with everything in it. The place stays usable."""
        ...

    # -- epochs (rule 9) -------------------------------------------------------------------------------------------------------------
    def claim_epoch(self, epoch: int, owner: str) -> bool:
        """Create ``epochs/<epoch>`` unless it exists, durably. Return False when somebody else has it."""
        ...

    def highest_epoch(self) -> EpochClaim | None:
        """Return the highest claim, None on a fresh place."""
        ...

    # -- staging (worker writes, master collects) ------------------------------------------------------------------------------------
    def stage(self, staged: StagedName, kind: ObjectKind, final: str, source: str) -> StagedObject:
        """Put the local file `source` under `staged`, durably (rule: before the commit is asked for), to be called `final` later.

        A rename-based place moves or copies the file; `source` may be gone afterwards.
        """
        ...

    def local_spool(self) -> str:
        """Return an existing local folder to write `source` files in, on the same file system as staging where that saves a copy.

        The folder belongs to this object and goes with it; what a dead process left in its own is removed when another one asks for a
        folder here.
        """
        ...

    def publish(self, record: CommitRecord, suffix: str) -> None:
        """Give all objects of `record` their final names, in the record's order; done already is fine.

        Raises `InternalError` when an object is neither staged nor published: an acknowledged row would be lost.
        """
        ...

    def list_staging(self) -> list[str]:
        """Return the staged names that have at least one object in staging."""
        ...

    def collect(self, staged: tuple[str, ...]) -> None:
        """Delete every staged object of these names; missing ones are fine."""
        ...

    def sweep(self, before: int, keep: tuple[str, ...]) -> None:
        """Make sure no staged object of an epoch below `before` can ever be published, except those of `keep` (rule 11).

        Call it before anything is granted under epoch `before`, or when nothing is granted any more: what cannot be told apart from the
        work of an earlier epoch (an upload begun this instant) goes too. Names in staging that are not ours are removed, and spool folders
        of dead processes with them.
        """
        ...

    # -- final names -----------------------------------------------------------------------------------------------------------------
    def list_parts(self) -> list[StoredObject]:
        """List the published parts, in input order."""
        ...

    def list_objects(self, folder: str) -> list[StoredObject]:
        """List the objects directly inside ``_antinfer/<folder>``; empty when there is no such folder."""
        ...

    def remove(self, names: tuple[str, ...]) -> None:
        """Delete objects by name relative to the place; missing ones are fine."""
        ...

    def clear(self) -> None:
        """Delete everything here, finished or not, for an output that was made to be thrown away. Nobody may write here any more."""
        ...

    # -- whole small objects (documents, chunks, records) ----------------------------------------------------------------------------
    def read(self, name: str) -> bytes | None:
        """Return the object, None when there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object, atomically and durably."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading at any position (footers cost one request). Raises FileNotFoundError when there is none."""
        ...

    def read_part_record(self, name: str) -> CommitRecord | None:
        """Return the record that part `name` carries in itself.

        None when its format cannot carry one, or it is no readable part at all; a place that cannot be reached raises `OutputError`
        instead.
        """
        ...


_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def open_place(uri: str, options: Mapping[str, str | float] | None = None) -> OutputPlace:
    """Return the output place at `uri`; touches nothing yet.

    Args:
        uri: a local path, ``file:///path``, ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``hdfs://host/path``, or
            another URI of fsspec.
        options: for S3 ``endpoint_url``, ``region``, ``access_key``, ``secret_key``, ``session_token``; for Google Cloud Storage those of
            `filesystems.GS_OPTIONS`; for HDFS properties of a Hadoop configuration; for fsspec those of its
            driver and `fsspecfiles.DECLARED`. What is not given comes from the environment and the
            files that the tools of that store use.

    Raises:
        JobFileError: An unknown scheme or option, or a URI without a bucket.
        UsageError: The client of the store is not installed.
    """
    options = options or {}
    # The clients of their own take texts.
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}
    found = _SCHEME.match(uri)
    match found.group(1).lower() if found else "file":
        case "file":
            from antinfer.storage import posix

            if options:
                raise JobFileError(f"output {uri}: a local path takes no storage options, got {', '.join(sorted(options))}")
            return posix.PosixPlace(uri)
        case "s3" | "s3a":
            from antinfer.storage import objectstore

            return objectstore.ObjectPlace(uri, texts)
        case "gs" | "gcs":
            from antinfer.storage import gcs, renaming

            return renaming.RenamePlace(gcs.GcsFiles(uri, texts))
        case "hdfs" | "viewfs":
            from antinfer.storage import hdfs, renaming

            return renaming.RenamePlace(hdfs.HdfsFiles(uri, texts))
        case _:
            from antinfer.storage import fsspecfiles, renaming

            return renaming.RenamePlace(fsspecfiles.FsspecFiles(uri, options))
