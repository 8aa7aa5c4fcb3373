"""The engine: `step(event) -> commands`. One instance is one master's reign over one job.

The engine joins ledger, sessions and publications; what it decides is durable before it is done: the shell persists `take_changes()` before
it carries out any command of the batch (rules 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

from antinfer.core import commands, documents, events, guards
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.documents import Changes
from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.ledger import Lease, Ledger
from antinfer.core.members import Members
from antinfer.core.messages import Push, Verdict
from antinfer.core.plan import PlanIndex
from antinfer.core.publications import Publications
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord, distinct, schema_of
from antinfer.core.rounds import Round
from antinfer.core.sessions import Sessions
from antinfer.core.story import Story


class Phase(Enum):
    """Where the reign stands; each phase ends with the event named."""

    NEW = "new"
    """Not started."""
    SWEEPING = "sweeping"
    """Making sure nothing of earlier epochs can be published but the records that the store knows (`StagingSwept`)."""
    RECOVERING = "recovering"
    """The store is not the one the state was written to: publishing the records it knows (`Published`)."""
    LISTING = "listing"
    """Reading what the output proves (`OutputListed`)."""
    SERVING = "serving"
    """Granting and committing."""
    SETTLING = "settling"
    """Every row is committed; publishing and flushing the last records (`Flushed`)."""
    COLLECTING = "collecting"
    """Last look through staging (`StagingListed`)."""
    AUDITING = "auditing"
    """Comparing final names with records (`OutputAudited`)."""
    SEALING = "sealing"
    """Writing ``_SUCCESS`` (`Sealed`)."""
    DONE = "done"
    FAILED = "failed"


# A tuple, because enum members are dear to hash and most questions end at the first one.
_RULING: Final = (Phase.SERVING, Phase.SETTLING, Phase.COLLECTING, Phase.AUDITING, Phase.SEALING, Phase.DONE)


@dataclass(frozen=True, slots=True)
class Progress:
    """Figures for display."""

    phase: Phase
    shards_planned: int
    plan_complete: bool
    shards_finished: int
    shards_open: int
    rows_done: int
    rows_out: int
    rows_quarantined: int
    rows_retried: int
    """In a retry round: rows of it that were tried again."""
    leases: int
    sessions: int


class Engine:
    """Pure state machine of a master. Not thread-safe; owns everything it is given."""

    def __init__(self, config: EngineConfig, plan: PlanIndex, epoch: int, round: Round | None = None) -> None:
        """
        Args:
            config: policy.
            plan: what is durably planned so far; the engine extends it on `PlanExtended`.
            epoch: number of this reign, durably claimed before.
            round: the retry round that this reign is about, durably opened before; None: the plan itself.
        """
        self.config = config
        self.epoch = epoch
        self.round = round
        self._round_number = 0 if round is None else round.number
        self.plan = plan
        self.phase = Phase.NEW
        self.ledger = Ledger(plan)
        self.sessions = Sessions(config.ttl_ms, config.grace_ms)
        self.publications = Publications()
        self.meta = documents.Meta(round=self._round_number)
        self.story = Story()
        self.out: list[commands.Command] = []
        """Commands of the step under way."""
        self._members = Members(self)
        self._handlers = {**self._own_handlers(), **self._members.handlers()}
        self._unrecovered: dict[str, CommitRecord] = {}
        self._reset = False
        self.is_rebuilt = False
        """The output alone told what is committed: what else earlier reigns knew is lost."""
        self._next_lease = 1
        self._next_collect = 0

    # -- entry points ------------------------------------------------------------------------------------------------------------
    def start(self, at: int, stored: Mapping[str, str] | None, *, trusted: bool) -> list[commands.Command]:
        """Begin the reign.

        Args:
            at: time in ms.
            stored: documents found in the store; None or empty when there are none.
            trusted: the store is provably the one they were written to, with nothing lost (rule 11). Otherwise, and where they are about
                another retry round, the output place decides what is committed.
        """
        loaded = documents.decode(stored or {})
        self._next_collect = at + self.config.collect_ms
        if stored and trusted and loaded.meta.round == self._round_number:
            self.meta = loaded.meta
            self.ledger.restore(loaded.meta.cursor, loaded.meta.finished, loaded.shards.items())
            self.publications.restore(loaded.records.values())
            self._members.restore(loaded.sessions, at)
            if loaded.sessions:
                self.meta.causes[Cause.MASTER_LOST.value] += 1
            if loaded.records:
                self.out.append(commands.Publish(tuple(loaded.records.values())))
            self._serve(at)
        else:
            # Sweeping comes first: what a paused master of another store has yet to publish must not meet what is published now.
            self.phase = Phase.SWEEPING
            self._unrecovered = loaded.records
            self.out.append(commands.SweepStaging(self.epoch, keep=tuple(loaded.records)))
        taken, self.out = self.out, []
        return taken

    def step(self, event: events.Event) -> list[commands.Command]:
        """Apply one event and return what must be done about it, once `take_changes` is durable."""
        self.story.cause += 1
        self.sessions.observe(event.at)
        self._handlers[type(event)](event)
        taken, self.out = self.out, []
        return taken

    def take_changes(self) -> Changes:
        """Return what changed since the last call, as documents."""
        changes = Changes(reset=self._reset)
        changes.note(documents.SHARD, self.ledger.dirty, self.ledger.open.get, documents.encode_shard)
        changes.note(documents.RECORD, self.publications.dirty, self.publications.records.get, CommitRecord.to_text)
        changes.note(documents.SESSION, self._members.leasing.dirty, self.sessions.get, documents.encode_session)
        if changes or self._members.leasing.counters_dirty:
            self.meta.cursor = self.ledger.cursor
            self.meta.finished = self.ledger.finished
            self.meta.closed_below[self.epoch] = self._next_lease
            changes.puts[documents.META] = documents.encode_meta(self.meta)
        self._reset = False
        self._members.leasing.counters_dirty = False
        self.ledger.dirty.clear()
        self.publications.dirty.clear()
        self._members.leasing.dirty.clear()
        return changes

    def progress(self) -> Progress:
        totals = self.meta.totals
        return Progress(
            phase=self.phase,
            shards_planned=len(self.plan),
            plan_complete=self.plan.complete,
            shards_finished=len(self.ledger.finished),
            shards_open=len(self.ledger.open),
            rows_done=totals.rows_done,
            rows_out=totals.rows_out,
            rows_quarantined=totals.rows_quarantined,
            rows_retried=self.meta.rows_retried,
            leases=len(self.ledger.leases),
            sessions=len(self.sessions),
        )

    def counters(self) -> dict[str, int]:
        """Return counts for display, by name: commits, their rows out and causes of interruptions since the job began, all else since
        this reign did."""
        totals = self.meta.totals
        return {
            "commits": totals.commits,
            "rows_out": totals.rows_out,
            "leases_granted": self._next_lease - 1,
            **asdict(self._members.leasing.tally),
            **{f"cause_{cause}": count for cause, count in self.meta.causes.items()},
        }

    @property
    def is_ruling(self) -> bool:
        """True when workers may be answered: the state is loaded and the job has not been given up."""
        return self.phase in _RULING

    def is_of_round(self, record: CommitRecord) -> bool:
        """Tell whether `record` is about what this reign is: the plan, or exactly the rows of its retry round."""
        return not record.round if self.round is None else self.round.takes(record)

    # -- for the parts of the engine ---------------------------------------------------------------------------------------------
    def new_lease_id(self) -> LeaseId:
        lease = LeaseId(self.epoch, self._next_lease)
        self._next_lease += 1
        return lease

    def accept(self, record: CommitRecord, lease: Lease, at: int, who: str) -> list[Lease]:
        """Make a checked commit part of the state; return the other leases it cut."""
        cut = self.ledger.commit(lease, record.stop)
        self.story.tell(at, "committed", lease, who, record.rows)
        self.publications.add(record)
        if record.round:
            self._count(record)
        else:
            self.meta.totals.count(record)
        self.out.append(commands.Publish((record,)))
        if record.rows_quarantined:
            self.meta.causes[Cause.BAD_ROW.value] += record.rows_quarantined
        if self.meta.totals.rows_quarantined and self._has_too_many_bad_rows(final=self.ledger.is_complete):
            self.fail(self._bad_rows_reason())
        return cut

    def fail(self, reason: str, traceback: str = "") -> None:
        """Give the job up: keep what is committed, tell everybody, grant nothing more."""
        if self.phase is Phase.FAILED:
            return
        self.phase = Phase.FAILED
        self._members.leasing.tell_everybody(Push(verdict=Verdict.FAILED, reason=reason))
        self.failure = reason
        self.out.append(commands.GiveUp(reason, traceback))

    def hindrance(self, at: int) -> str:
        """Say why no work is handed out at the moment; empty when nothing is in the way."""
        return self._members.leasing.hindrance.text(at)

    failure: str = ""
    """Why the job was given up; empty while it was not."""

    def settle(self, at: int) -> None:
        """Go on towards the end when every row is committed."""
        if not self.ledger.is_complete:
            return
        if self.phase is Phase.SERVING:
            if self._has_too_many_bad_rows(final=True):
                self.fail(self._bad_rows_reason())
                return
            self.phase = Phase.SETTLING
            self._members.leasing.tell_everybody(Push(verdict=Verdict.DONE))
        if self.phase is Phase.SETTLING:
            self._flush(at, force=True)
            if not self.publications.records:
                self.phase = Phase.COLLECTING
                self.out.append(commands.ListStaging())

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _serve(self, at: int) -> None:
        self.phase = Phase.SERVING
        self._members.leasing.counters_dirty = True
        self.settle(at)

    def _flush(self, at: int, *, force: bool = False) -> None:
        batch = self.publications.take_flush(at, records=self.config.flush_records, ms=self.config.flush_ms, force=force)
        if batch:
            self.out.append(commands.Flush(batch))

    def _list_output(self) -> None:
        self.phase = Phase.LISTING
        self.out.append(commands.ListOutput())

    def _count(self, record: CommitRecord) -> None:
        self.meta.totals.count(record)
        if record.round == self._round_number:
            self.meta.rows_retried += record.rows_retried

    def _has_too_many_bad_rows(self, *, final: bool) -> bool:
        """A retry takes rows out of quarantine and puts no others in: it is not stopped for those that are there."""
        totals = self.meta.totals
        return self.round is None and self.config.bad_rows.is_exceeded(totals.rows_quarantined, totals.rows_done, final=final)

    def _bad_rows_reason(self) -> str:
        totals = self.meta.totals
        return self.config.bad_rows.reason(totals.rows_quarantined, totals.rows_done)

    def _rebuild(self, event: events.OutputListed) -> None:
        records = distinct(event.records)
        self.meta.schema = self.meta.schema or schema_of(records)
        for record in records:
            self._count(record)
        try:
            self._adopt(records)
        except (ValueError, IndexError) as error:
            self.fail(f"the output place contradicts itself or the plan: {error}")
            return
        for record in distinct(event.unflushed):
            self.publications.add(record, published=True)
        self.is_rebuilt = True
        if event.records and self.epoch > 1 and not self.meta.causes[Cause.STORE_LOST.value]:
            # Else its loss has been told of already.
            self.meta.causes[Cause.STORE_LOST.value] += 1
        self.meta.closed_below = dict.fromkeys(range(1, self.epoch), UNSIZED)
        self._serve(event.at)

    def _adopt(self, records: list[CommitRecord]) -> None:
        """Rebuild the ledger. Raises ValueError or IndexError, which say where, when `records` cannot all be right."""
        later = next((record.round for record in records if record.round > self._round_number), None)
        if later is not None:
            raise ValueError(f"there are results of the retry round {later}, and no word that it was ever opened")
        if self.round is not None:
            self.round.begin(self.ledger, [record for record in records if record.round == self.round.number])
            return
        by_shard: dict[ShardId, list[Rows]] = {}
        for record in records:
            by_shard.setdefault(ShardId(record.shard), []).append(record.rows)
        for shard_id in sorted(by_shard):
            try:
                self.ledger.adopt(shard_id, sorted(by_shard[shard_id]))
            except (ValueError, IndexError) as error:
                raise ValueError(f"shard {shard_id}: {error}") from error

    # -- handlers ----------------------------------------------------------------------------------------------------------------
    def _on_ticked(self, event: events.Ticked) -> None:
        if self.phase is Phase.SERVING:
            self._members.look_around(event.at)
            self._flush(event.at)
            if event.at >= self._next_collect:
                self._next_collect = event.at + self.config.collect_ms
                self.out.append(commands.ListStaging())
        self.settle(event.at)

    def _on_plan_extended(self, event: events.PlanExtended) -> None:
        self.plan.extend(event.rows)
        self._members.leasing.nudge(len(event.rows))

    def _on_plan_completed(self, event: events.PlanCompleted) -> None:
        self.plan.complete = True
        self.settle(event.at)

    def _on_published(self, event: events.Published) -> None:
        self.publications.note_published(event.staged, event.at)
        if self.phase is Phase.RECOVERING:
            for staged in (*event.staged, *event.missing):
                self._unrecovered.pop(staged, None)
            if not self._unrecovered:
                self._list_output()
            return
        if event.missing:
            self.fail(f"acknowledged results are neither staged nor published: {', '.join(event.missing)}")
            return
        self._flush(event.at)
        self.settle(event.at)

    def _on_flushed(self, event: events.Flushed) -> None:
        self.publications.note_flushed(event.staged)
        self.settle(event.at)

    def _on_staging_swept(self, event: events.StagingSwept) -> None:
        if self.phase is not Phase.SWEEPING:
            return
        if self._unrecovered:
            self.phase = Phase.RECOVERING
            self.out.append(commands.Recover(tuple(self._unrecovered.values())))
        else:
            self._list_output()

    def _on_output_listed(self, event: events.OutputListed) -> None:
        if self.phase is Phase.LISTING:
            self._reset = True
            self._rebuild(event)

    def _on_staging_listed(self, event: events.StagingListed) -> None:
        known = {**self.meta.closed_below, self.epoch: self._next_lease}
        garbage = tuple(
            staged for staged in event.staged if guards.may_collect(staged, self.ledger.leases, self.publications.records, known)
        )
        if garbage:
            self.out.append(commands.Collect(garbage))
        if self.phase is Phase.COLLECTING:
            self.phase = Phase.AUDITING
            self.out.append(commands.AuditOutput())

    def _on_output_audited(self, event: events.OutputAudited) -> None:
        if self.phase is Phase.AUDITING:
            self.phase = Phase.SEALING
            self.out.append(commands.Seal(self.meta.totals.rows_done))

    def _on_sealed(self, event: events.Sealed) -> None:
        if self.phase is Phase.SEALING:
            self.phase = Phase.DONE

    def _on_interruption_seen(self, event: events.InterruptionSeen) -> None:
        self._members.leasing.count(event.cause, event.times)

    def _on_job_failed(self, event: events.JobFailed) -> None:
        self.fail(event.reason)

    def _own_handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            events.Ticked: self._on_ticked,
            events.PlanExtended: self._on_plan_extended,
            events.PlanCompleted: self._on_plan_completed,
            events.Published: self._on_published,
            events.Flushed: self._on_flushed,
            events.StagingSwept: self._on_staging_swept,
            events.StagingListed: self._on_staging_listed,
            events.OutputListed: self._on_output_listed,
            events.OutputAudited: self._on_output_audited,
            events.Sealed: self._on_sealed,
            events.InterruptionSeen: self._on_interruption_seen,
            events.JobFailed: self._on_job_failed,
        }
