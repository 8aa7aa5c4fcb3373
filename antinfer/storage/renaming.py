"""An output place on a remote store in which a rename is one atomic step: HDFS, Google Cloud Storage.

A staged object is a file in ``_antinfer/staging``; publication renames it, unless the name is taken. That is what `posix` does as well, but
here files are sent from a local folder, and a request may be carried out although its answer was lost, which the next one has to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from antinfer import faultpoints
from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import OutputError
from antinfer.storage import failures, layout
from antinfer.storage.place import StoredObject
from antinfer.storage.placebase import FilePlace, RemotePlace, claim_text, neither, twice
from antinfer.storage.ranged import Fetch, open_ranged


class Files(Protocol):
    """The files below one folder of a store. Names are relative to it; methods may be called from several threads and again."""

    @property
    def uri(self) -> str:
        """Canonical URI of the folder."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the methods may raise; OSError is among it, for local files."""
        ...

    def output_error(self, error: Exception, doing: str) -> OutputError:
        """Describe one of `errors`, met while `doing`."""
        ...

    def send(self, name: str, source: str) -> str:
        """Make a file of a local one that has the same content each time, durably. Until it is done, there may be a part of it.

        Returns what tells the file from one that is sent to the same name later, empty where the store has no such thing.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create a file, whole and durable at once. Return False when there is one of that name."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Create or replace a file, whole and durable at once."""
        ...

    def rename(self, source: str, target: str, token: str = "") -> None:
        """Give a file another name, at once; with the `token` of `send` that file only.

        Raises FileNotFoundError without `source`, FileExistsError where `target` is taken; either where another file has the name `source`.
        """
        ...

    def delete(self, names: tuple[str, ...]) -> None:
        """Delete files; missing ones are fine."""
        ...

    def clear(self) -> None:
        """Delete every file of an output that there is, in all folders."""
        ...

    def list(self, folder: str) -> list[StoredObject]:
        """List the files directly inside a folder, in any order; of a folder that is not there, none."""
        ...

    def exists(self, name: str, token: str = "") -> bool:
        """Tell whether there is a file; with the `token` of `send`, whether it is that one."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file whole; None when there is none."""
        ...

    def open(self, name: str) -> tuple[int, Fetch]:
        """Return the size of a file, and what reads it. Raises FileNotFoundError when there is none."""
        ...


class RenamePlace(FilePlace, RemotePlace):
    """`OutputPlace` on `Files`; see the module for how it stages and publishes."""

    def __init__(self, files: Files) -> None:
        super().__init__()
        self._files = files

    @property
    def uri(self) -> str:
        return self._files.uri

    def check_writable(self) -> None:
        name = f"{layout.HIDDEN}/check-{uuid4().hex}"
        self.write(name, b"")
        with self._wrapped("renaming a file just written"):
            # Repeated after its answer was lost it finds none; what is listed tells whether it was done.
            with suppress(FileNotFoundError):
                self._files.rename(name, f"{name}-renamed")
            found = {stored.name for stored in self._files.list(layout.HIDDEN)}
        if f"{name}-renamed" not in found:
            raise OutputError(f"output {self.uri}: a file just renamed is not listed")
        self.remove((name, f"{name}-renamed"))

    # -- epochs ------------------------------------------------------------------------------------------------------------------------

    def claim_epoch(self, epoch: int, owner: str) -> bool:
        name, claim = layout.epoch_name(epoch), claim_text(epoch, owner)
        with self._wrapped(f"claiming epoch {epoch}"):
            faultpoints.hit("storage.claim", epoch=epoch)
            # The client repeats a request whose answer was lost, and is then refused because of its own file.
            return self._files.create(name, claim) or self._files.read(name) == claim

    # -- staging -----------------------------------------------------------------------------------------------------------------------

    def stage(self, staged: StagedName, kind: ObjectKind, final: str, source: str) -> StagedObject:
        with self._wrapped(f"staging {staged}"):
            faultpoints.hit("storage.stage", staged=staged, kind=kind)
            try:
                token = self._files.send(layout.staged_path(staged, kind), source)
            except FileNotFoundError as error:
                if Path(source).exists():
                    raise self._files.output_error(error, f"staging {staged}") from error
                raise self._vanished(staged, source) from error
            Path(source).unlink(missing_ok=True)
        return StagedObject(kind, token)

    # -- final names -------------------------------------------------------------------------------------------------------------------

    def remove(self, names: tuple[str, ...]) -> None:
        with self._wrapped("removing"):
            faultpoints.hit("storage.remove", objects=len(names))
            self._files.delete(names)

    def clear(self) -> None:
        with self._wrapped("removing everything"):
            self._files.clear()

    # -- whole small objects -------------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        with self._wrapped(f"reading {name}"):
            faultpoints.hit("storage.read", object=name)
            return self._files.read(name)

    def write(self, name: str, data: bytes) -> None:
        with self._wrapped(f"writing {name}"):
            faultpoints.hit("storage.write", object=name)
            self._files.replace(name, data)

    def open(self, name: str) -> BinaryIO:
        with self._wrapped(f"opening {name}"):
            size, fetch = self._files.open(name)

        def fetch_wrapped(start: int, stop: int) -> bytes:
            # Who reads takes an error that is an OSError for a damaged file.
            with self._wrapped(f"reading {name}"):
                try:
                    return fetch(start, stop)
                except FileNotFoundError as error:
                    raise self._files.output_error(error, f"reading {name}") from error

        return open_ranged(size, fetch_wrapped)

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> None:
        source = layout.staged_path(record.staged, staged.kind)
        try:
            self._files.rename(source, final, staged.token)
        except (FileExistsError, FileNotFoundError) as error:
            if not self._files.exists(final):
                raise neither(self.uri, record, staged.kind) from error
            if self._files.exists(source, staged.token):
                raise twice(self.uri, record, final) from error
            # Somebody has renamed it before, or this very request has, in an attempt whose answer was lost.
            self._check_owner(record, final, is_part=staged.kind == "part")

    def _list(self, folder: str) -> list[StoredObject]:
        with self._wrapped(f"listing {folder or 'parts'}"):
            faultpoints.hit("storage.list", folder=folder)
            return sorted(self._files.list(folder), key=lambda stored: stored.name)

    @contextmanager
    def _wrapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except self._files.errors as error:
            # What the operating system says of a local file carries a number, and what a client says of its store does not.
            if isinstance(error, OSError) and error.errno is not None:
                raise failures.output_error(error, self.uri, doing) from error
            raise self._files.output_error(error, doing) from error
