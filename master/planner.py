"""The planner: lists the input, cuts it into shards, and makes each chunk durable before the engine hears of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from antinfer.core.plan import Shard
from antinfer.errors import AntinferError, ChangedError, InternalError, Interrupted
from antinfer.master.backoff import patiently
from antinfer.master.troubles import Troubles
from antinfer.spec.columns import check_columns
from antinfer.storage.limits import MOST_SHARDS, too_many_shards
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    import pyarrow as pa

    from antinfer.spec.schema import JobSpec
    from antinfer.storage.planfile import Listing, PlanFile
    from antinfer.storage.planning import PlanChunk
    from antinfer.storage.sources.base import InputFile, Source

_log = logging.getLogger("antinfer.planner")
_THREADS: Final = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extension:
    """More of the plan is durable."""

    rows: tuple[int | None, ...]
    files_done: int
    files_total: int
    complete: bool = False


class Planner:
    """Plans one job in a thread of its own; `lookup` may be called from any thread."""

    def __init__(self, spec: JobSpec, place: OutputPlace, *, force: bool = False, troubles: Troubles | None = None) -> None:
        """
        Args:
            spec: the job.
            place: its output place, claimed before anything is called.
            force: plan however many shards.
            troubles: told what is waited for.
        """
        self._spec = spec
        self._place = place
        self._force = force
        self._troubles = troubles
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._plan: PlanFile | None = None
        self._listing: Listing | None = None
        self._files_done = 0
        self._shards = 0
        self._rows = 0
        self._complete = False

    def load(self) -> Extension:
        """Read what of the plan is durable already; before `start`. Blocks."""
        from antinfer.storage.lean import keep_pandas_out

        keep_pandas_out()
        from antinfer.storage.planfile import PlanFile

        plan = PlanFile(self._place)
        state = self._patiently("reading the plan", plan.load)
        self._plan, self._listing, self._files_done = plan, state.listing, state.files_done
        rows = tuple(state.index.rows(shard) for shard in range(len(state.index)))
        self._count(rows)
        self._complete = state.index.complete
        return Extension(rows, state.files_done, len(state.listing.files) if state.listing else 0, state.index.complete)

    def start(
        self, *, frozen: Callable[[pa.Schema], None], extend: Callable[[Extension], None], fail: Callable[[AntinferError], None]
    ) -> None:
        """Go on planning in the background. All three are called in the planner's thread.

        Args:
            frozen: is given the schema of the input as soon as it is durable.
            extend: is given each further chunk, once it is durable.
            fail: is given what went wrong, when the plan cannot be made.
        """

        def work() -> None:
            try:
                self._work(frozen, extend)
            except Interrupted:
                return
            except AntinferError as error:
                fail(error)
            except Exception as error:  # noqa: BLE001 - nobody else would ever hear of it
                fail(_bug(error))

        self._thread = threading.Thread(target=work, name="antinfer-planner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the chunk under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _patiently(self, doing: str, work: Callable[[], T]) -> T:
        return patiently(doing, work, self._stopped, self._spec.patience, self._troubles)

    def lookup(self, shard: int) -> Shard:
        """Return a planned shard with its pieces. Raises IndexError beyond what is durable."""
        if self._plan is None:
            raise InternalError("the plan is asked for a shard before it was loaded")
        return self._plan.lookup(shard)

    # -- in the thread -----------------------------------------------------------------------------------------------------------------
    def _work(self, frozen: Callable[[pa.Schema], None], extend: Callable[[Extension], None]) -> None:
        from antinfer.storage.jobs import open_input

        # Without a chunk nothing depends on what was listed: what was wrong with the input may be mended.
        known = self._listing if self._files_done or self._complete else None
        if known is not None:
            frozen(known.schema)
        source = open_input(self._spec, known.schema if known else None)
        files = self._patiently("listing the input", source.list_files)
        if known is None:
            _log.info("the input has %d files", len(files), extra={"action": "list_input"})
            schema = self._patiently("reading the input's schema", lambda: source.freeze(files))
            check_columns(self._spec, schema.names)
            known = self._save(files, schema)
            frozen(schema)
        elif files != known.files:
            known = self._revise(known, files)
        if not self._complete:
            self._plan_rest(source, known, extend)

    def _save(self, files: list[InputFile], schema: pa.Schema) -> Listing:
        plan = self._require_plan()
        return self._patiently("writing the plan", lambda: plan.save_listing(files, schema))

    def _revise(self, known: Listing, files: list[InputFile]) -> Listing:
        """Go on with an input that has changed, where nothing of the plan is about what has.

        Files that are gone, or new, only by the user's word: what lists less for a moment must not make a job smaller.

        Raises:
            ChangedError: It has changed elsewhere, or nobody gave their word.
        """
        from antinfer.storage.planfile import changed_files

        changes, done = changed_files(known.files, files), self._files_done
        what = f"the input is not what the plan was made from: {changes}"
        if self._complete or done == len(known.files) or files[:done] != known.files[:done]:
            raise ChangedError(what, hint="Restore the input to resume, or choose another sink.path to process it as it is now.")
        if not self._force and [file.path for file in files] != [file.path for file in known.files]:
            raise ChangedError(
                what, hint="Restore the input to resume. None of these files is planned yet: --force goes on with the input as it is now."
            )
        _log.warning("the input has changed behind what is planned, and is taken as it is: %s", changes, extra={"action": "input_changed"})
        return self._save(files, known.schema)

    def _plan_rest(self, source: Source, listing: Listing, extend: Callable[[Extension], None]) -> None:
        plan, total = self._require_plan(), len(listing.files)
        while self._files_done < total:
            # A chunk that was interrupted by trouble is begun again after the last durable one.
            self._patiently("planning", lambda: self._chunks(source, listing, extend))
        self._patiently("writing the plan", plan.complete)
        self._complete = True
        _log.info("the plan is complete: %d shards of %d files", self._shards, total, extra={"action": "plan_complete"})
        extend(Extension((), total, total, complete=True))

    def _chunks(self, source: Source, listing: Listing, extend: Callable[[Extension], None]) -> None:
        from antinfer.storage.planning import PlanChunk, plan_shards

        shard, total = self._spec.shard, len(listing.files)
        chunks = plan_shards(
            source,
            listing.files,
            target_rows=None if shard.rows == "auto" else shard.rows,
            target_bytes=None if shard.bytes == "auto" else shard.bytes,
            threads=_THREADS,
            files_done=self._files_done,
            first_index=self._shards,
        )
        try:
            for chunk in chunks:
                if self._stopped.is_set():
                    raise Interrupted("stopped while planning")
                if self._spec.limit is not None:
                    chunk = self._limited(source, chunk, self._spec.limit)
                self._append(chunk, total, extend)
                if self._spec.limit is not None and self._rows >= self._spec.limit and chunk.files_done < total:
                    # The listing stays whole; the files behind the limit are planned as nothing.
                    self._append(PlanChunk(total, []), total, extend)
                    return
        finally:
            chunks.close()

    def _append(self, chunk: PlanChunk, total: int, extend: Callable[[Extension], None]) -> None:
        if self._shards + len(chunk.shards) > MOST_SHARDS and not self._force:
            raise too_many_shards(f"{self._shards + len(chunk.shards):,} of {chunk.files_done:,} of {total:,} files so far")
        self._require_plan().append(chunk)
        rows = tuple(shard.rows for shard in chunk.shards)
        self._count(rows)
        self._files_done = chunk.files_done
        extend(Extension(rows, chunk.files_done, total))

    def _limited(self, source: Source, chunk: PlanChunk, limit: int) -> PlanChunk:
        """Cut the plan off at about `limit` rows; shards of unknown size are counted, since there are only few."""
        kept: list[Shard] = []
        left = limit - self._rows
        for shard in chunk.shards:
            if left <= 0:
                break
            rows = source.count_rows(shard) if shard.rows is None else shard.rows
            kept.append(replace(shard, rows=min(rows, left)))
            left -= rows
        return replace(chunk, shards=kept)

    def _count(self, rows: tuple[int | None, ...]) -> None:
        self._shards += len(rows)
        self._rows += sum(count or 0 for count in rows)

    def _require_plan(self) -> PlanFile:
        if self._plan is None:
            raise InternalError("planning began before the plan was loaded")
        return self._plan


def _bug(error: Exception) -> AntinferError:
    bug = InternalError(f"planning failed: {type(error).__name__}: {error}")
    bug.__cause__ = error
    return bug
