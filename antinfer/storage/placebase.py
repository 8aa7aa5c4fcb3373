"""What output places do alike, in terms of what each does in its own way."""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import BinaryIO
from uuid import uuid4

from antinfer import faultpoints
from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import InternalError, OutputError
from antinfer.storage import layout, parts
from antinfer.storage.place import EpochClaim, StoredObject
from antinfer.storage.spool import Spool


class PlaceBase(ABC):
    """The part of `OutputPlace` that is the same everywhere."""

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @abstractmethod
    def list_objects(self, folder: str) -> list[StoredObject]: ...

    @abstractmethod
    def read(self, name: str) -> bytes | None: ...

    @abstractmethod
    def open(self, name: str) -> BinaryIO: ...

    @abstractmethod
    def _wrapped(self, doing: str) -> AbstractContextManager[None]:
        """Raise `OutputError` instead of whatever the store's own errors are; FileNotFoundError passes where the store says it so."""

    @abstractmethod
    def _publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> None:
        """Give an object of a commit its final name, durably; done already is fine. Raises as `OutputPlace.publish`."""

    def publish(self, record: CommitRecord, suffix: str) -> None:
        with self._wrapped(f"publishing {record.staged}"):
            for staged, final in zip(record.objects, layout.final_names(record, suffix), strict=True):
                faultpoints.hit("storage.publish", staged=record.staged, kind=staged.kind)
                self._publish_one(record, staged, final)
                faultpoints.hit("publish.object", staged=record.staged, kind=staged.kind)

    def highest_epoch(self) -> EpochClaim | None:
        names = (stored.name.rpartition("/")[2] for stored in self.list_objects(layout.EPOCHS))
        highest = max((int(name) for name in names if name.isdigit()), default=None)
        if highest is None:
            return None
        data = self.read(layout.epoch_name(highest))
        return EpochClaim(highest, json.loads(data)["owner"] if data else "")

    def list_staging(self) -> list[str]:
        found = (layout.split_staged(stored.name) for stored in self.list_objects(layout.STAGING))
        return sorted({name for name, _ in filter(None, found)})

    def read_part_record(self, name: str) -> CommitRecord | None:
        with self._wrapped(f"reading {name}"):
            try:
                with self.open(name) as file:
                    return parts.carried_record(file, name)
            except FileNotFoundError:
                return None

    def _check_owner(self, record: CommitRecord, final: str, *, is_part: bool) -> None:
        """Make sure that an object which is there under its final name came from `record`. Raises `InternalError`."""
        owner = self.read_part_record(final) if is_part else None
        if owner is not None and owner.staged != record.staged:
            raise InternalError(f"output {self.uri}: {final} was published from {owner.staged}, not from {record.staged}")


class FilePlace(PlaceBase):
    """A place in which staged objects are files, that get their final names by being renamed."""

    @abstractmethod
    def remove(self, names: tuple[str, ...]) -> None: ...

    @abstractmethod
    def _list(self, folder: str) -> list[StoredObject]:
        """List the files directly inside a folder, by name; of the place itself where it is empty."""

    def collect(self, staged: tuple[str, ...]) -> None:
        self.remove(tuple(layout.staged_path(name, kind) for name in staged for kind in layout.KINDS))

    def sweep(self, before: int, keep: tuple[str, ...]) -> None:
        kept = frozenset(keep)
        self.remove(tuple(stored.name for stored in self.list_objects(layout.STAGING) if layout.is_swept(stored.name, before, kept)))

    def list_parts(self) -> list[StoredObject]:
        return [stored for stored in self._list("") if layout.is_part(stored.name)]

    def list_objects(self, folder: str) -> list[StoredObject]:
        return self._list(layout.folder(folder))


class RemotePlace(PlaceBase):
    """A place to which files are sent from a folder of this machine."""

    def __init__(self) -> None:
        self._spool = Spool(os.path.join(tempfile.gettempdir(), f"antinfer-{os.getuid()}", layout.SPOOL))

    def close(self) -> None:
        self._spool.close()

    def local_spool(self) -> str:
        try:
            faultpoints.hit("storage.spool")
            return self._spool.folder()
        except OSError as error:
            message = f"output {self.uri}: no local folder for files on their way there: {error}"
            raise OutputError(message, hint="Point TMPDIR to a writable disk.") from error

    def _vanished(self, staged: StagedName, source: str) -> OutputError:
        """Say that a local file is gone: no further try brings it back, but its rows can be computed again."""
        message = f"output {self.uri}: staging {staged}: its local file {source} is gone"
        return OutputError(message, hint="Does something clean TMPDIR up while the job runs?", lasting=True)


def claim_text(epoch: int, owner: str) -> bytes:
    """Return what is written to claim an epoch; no two are the same, so that who finds one there can tell whether it is his own."""
    return json.dumps({"epoch": epoch, "owner": owner, "nonce": uuid4().hex}).encode()


def neither(uri: str, record: CommitRecord, kind: str) -> InternalError:
    """Return the error of an acknowledged commit with an object that is gone: rows would be lost."""
    return InternalError(f"output {uri}: {record.staged} is committed, but its {kind} is neither staged nor published")


def twice(uri: str, record: CommitRecord, final: str) -> InternalError:
    """Return the error of a final name that is taken while the object that is to have it still waits."""
    return InternalError(f"output {uri}: {final} exists already, but {record.staged} is still staged")
