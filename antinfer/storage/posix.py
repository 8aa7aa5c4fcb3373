"""An output place on a file system with atomic rename: a local disk, NFS, or a mounted cluster file system."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from antinfer import faultpoints
from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.errors import JobFileError, OutputError
from antinfer.storage import failures, layout
from antinfer.storage.place import StoredObject
from antinfer.storage.placebase import FilePlace, claim_text, neither, twice
from antinfer.storage.spool import Spool, collect_dead


class PosixPlace(FilePlace):
    """`OutputPlace` on a local or mounted path. Staged objects are files in ``_antinfer/staging``, publication is a rename."""

    def __init__(self, uri: str) -> None:
        """Take an absolute or relative path or a ``file://`` URI; touches nothing. Symbolic links are resolved: one place, one name."""
        self._root = os.path.realpath(_local_path(uri))
        self._spool = Spool(self._path(layout.folder(layout.SPOOL)))
        self._synced: set[str] = set()

    @property
    def uri(self) -> str:
        return self._root

    def check_writable(self) -> None:
        name = f"{layout.HIDDEN}/check-{uuid4().hex}"
        self.write(name, b"")
        with self._wrapped("listing"):
            found = Path(name).name in os.listdir(self._path(layout.HIDDEN))
        if not found:
            raise OutputError(f"output {self._root}: a file just written is not listed", hint="Is this a mount with delayed visibility?")
        self.remove((name,))

    def close(self) -> None:
        self._spool.close()

    # -- epochs ------------------------------------------------------------------------------------------------------------------------

    def claim_epoch(self, epoch: int, owner: str) -> bool:
        folder = layout.folder(layout.EPOCHS)
        claim = claim_text(epoch, owner)
        with self._wrapped(f"claiming epoch {epoch}"):
            faultpoints.hit("storage.claim", epoch=epoch)
            self._make_folder(folder)
            draft = self._draft()
            final = self._path(layout.epoch_name(epoch))
            _write_synced(draft, claim)
            try:
                os.link(draft, final)
                won = True
            except FileExistsError:
                # A network file system may repeat a link whose answer was lost: then the existing file is our own draft.
                won = os.path.samefile(draft, final)
            os.unlink(draft)
            _sync_folder(self._path(folder))
        return won

    # -- staging -----------------------------------------------------------------------------------------------------------------------

    def stage(self, staged: StagedName, kind: ObjectKind, final: str, source: str) -> StagedObject:
        folder = layout.folder(layout.STAGING)
        target = self._path(layout.staged_path(staged, kind))
        with self._wrapped(f"staging {staged}"):
            faultpoints.hit("storage.stage", staged=staged, kind=kind)
            self._make_folder(folder)
            # It may have been moved by an earlier call that failed behind that.
            if os.path.lexists(source) or not os.path.lexists(target):
                self._move(source, target)
            _sync_folder(self._path(folder))
        return StagedObject(kind)

    def local_spool(self) -> str:
        with self._wrapped("making a spool folder"):
            faultpoints.hit("storage.spool")
            self._make_folder(layout.folder(layout.SPOOL))
            return self._spool.folder()

    def sweep(self, before: int, keep: tuple[str, ...]) -> None:
        super().sweep(before, keep)
        with self._wrapped("removing spool folders of dead processes"):
            collect_dead(self._path(layout.folder(layout.SPOOL)))

    # -- final names -------------------------------------------------------------------------------------------------------------------

    def remove(self, names: tuple[str, ...]) -> None:
        with self._wrapped("removing"):
            faultpoints.hit("storage.remove", objects=len(names))
            gone: set[str] = set()
            for name in names:
                try:
                    os.unlink(self._path(name))
                    gone.add(os.path.dirname(name))
                except FileNotFoundError:
                    continue
            # A removal that a power cut undoes would bring back an object that was judged not to exist.
            for folder in gone:
                _sync_folder(self._path(folder))

    def clear(self) -> None:
        self._synced.clear()
        with self._wrapped("removing everything"):
            if os.path.exists(self._root):
                shutil.rmtree(self._root)

    # -- whole small objects -------------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        with self._wrapped(f"reading {name}"):
            faultpoints.hit("storage.read", object=name)
            try:
                return Path(self._path(name)).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        folder = os.path.dirname(name)
        with self._wrapped(f"writing {name}"):
            faultpoints.hit("storage.write", object=name)
            self._make_folder(folder)
            draft = self._draft()
            try:
                _write_synced(draft, data)
                os.rename(draft, self._path(name))
            except OSError:
                Path(draft).unlink(missing_ok=True)
                raise
            _sync_folder(self._path(folder))

    def open(self, name: str) -> BinaryIO:
        try:
            return open(self._path(name), "rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failures.output_error(error, self._root, f"opening {name}") from error

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> None:
        folder = os.path.dirname(final)
        self._make_folder(folder)
        self._rename(record, staged.kind, final)
        # Each before the next: a power cut must not leave a part without what belongs to it. And also when nothing was left to rename:
        # whoever renamed before us may have died before its sync.
        _sync_folder(self._path(folder))

    def _rename(self, record: CommitRecord, kind: ObjectKind, final: str) -> None:
        source, target = self._path(layout.staged_path(record.staged, kind)), self._path(final)
        if os.path.lexists(target):
            if os.path.lexists(source):
                raise twice(self._root, record, final)
            self._check_owner(record, final, is_part=kind == "part")
            return
        try:
            os.rename(source, target)
        except FileNotFoundError as error:
            if not os.path.lexists(target):
                raise neither(self._root, record, kind) from error

    def _move(self, source: str, target: str) -> None:
        _sync_file(source)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_over(source, target)

    def _copy_over(self, source: str, target: str) -> None:
        draft = self._draft()
        shutil.copyfile(source, draft)
        _sync_file(draft)
        os.rename(draft, target)
        os.unlink(source)

    def _draft(self) -> str:
        """Name a file to be written on this file system and renamed; one that is left behind is collected with our spool folder."""
        self._make_folder(layout.folder(layout.SPOOL))
        return os.path.join(self._spool.folder(), uuid4().hex)

    def _list(self, folder: str) -> list[StoredObject]:
        found: list[StoredObject] = []
        with self._wrapped(f"listing {folder or 'parts'}"):
            faultpoints.hit("storage.list", folder=folder)
            try:
                entries = os.scandir(self._path(folder))
            except FileNotFoundError:
                return []
            with entries:
                for entry in entries:
                    stored = _stored(folder, entry)
                    if stored is not None:
                        found.append(stored)
        return sorted(found, key=lambda stored: stored.name)

    def _make_folder(self, name: str) -> None:
        """Make a folder and every missing one above it, each durable in its parent.

        Folders inside the place are synced once by every process that uses them: whoever made them may not have got so far yet.
        """
        if name in self._synced:
            return
        path = self._path(name)
        above: list[str] = []
        while not os.path.isdir(path):
            above.append(path)
            path = os.path.dirname(path)
        for missing in reversed(above):
            try:
                os.mkdir(missing)
            except FileExistsError:
                if not os.path.isdir(missing):
                    raise
            _sync_folder(os.path.dirname(missing))
        path = self._path(name)
        while path != self._root:
            path = os.path.dirname(path)
            _sync_folder(path)
        self._synced.add(name)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name) if name else self._root

    def _wrapped(self, doing: str) -> AbstractContextManager[None]:
        return failures.wrapped(self._root, doing)


def _local_path(uri: str) -> str:
    if not uri.startswith("file://"):
        return os.path.expanduser(uri)
    split = urlsplit(uri)
    if split.netloc not in ("", "localhost"):
        raise JobFileError(f"output {uri}: a file:// URI cannot name another host ({split.netloc})", hint="Write file:///path.")
    return unquote(split.path)


def _stored(folder: str, entry: os.DirEntry[str]) -> StoredObject | None:
    """Describe a listed file; None for folders, for hidden drafts and for what vanished since."""
    if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
        return None
    try:
        size = entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
    return StoredObject(f"{folder}/{entry.name}" if folder else entry.name, size)


def _write_synced(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_file(path: str) -> None:
    _sync(path, os.O_RDONLY)


def _sync_folder(path: str) -> None:
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
