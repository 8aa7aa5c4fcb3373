"""A worker without user code: speaks the real protocol over real gRPC and stages real parts, as fast as a test needs it."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from antinfer.core.ids import LeaseId, SessionId, StagedName, WorkerId, staged_name
from antinfer.core.messages import (
    Acceptance,
    Answer,
    Commit,
    Grant,
    HeldRange,
    Join,
    Push,
    Request,
    Return,
    Sizing,
    Upward,
    Verdict,
    Welcome,
)
from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord, StagedObject, output_name
from antinfer.errors import AntinferError
from antinfer.rpc.client import WorkClient
from antinfer.storage import layout, rowhash
from antinfer.storage.jobs import RunDocument, open_input, open_output
from antinfer.storage.sinks import open_writer
from antinfer.worker.ending import is_finished


class ScriptedWorker:
    """Leases ranges, copies the input column to the output, commits in prefixes; reconnects until the job is done."""

    def __init__(
        self, address: str, name: str, seed: int, *, want: int = 2, token: str = "", patience_s: float = 30.0, pause_s: float = 0.0
    ) -> None:
        """`pause_s` is slept before every request: how slow the worker is."""
        self.address, self.name, self.token, self._want = address, name, token, want
        self._random = random.Random(seed)
        self._patience_s, self._pause_s = patience_s, pause_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=name)
        self.error: BaseException | None = None
        self.verdict: Verdict | None = None
        self.accepted = 0
        self.reconnects = 0
        self._document: RunDocument | None = None
        self._waiting: dict[LeaseId, tuple[Shard, Rows]] = {}

    def start(self) -> ScriptedWorker:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()

    def join(self, timeout_s: float = 60.0) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"{self.name} did not end"
        if self.error is not None:
            raise self.error

    def _guarded(self) -> None:
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - raised again by join()
            self.error = error

    def _live(self) -> None:
        lost_at: float | None = None
        while not self._stopped.is_set():
            try:
                with WorkClient(self.address, token=self.token) as client:
                    if self._document is None:
                        self._job = client.get_job()
                        self._document = RunDocument.from_json(self._job.document)
                        self._source = open_input(self._document.spec, self._document.schema)
                        self._place = open_output(self._document.spec)
                    if self._converse(client):
                        return
                lost_at = None
            except AntinferError:
                if self._document is not None and is_finished(self._job):
                    # Its last master may have come and gone between two attempts of ours.
                    return
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._patience_s:
                    raise
            self.reconnects += 1
            time.sleep(0.05)

    def _converse(self, client: WorkClient) -> bool:
        """Work over one connection; return True when there is nothing more to do."""
        upward: queue.Queue[Upward | None] = queue.Queue()

        def feed() -> Iterator[Upward]:
            while (message := upward.get()) is not None:
                yield message

        held = tuple(HeldRange(lease, shard.index, rows) for lease, (shard, rows) in self._waiting.items())
        upward.put(Join(WorkerId(self.name), "", held))
        try:
            return self._answer_all(client.work(feed()), upward)
        finally:
            upward.put(None)

    def _answer_all(self, downward: Iterator[Any], upward: queue.Queue[Upward | None]) -> bool:
        session, number = SessionId(""), 0
        for message, shards in downward:
            if self._stopped.is_set():
                return True
            match message:
                case Welcome(Verdict.WORK):
                    session, number = message.session, 0
                    self._waiting = {grant.lease: (shards[grant.shard], grant.rows) for grant in message.regranted}
                case Welcome(verdict) | Push(verdict=verdict) if verdict in (Verdict.DONE, Verdict.FAILED):
                    self.verdict = verdict
                    return True
                case Welcome():
                    return False
                case Answer(_, Verdict.DONE | Verdict.FAILED):
                    self.verdict = message.verdict
                    return True
                case Answer(_, Verdict.UNKNOWN_SESSION | Verdict.NOT_MASTER):
                    return False
                case Answer():
                    self._settle(message, shards)
                    if message.verdict is Verdict.WAIT:
                        time.sleep(0.02)
                case Push(verdict=Verdict.UNKNOWN_SESSION | Verdict.NOT_MASTER):
                    return False
                case Push():
                    for cut in message.cuts:
                        self._cut(cut.lease, cut.rows)
                    continue
            number += 1
            time.sleep(self._pause_s)
            upward.put(self._request(session, number))
        return False

    def _settle(self, answer: Answer, shards: dict[Any, Shard]) -> None:
        for outcome in answer.outcomes:
            self.accepted += outcome.acceptance is Acceptance.ACCEPTED
            lease = LeaseId.parse(outcome.staged.split(".", 1)[0])
            self._cut(lease, outcome.left or Rows(0, 0))
        for grant in answer.grants:
            self._take(grant, shards[grant.shard])

    def _take(self, grant: Grant, shard: Shard) -> None:
        self._waiting[grant.lease] = (shard, grant.rows)

    def _cut(self, lease: LeaseId, rows: Rows) -> None:
        if lease in self._waiting:
            if rows.start >= rows.stop:
                del self._waiting[lease]
            else:
                self._waiting[lease] = (self._waiting[lease][0], rows)

    def _request(self, session: SessionId, number: int) -> Request:
        sizings: list[Sizing] = []
        commits: list[Commit] = []
        returns: list[Return] = []
        for lease, (shard, rows) in list(self._waiting.items()):
            if rows.stop >= UNSIZED:
                counted = self._source.count_rows(shard)
                sizings.append(Sizing(lease, counted))
                rows = Rows(rows.start, counted)
                self._waiting[lease] = (shard, rows)
            chance = self._random.random()
            if chance < 0.1:
                returns.append(Return(lease))
                del self._waiting[lease]
            elif rows.start < rows.stop:
                stop = rows.stop if chance < 0.6 else self._random.randint(rows.start + 1, rows.stop)
                commits.append(Commit(lease, self._stage(lease, shard, Rows(rows.start, stop))))
        return Request(session, number, tuple(sizings), tuple(commits), tuple(returns), held=tuple(self._waiting), want=self._want)

    def _stage(self, lease: LeaseId, shard: Shard, rows: Rows) -> CommitRecord:
        assert self._document is not None
        staged = StagedName(staged_name(lease, shard.index, rows.start, rows.stop, f"{self._random.getrandbits(64):016x}"))
        record = CommitRecord(
            shard=shard.index,
            start=rows.start,
            stop=rows.stop,
            staged=staged,
            objects=(StagedObject("part"),),
            rows_out=rows.size,
            row_hash=rowhash.hash_range(shard.index, rows.start, rows.stop),
            worker=self.name,
            schema="fixed",
            code=self._document.code,
        )
        table = pa.Table.from_batches(list(self._source.read(shard, rows.start, rows.stop, 10_000)))
        assert table.num_rows == rows.size, f"{shard} {rows} gave {table.num_rows} rows"
        path = os.path.join(self._place.local_spool(), staged)
        writer = open_writer("parquet", path, table.schema)
        writer.write(table)
        writer.close({layout.RECORD_KEY: _to_text(record)})
        self._place.stage(staged, "part", f"{output_name(shard.index, rows.start, rows.stop)}.parquet", path)
        return record


def _to_text(record: CommitRecord) -> str:
    import json

    return json.dumps(record.to_json())
