"""The hands of a reign, modelled: mirrors `antinfer.master.publisher` and `antinfer.master.sealing` step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from antinfer.core import commands
from antinfer.core.events import Event, Flushed, OutputAudited, OutputListed, Published, Sealed, StagingListed, StagingSwept
from antinfer.core.records import CommitRecord, fitting, schema_of
from antinfer.errors import AntinferError, FencedError, ForeignOutputError, InternalError
from antinfer.storage import layout
from antinfer.testing.sim import proof
from antinfer.testing.sim.output import Place
from antinfer.testing.sim.scenario import Switches
from antinfer.testing.sim.world import Party, Run, Signal

MakeEvent = Callable[[int], Event]


class Publisher:
    """Carries out the effects of one reign on the output place: publications in one line, everything else in another."""

    def __init__(
        self,
        party: Party,
        place: Place,
        epoch: int,
        switches: Switches,
        *,
        post: Callable[[MakeEvent], None],
        fail: Callable[[AntinferError], None],
    ) -> None:
        self._world = party.world
        self._party = party
        self._place = place
        self._epoch = epoch
        self._switches = switches
        self._post = post
        self._fail = fail
        self._is_stopped = False
        self._busy = 0
        self._idle = Signal()
        self._unpublished: deque[CommitRecord] = deque()
        self._is_publishing = False
        self._others: deque[commands.Command] = deque()
        self._is_acting = False
        self._chunks = 0

    def stop(self) -> Run[None]:
        """Begin nothing more, and wait for what is under way."""
        self._is_stopped = True
        while self._busy:
            yield self._idle

    # -- publications ------------------------------------------------------------------------------------------------------------
    def publish(self, records: Sequence[CommitRecord]) -> None:
        self._unpublished.extend(records)
        if not self._is_publishing:
            self._is_publishing = True
            self._world.spawn(self._party, self._guarded(self._publish_all()))

    def _publish_all(self) -> Run[None]:
        while self._unpublished and not self._is_stopped:
            records = tuple(self._unpublished)
            self._unpublished.clear()
            yield from self._check_epoch()
            done: list[str] = []
            missing: list[str] = []
            for record in records:
                found = yield from self._publish_one(record)
                (done if found else missing).append(record.staged)
            self._world.note(self._party.name, "published {}, missing {}", done, missing)
            if missing:
                yield from self._check_epoch()
            self._tell_published(tuple(done), tuple(missing))
        self._is_publishing = False

    def _publish_one(self, record: CommitRecord) -> Run[bool]:
        """Publish; return False when its objects are nowhere."""
        yield from self._wait_for_place()
        try:
            yield from self._place.publish(record)
        except InternalError as error:
            self._world.note(self._party.name, "cannot publish: {}", error)
            return False
        return True

    def _tell_published(self, done: tuple[str, ...], missing: tuple[str, ...]) -> None:
        self._post(lambda at: Published(at, done, missing))

    def _check_epoch(self) -> Run[None]:
        self._fence()
        yield "looked at the epochs"

    def _fence(self) -> None:
        highest = self._place.highest_epoch()
        if self._switches.claims_output and highest > self._epoch:
            raise FencedError(f"epoch {highest} has claimed the output; this one had {self._epoch}")

    # -- everything else ---------------------------------------------------------------------------------------------------------
    def carry_out(self, command: commands.Command) -> None:
        self._others.append(command)
        if not self._is_acting:
            self._is_acting = True
            self._world.spawn(self._party, self._guarded(self._act_all()))

    def _act_all(self) -> Run[None]:
        while self._others and not self._is_stopped:
            yield from self._act(self._others.popleft())
        self._is_acting = False

    def _wait_for_place(self) -> Run[None]:
        while self._place.is_refusing:
            yield 20

    def _act(self, command: commands.Command) -> Run[None]:
        yield from self._wait_for_place()
        match command:
            case commands.Flush(records):
                yield from self._flush(records)
            case commands.ListStaging():
                yield from self._check_epoch()
                yield "is about to list staging"
                listed = tuple(self._place.list_staging())
                yield "listed staging"
                self._post(lambda at: StagingListed(at, listed))
            case commands.Collect(staged):
                yield "is about to collect"
                for name in staged:
                    self._world.note(self._party.name, "collects {}", name)
                    self._place.collect(name)
                    yield "collected an object"
                self._place.sync()
            case commands.SweepStaging(before, keep):
                yield from self._sweep(before, frozenset(keep))
            case commands.Recover(records):
                yield from self._check_epoch()
                yield from self._recover(records)
            case commands.ListOutput():
                yield from self._list_output()
            case commands.AuditOutput():
                yield from self._check_epoch()
                removed = proof.orphans(self._place, proof.read_all(self._place)) if self._switches.audits else []
                yield from self._remove(removed)
                self._post(lambda at: OutputAudited(at, tuple(removed)))
            case commands.Seal():
                yield from self._check_epoch()
                yield from self._seal()
                self._post(Sealed)
            case _:
                raise InternalError(f"no effect is known for {command!r}")

    def _flush(self, records: tuple[CommitRecord, ...]) -> Run[None]:
        self._write_chunk(records)
        yield "wrote a chunk"
        flushed = tuple(str(record.staged) for record in records)
        self._post(lambda at: Flushed(at, flushed))

    def _write_chunk(self, records: Sequence[CommitRecord]) -> str:
        self._chunks += 1
        name = layout.chunk_name(self._epoch, self._chunks)
        while name in self._place.chunks and not self._switches.claims_output:
            # Without rule 9 two reigns of one number would overwrite each other's chunks; that is not what is to be shown here.
            self._chunks += 1
            name = layout.chunk_name(self._epoch, self._chunks)
        self._place.chunks[name] = tuple(records)
        self._place.sync()
        return name

    def _recover(self, records: tuple[CommitRecord, ...]) -> Run[None]:
        published = proof.published(self._place, proof.read_all(self._place))
        free = fitting(proof.without_rivals(self._place, records), schema_of(published))
        yield "listed the output for rivals"
        done: list[str] = []
        for record in free:
            if (yield from self._publish_one(record)):
                done.append(record.staged)
        missing = [str(record.staged) for record in records if record.staged not in done]
        if missing:
            yield from self._check_epoch()
        self._world.note(self._party.name, "recovered {}, missing {}", done, missing)
        self._tell_published(tuple(done), tuple(missing))

    def _sweep(self, before: int, keep: frozenset[str]) -> Run[None]:
        yield from self._check_epoch()
        if self._switches.sweeps:
            for path in self._place.swept(before, keep):
                self._world.note(self._party.name, "sweeps {}", path)
                self._place.discard(path)
                yield "swept an object"
            self._place.sync()
        yield "swept staging"
        self._post(StagingSwept)

    def _list_output(self) -> Run[None]:
        place = self._place
        flushed = {record.key for record in proof.read_all(place)}
        yield "read the manifest"
        records = tuple(proof.published(place, proof.read_all(place)))
        unproven = proof.orphans(place, records)
        yield "listed the output"
        strays = [name for name in unproven if layout.is_part(name)] if self._switches.spares_parts else []
        if strays:
            raise ForeignOutputError(f"no record of a commit is known for {strays}")
        if self._switches.removes_orphans:
            yield from self._remove(unproven)
        yield from self._check_epoch()
        self._world.note(self._party.name, "the output proves {}", [record.staged for record in records])
        unflushed = tuple(record for record in records if record.key not in flushed)
        self._post(lambda at: OutputListed(at, records, unflushed))

    def _remove(self, names: list[str]) -> Run[None]:
        """Remove objects by name: the one act that cannot be fenced, since a process may be stopped for long before each of them."""
        if not names:
            return
        self._fence()
        for name in names:
            yield "is about to remove"
            self._world.note(self._party.name, "removes {}", name)
            self._place.remove(name)
        self._place.sync()
        yield "removed orphans"

    def _seal(self) -> Run[None]:
        place = self._place
        kept = proof.published(place, proof.read_all(place))
        yield "gathered the records"
        old = list(place.chunks)
        new = self._write_chunk(kept)
        yield "rewrote the manifest"
        for name in old:
            if name != new:
                place.chunks.pop(name, None)
        yield "removed old chunks"
        place.success = proof.sums(kept)
        place.sync()
        yield "sealed"

    def _guarded(self, work: Run[None]) -> Run[None]:
        self._busy += 1
        try:
            yield from work
        except AntinferError as error:
            self._fail(error)
        self._busy -= 1
        self._idle.set()
