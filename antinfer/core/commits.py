"""Whether a commit is accepted (DESIGN section 4): from a live lease of a live session, in order, with the schema of all others."""

from __future__ import annotations

from typing import Final

from antinfer.core import guards
from antinfer.core.causes import Cause
from antinfer.core.failures import Failures
from antinfer.core.ids import LeaseId
from antinfer.core.leasing import Leasing
from antinfer.core.ledger import Lease
from antinfer.core.messages import Acceptance, Commit, CommitOutcome
from antinfer.core.ranges import Rows
from antinfer.core.sessions import Session

_MOST_REMEMBERED: Final = 10_000


class Commits:
    """Judges commits."""

    def __init__(self, leasing: Leasing, failures: Failures) -> None:
        self._leasing = leasing
        self._failures = failures
        self._overtaken: set[LeaseId] = set()
        """Leases that another copy of their rows has cut: a commit of them that was under way is not late, only second."""

    def judge(self, session: Session, commit: Commit, at: int) -> CommitOutcome:
        """Accept a commit or say why not."""
        leasing, reign, record = self._leasing, self._leasing.reign, commit.record
        standing = reign.ledger.leases.get(commit.lease)
        left = standing.rows if standing is not None and standing.session == session.id else None
        if guards.is_recorded(record.staged, reign.publications.records):
            return CommitOutcome(record.staged, Acceptance.ACCEPTED, left)
        if (
            standing is None
            or reign.failure
            or not guards.commit_belongs(record, commit.lease, standing.session, session.id)
            or record.shard != standing.shard
            or not reign.is_of_round(record)
        ):
            return self._refuse(session, commit, standing, left, at)
        if guards.is_out_of_order(record.start, standing.rows.start):
            return CommitOutcome(record.staged, Acceptance.RETRY, standing.rows)
        if record.start != standing.rows.start or not record.start < record.stop <= standing.rows.stop:
            return self._refuse(session, commit, standing, standing.rows, at)
        if record.schema and reign.meta.schema and record.schema != reign.meta.schema:
            leasing.count(Cause.USER_ERROR)
            reign.fail(
                f"rows [{record.start}, {record.stop}) of shard {record.shard} have another output schema than the first commit: "
                "the pipeline must return the same columns and types for every batch"
            )
            leasing.tally.commits_refused += 1
            return CommitOutcome(record.staged, Acceptance.REFUSED, standing.rows)
        return self._accept(session, commit, standing, at)

    def _refuse(self, session: Session, commit: Commit, standing: Lease | None, left: Rows | None, at: int) -> CommitOutcome:
        """Refuse a commit, and say so in the story of its rows."""
        leasing, reign, record = self._leasing, self._leasing.reign, commit.record
        leasing.tally.commits_refused += 1
        if reign.failure:
            why = "the job had failed"
        elif standing is not None:
            why = "not what its lease is about"
        elif commit.lease in self._overtaken:
            why = Cause.OVERTAKEN.value
        else:
            leasing.count(Cause.WOKE_LATE)
            why = f"{Cause.WOKE_LATE.value}: its lease had ended"
        reign.story.tell_of(at, f"commit refused ({why})", record.shard, record.rows, commit.lease, session.worker)
        return CommitOutcome(record.staged, Acceptance.REFUSED, left)

    def _accept(self, session: Session, commit: Commit, standing: Lease, at: int) -> CommitOutcome:
        leasing, reign, record = self._leasing, self._leasing.reign, commit.record
        reign.meta.schema = reign.meta.schema or record.schema
        self._failures.note_commit(session)
        leasing.hindrance.note_commit(standing.granted_at, standing.committed_at, at)
        standing.committed_at = at
        session.near = (standing.shard, record.stop)
        leasing.note_reached(session, ((standing, record.stop),), at)
        for other in reign.accept(record, standing, at, session.worker):
            leasing.count(Cause.OVERTAKEN)
            if len(self._overtaken) >= _MOST_REMEMBERED:
                self._overtaken.clear()
            self._overtaken.add(other.id)
            leasing.tell_cut(other)
        if standing.id not in reign.ledger.leases:
            session.leases.discard(standing.id)
            return CommitOutcome(record.staged, Acceptance.ACCEPTED)
        return CommitOutcome(record.staged, Acceptance.ACCEPTED, standing.rows)
