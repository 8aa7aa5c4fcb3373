"""The hands of a reign: publishes, flushes, collects and seals in threads; every result goes back to the loop as an event."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from antinfer import faultpoints
from antinfer.core import commands
from antinfer.core.events import (
    Event,
    Flushed,
    OutputAudited,
    OutputListed,
    Published,
    Sealed,
    StagingListed,
    StagingSwept,
)
from antinfer.core.records import CommitRecord, fitting, schema_of
from antinfer.errors import FencedError, InternalError, Interrupted
from antinfer.master.backoff import patiently
from antinfer.master.troubles import Troubles
from antinfer.storage.place import OutputPlace

_log = logging.getLogger("antinfer.publisher")
_HANDS: Final = 16
"""Publications at once: on an object store each is a few round trips."""
_INLINE: Final = 4
"""Publications that are not worth handing to other threads."""
_GATHER_S: Final = 0.01
"""Pause after a round of publications: each costs a look at the epochs and a turn of the loop, however many records it has."""

MakeEvent = Callable[[int], Event]


def check_epoch(place: OutputPlace, epoch: int) -> None:
    """Raise `FencedError` when a master of a later epoch has claimed `place`."""
    highest = place.highest_epoch()
    if highest is not None and highest.epoch > epoch:
        owner = highest.owner or "died as it claimed it"
        raise FencedError(
            f"another master rules this job: epoch {highest.epoch} ({owner}) has claimed the output {place.uri}; this one had {epoch}",
            hint="Only one master runs a job at a time; stop the other one first if this one is to take over.",
        )


class Publisher:
    """Carries out the effects of one reign on the output place."""

    def __init__(
        self,
        place: OutputPlace,
        suffix: str,
        epoch: int,
        *,
        post: Callable[[MakeEvent], None],
        fail: Callable[[BaseException], None],
        seal: Callable[[int, int], None],
        patience_s: float = 600.0,
        troubles: Troubles | None = None,
    ) -> None:
        """
        Args:
            place: the output place.
            suffix: of parts, without a dot.
            epoch: of this reign.
            post: takes results, from any thread.
            fail: ends the reign, from any thread.
            seal: writes the final manifest, the report and the mark of success; is given the first free chunk number and the
                rows to expect.
            patience_s: how long the output place may be away or full before the master gives up; nothing is lost by stopping.
            troubles: told what is waited for.
        """
        self._place = place
        self._suffix = suffix
        self._epoch = epoch
        self._post = post
        self._fail = fail
        self._seal = seal
        self._patience_s = patience_s
        self._troubles = troubles
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._unpublished: deque[CommitRecord] = deque()
        self._publishing = False
        self._chunks = 0
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="antinfer-publish")
        self._head = ThreadPoolExecutor(1, thread_name_prefix="antinfer-publisher")
        """Gathers publications, one batch after the other."""
        self._others = ThreadPoolExecutor(1, thread_name_prefix="antinfer-effects")
        """Everything else, in the order commanded."""

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way: after a reign no act of it may come late."""
        self._stopped.set()
        for pool in (self._others, self._head, self._hands):
            pool.shutdown(wait=True, cancel_futures=True)

    # -- publications --------------------------------------------------------------------------------------------------------------
    def publish(self, records: tuple[CommitRecord, ...]) -> None:
        """Give the objects of `records` their final names; ends in `Published`."""
        with self._lock:
            self._unpublished.extend(records)
            if self._publishing:
                return
            self._publishing = True
        self._head.submit(self._guarded, self._publish_all)

    def _publish_all(self) -> None:
        while True:
            with self._lock:
                records = tuple(self._unpublished)
                self._unpublished.clear()
                if not records or self._stopped.is_set():
                    self._publishing = False
                    return
            # Looked at after the commits were received: what is staged later cannot slip past another master's sweep (rule 9).
            self._patiently("reading epochs", self._check_epoch)
            faultpoints.hit("publish.begin", commits=len(records))
            outcomes = self._publish_some(records)
            faultpoints.hit("publish.done", commits=len(records))
            done = tuple(str(record.staged) for record, found in zip(records, outcomes, strict=True) if found)
            missing = tuple(str(record.staged) for record, found in zip(records, outcomes, strict=True) if not found)
            if missing:
                # Swept away by a master that rules since the look above? Then nothing is lost, and this one has no say any more.
                self._patiently("reading epochs", self._check_epoch)
            self._post(lambda at, done=done, missing=missing: Published(at, done, missing))  # type: ignore[misc]
            self._stopped.wait(_GATHER_S)

    def _publish_some(self, records: tuple[CommitRecord, ...]) -> list[bool]:
        """Publish; tell for each record whether its objects were there."""
        # A hand takes several records: handing each over alone would cost more than a rename.
        hands = min(_HANDS, len(records) // _INLINE)
        if hands < 2:
            return [self._publish_one(record) for record in records]
        slices = [records[first::hands] for first in range(hands)]
        outcomes = [False] * len(records)
        done = self._hands.map(lambda some: [self._publish_one(record) for record in some], slices)
        for first, found in enumerate(done):
            outcomes[first :: len(slices)] = found
        return outcomes

    def _publish_one(self, record: CommitRecord) -> bool:
        """Publish; return False when its objects are nowhere."""
        try:
            self._patiently("publishing", lambda: self._place.publish(record, self._suffix))
        except InternalError as error:
            _log.error("%s", error, extra={"action": "publish_missing", "staged": record.staged})
            return False
        return True

    def _check_epoch(self) -> None:
        check_epoch(self._place, self._epoch)

    # -- everything else -------------------------------------------------------------------------------------------------------------
    def carry_out(self, command: commands.Command) -> None:
        """Begin any other effect; each ends in the event that its command names."""
        self._others.submit(self._guarded, lambda: self._patiently(type(command).__name__, lambda: self._effect(command)))

    def _effect(self, command: commands.Command) -> None:
        from antinfer.storage import manifest

        match command:
            case commands.Flush(records):
                # A try that failed may have written its chunk after all; a number is never used for other records.
                self._chunks += 1
                faultpoints.hit("flush.begin", commits=len(records))
                manifest.append(self._place, self._epoch, self._chunks, records)
                faultpoints.hit("flush.done", commits=len(records))
                flushed = tuple(str(record.staged) for record in records)
                self._post(lambda at: Flushed(at, flushed))
            case commands.ListStaging():
                # Also the one look, every now and then, of a master that has nothing to publish.
                self._check_epoch()
                listed = tuple(self._place.list_staging())
                self._post(lambda at: StagingListed(at, listed))
            case commands.Collect(staged):
                faultpoints.hit("collect.begin", objects=len(staged))
                self._place.collect(staged)
                _log.info("collected %d staged objects", len(staged), extra={"action": "collect"})
            case commands.SweepStaging(before, keep):
                self._check_epoch()
                faultpoints.hit("sweep.begin", before=before)
                self._place.sweep(before, keep)
                self._post(StagingSwept)
            case commands.Recover(records):
                self._check_epoch()
                faultpoints.hit("recover.begin", commits=len(records))
                self._recover(records)
            case commands.ListOutput():
                faultpoints.hit("list.begin")
                flushed_keys = {record.key for record in manifest.read_all(self._place)}
                records = tuple(manifest.list_output(self._place, self._suffix, self._check_epoch))
                unflushed = tuple(record for record in records if record.key not in flushed_keys)
                # What another reign has published meanwhile may contradict the plan and the ledger of this one.
                self._check_epoch()
                _log.info("the output proves %d commits", len(records), extra={"action": "list_output"})
                self._post(lambda at: OutputListed(at, records, unflushed))
            case commands.AuditOutput():
                self._check_epoch()
                faultpoints.hit("audit.begin")
                removed = manifest.audit_parts(self._place, self._suffix, still_rules=self._check_epoch)
                if removed:
                    _log.warning("removed %d objects that no record names", len(removed), extra={"action": "audit", "names": removed[:100]})
                self._post(lambda at: OutputAudited(at, removed))
            case commands.Seal(rows):
                self._check_epoch()
                # Uploads whose worker died before it marked them cost money for as long as they stay open.
                self._place.sweep(self._epoch + 1, ())
                self._seal(self._chunks + 1, rows)
                faultpoints.hit("seal.success")
                self._post(Sealed)
            case _:
                raise InternalError(f"no effect is known for {command!r}")

    def _recover(self, records: tuple[CommitRecord, ...]) -> None:
        from antinfer.storage import manifest

        listing = manifest.Listing.of(self._place)
        published = manifest.published(self._place, listing, self._suffix, manifest.read_all(self._place))
        free = fitting(listing.without_rivals(self._suffix, records), schema_of(published))
        done = tuple(str(record.staged) for record in free if self._publish_one(record))
        missing = tuple(str(record.staged) for record in records if record.staged not in done)
        if missing:
            self._check_epoch()
            _log.warning(
                "%d commits that the store knows were not published", len(missing), extra={"action": "recover", "missing": missing}
            )
        self._post(lambda at: Published(at, done, missing))

    def _patiently(self, doing: str, work: Callable[[], None]) -> None:
        patiently(doing, work, self._stopped, self._patience_s, self._troubles)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Interrupted:
            return  # we were asked to stop; what was not done is in the state, and the next reign does it
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the reign with it
            self._fail(error)
