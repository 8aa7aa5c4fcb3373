"""Small files that appear whole in a store where a file can be seen while it is written.

They are written under a name in staging that nobody knows, and renamed. Who dies in between leaves the draft to the next sweep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from antinfer.storage import layout
from antinfer.storage.place import StoredObject


class DraftedFiles(ABC):
    """The part of `renaming.Files` that is the same wherever a rename is all that a store does at once."""

    errors: tuple[type[Exception], ...]

    def __init__(self) -> None:
        self._drafts: set[str] = set()
        """Files that are being written here, which no sweep of ours shall meet."""

    @abstractmethod
    def read(self, name: str) -> bytes | None: ...

    @abstractmethod
    def delete(self, names: tuple[str, ...]) -> None: ...

    @abstractmethod
    def _put(self, name: str, data: bytes) -> None:
        """Write a file, durably; until it is done, there may be a part of it."""

    @abstractmethod
    def _rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Rename at once. Raises FileNotFoundError without `source`, FileExistsError where `target` is taken and may not be replaced."""

    def _write(self, name: str, data: bytes, *, overwrite: bool) -> None:
        with self._draft() as draft:
            try:
                self._put(draft, data)
                self._rename(draft, name, overwrite=overwrite)
            except FileNotFoundError as error:
                # Either an attempt whose answer was lost has renamed it, or a new master has swept it.
                if self.read(name) != data:
                    raise OSError(f"{draft} is gone") from error

    @contextmanager
    def _draft(self) -> Iterator[str]:
        """Give a name in staging that nobody knows, for a file that is to be renamed in the block."""
        draft = f"{layout.folder(layout.STAGING)}/{uuid4().hex}.draft"
        self._drafts.add(draft)
        try:
            yield draft
        except self.errors:
            # The next sweep may be far, and room is perhaps what there is none of.
            with suppress(*self.errors):
                self.delete((draft,))
            raise
        finally:
            self._drafts.discard(draft)

    def _without_drafts(self, found: Iterable[StoredObject]) -> list[StoredObject]:
        return [stored for stored in found if stored.name not in self._drafts]
