"""The output place, modelled: names, what lies under them, and what a power cut leaves of it.

Mirrors `antinfer.storage.posix` here and `antinfer.storage.objectstore` in `uploads`: the same names, the same steps in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from antinfer.core.causes import Cause
from antinfer.core.records import CommitRecord, ObjectKind, StagedObject
from antinfer.core.rounds import Round
from antinfer.errors import InternalError, OutputError
from antinfer.storage import layout
from antinfer.testing.sim.world import Run, Signal, World


@dataclass(frozen=True, slots=True)
class Blob:
    """One object: whose it is and which rows it holds."""

    kind: ObjectKind
    record: CommitRecord
    """Readable in parts (of formats that can carry it) and in record objects."""
    rows: frozenset[int]
    """Offsets of the input rows whose results, or errors, are in it; empty for a record object."""
    is_synced: bool = True
    """Its content would survive a power cut."""

    @property
    def is_torn(self) -> bool:
        return not self.is_synced


class Place:
    """An output on a file system with atomic rename. Names are those of `antinfer.storage.layout`."""

    def __init__(self, world: World, suffix: str, *, private_names: bool = True) -> None:
        """
        Args:
            world: where it lies.
            suffix: of parts: ``parquet`` carries its record in itself, ``jsonl`` has a record object beside it.
            private_names: records and quarantine objects of each attempt have names of their own (rule 19).
        """
        self.world = world
        self.suffix = suffix
        self._private_names = private_names
        self.epochs: dict[int, str] = {}
        self.objects: dict[str, Blob] = {}
        """What lies under final names: parts, record and quarantine objects."""
        self.chunks: dict[str, tuple[CommitRecord, ...]] = {}
        """The manifest."""
        self.staging: dict[str, Blob] = {}
        """By path."""
        self.planned = 0
        """Shards of the plan that are durable."""
        self.plan_complete = False
        self.success: dict[str, int] | None = None
        self.rounds: dict[int, Round] = {}
        """Retry rounds that were opened."""
        self.refuses_until = 0
        """Until then nothing can be written or renamed."""
        self.refusal = Cause.STORAGE
        """Why not: it cannot be reached, is full, or forbids it."""
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever an object gets a final name."""
        self._journal: list[Callable[[], None]] = []
        """What a power cut may undo, newest last."""

    @property
    def is_refusing(self) -> bool:
        return self.world.now < self.refuses_until

    def refuse(self, until: int, why: Cause) -> None:
        """Write and rename nothing before the time `until` (ms)."""
        self.refuses_until, self.refusal = until, why

    def check(self) -> None:
        """Raise OutputError while the place refuses everything."""
        if self.is_refusing:
            raise OutputError("the output place refuses everything")

    @property
    def newest_round(self) -> int:
        return max(self.rounds, default=0)

    @property
    def sealed_round(self) -> int | None:
        """The last round that ``_SUCCESS`` speaks of; None without one."""
        return None if self.success is None else self.success["round"]

    # -- epochs ------------------------------------------------------------------------------------------------------------------
    def claim_epoch(self, epoch: int, owner: str) -> bool:
        """Create ``epochs/<epoch>`` unless it exists."""
        if epoch in self.epochs:
            return False
        self.epochs[epoch] = owner
        return True

    def highest_epoch(self) -> int:
        return max(self.epochs, default=0)

    # -- staging -----------------------------------------------------------------------------------------------------------------
    def stage(self, record: CommitRecord, blob: Blob, *, sync: bool) -> Run[StagedObject]:
        """Write an object and make it durable, step by step; return what the record has to say about it."""
        path = layout.staged_path(record.staged, blob.kind)
        yield "wrote a spool file"
        self.check()
        self.staging[path] = replace(blob, is_synced=sync)
        self._note_undo(lambda: self.staging.pop(path, None))
        yield "moved into staging"
        if sync:
            self.sync()
            yield "synced staging"
        return StagedObject(blob.kind)

    def list_staging(self) -> list[str]:
        found = (layout.split_staged(path) for path in self.staging)
        return sorted({name for name, _ in filter(None, found)})

    def collect(self, staged: str) -> None:
        """Delete every staged object of this name."""
        for kind in layout.KINDS:
            self.staging.pop(layout.staged_path(staged, kind), None)

    def swept(self, before: int, keep: frozenset[str]) -> list[str]:
        """Return what of staging belongs to reigns before `before`, and to none of the commits `keep`."""
        return [path for path in self.staging if layout.is_swept(path, before, keep)]

    def discard(self, path: str) -> None:
        """Make sure that what `path` in staging stands for will never be published."""
        self.staging.pop(path, None)

    # -- publication -------------------------------------------------------------------------------------------------------------
    def publish(self, record: CommitRecord) -> Run[None]:
        """Give the objects of `record` their final names, in order.

        Raises:
            InternalError: An object is neither staged nor published, or its name is taken by another commit.
        """
        for staged, final in zip(record.objects, self.final_names(record), strict=True):
            yield from self.publish_one(record, staged, final)
        self.sync()
        yield "synced final names"

    def publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> Run[None]:
        source = layout.staged_path(record.staged, staged.kind)
        yield f"looked for the {staged.kind}"
        if final in self.objects:
            if source in self.staging:
                raise InternalError(f"{final} exists already, but {record.staged} is still staged")
            self.check_owner(record, staged.kind, final)
            return
        blob = self.staging.pop(source, None)
        if blob is None:
            raise InternalError(f"{record.staged} is committed, but its {staged.kind} is neither staged nor published")
        self._note_undo(lambda: self._unpublish(source, final))
        self.put(final, blob)
        yield f"published the {staged.kind}"

    def check_owner(self, record: CommitRecord, kind: str, final: str) -> None:
        owner = self.read_record(final) if kind == "part" else None
        if owner is not None and owner.staged != record.staged:
            raise InternalError(f"{final} was published from {owner.staged}, not from {record.staged}")

    def put(self, final: str, blob: Blob) -> None:
        self.objects[final] = blob
        self.on_change()

    # -- final names -------------------------------------------------------------------------------------------------------------
    def final_name(self, kind: ObjectKind, record: CommitRecord) -> str:
        name = layout.final_name(kind, record, self.suffix)
        return name if kind == "part" or self._private_names else name.partition(".")[0]

    def final_names(self, record: CommitRecord) -> list[str]:
        """Return the final names of all objects of `record`, in publication order."""
        return [self.final_name(staged.kind, record) for staged in record.objects]

    def remove(self, name: str) -> None:
        self.objects.pop(name, None)
        self.chunks.pop(name, None)

    def read_record(self, name: str) -> CommitRecord | None:
        """Return the record that a part carries, or that a record object is; None when there is none to be read."""
        blob = self.objects.get(name)
        if blob is None or blob.is_torn or blob.kind == "quarantine" or (blob.kind == "part" and self.suffix != "parquet"):
            return None
        return blob.record

    # -- durability --------------------------------------------------------------------------------------------------------------
    def sync(self) -> None:
        """Make all names durable: a journal is written in order, so to sync one folder is to sync everything before."""
        self._journal.clear()

    def cut_power(self) -> None:
        """Lose the tail of the journal, and the content of files that were never synced."""
        lost = self._journal[self.world.rng.randint(0, len(self._journal)) :]
        for undo in reversed(lost):
            undo()
        self._journal.clear()

    def _note_undo(self, undo: Callable[[], object]) -> None:
        self._journal.append(lambda: void(undo()))

    def _unpublish(self, source: str, final: str) -> None:
        blob = self.objects.pop(final, None)
        if blob is not None:
            self.staging[source] = blob


def void(_: object) -> None:
    """Drop a value."""


class Uploads(Place):
    """An object store: a staged object is a multipart upload under its final name, completed at publication, aborted as the fence.

    The staging area holds only markers, by which uploads are found. What was sent to the store happens even if its sender is dead.
    """

    def __init__(self, world: World, suffix: str, *, flight_ms: int, private_names: bool = True) -> None:
        super().__init__(world, suffix, private_names=private_names)
        self._flight_ms = flight_ms
        self._uploads: dict[str, tuple[str, Blob]] = {}
        """Uploads that are neither completed nor aborted: staged path -> final name and content."""

    def stage(self, record: CommitRecord, blob: Blob, *, sync: bool) -> Run[StagedObject]:
        path = layout.staged_path(record.staged, blob.kind)
        final = self.final_name(blob.kind, record)
        self.check()
        self._uploads[path] = (final, blob)
        yield "began an upload"
        self.staging[path] = blob
        yield "wrote its marker"
        if path not in self._uploads:
            raise InternalError(f"the upload of {record.staged} was aborted")
        yield "uploaded"
        return StagedObject(blob.kind, path)

    def collect(self, staged: str) -> None:
        for kind in layout.KINDS:
            path = layout.staged_path(staged, kind)
            if self.staging.pop(path, None) is not None:
                self._uploads.pop(path, None)

    def swept(self, before: int, keep: frozenset[str]) -> list[str]:
        kept = {path for path in self.staging if not layout.is_swept(path, before, keep)}
        return sorted({*self._uploads, *self.staging} - kept)

    def discard(self, path: str) -> None:
        self._uploads.pop(path, None)
        self.staging.pop(path, None)

    def publish(self, record: CommitRecord) -> Run[None]:
        for staged, final in zip(record.objects, self.final_names(record), strict=True):
            yield from self.publish_one(record, staged, final)
        for staged in record.objects:
            self.staging.pop(layout.staged_path(record.staged, staged.kind), None)
            yield "deleted a marker"

    def publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> Run[None]:
        answer = Signal()
        self.world.after(self.world.rng.randint(0, self._flight_ms), lambda: self._complete(staged.token, answer))
        yield f"asked to complete the {staged.kind}"
        yield answer
        blob = self.objects.get(final)
        if blob is None or blob.record.staged != record.staged:
            owner = None if blob is None else blob.record.staged
            raise InternalError(f"the {staged.kind} of {record.staged} is not staged any more, and {final} is of {owner}")
        yield f"published the {staged.kind}"

    def _complete(self, token: str, answer: Signal) -> None:
        upload = self._uploads.pop(token, None)
        if upload is not None:
            self.put(*upload)
        answer.set()

    def cut_power(self) -> None:
        """The store is not on the machine whose power fails."""


class Copies(Place):
    """An object store where publication is a server-side copy and a deletion.

    antinfer does not publish like this: nothing can stop a copy that is on its way. It is here to show what the multipart form is for.
    """

    def __init__(self, world: World, suffix: str, *, flight_ms: int, private_names: bool = True) -> None:
        super().__init__(world, suffix, private_names=private_names)
        self._flight_ms = flight_ms

    def publish_one(self, record: CommitRecord, staged: StagedObject, final: str) -> Run[None]:
        source = layout.staged_path(record.staged, staged.kind)
        landed, blob = Signal(), self.staging.get(source)
        if blob is None:
            there = self.objects.get(final)
            if there is None or there.record.staged != record.staged:
                raise InternalError(f"{record.staged} is committed, but its {staged.kind} is neither staged nor published")
            return
        self.world.after(self.world.rng.randint(0, self._flight_ms), lambda: self._land(final, blob, landed))
        yield f"asked to copy the {staged.kind}"
        yield landed
        self.staging.pop(source, None)
        yield f"published the {staged.kind}"

    def _land(self, final: str, blob: Blob, landed: Signal) -> None:
        self.world.note("place", "a copy lands at {}", final)
        self.put(final, blob)
        landed.set()

    def cut_power(self) -> None:
        """The store is not on the machine whose power fails."""
