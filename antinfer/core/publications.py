"""The life of a commit record: committed, published, flushed to the manifest, dropped."""

from __future__ import annotations

from collections.abc import Iterable

from antinfer.core import guards
from antinfer.core.records import CommitRecord


class Publications:
    """Records that are not yet both published and flushed. That a record is published is not stored: publishing is idempotent, so a later
    master simply publishes again."""

    def __init__(self) -> None:
        self.records: dict[str, CommitRecord] = {}
        self.dirty: set[str] = set()
        self._published: dict[str, None] = {}
        self._flushing: set[str] = set()
        self._flushed: set[str] = set()
        self._oldest_published_at = 0

    def add(self, record: CommitRecord, *, published: bool = False) -> None:
        self.records[record.staged] = record
        self.dirty.add(record.staged)
        if published:
            self._published[record.staged] = None

    def restore(self, records: Iterable[CommitRecord]) -> None:
        self.records = {record.staged: record for record in records}

    def note_published(self, staged: Iterable[str], now: int) -> None:
        for name in staged:
            if name in self.records:
                if not self._published:
                    self._oldest_published_at = now
                self._published[name] = None
                if guards.may_drop_record(published=True, flushed=name in self._flushed):
                    self._drop(name)

    def note_flushed(self, staged: Iterable[str]) -> None:
        for name in staged:
            self._flushing.discard(name)
            if name in self.records:
                self._flushed.add(name)
                if guards.may_drop_record(published=name in self._published, flushed=True):
                    self._drop(name)

    def take_flush(self, now: int, *, records: int, ms: int, force: bool) -> tuple[CommitRecord, ...]:
        """Return published records to be flushed now: when there are enough of them, the oldest has waited enough, or `force`.

        At most one flush is under way at a time, so that chunks of the manifest stay large.
        """
        if self._flushing or not self._published:
            return ()
        if not force and len(self._published) < records and now - self._oldest_published_at < ms:
            return ()
        batch = tuple(self.records[name] for name in self._published if name not in self._flushed)
        self._flushing = {record.staged for record in batch}
        self._oldest_published_at = now
        return batch

    def _drop(self, name: str) -> None:
        del self.records[name]
        self._published.pop(name, None)
        self._flushed.discard(name)
        self.dirty.add(name)
